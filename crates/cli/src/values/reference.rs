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
    fn split_ports_are_no_tags() {
        assert_eq!(
            split("host:5000/a"),
            ("host:5000/a".into(), "latest".into())
        );
        assert_eq!(split("a:b"), ("a".into(), "b".into()));
    }
}
