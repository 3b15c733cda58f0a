//! Names of capabilities that nobody knows: a newer engine may name what this runtime, or the
//! kernel, has not heard of. As runc, it is told and left out.

use std::path::Path;

use anyhow::Result;
use hull_sys::caps::CapSet;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::parse_json;

/// Reads JSON whose capabilities are at the pointer `sets`.
pub(super) fn parse_known<T: DeserializeOwned>(
    bytes: &[u8],
    path: &Path,
    sets: &str,
    warnings: &mut Vec<String>,
) -> Result<T> {
    let error = match parse_json(bytes, path) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    // Only what does not parse is looked at: the usual bundle costs nothing.
    let Some((bytes, unknown)) = without_unknown(bytes, sets) else {
        return Err(error);
    };
    let parsed = parse_json(&bytes, path)?;
    warnings.push(format!(
        "{}: unknown capabilities are left out: {}",
        path.display(),
        unknown.join(", ")
    ));
    Ok(parsed)
}

/// The same without unknown capabilities, and those; none if it has none.
fn without_unknown(bytes: &[u8], sets: &str) -> Option<(Vec<u8>, Vec<String>)> {
    let mut whole: Value = serde_json::from_slice(bytes).ok()?;
    let mut unknown = Vec::new();
    for (_, set) in whole.pointer_mut(sets)?.as_object_mut()? {
        let Some(names) = set.as_array_mut() else {
            continue;
        };
        names.retain(|name| match name.as_str() {
            Some(name) if CapSet::from_name(name).is_none() => {
                if !unknown.iter().any(|known| known == name) {
                    unknown.push(name.to_owned());
                }
                false
            }
            _ => true,
        });
    }
    if unknown.is_empty() {
        return None;
    }
    Some((serde_json::to_vec(&whole).ok()?, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Process;

    fn parse(capabilities: &str) -> (Result<Process>, Vec<String>) {
        let text = format!(
            r#"{{"user":{{"uid":0,"gid":0}},"args":["x"],"cwd":"/","capabilities":{capabilities}}}"#
        );
        let mut warnings = Vec::new();
        let path = Path::new("process.json");
        let parsed = parse_known(text.as_bytes(), path, "/capabilities", &mut warnings);
        (parsed, warnings)
    }

    #[test]
    fn parse_known_unknown_names_are_told_and_left_out() {
        let (parsed, warnings) =
            parse(r#"{"bounding":["CAP_KILL","CAP_NEW"],"ambient":["CAP_NEW","CAP_LATER"]}"#);
        let sets = parsed.expect("parse").capabilities().clone().expect("sets");
        assert_eq!(sets.bounding().as_ref().map(|set| set.len()), Some(1));
        assert_eq!(sets.ambient().as_ref().map(|set| set.len()), Some(0));
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings.concat().ends_with("CAP_NEW, CAP_LATER")
                || warnings.concat().ends_with("CAP_LATER, CAP_NEW")
        );
    }

    #[test]
    fn parse_known_other_mistakes_are_errors() {
        for bad in [
            r#"{"bounding":[5]}"#,
            r#"{"bounding":"CAP_KILL"}"#,
            r#"{"bounding":["CAP_NEW",5]}"#,
        ] {
            let (parsed, warnings) = parse(bad);
            assert!(parsed.is_err() && warnings.is_empty(), "{bad}");
        }
        let (parsed, warnings) = parse(r#"{"bounding":["CAP_KILL"]}"#);
        assert!(parsed.is_ok() && warnings.is_empty());
    }
}
