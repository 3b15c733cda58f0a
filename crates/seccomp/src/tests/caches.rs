//! The cache on disk.

use std::fs;

use super::{DEFAULT_CAPS, env};
use crate::Arch;
use crate::cache::{Origin, Source, load_or_compile};

#[test]
fn load_second_time_comes_from_cache_and_is_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let env = env(Arch::X86_64, DEFAULT_CAPS);
    let first = load_or_compile(dir.path(), Source::DockerDefault, &env).expect("compiled");
    assert!(
        matches!(first.origin, Origin::Compiled),
        "{:?}",
        first.origin
    );
    let second = load_or_compile(dir.path(), Source::DockerDefault, &env).expect("loaded");
    assert!(matches!(second.origin, Origin::Cache));
    assert_eq!(first.program, second.program);
    assert_eq!(
        fs::read_dir(dir.path()).expect("listing").count(),
        1,
        "no temporary file stays"
    );
}

#[test]
fn load_other_capabilities_or_profile_use_another_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let profile = br#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
    for (source, caps) in [
        (Source::DockerDefault, DEFAULT_CAPS),
        (Source::DockerDefault, &[]),
        (Source::Json(profile), &[]),
    ] {
        let cached =
            load_or_compile(dir.path(), source, &env(Arch::X86_64, caps)).expect("compiled");
        assert!(matches!(cached.origin, Origin::Compiled));
    }
    assert_eq!(fs::read_dir(dir.path()).expect("listing").count(), 3);
}

#[test]
fn load_damaged_file_is_compiled_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let env = env(Arch::X86_64, DEFAULT_CAPS);
    let wanted = load_or_compile(dir.path(), Source::DockerDefault, &env)
        .expect("compiled")
        .program;
    let path = fs::read_dir(dir.path())
        .expect("listing")
        .next()
        .expect("a file")
        .expect("a file")
        .path();
    let good = fs::read(&path).expect("content");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [&flipped[..], &good[..good.len() - 1], &[], &good[..20]] {
        fs::write(&path, bad).expect("written");
        let cached = load_or_compile(dir.path(), Source::DockerDefault, &env).expect("compiled");
        assert!(matches!(cached.origin, Origin::Compiled));
        assert_eq!(cached.program, wanted);
        assert_eq!(
            fs::read(&path).expect("content"),
            good,
            "the file is mended"
        );
    }
}

#[test]
fn load_directory_that_cannot_be_made_still_compiles() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    let cached = load_or_compile(
        &file.join("cache"),
        Source::DockerDefault,
        &env(Arch::X86_64, &[]),
    )
    .expect("compiled");
    assert!(matches!(cached.origin, Origin::NotStored(_)));
}
