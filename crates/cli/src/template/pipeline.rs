//! Parses what stands in an action: commands joined by `|`, with the variables that take the result.

use super::TemplateError;
use super::funcs::known;
use super::lexer::Token;
use super::parser::{Base, MAX_DEPTH, Pipeline, Term};

/// Parses the tokens of one action.
pub(super) fn pipeline(
    tokens: Vec<Token>,
    line: usize,
    column: usize,
) -> Result<Pipeline, TemplateError> {
    let mut cursor = Cursor {
        tokens: tokens.into_iter().peekable(),
        line,
        column,
    };
    let pipeline = cursor.pipeline(0)?;
    match cursor.tokens.next() {
        None => Ok(pipeline),
        Some(Token::Close) => Err(TemplateError::parse(line, "unexpected right paren")),
        Some(_) => Err(TemplateError::parse(line, "unexpected token in command")),
    }
}

struct Cursor {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    line: usize,
    column: usize,
}

impl Cursor {
    fn pipeline(&mut self, depth: usize) -> Result<Pipeline, TemplateError> {
        if depth > MAX_DEPTH {
            return Err(TemplateError::parse(
                self.line,
                format!("parentheses nest deeper than {MAX_DEPTH}"),
            ));
        }
        let mut pipeline = Pipeline {
            targets: Vec::new(),
            declare: false,
            commands: Vec::new(),
            line: self.line,
            column: self.column,
        };
        self.targets(&mut pipeline)?;
        loop {
            let command = self.command(depth)?;
            if command.is_empty() {
                return Err(TemplateError::parse(self.line, "missing value for command"));
            }
            pipeline.commands.push(command);
            if !matches!(self.tokens.peek(), Some(Token::Pipe)) {
                return Ok(pipeline);
            }
            self.tokens.next();
        }
    }

    /// `$a :=`, `$a, $b :=` or `$a =` at the start of a pipeline.
    fn targets(&mut self, pipeline: &mut Pipeline) -> Result<(), TemplateError> {
        let ahead: Vec<Token> = self.tokens.clone().take(4).collect();
        let (names, length) = match ahead.as_slice() {
            [Token::Variable(a), Token::Declare, ..] => (vec![a.clone()], 2),
            [Token::Variable(a), Token::Assign, ..] => (vec![a.clone()], 2),
            [
                Token::Variable(a),
                Token::Comma,
                Token::Variable(b),
                Token::Declare | Token::Assign,
            ] => (vec![a.clone(), b.clone()], 4),
            _ => return Ok(()),
        };
        pipeline.declare = matches!(ahead.get(length - 1), Some(Token::Declare));
        pipeline.targets = names;
        for _ in 0..length {
            self.tokens.next();
        }
        Ok(())
    }

    fn command(&mut self, depth: usize) -> Result<Vec<Term>, TemplateError> {
        let mut terms: Vec<Term> = Vec::new();
        loop {
            let Some(token) = self.tokens.peek() else {
                return Ok(terms);
            };
            if matches!(token, Token::Pipe | Token::Close) {
                return Ok(terms);
            }
            let Some(token) = self.tokens.next() else {
                return Ok(terms);
            };
            let mut term = match token {
                Token::Dot => Term {
                    base: Base::Dot,
                    fields: Vec::new(),
                },
                Token::Field { name, .. } => Term {
                    base: Base::Dot,
                    fields: vec![name],
                },
                Token::Variable(name) => Term {
                    base: Base::Variable(name),
                    fields: Vec::new(),
                },
                Token::Word(word) => Term {
                    base: match word.as_str() {
                        "true" => Base::Bool(true),
                        "false" => Base::Bool(false),
                        "nil" => Base::Nil,
                        name if known(name) => Base::Function(word),
                        name => {
                            return Err(TemplateError::parse(
                                self.line,
                                format!("function {name:?} not defined"),
                            ));
                        }
                    },
                    fields: Vec::new(),
                },
                Token::Str(text) => Term {
                    base: Base::Str(text),
                    fields: Vec::new(),
                },
                Token::Int(value) => Term {
                    base: Base::Int(value),
                    fields: Vec::new(),
                },
                Token::Float(value) => Term {
                    base: Base::Float(value),
                    fields: Vec::new(),
                },
                Token::Open => {
                    let inner = self.pipeline(depth + 1)?;
                    if !matches!(self.tokens.next(), Some(Token::Close)) {
                        return Err(TemplateError::parse(self.line, "unclosed left paren"));
                    }
                    Term {
                        base: Base::Sub(Box::new(inner)),
                        fields: Vec::new(),
                    }
                }
                Token::Comma | Token::Declare | Token::Assign | Token::Pipe | Token::Close => {
                    return Err(TemplateError::parse(
                        self.line,
                        "unexpected token in operand",
                    ));
                }
            };
            while let Some(Token::Field { spaced: false, .. }) = self.tokens.peek() {
                if let Some(Token::Field { name, .. }) = self.tokens.next() {
                    term.fields.push(name);
                }
            }
            terms.push(term);
        }
    }
}
