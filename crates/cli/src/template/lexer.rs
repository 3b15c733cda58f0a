//! Splits a template into text and actions, and actions into tokens.

use super::TemplateError;

/// A piece of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `.`
    Dot,
    /// `.Name`, with whether white space stood before it.
    Field { name: String, spaced: bool },
    /// `$` or `$name`
    Variable(String),
    /// A word: a keyword or a function.
    Word(String),
    /// A string or raw string.
    Str(String),
    /// An integer, also a character constant.
    Int(i64),
    /// A floating point number.
    Float(f64),
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `,`
    Comma,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Text outside of actions.
    Text(String),
    /// The tokens of one action and the line and column where it starts.
    Action {
        tokens: Vec<Token>,
        line: usize,
        column: usize,
    },
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// Splits `source` into pieces; trim markers and comments are done with here.
pub(super) fn split(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = source;
    let mut trim_next = false;
    let mut line = 1;
    let mut line_start = 0;
    loop {
        let offset = source.len() - rest.len();
        let Some(start) = rest.find(OPEN) else {
            push_text(&mut pieces, rest, trim_next, false);
            return Ok(pieces);
        };
        let text = &rest[..start];
        for (index, _) in text.match_indices('\n') {
            line += 1;
            line_start = offset + index + 1;
        }
        let mut body = &rest[start + OPEN.len()..];
        // A `-` is a trim marker only where white space follows it; otherwise it is a number's sign.
        let trim_before = body
            .strip_prefix('-')
            .is_some_and(|after| after.starts_with(char::is_whitespace));
        push_text(&mut pieces, text, trim_next, trim_before);
        if trim_before {
            body = &body[1..];
        }
        let column = offset + start + OPEN.len() - line_start.min(offset + start);
        if let Some(comment) = body.trim_start().strip_prefix("/*") {
            let end = comment
                .find("*/")
                .ok_or_else(|| TemplateError::parse(line, "unclosed comment"))?;
            let after = &comment[end + 2..];
            let (after, trim_after) = close_of(after).ok_or_else(|| {
                TemplateError::parse(line, "comment ends before closing delimiter")
            })?;
            trim_next = trim_after;
            rest = after;
            continue;
        }
        let (tokens, after, trim_after) = tokens(body, line)?;
        pieces.push(Piece::Action {
            tokens,
            line,
            column,
        });
        trim_next = trim_after;
        rest = after;
    }
}

/// Where `text` starts with a closing delimiter: what follows, and whether it trims.
fn close_of(text: &str) -> Option<(&str, bool)> {
    if let Some(after) = text.strip_prefix(CLOSE) {
        return Some((after, false));
    }
    let trimmed = text.trim_start();
    if trimmed.len() < text.len()
        && let Some(after) = trimmed
            .strip_prefix('-')
            .and_then(|after| after.strip_prefix(CLOSE))
    {
        return Some((after, true));
    }
    None
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Tokens up to the closing delimiter, what follows it, and whether it trims.
fn tokens(body: &str, line: usize) -> Result<(Vec<Token>, &str, bool), TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = body;
    let mut spaced = true;
    loop {
        if let Some((after, trim)) = close_of(rest) {
            return Ok((tokens, after, trim));
        }
        let Some(first) = rest.chars().next() else {
            return Err(TemplateError::parse(line, "unclosed action"));
        };
        if first.is_whitespace() {
            rest = rest.trim_start();
            // A closing trim marker needs its white space; look again one blank earlier.
            if rest.starts_with("-}}") {
                return Ok((tokens, &rest[1 + CLOSE.len()..], true));
            }
            spaced = true;
            continue;
        }
        let (token, length) = match first {
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Assign, 1),
            '"' => quoted(rest, '"', line)?,
            '\'' => {
                let (token, length) = quoted(rest, '\'', line)?;
                let Token::Str(text) = token else {
                    return Err(TemplateError::parse(line, "malformed character constant"));
                };
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => (Token::Int(i64::from(u32::from(c))), length),
                    _ => {
                        return Err(TemplateError::parse(
                            line,
                            format!("malformed character constant: '{text}'"),
                        ));
                    }
                }
            }
            '`' => {
                let end = rest[1..]
                    .find('`')
                    .ok_or_else(|| TemplateError::parse(line, "unterminated raw quoted string"))?;
                (Token::Str(rest[1..=end].to_owned()), end + 2)
            }
            '$' => {
                let name: String = rest[1..].chars().take_while(|c| word_char(*c)).collect();
                let length = 1 + name.len();
                (Token::Variable(name), length)
            }
            '.' => {
                let name: String = rest[1..].chars().take_while(|c| word_char(*c)).collect();
                if name.is_empty() {
                    (Token::Dot, 1)
                } else if name.starts_with(|c: char| c.is_ascii_digit()) {
                    number(rest, line)?
                } else {
                    let length = 1 + name.len();
                    (Token::Field { name, spaced }, length)
                }
            }
            '+' | '-' | '0'..='9' => number(rest, line)?,
            c if word_char(c) => {
                let name: String = rest.chars().take_while(|c| word_char(*c)).collect();
                let length = name.len();
                (Token::Word(name), length)
            }
            c => {
                return Err(TemplateError::parse(
                    line,
                    format!("unexpected {c:?} in command"),
                ));
            }
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or("");
        spaced = false;
    }
}

