//! Query parameters as Docker reads them.
use std::str::FromStr;

use axum::http::Uri;
use hull_engine::Filters;

use crate::error::{ApiError, ApiResult};

/// The parameters of a request, decoded, in order.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the query of a URI.
    pub(crate) fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default().as_bytes();
        Self(form_urlencoded::parse(query).into_owned().collect())
    }

    /// The first value of a parameter, "" where it is missing.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// Whether the parameter was given, even if empty.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Every value of a parameter.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let named = self.0.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.clone()).collect()
    }

    /// A truth value: all but "", 0, no, false and none are true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let value = self.get(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A truth value with a default for a parameter that is missing.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.has(name) {
            self.flag(name)
        } else {
            default
        }
    }

    /// A number; `None` where it is missing or empty.
    pub(crate) fn number<N: FromStr>(&self, name: &str) -> ApiResult<Option<N>> {
        let value = self.get(name);
        if value.is_empty() {
            return Ok(None);
        }
        value.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!(
                "invalid value for {name}: {value:?} is not a number"
            ))
        })
    }

    /// The `filters` parameter.
    pub(crate) fn filters(&self) -> ApiResult<Filters> {
        Ok(Filters::parse_json(self.get("filters"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().unwrap())
    }

    #[test]
    fn flag_follows_dockers_words() {
        for (query, want) in [
            ("", false),
            ("a", false),
            ("a=0", false),
            ("a=False", false),
            ("a=none", false),
            ("a=1", true),
            ("a=true", true),
            ("a=t", true),
        ] {
            assert_eq!(params(query).flag("a"), want, "{query}");
        }
        assert!(params("").flag_or("a", true));
        assert!(!params("a=0").flag_or("a", true));
    }

    #[test]
    fn values_are_decoded_and_repeated() {
        let p = params("names=a%2Fb&names=c+d&t=5&bad=x");
        assert_eq!(p.all("names"), ["a/b", "c d"]);
        assert_eq!(p.number::<i64>("t").unwrap(), Some(5));
        assert_eq!(p.number::<i64>("none").unwrap(), None);
        assert!(p.number::<i64>("bad").is_err());
    }
}
