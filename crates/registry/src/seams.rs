//! Where fuzzers reach the parsers of foreign text. Nobody else has any use for it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{challenge, hosts};

/// The challenges of a `WWW-Authenticate` header: scheme and parameters of each.
pub fn challenges(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let found = challenge::parse(header).into_iter();
    found.map(|one| (one.scheme, one.parameters)).collect()
}

/// The places that a hosts.toml of `registry.example` names, in their order; none if it is
/// malformed.
pub fn bases(text: &str) -> Option<Vec<String>> {
    let path = Path::new("/etc/hull/certs.d/registry.example/hosts.toml");
    let found = hosts::parse(path, text, "registry.example").ok()?;
    Some(found.into_iter().map(|host| host.base).collect())
}
