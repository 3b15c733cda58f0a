//! Short texts: references of images, `WWW-Authenticate` headers, hosts.toml, Docker's config.json.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use hull_model::Reference;
use hull_model::egress::{Rule, Target};
use hull_registry::seams;

/// A reference: what is accepted means the same when it is written and read again.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(name) = Reference::from_str(text) else {
        return;
    };
    for written in [name.to_string(), name.familiar()] {
        let again = Reference::from_str(&written);
        assert_eq!(
            again.ok().as_ref(),
            Some(&name),
            "{text:?} became {written:?}"
        );
    }
    // It becomes part of addresses and of names of files.
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    assert!(name.path.chars().all(good), "{name:?}");
    assert!(name.domain.chars().all(good), "{name:?}");
    assert!(!name.domain.contains('/') && !name.domain.is_empty());
    for part in name.path.split('/').chain([&*name.domain]) {
        assert!(!part.is_empty() && !part.starts_with('.'), "{name:?}");
    }
    assert!(name.tag.is_some() || name.digest.is_some());
    let tag = name.tag.unwrap_or_default();
    assert!(tag.len() <= 128 && !tag.contains('/') && !tag.starts_with('.'));
}

/// A rule of an egress policy: what is accepted means the same when it is written and read again.
pub(crate) fn egress(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(rule) = text.parse::<Rule>() else {
        return;
    };
    let written = rule.to_string();
    let again = written.parse::<Rule>();
    assert_eq!(again.as_ref(), Ok(&rule), "{text:?} became {written:?}");
    // A name is compared with names in lower case.
    if let Some(name) = rule.name() {
        let good = |c: char| c.is_ascii_alphanumeric() && !c.is_ascii_uppercase();
        assert!(
            name.chars().all(|c| good(c) || "._-".contains(c)),
            "{name:?}"
        );
        assert!(rule.names(name) != matches!(rule.target, Target::Below(_)));
    }
    assert!(rule.ports.is_none_or(|(low, high)| 0 < low && low <= high));
}

/// A header: what was understood, written again, is understood the same.
pub(crate) fn challenge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let found = seams::challenges(&text);
    let mut written = String::new();
    for (scheme, parameters) in &found {
        assert!(!scheme.is_empty());
        assert!(!scheme.bytes().any(|byte| byte.is_ascii_uppercase()));
        let parameters: Vec<String> = parameters
            .iter()
            .map(|(name, value)| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                format!("{name}=\"{value}\"")
            })
            .collect();
        let mark = if written.is_empty() { "" } else { ", " };
        written.push_str(&format!("{mark}{scheme} {}", parameters.join(",")));
    }
    // Escapes make it longer, and a header has a longest length.
    if written.len() < 8_000 {
        assert_eq!(seams::challenges(&written), found, "{text:?}: {written:?}");
    }
}

/// A hosts.toml: every place it names can be asked.
pub(crate) fn hosts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some(bases) = seams::bases(text) else {
        return;
    };
    assert!(!bases.is_empty());
    for base in bases {
        let plain = base.starts_with("http://") || base.starts_with("https://");
        assert!(plain && !base.ends_with('/'), "{base:?}");
    }
}

/// A config.json: what it has for one registry is not what it has for another.
pub(crate) fn credentials(data: &[u8]) {
    let mut found = BTreeMap::new();
    for registry in [
        "docker.io",
        "https://index.docker.io/v1/",
        "registry.example",
        "https://registry.example/v2/",
        "registry.example:5000",
        "127.0.0.1:5000",
    ] {
        let auth = hull_cli::credentials::seam(data, registry);
        found.insert(registry, auth);
    }
    let same = |a: &str, b: &str| assert_eq!(found.get(a), found.get(b), "{a} and {b}");
    same("docker.io", "https://index.docker.io/v1/");
    same("registry.example", "https://registry.example/v2/");
}
