//! Egress policies in the API's words and the model's.

use hull_api_types::host_config::Egress;
use hull_model::egress::EgressPolicy;
use hull_model::{Error, Result};

/// Reads a policy; `None` if it restricts nothing.
///
/// # Errors
/// A rule is malformed, or the whole makes no sense.
pub(crate) fn policy(wire: &Egress) -> Result<Option<EgressPolicy>> {
    EgressPolicy::new(&wire.default, &wire.allow, &wire.deny)
        .map_err(|error| Error::invalid(error.to_string()))
}

/// Writes a policy.
pub(crate) fn shown(policy: &EgressPolicy) -> Egress {
    Egress {
        default: policy.default.as_str().to_owned(),
        allow: policy.allow.iter().map(ToString::to_string).collect(),
        deny: policy.deny.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_shown_is_read_again_and_nonsense_is_refused() {
        let wire = Egress {
            default: "deny".into(),
            allow: vec!["example.com:443".into(), "10.0.0.0/8".into()],
            deny: vec!["10.1.0.0/16".into()],
        };
        let read = policy(&wire).expect("a policy").expect("a restriction");
        assert_eq!(shown(&read), wire);
        for (default, rule) in [("no", "1.2.3.4"), ("deny", "1.2.3.4:x")] {
            let wire = Egress {
                default: default.into(),
                allow: vec![rule.into()],
                ..Egress::default()
            };
            assert!(policy(&wire).is_err(), "{default} {rule}");
        }
    }
}
