//! Names from archives, cleaned before any use.

use crate::limits::{MAX_PATH_BYTES, MAX_PATH_DEPTH};

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// It has a `..` component.
    #[error("it has a `..` component and could leave the root directory")]
    DotDot,
    /// It has a zero byte.
    #[error("it has a zero byte")]
    ZeroByte,
    /// It is longer than [`MAX_PATH_BYTES`].
    #[error("it is longer than MAX_PATH_BYTES = {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// It is deeper than [`MAX_PATH_DEPTH`].
    #[error("it is deeper than MAX_PATH_DEPTH = {MAX_PATH_DEPTH} components")]
    TooDeep,
    /// It names nothing.
    #[error("it is empty")]
    Empty,
}

/// Drops leading slashes, empty and `.` components; the result is relative, and empty for the
/// root itself.
///
/// # Errors
/// If the name could lead out of the root or is unreasonable.
pub fn clean(name: &[u8]) -> Result<Vec<u8>, PathProblem> {
    if name.len() > MAX_PATH_BYTES {
        return Err(PathProblem::TooLong);
    }
    if name.contains(&0) {
        return Err(PathProblem::ZeroByte);
    }
    let mut out = Vec::with_capacity(name.len());
    let mut depth = 0;
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(PathProblem::DotDot),
            _ => {}
        }
        depth += 1;
        if depth > MAX_PATH_DEPTH {
            return Err(PathProblem::TooDeep);
        }
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(part);
    }
    Ok(out)
}

/// Splits a cleaned name into its directory (empty for the root) and its last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_with_harmless_names_makes_them_relative() {
        assert_eq!(clean(b"./a//b/./c/").unwrap(), b"a/b/c");
        assert_eq!(clean(b"/etc/passwd").unwrap(), b"etc/passwd");
        assert_eq!(clean(b"./").unwrap(), b"");
        assert_eq!(clean(b"a..b/...").unwrap(), b"a..b/...");
    }

    #[test]
    fn clean_with_hostile_names_refuses() {
        assert_eq!(clean(b"../x"), Err(PathProblem::DotDot));
        assert_eq!(clean(b"a/../../x"), Err(PathProblem::DotDot));
        assert_eq!(clean(b"a\0b"), Err(PathProblem::ZeroByte));
        assert_eq!(clean(&b"a/".repeat(600)), Err(PathProblem::TooDeep));
        assert_eq!(clean(&b"a".repeat(5000)), Err(PathProblem::TooLong));
    }

    #[test]
    fn split_takes_the_last_component_off() {
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }
}
