//! Builds the tree of a template from its pieces.

use super::TemplateError;
use super::lexer::{Piece, Token, split};
use super::pipeline::pipeline;

/// Deepest nesting of blocks and parentheses.
pub(super) const MAX_DEPTH: usize = 64;
/// Longest template source in bytes.
const MAX_SOURCE: usize = 256 * 1024;

/// A node of the tree.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Text copied to the output.
    Text(String),
    /// A pipeline whose value is printed.
    Print(Pipeline),
    /// `if`.
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `with`.
    With {
        value: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `range`.
    Range {
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `break`.
    Break,
    /// `continue`.
    Continue,
}

/// Commands joined by `|`, and the variables that take the result.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    /// Variables on the left of `:=` or `=`.
    pub(super) targets: Vec<String>,
    /// Whether the variables are new (`:=`).
    pub(super) declare: bool,
    /// The commands.
    pub(super) commands: Vec<Vec<Term>>,
    /// Where it stands, for errors.
    pub(super) line: usize,
    /// Column of the action.
    pub(super) column: usize,
}

/// An operand, with the fields looked up in it.
#[derive(Debug, Clone)]
pub(super) struct Term {
    /// The operand.
    pub(super) base: Base,
    /// `.A.B` after it.
    pub(super) fields: Vec<String>,
}

/// An operand.
#[derive(Debug, Clone)]
pub(super) enum Base {
    /// `.`
    Dot,
    /// `$name`; the empty name is the root.
    Variable(String),
    /// A function's name.
    Function(String),
    /// A string.
    Str(String),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `nil`.
    Nil,
    /// A parenthesised pipeline.
    Sub(Box<Pipeline>),
}

/// Parses a whole template.
pub(super) fn parse(source: &str) -> Result<Vec<Node>, TemplateError> {
    if source.len() > MAX_SOURCE {
        return Err(TemplateError::parse(
            1,
            format!("template is longer than {MAX_SOURCE} bytes"),
        ));
    }
    let pieces = split(source)?;
    let mut parser = Parser {
        pieces: pieces.into_iter().peekable(),
        depth: 0,
        loops: 0,
        last_line: 1,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        Stop::Source => Ok(nodes),
        Stop::End(line) => Err(TemplateError::parse(line, "unexpected {{end}}")),
        Stop::Else { line, .. } => Err(TemplateError::parse(line, "unexpected {{else}}")),
    }
}

/// What stopped a list of nodes.
enum Stop {
    Source,
    End(usize),
    Else {
        tokens: Vec<Token>,
        line: usize,
        column: usize,
    },
}

struct Parser {
    pieces: std::iter::Peekable<std::vec::IntoIter<Piece>>,
    depth: usize,
    loops: usize,
    last_line: usize,
}

impl Parser {
    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (mut tokens, line, column) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action {
                    tokens,
                    line,
                    column,
                } => (tokens, line, column),
            };
            self.last_line = line;
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                Some(_) => String::new(),
                None => return Err(TemplateError::parse(line, "missing value for command")),
            };
            match keyword.as_str() {
                "end" => return Ok((nodes, Stop::End(line))),
                "else" => {
                    tokens.remove(0);
                    return Ok((
                        nodes,
                        Stop::Else {
                            tokens,
                            line,
                            column,
                        },
                    ));
                }
                "if" | "with" | "range" => {
                    tokens.remove(0);
                    nodes.push(self.block(&keyword, tokens, line, column)?);
                }
                "break" | "continue" => {
                    if self.loops == 0 {
                        return Err(TemplateError::parse(
                            line,
                            format!("{{{{{keyword}}}}} outside {{{{range}}}}"),
                        ));
                    }
                    nodes.push(if keyword == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                }
                "define" | "template" | "block" => {
                    return Err(TemplateError::parse(
                        line,
                        format!("{{{{{keyword}}}}} is not supported here"),
                    ));
                }
                _ => nodes.push(Node::Print(pipeline(tokens, line, column)?)),
            }
        }
        Ok((nodes, Stop::Source))
    }

    fn block(
        &mut self,
        keyword: &str,
        tokens: Vec<Token>,
        line: usize,
        column: usize,
    ) -> Result<Node, TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TemplateError::parse(
                line,
                format!("blocks nest deeper than {MAX_DEPTH}"),
            ));
        }
        if tokens.is_empty() {
            return Err(TemplateError::parse(
                line,
                format!("missing value for {keyword}"),
            ));
        }
        let head = pipeline(tokens, line, column)?;
        if keyword == "range" {
            self.loops += 1;
        }
        let (then, end) = self.nodes()?;
        if keyword == "range" {
            self.loops -= 1;
        }
        let otherwise = match end {
            Stop::Source => return Err(TemplateError::parse(self.last_line, "unexpected EOF")),
            Stop::End(_) => Vec::new(),
            Stop::Else {
                mut tokens,
                line,
                column,
            } => {
                if tokens.is_empty() {
                    let (otherwise, end) = self.nodes()?;
                    match end {
                        Stop::End(_) => otherwise,
                        Stop::Else { line, .. } => {
                            return Err(TemplateError::parse(line, "unexpected {{else}}"));
                        }
                        Stop::Source => {
                            return Err(TemplateError::parse(self.last_line, "unexpected EOF"));
                        }
                    }
                } else if matches!(tokens.first(), Some(Token::Word(word)) if word == keyword && keyword != "range")
                {
                    tokens.remove(0);
                    vec![self.block(keyword, tokens, line, column)?]
                } else {
                    return Err(TemplateError::parse(line, "unexpected token in else"));
                }
            }
        };
        self.depth -= 1;
        Ok(match keyword {
            "if" => Node::If {
                condition: head,
                then,
                otherwise,
            },
            "with" => Node::With {
                value: head,
                then,
                otherwise,
            },
            _ => Node::Range {
                over: head,
                body: then,
                otherwise,
            },
        })
    }
}
