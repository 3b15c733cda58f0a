//! A bound on JSON of others, checked before it is parsed: a few megabytes of `0,0,0,…` would
//! become a hundred times as much memory.

/// Most members and elements of one document. An index of thousands of images, each with its
/// annotations, has fewer.
pub const MAX_DOCUMENT_VALUES: usize = 200_000;

/// A document has more values than anybody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has more values than MAX_DOCUMENT_VALUES = {MAX_DOCUMENT_VALUES}")]
pub struct TooManyValues;

/// Counts what stands between commas and behind brackets, outside of texts.
///
/// # Errors
/// If there are more than [`MAX_DOCUMENT_VALUES`].
pub fn check_values(bytes: &[u8]) -> Result<(), TooManyValues> {
    let (mut count, mut in_text, mut escaped) = (0usize, false, false);
    for &byte in bytes {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b',' | b'[' | b'{' => count += 1,
            _ => {}
        }
    }
    if count > MAX_DOCUMENT_VALUES {
        return Err(TooManyValues);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_counts_outside_of_texts() {
        let many = "0,".repeat(MAX_DOCUMENT_VALUES + 1);
        assert_eq!(check_values(many.as_bytes()), Err(TooManyValues));
        let text = format!("[\"{many}\\\",{many}\",1]");
        assert_eq!(check_values(text.as_bytes()), Ok(()));
        let open = "[".repeat(MAX_DOCUMENT_VALUES + 1);
        assert_eq!(check_values(open.as_bytes()), Err(TooManyValues));
        assert_eq!(check_values(b"\"\\"), Ok(()));
    }
}
