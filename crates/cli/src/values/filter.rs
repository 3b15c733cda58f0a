//! `--filter KEY=VALUE`.

use hull_client::Filters;

/// All filters as the API takes them.
pub(crate) fn parse(given: &[String]) -> Result<Filters, String> {
    let mut out = Filters::new();
    for filter in given.iter().filter(|filter| !filter.is_empty()) {
        let (key, value) = filter.split_once('=').ok_or_else(|| {
            format!(
                "invalid argument {filter:?} for \"-f, --filter\" flag: invalid filter '{filter}'"
            )
        })?;
        out.entry(key.trim().to_ascii_lowercase())
            .or_default()
            .push(value.trim().to_owned());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_collects_values_of_a_key() {
        let got = parse(&[
            "Status=running".into(),
            "status=exited".into(),
            "label=a=b".into(),
        ])
        .unwrap();
        assert_eq!(got["status"], ["running", "exited"]);
        assert_eq!(got["label"], ["a=b"]);
        assert!(parse(&["x".into()]).is_err());
    }
}
