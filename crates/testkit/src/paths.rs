//! Where the built programs and the cached fixtures lie.

use std::path::{Path, PathBuf};

/// The workspace's root folder.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Cargo's target folder: `HULL_TARGET` as xtask sets it, else `target/` of the workspace.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("HULL_TARGET").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The folder of the built programs: `HULL_DIST` as xtask sets it, else `target/dist`.
#[must_use]
pub fn dist() -> PathBuf {
    std::env::var_os("HULL_DIST").map_or_else(|| target().join("dist"), PathBuf::from)
}

/// The `hull` program under test.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn hull() -> PathBuf {
    let hull = dist().join("hull");
    assert!(
        hull.exists(),
        "{} is missing: run cargo xtask build first",
        hull.display()
    );
    hull
}

/// The folder fixtures are cached in; made on first use.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn fixtures() -> PathBuf {
    let dir = target().join("fixtures");
    std::fs::create_dir_all(&dir).expect("make target/fixtures");
    dir
}
