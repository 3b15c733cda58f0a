//! `WWW-Authenticate` (RFC 9110, section 11.6.1): what a registry wants.

use std::collections::BTreeMap;

/// Longest header looked at.
const MAX_HEADER: usize = 8 << 10;

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// `basic`, `bearer`, …, in lower case.
    pub(crate) scheme: String,
    /// Parameters, names in lower case.
    pub(crate) parameters: BTreeMap<String, String>,
}

/// The challenges of a header; what cannot be read ends the list.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header.get(..MAX_HEADER).unwrap_or(header).trim_start();
    while !rest.is_empty() {
        let Some((word, after)) = token(rest) else {
            break;
        };
        let after = after.trim_start();
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = value_of(value.trim_start()) else {
                    break;
                };
                challenge
                    .parameters
                    .insert(word.to_ascii_lowercase(), value);
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: BTreeMap::new(),
                });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => value.push(chars.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_bearer_reads_quoted_parameters() {
        let found = parse(
            r#"Bearer realm="https://auth.example/token",service="registry, \"x\"",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(found.len(), 1);
        let one = found.first().expect("one");
        assert_eq!(one.scheme, "bearer");
        assert_eq!(one.parameters["service"], "registry, \"x\"");
        assert_eq!(one.parameters["scope"], "repository:a/b:pull,push");
    }

    #[test]
    fn parse_two_challenges_keeps_them_apart() {
        let found = parse(r#"Basic realm=here, Bearer realm="x""#);
        let schemes: Vec<_> = found.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["basic", "bearer"]);
    }

    #[test]
    fn parse_nonsense_ends_without_panic() {
        for bad in [
            "",
            "=",
            "Bearer realm=\"open",
            "a=b",
            "\u{e9}\u{e9}",
            "Bearer =x,,,",
        ] {
            let _ = parse(bad);
        }
        let long = format!("Bearer realm=\"{}", "\u{e9}".repeat(MAX_HEADER));
        assert!(parse(&long).len() <= 1);
    }
}
