//! Filters as clients send them: names with sets of values.

use std::collections::BTreeMap;

use hull_model::{Error, Result};

/// Most filters and values accepted in one request.
const MAX_VALUES: usize = 1000;

/// A conjunction over names, a disjunction over the values of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `{"name":["value"]}` or the older `{"name":{"value":true}}`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse_json(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let wrong = || {
            Error::invalid(format!(
                "invalid filter {text:?}: want {{\"name\":[\"value\"]}}"
            ))
        };
        let map: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|_| wrong())?;
        let mut filters = Self::default();
        for (name, values) in map {
            let values = match values {
                serde_json::Value::Array(list) => list
                    .into_iter()
                    .map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong))
                    .collect::<Result<Vec<_>>>()?,
                serde_json::Value::Object(set) => set
                    .into_iter()
                    .filter(|(_, on)| on.as_bool() == Some(true))
                    .map(|(v, _)| v)
                    .collect(),
                _ => return Err(wrong()),
            };
            if values.len() > MAX_VALUES {
                return Err(Error::invalid(format!(
                    "filter {name:?} has more than {MAX_VALUES} values"
                )));
            }
            filters.0.insert(name, values);
        }
        Ok(filters)
    }

    /// Adds a value.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0
            .entry(name.to_owned())
            .or_default()
            .push(value.to_owned());
    }

    /// The values given for a name.
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The value of a filter that is true or false, in Go's spellings.
    ///
    /// # Errors
    /// If it is neither, or both.
    pub fn bool(&self, name: &str) -> Result<Option<bool>> {
        let mut found = None;
        for value in self.values(name) {
            let value = match value.as_str() {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                other => return Err(Error::invalid(format!("invalid filter '{name}={other}'"))),
            };
            if found.is_some_and(|before| before != value) {
                return Err(Error::invalid(format!(
                    "invalid filter '{name}': true and false"
                )));
            }
            found = Some(value);
        }
        Ok(found)
    }

    /// True where the name is not filtered by, or any of its values satisfies `test`.
    pub fn matches(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        match self.0.get(name) {
            Some(values) if !values.is_empty() => values.iter().any(|v| test(v)),
            _ => true,
        }
    }

    /// True where each `label` value (`key` or `key=value`) is among `labels`, and no `label!` is.
    pub fn match_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }

    /// Refuses names that the caller does not know.
    ///
    /// # Errors
    /// Names the unknown filter, in Docker's words.
    pub fn allow_only(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_json_forms_mean_the_same() {
        let list = Filters::parse_json(r#"{"status":["running"]}"#).unwrap();
        let set = Filters::parse_json(r#"{"status":{"running":true,"paused":false}}"#).unwrap();
        assert_eq!(list, set);
        assert!(list.matches("status", |v| v == "running"));
        assert!(!list.matches("status", |v| v == "exited"));
        assert!(list.matches("name", |_| false));
    }

    #[test]
    fn malformed_filter_is_refused() {
        for bad in ["[]", "{", r#"{"a":1}"#, r#"{"a":[1]}"#] {
            assert!(Filters::parse_json(bad).is_err(), "{bad}");
        }
    }
}
