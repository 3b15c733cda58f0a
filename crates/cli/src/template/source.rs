//! Pieces of a template as they were written, for errors and titles.

use super::parser::{Base, Pipeline, Term};

/// The column title of a label: the last part of its name.
pub(super) fn label_title(name: &str) -> String {
    name.rsplit('.')
        .next()
        .unwrap_or(name)
        .replace(['-', '_'], " ")
}

/// The pipeline as it was written.
pub(super) fn pipeline_text(pipeline: &Pipeline) -> String {
    pipeline
        .commands
        .iter()
        .map(|command| command_text(command))
        .collect::<Vec<_>>()
        .join(" | ")
}

/// The command as it was written.
pub(super) fn command_text(command: &[Term]) -> String {
    command.iter().map(term_text).collect::<Vec<_>>().join(" ")
}

/// The term as it was written, for errors.
pub(super) fn term_text(term: &Term) -> String {
    let mut text = match &term.base {
        Base::Dot if term.fields.is_empty() => ".".to_owned(),
        Base::Dot => String::new(),
        Base::Variable(name) => format!("${name}"),
        Base::Function(name) => name.clone(),
        Base::Str(value) => format!("{value:?}"),
        Base::Int(value) => value.to_string(),
        Base::Float(value) => value.to_string(),
        Base::Bool(value) => value.to_string(),
        Base::Nil => "nil".to_owned(),
        Base::Sub(inner) => format!("({})", pipeline_text(inner)),
    };
    for field in &term.fields {
        text.push('.');
        text.push_str(field);
    }
    text
}