fn word_char(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn number(rest: &str, line: usize) -> Result<(Token, usize), TemplateError> {
    let text: String = rest
        .chars()
        .enumerate()
        .take_while(|(index, c)| {
            c.is_ascii_alphanumeric()
                || matches!(c, '.' | '_')
                || (*index == 0 && matches!(c, '+' | '-'))
        })
        .map(|(_, c)| c)
        .collect();
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let parsed = if let Some(hex) = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        i64::from_str_radix(hex, 16).ok()
    } else {
        digits.parse::<i64>().ok()
    };
    if let Some(value) = parsed {
        let value = if negative {
            value.checked_neg()
        } else {
            Some(value)
        };
        if let Some(value) = value {
            return Ok((Token::Int(value), text.len()));
        }
    }
    if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && let Ok(value) = plain.parse::<f64>()
    {
        return Ok((Token::Float(value), text.len()));
    }
    Err(TemplateError::parse(
        line,
        format!("bad number syntax: {text:?}"),
    ))
}

/// A quoted string with Go's escapes; the length counts both quotes.
fn quoted(rest: &str, quote: char, line: usize) -> Result<(Token, usize), TemplateError> {
    let unterminated = || {
        TemplateError::parse(
            line,
            if quote == '"' {
                "unterminated quoted string"
            } else {
                "unterminated character constant"
            },
        )
    };
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((Token::Str(out), index + 1)),
            '\n' => return Err(unterminated()),
            '\\' => {
                let (_, escape) = chars.next().ok_or_else(unterminated)?;
                match escape {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    'a' => out.push('\u{7}'),
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    'v' => out.push('\u{b}'),
                    '\\' | '"' | '\'' => out.push(escape),
                    'x' | 'u' | 'U' => {
                        let digits = match escape {
                            'x' => 2,
                            'u' => 4,
                            _ => 8,
                        };
                        let mut code = 0u32;
                        for _ in 0..digits {
                            let (_, digit) = chars.next().ok_or_else(unterminated)?;
                            let digit = digit.to_digit(16).ok_or_else(|| {
                                TemplateError::parse(line, "invalid syntax in string")
                            })?;
                            code = (code << 4) | digit;
                        }
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    _ => return Err(TemplateError::parse(line, "invalid syntax in string")),
                }
            }
            c => out.push(c),
        }
    }
    Err(unterminated())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_trim_markers_eat_white_space_on_their_side() {
        let pieces = split("a  {{- .X -}}  b").unwrap();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[0], Piece::Text("a".into()));
        assert_eq!(pieces[2], Piece::Text("b".into()));
    }

    #[test]
    fn split_minus_before_a_digit_is_a_number() {
        let pieces = split("{{-3}}").unwrap();
        assert!(matches!(&pieces[0], Piece::Action { tokens, .. } if tokens == &[Token::Int(-3)]));
    }

    #[test]
    fn split_comment_is_dropped() {
        assert_eq!(
            split("a{{/* x */}}b").unwrap(),
            vec![Piece::Text("a".into()), Piece::Text("b".into())]
        );
        assert_eq!(
            split("a {{- /* x */ -}} b").unwrap(),
            vec![Piece::Text("a".into()), Piece::Text("b".into())]
        );
    }

    #[test]
    fn split_unclosed_action_is_an_error() {
        assert!(split("{{.X").is_err());
        assert!(split("{{\"abc}}").is_err());
        assert!(split("{{`abc}}").is_err());
        assert!(split("{{'ab'}}").is_err());
    }
}
