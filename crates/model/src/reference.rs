//! Image references: `[domain/]path[:tag][@digest]`, normalised as Docker's users expect
//! (`busybox` is `docker.io/library/busybox:latest`).

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::digest::Digest;
use crate::error::Error;

/// The registry that short names mean.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag that a name without tag or digest means.
pub const DEFAULT_TAG: &str = "latest";
/// Images that Hull makes itself; their names never mean a registry's.
const BUILT_IN: [&str; 2] = ["hull/hello", "host"];
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// What names without a registry mean in this process, if not [`DEFAULT_DOMAIN`].
static DEFAULT_REGISTRY: OnceLock<String> = OnceLock::new();

/// Has names without a registry mean this one, from now on and once for all.
///
/// # Errors
/// If it is no registry's host with optional port.
pub fn set_default_registry(domain: &str) -> Result<(), Error> {
    if !is_domain(domain) || !valid_domain(domain) {
        return Err(Error::invalid(format!(
            "default registry {domain:?}: want a host with a dot or a port, such as registry.example:5000"
        )));
    }
    if domain != DEFAULT_DOMAIN {
        // The first one stays: names that were read mean it.
        let _ = DEFAULT_REGISTRY.set(domain.to_owned());
    }
    Ok(())
}

/// The registry that names without one mean.
pub fn default_registry() -> &'static str {
    DEFAULT_REGISTRY.get().map_or(DEFAULT_DOMAIN, |one| one)
}

/// A parsed and normalised image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Registry host with optional port.
    pub domain: String,
    /// Repository path, with `library/` where the short form left it out.
    pub path: String,
    /// Tag; `None` only where a digest is given.
    pub tag: Option<String>,
    /// Digest, if the reference pins one.
    pub digest: Option<Digest>,
}

impl Reference {
    /// The name as people write it: without `docker.io/` and `library/`.
    ///
    /// Where another registry is the default, nothing is left out: what is printed means the same
    /// everywhere.
    pub fn familiar_name(&self) -> String {
        self.familiar_by(default_registry())
    }

    fn familiar_by(&self, default: &str) -> String {
        let built_in = BUILT_IN.contains(&self.path.trim_start_matches("library/"));
        // A path that begins like a registry would be taken for one.
        let first = self.path.split_once('/').map(|(first, _)| first);
        let misleading = first.is_some_and(is_domain);
        let short = default == DEFAULT_DOMAIN || built_in;
        if self.domain == DEFAULT_DOMAIN && short && !misleading {
            self.path
                .strip_prefix("library/")
                .filter(|p| !p.contains('/'))
                .unwrap_or(&self.path)
                .to_owned()
        } else {
            format!("{}/{}", self.domain, self.path)
        }
    }

    /// `familiar_name[:tag][@digest]`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse_by(text, default_registry())
    }
}

impl Reference {
    /// Reads a name as Docker writes it into archives: without a registry it means Docker Hub's,
    /// whatever the default here is.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn parse_archived(text: &str) -> Result<Self, Error> {
        Self::parse_by(text, DEFAULT_DOMAIN)
    }

    fn parse_by(text: &str, default: &str) -> Result<Self, Error> {
        let wrong =
            |why: &str| Error::invalid(format!("invalid reference format: {text:?}: {why}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(digest.parse::<Digest>().map_err(|_| wrong("bad digest"))?),
            ),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|t| !valid_tag(t)) {
            return Err(wrong("bad tag"));
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if is_domain(first) => (first, path),
            _ if BUILT_IN.contains(&name) => (DEFAULT_DOMAIN, name),
            _ => (default, name),
        };
        let domain = if domain == "index.docker.io" {
            DEFAULT_DOMAIN
        } else {
            domain
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Error::invalid(format!(
                "invalid reference format: repository name ({path}) must be lowercase"
            )));
        }
        if path.is_empty() || !path.split('/').all(valid_component) || !valid_domain(domain) {
            return Err(wrong("bad repository name"));
        }
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if domain.len() + path.len() > MAX_REPOSITORY {
            return Err(wrong("repository name is longer than 255 characters"));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self {
            domain: domain.to_owned(),
            path,
            tag,
            digest,
        })
    }
}

/// The first component is a registry if it has a dot or a port, or is `localhost`.
fn is_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = domain.rsplit_once(':').unwrap_or((domain, "0"));
    let host_ok = host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    host_ok && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

fn valid_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = bytes
        .iter()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b));
    edge(bytes.first())
        && edge(bytes.last())
        && inner
        && !part.contains("..")
        && !part.contains("___")
}

fn valid_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    let first = bytes
        .first()
        .is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    first
        && bytes.len() <= MAX_TAG
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_reference_is_normalised() {
        let r: Reference = "busybox".parse().unwrap();
        assert_eq!(r.to_string(), "docker.io/library/busybox:latest");
        assert_eq!(r.familiar(), "busybox:latest");
        let r: Reference = "docker.io/evil.example/a:b".parse().unwrap();
        assert_eq!(r.familiar(), "docker.io/evil.example/a:b");
        let r: Reference = "hull/hello".parse().unwrap();
        assert_eq!(r.familiar(), "hull/hello:latest");
        let r: Reference = "localhost:5000/a/b:v1".parse().unwrap();
        assert_eq!(
            (r.domain.as_str(), r.path.as_str(), r.tag.as_deref()),
            ("localhost:5000", "a/b", Some("v1"))
        );
    }

    #[test]
    fn short_reference_means_the_default_registry_and_prints_unambiguously() {
        let of = |text| Reference::parse_by(text, "reg.example:5000").unwrap();
        let name = of("box");
        assert_eq!(name.to_string(), "reg.example:5000/box:latest");
        assert_eq!(name.familiar_by("reg.example:5000"), "reg.example:5000/box");
        let hub = of("docker.io/box:1");
        assert_eq!(hub.to_string(), "docker.io/library/box:1");
        assert_eq!(hub.familiar_by("reg.example:5000"), "docker.io/library/box");
        assert_eq!(of("hull/hello").to_string(), "docker.io/hull/hello:latest");
        assert_eq!(of("host").familiar_by("reg.example:5000"), "host");
        assert_eq!(of("other.example/a:1").domain, "other.example");
        for bad in ["", "reg", "reg.example/x", "-.x", "a b.c"] {
            assert!(set_default_registry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn malformed_reference_is_refused() {
        for bad in [
            "",
            ":",
            "a:",
            "UPPER",
            "UPPER/case",
            "a//b",
            "-a",
            "a:b:c/d:",
            "a@sha256:12",
            "a b",
            "a/.b",
            "a:..\u{e9}",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }
}
