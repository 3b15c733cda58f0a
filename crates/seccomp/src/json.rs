//! Reads a JSON tree field by field, so that each error can name the field it is about.

use serde_json::{Map, Value};

use crate::profile::ParseError;

/// A value together with the path that leads to it, such as `syscalls[3].args[0].op`.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    pub(crate) fn path(&self) -> &str {
        if self.path.is_empty() {
            "profile"
        } else {
            &self.path
        }
    }

    pub(crate) fn error(&self, problem: impl Into<String>) -> ParseError {
        ParseError::Field {
            field: self.path().to_owned(),
            problem: problem.into(),
        }
    }

    fn object(&self) -> Result<&'a Map<String, Value>, ParseError> {
        self.value
            .as_object()
            .ok_or_else(|| self.expected("an object"))
    }

    fn expected(&self, what: &str) -> ParseError {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.error(format!("expected {what}, found {found}"))
    }

    /// The field of this name; one that is null counts as missing, as Go's decoder has it.
    pub(crate) fn field(&self, name: &str) -> Result<Option<Node<'a>>, ParseError> {
        let path = if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        };
        Ok(self
            .object()?
            .get(name)
            .filter(|value| !value.is_null())
            .map(|value| Node { value, path }))
    }

    pub(crate) fn required(&self, name: &str) -> Result<Node<'a>, ParseError> {
        self.field(name)?
            .ok_or_else(|| self.error(format!("the field {name:?} is missing")))
    }

    /// The elements of a list field; a missing one is an empty list.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<Node<'a>>, ParseError> {
        let Some(node) = self.field(name)? else {
            return Ok(Vec::new());
        };
        let elements = node
            .value
            .as_array()
            .ok_or_else(|| node.expected("a list"))?;
        Ok(elements
            .iter()
            .enumerate()
            .map(|(index, value)| Node {
                value,
                path: format!("{}[{index}]", node.path),
            })
            .collect())
    }

    pub(crate) fn strings(&self, name: &str) -> Result<Vec<String>, ParseError> {
        self.list(name)?
            .iter()
            .map(|node| node.string().map(str::to_owned))
            .collect()
    }

    pub(crate) fn string(&self) -> Result<&'a str, ParseError> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// A number not above `max`.
    pub(crate) fn unsigned(&self, max: u64) -> Result<u64, ParseError> {
        let number = self
            .value
            .as_u64()
            .ok_or_else(|| self.expected("a whole number of 0 or more"))?;
        if number > max {
            return Err(self.error(format!("{number} is above {max}, the largest value here")));
        }
        Ok(number)
    }
}
