//! Go's text/template as Docker's users write it for `--format`.
//!
//! Supported: text, fields, variables, pipelines, `if`/`with`/`range` with `else`, `break`, `continue`,
//! comments, trim markers, Go's built-in functions and Docker's (`json`, `join`, `split`, `title`,
//! `lower`, `upper`, `pad`, `truncate`). Not supported: `define`, `template` and `block`.

mod eval;
mod funcs;
mod lexer;
mod parser;
mod pipeline;
mod printf;
mod source;
mod value;

#[cfg(test)]
mod tests;

use thiserror::Error;

pub(crate) use funcs::Mode;
pub(crate) use value::{Map, Value};

/// Why a template could not be parsed or run. The texts are those of Go's package.
#[derive(Debug, Error, PartialEq)]
pub(crate) enum TemplateError {
    /// The template is malformed.
    #[error("template: :{line}: {message}")]
    Parse {
        /// Line of the mistake.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template does not fit the value.
    #[error("template: :{line}:{column}: executing \"\" at <{at}>: {message}")]
    Exec {
        /// Line of the action.
        line: usize,
        /// Column of the action.
        column: usize,
        /// The operand.
        at: String,
        /// What is wrong.
        message: String,
    },
}

impl TemplateError {
    fn parse(line: usize, message: impl Into<String>) -> Self {
        Self::Parse {
            line,
            message: message.into(),
        }
    }
}

/// What a missing key of a plain map gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingKey {
    /// `<no value>`, Go's default.
    NoValue,
    /// An error, as `docker inspect` asks for.
    Error,
}

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    nodes: Vec<parser::Node>,
    missing: MissingKey,
}

impl Template {
    /// Parses `source`.
    pub(crate) fn parse(source: &str, missing: MissingKey) -> Result<Self, TemplateError> {
        Ok(Self {
            nodes: parser::parse(source)?,
            missing,
        })
    }

    /// Runs the template over `value`.
    pub(crate) fn run(&self, value: &Value, mode: Mode) -> Result<String, TemplateError> {
        let mut evaluator = eval::Evaluator::new(value, self.missing, mode);
        evaluator.run(&self.nodes)?;
        Ok(evaluator.out)
    }
}
