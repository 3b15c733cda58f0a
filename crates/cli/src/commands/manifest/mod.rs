//! Commands about manifest lists: images for several platforms, put together by hand.

pub(crate) mod annotate;
pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod push;
pub(crate) mod remove;
mod store;

use hull_client::Client;

use crate::error::CliError;
use crate::registry;
use crate::values::reference;

/// A name in its full form, `docker.io/library/x:1`, and its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    full: String,
    registry: String,
}

/// Reads a name. The engine is asked only what a name without a registry means.
async fn name(client: &Client, text: &str) -> Result<Name, CliError> {
    reference::check(text).map_err(CliError::new)?;
    let registry = registry::of(client, text).await?;
    Ok(Name {
        full: full(text, &registry),
        registry,
    })
}

fn full(text: &str, registry: &str) -> String {
    let rest = match registry::explicit(text) {
        Some(_) => text.split_once('/').map_or(text, |(_, rest)| rest),
        None => text,
    };
    let library = if registry == "docker.io" && !rest.contains('/') {
        "library/"
    } else {
        ""
    };
    let tag = if reference::is_tagged(text) {
        ""
    } else {
        ":latest"
    };
    format!("{registry}/{library}{rest}{tag}")
}

/// The repository of a full name.
fn repository(full: &str) -> &str {
    let name = full.split_once('@').map_or(full, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_names_have_registry_and_tag() {
        for (text, registry, want) in [
            ("x", "docker.io", "docker.io/library/x:latest"),
            ("docker.io/x:1", "docker.io", "docker.io/library/x:1"),
            ("a/x:1", "docker.io", "docker.io/a/x:1"),
            ("x", "reg.example", "reg.example/x:latest"),
            (
                "reg:5000/a/x@sha256:00",
                "reg:5000",
                "reg:5000/a/x@sha256:00",
            ),
        ] {
            assert_eq!(full(text, registry), want);
        }
        assert_eq!(repository("reg:5000/a/x:1"), "reg:5000/a/x");
        assert_eq!(repository("reg:5000/a/x@sha256:00"), "reg:5000/a/x");
    }
}
