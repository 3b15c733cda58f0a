//! `--egress`, `--egress-allow` and `--egress-deny`.

use hull_api_types::host_config::Egress;

/// The policy that the flags say; `None` if there are none.
pub(crate) fn of(default: Option<&str>, allow: &[String], deny: &[String]) -> Option<Egress> {
    let said = default.is_some() || !allow.is_empty() || !deny.is_empty();
    said.then(|| Egress {
        default: default.unwrap_or_default().to_owned(),
        allow: allow.to_vec(),
        deny: deny.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_left_out_say_nothing() {
        assert_eq!(of(None, &[], &[]), None);
        let allow = ["10.0.0.0/8".to_owned()];
        let said = of(None, &allow, &[]).expect("a policy");
        assert_eq!((said.default.as_str(), said.allow.len()), ("", 1));
        assert!(of(Some("deny"), &[], &[]).is_some());
    }
}
