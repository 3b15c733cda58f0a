//! `-v [SOURCE:]TARGET[:OPTIONS]`.

use std::path::Path;

/// What one `-v` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VolumeSpec {
    /// A volume without a name at this path.
    Anonymous(String),
    /// `source:target[:options]`, a relative source made absolute.
    Bind(String),
}

/// Reads one `-v`; `directory` is what relative sources start from.
pub(crate) fn parse(spec: &str, directory: &Path) -> Result<VolumeSpec, String> {
    if spec.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let parts: Vec<&str> = spec.split(':').collect();
    match parts.as_slice() {
        [target] => Ok(VolumeSpec::Anonymous((*target).to_owned())),
        parts if parts.iter().any(|part| part.is_empty()) => Err(format!(
            "invalid spec: {spec}: empty section between colons"
        )),
        [_, _] | [_, _, _] => {
            let (source, rest) = spec.split_once(':').unwrap_or((spec, ""));
            Ok(VolumeSpec::Bind(format!(
                "{}:{rest}",
                absolute(source, directory)
            )))
        }
        _ => Err(format!("invalid spec: {spec}: too many colons")),
    }
}

/// `./x` and `../x` against the working directory; anything else as it is.
pub(crate) fn absolute(source: &str, directory: &Path) -> String {
    if !source.starts_with('.') {
        return source.to_owned();
    }
    let mut out = directory.to_path_buf();
    for part in Path::new(source).components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_forms() {
        let parse = |spec| super::parse(spec, Path::new("/work/dir"));
        assert_eq!(parse("/data"), Ok(VolumeSpec::Anonymous("/data".into())));
        assert_eq!(
            parse("vol:/data:ro"),
            Ok(VolumeSpec::Bind("vol:/data:ro".into()))
        );
        assert_eq!(
            parse("./a/../b:/data"),
            Ok(VolumeSpec::Bind("/work/dir/b:/data".into()))
        );
        assert_eq!(parse("../x:/y"), Ok(VolumeSpec::Bind("/work/x:/y".into())));
        assert_eq!(parse(".:/y"), Ok(VolumeSpec::Bind("/work/dir:/y".into())));
        assert!(parse(":/x").is_err());
        assert!(parse("a:b:c:d").unwrap_err().contains("too many colons"));
        assert!(parse("").is_err());
    }
}
