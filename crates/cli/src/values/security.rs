//! `--security-opt`: profiles named by a file are read here, on the client's side.

use crate::error::io_text;

/// Largest seccomp profile.
const MAX_PROFILE: u64 = 8 * 1024 * 1024;

/// The options to send, and whether `systempaths=unconfined` asks for no masked paths.
pub(crate) fn parse(given: &[String]) -> Result<(Vec<String>, bool), String> {
    let mut options = Vec::new();
    let mut unmasked = false;
    for option in given {
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some(pair) => pair,
            None if option == "no-new-privileges" => {
                options.push(option.clone());
                continue;
            }
            None => return Err(format!("Invalid --security-opt: {option:?}")),
        };
        match (key, value) {
            ("systempaths", "unconfined") => unmasked = true,
            ("seccomp", "unconfined" | "builtin") => options.push(format!("{key}={value}")),
            ("seccomp", path) => options.push(format!("seccomp={}", profile(path)?)),
            _ => options.push(option.clone()),
        }
    }
    Ok((options, unmasked))
}

/// The profile in a file, without blanks.
fn profile(path: &str) -> Result<String, String> {
    let failed = |reason: String| format!("opening seccomp profile ({path}) failed: {reason}");
    let metadata = std::fs::metadata(path)
        .map_err(|error| failed(format!("open {path}: {}", io_text(&error))))?;
    if metadata.len() > MAX_PROFILE {
        return Err(failed(format!("it is larger than {MAX_PROFILE} bytes")));
    }
    let text =
        std::fs::read(path).map_err(|error| failed(format!("open {path}: {}", io_text(&error))))?;
    let value: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| format!("compacting json for seccomp profile ({path}) failed: {error}"))?;
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_keeps_known_forms() {
        let given = [
            "no-new-privileges".to_owned(),
            "seccomp=unconfined".to_owned(),
            "seccomp:unconfined".to_owned(),
        ];
        assert_eq!(
            parse(&given).unwrap().0,
            [
                "no-new-privileges",
                "seccomp=unconfined",
                "seccomp=unconfined"
            ]
        );
        assert!(parse(&["systempaths=unconfined".into()]).unwrap().1);
        assert!(parse(&["foo".into()]).is_err());
        assert!(
            parse(&["seccomp=/nope.json".into()])
                .unwrap_err()
                .contains("no such file or directory")
        );
    }

    #[test]
    fn parse_profile_file_is_compacted() {
        let path = std::env::temp_dir().join(format!("hull-seccomp-{}.json", std::process::id()));
        std::fs::write(&path, "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n").unwrap();
        let got = parse(&[format!("seccomp={}", path.display())]).unwrap().0;
        std::fs::remove_file(&path).unwrap();
        assert_eq!(got, ["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]);
    }
}
