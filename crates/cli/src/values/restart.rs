//! `--restart POLICY[:COUNT]`.

use hull_api_types::host_config::RestartPolicy;

/// Reads a restart policy.
pub(crate) fn parse(spec: &str) -> Result<RestartPolicy, String> {
    if spec.is_empty() {
        return Ok(RestartPolicy::default());
    }
    let (name, count) = match spec.split_once(':') {
        Some(("", _)) => {
            return Err(
                "invalid restart policy format: no policy provided before colon".to_owned(),
            );
        }
        Some((name, count)) => {
            let count = count.parse().map_err(
                |_| "invalid restart policy format: maximum retry count must be an integer",
            )?;
            (name, Some(count))
        }
        None => (spec, None),
    };
    match (name, count) {
        ("on-failure", count) if count.is_none_or(|count| count >= 0) => Ok(RestartPolicy {
            name: name.to_owned(),
            maximum_retry_count: count.unwrap_or(0),
        }),
        ("on-failure", _) => {
            Err("invalid restart policy: maximum retry count cannot be negative".to_owned())
        }
        ("no" | "always" | "unless-stopped", None | Some(0)) => Ok(RestartPolicy {
            name: name.to_owned(),
            maximum_retry_count: 0,
        }),
        ("no" | "always" | "unless-stopped", Some(_)) => Err(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                .to_owned(),
        ),
        _ => Err(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_policies() {
        assert_eq!(parse("on-failure:5").unwrap().maximum_retry_count, 5);
        assert_eq!(parse("always").unwrap().name, "always");
        assert!(parse("always:5").is_err());
        assert!(parse(":5").is_err());
        assert!(parse("on-failure:x").is_err());
        assert!(parse("on-failure:-1").is_err());
        assert!(parse("sometimes").is_err());
    }
}
