//! Names of images as users write and read them: `docker.io/library/nginx:latest` is `nginx`.

const DEFAULT_TAG: &str = "latest";

/// Repository, and tag or digest, of a familiar reference; without either the tag is `latest`.
pub(crate) fn split(name: &str) -> (String, String) {
    if let Some((repository, digest)) = name.split_once('@') {
        return (repository.to_owned(), digest.to_owned());
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (name.to_owned(), DEFAULT_TAG.to_owned()),
    }
}

/// Whether a tag or a digest is named.
pub(crate) fn is_tagged(name: &str) -> bool {
    name.contains('@')
        || name
            .rsplit_once(':')
            .is_some_and(|(_, tag)| !tag.contains('/'))
}

/// The reference as messages name it: default host and library left out, `latest` added.
pub(crate) fn familiar(name: &str) -> String {
    let short = name
        .strip_prefix("docker.io/")
        .or_else(|| name.strip_prefix("index.docker.io/"))
        .unwrap_or(name);
    let short = short.strip_prefix("library/").unwrap_or(short);
    if short.contains('@') {
        return short.to_owned();
    }
    match short.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => short.to_owned(),
        _ => format!("{short}:{DEFAULT_TAG}"),
    }
}

/// Checks a reference as Docker does before it sends one; the error is Docker's.
pub(crate) fn check(name: &str) -> Result<(), String> {
    const INVALID: &str = "invalid reference format";
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    if let Some(digest) = digest {
        let valid = digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
        });
        if !valid {
            return Err(INVALID.to_owned());
        }
    }
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        let valid = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && tag.len() <= 128
            && tag
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !valid {
            return Err(INVALID.to_owned());
        }
    }
    let (host, path) = match repository.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (Some(host), path)
        }
        _ => (None, repository),
    };
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        let shown = if host.is_none() && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        return Err(format!(
            "{INVALID}: repository name ({shown}) must be lowercase"
        ));
    }
    let component = |text: &str| {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        text.starts_with(edge)
            && text.ends_with(edge)
            && text
                .chars()
                .all(|c| edge(c) || matches!(c, '.' | '_' | '-'))
    };
    if path.split('/').all(component) {
        Ok(())
    } else {
        Err(INVALID.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn familiar_adds_latest_and_drops_defaults() {
        assert_eq!(familiar("nginx"), "nginx:latest");
        assert_eq!(familiar("docker.io/library/nginx:1"), "nginx:1");
        assert_eq!(familiar("host:5000/a"), "host:5000/a:latest");
        assert_eq!(familiar("a@sha256:00"), "a@sha256:00");
    }

    #[test]
    fn check_speaks_docker() {
        for good in [
            "nginx",
            "a/b:1",
            "host:5000/a-b_c.d:Tag",
            "localhost/x",
            "0123456789ab",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(
            check("BAD NAME").unwrap_err(),
            "invalid reference format: repository name (library/BAD NAME) must be lowercase"
        );
        for bad in [
            "",
            "a b",
            "a@sha256:aaaa",
            "a:",
            ":b",
            "a//b",
            "-a",
            "a:b c",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn split_ports_are_no_tags() {
        assert_eq!(
            split("host:5000/a"),
            ("host:5000/a".into(), "latest".into())
        );
        assert_eq!(split("a:b"), ("a".into(), "b".into()));
    }
}
