//! Which registry a name means, and the credentials for it.

use hull_client::Client;

use crate::credentials::{Store, key};
use crate::error::CliError;

/// Docker Hub's name.
const HUB: &str = "docker.io";

/// The registry that a name has in itself; none if it leaves it to the default.
pub(crate) fn explicit(name: &str) -> Option<&str> {
    match name.split_once('/') {
        Some(("index.docker.io", _)) => Some(HUB),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => Some(first),
        _ => None,
    }
}

/// The registry that names without one mean to the engine.
pub(crate) async fn default(client: &Client) -> Result<String, CliError> {
    let server = client.info().await?.index_server_address;
    if server.is_empty() || key(&server) == key(HUB) {
        return Ok(HUB.to_owned());
    }
    Ok(server)
}

/// The registry of a name.
pub(crate) async fn of(client: &Client, name: &str) -> Result<String, CliError> {
    match explicit(name) {
        Some(registry) => Ok(registry.to_owned()),
        None => default(client).await,
    }
}

/// What is known of the user at a registry, as a header; empty where nothing is.
pub(crate) fn auth(registry: &str) -> Result<String, CliError> {
    let found = Store::open()?.get(registry)?;
    Ok(found.map(|auth| auth.header()).unwrap_or_default())
}

/// A name that means the same everywhere: with its registry, unless that is Docker Hub and the
/// default.
pub(crate) fn unambiguous(familiar: &str, registry: &str) -> String {
    if explicit(familiar).is_some() || registry == HUB {
        return familiar.to_owned();
    }
    format!("{registry}/{familiar}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_registry_has_a_dot_or_a_port() {
        assert_eq!(explicit("busybox"), None);
        assert_eq!(explicit("a/b:1"), None);
        assert_eq!(explicit("docker.io/a"), Some("docker.io"));
        assert_eq!(explicit("index.docker.io/a"), Some("docker.io"));
        assert_eq!(explicit("reg:5000/a"), Some("reg:5000"));
        assert_eq!(explicit("localhost/a"), Some("localhost"));
    }

    #[test]
    fn unambiguous_names_carry_a_registry_that_is_not_docker_hub() {
        assert_eq!(unambiguous("a:1", "docker.io"), "a:1");
        assert_eq!(unambiguous("a:1", "reg.example"), "reg.example/a:1");
        assert_eq!(unambiguous("b.example/a:1", "reg.example"), "b.example/a:1");
    }
}
