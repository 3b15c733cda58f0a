//! The platform of this host in the terms of the OCI image specification.

/// Operating system.
pub const OS: &str = "linux";

/// Architecture in Go's terms.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
