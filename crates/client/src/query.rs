//! Paths and query strings.

use std::fmt::Write as _;

use crate::Filters;

/// A query string being put together.
#[derive(Debug, Default, Clone)]
pub struct Query(String);

impl Query {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `name=value`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        escape_into(&mut self.0, value);
        self
    }

    /// Adds `name=value` where there is a value that is not empty.
    #[must_use]
    pub fn set_opt(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) if !value.is_empty() => self.set(name, value),
            _ => self,
        }
    }

    /// Adds `name=1` where `on`.
    #[must_use]
    pub fn flag(self, name: &str, on: bool) -> Self {
        if on { self.set(name, "1") } else { self }
    }

    /// Adds `filters={json}` where there are any.
    #[must_use]
    pub fn filters(self, filters: &Filters) -> Self {
        if filters.is_empty() {
            return self;
        }
        match serde_json::to_string(filters) {
            Ok(json) => self.set("filters", &json),
            Err(_) => self,
        }
    }

    /// The text, with its `?` unless empty.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One segment of a path, escaped.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

/// An image's name as a path: slashes and colons stay.
pub(crate) fn image_path(name: &str) -> String {
    segment(name)
        .replace("%2F", "/")
        .replace("%3A", ":")
        .replace("%40", "@")
}

fn escape_into(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_escapes_and_skips_empty() {
        let query = Query::new()
            .set("name", "a b&c")
            .set_opt("x", None)
            .flag("all", true);
        assert_eq!(query.as_str(), "?name=a%20b%26c&all=1");
    }

    #[test]
    fn query_filters_are_json_lists() {
        let mut filters = Filters::new();
        filters.insert("status".into(), vec!["running".into()]);
        assert_eq!(
            Query::new().filters(&filters).as_str(),
            "?filters=%7B%22status%22%3A%5B%22running%22%5D%7D"
        );
    }

    #[test]
    fn image_path_keeps_separators() {
        assert_eq!(
            image_path("docker.io/a/b:1@sha256:00 "),
            "docker.io/a/b:1@sha256:00%20"
        );
        assert_eq!(segment("../x"), "..%2Fx");
    }
}
