//! `--filter KEY=VALUE`.

use hull_client::Filters;

/// One filter: its lower-case key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    key: String,
    value: String,
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// Reads one `--filter`.
pub(crate) fn parse(text: &str) -> Result<Filter, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("bad format of filter (expected name=value)")?;
    Ok(Filter {
        key: key.trim().to_ascii_lowercase(),
        value: value.trim().to_owned(),
    })
}

/// All filters as the API takes them.
pub(crate) fn collect(given: &[Filter]) -> Filters {
    let mut out = Filters::new();
    for filter in given {
        out.entry(filter.key.clone())
            .or_default()
            .push(filter.value.clone());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collect_gathers_values_of_a_key() {
        let given: Vec<Filter> = ["Status=running", "status=exited", "label=a=b"]
            .iter()
            .map(|text| parse(text).unwrap())
            .collect();
        let got = collect(&given);
        assert_eq!(got["status"], ["running", "exited"]);
        assert_eq!(got["label"], ["a=b"]);
        assert_eq!(
            parse("x").unwrap_err(),
            "bad format of filter (expected name=value)"
        );
    }
}
