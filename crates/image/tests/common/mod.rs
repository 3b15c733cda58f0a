//! Stores in temporary directories and tars made in memory.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_image::archive::LoadError;
use hull_image::hash::digest_of;
use hull_image::import::ImportOptions;
use hull_image::limits::Limits;
use hull_image::{Image, ImageStore};
use hull_model::Digest;

/// A store that goes with the test.
pub struct Fixture {
    pub tmp: tempfile::TempDir,
    pub store: ImageStore,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&tmp.path().join("image"), limits).unwrap();
        Self { tmp, store }
    }

    pub fn import(&self, tar: &[u8]) -> Result<(Image, Vec<String>), LoadError> {
        self.store
            .import(&mut &tar[..], &ImportOptions::default(), &|_| {})
    }

    /// Imports and returns the tree of the layer.
    pub fn tree(&self, tar: &[u8]) -> PathBuf {
        let (image, _) = self.import(tar).unwrap();
        self.store.layer_tree(&image.record.layers()[0])
    }

    /// Asserts that the stored layer gives back exactly these bytes.
    pub fn assert_reassembles(&self, tar: &[u8]) {
        let mut out = Vec::new();
        self.store
            .copy_layer_tar(&digest_of(tar), &mut out)
            .unwrap();
        assert!(out == tar, "reassembled stream differs");
    }

    /// Asserts that a failed operation left nothing behind.
    pub fn assert_empty(&self) {
        for dir in ["layers", "images", "tmp", "l", "blobs/sha256"] {
            let path = self.store.base().join(dir);
            let left: Vec<_> = fs::read_dir(&path)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert!(left.is_empty(), "{dir} holds {left:?}");
        }
        assert!(self.store.list().is_empty());
    }

    pub fn reopen(&mut self) {
        self.store = ImageStore::open(&self.tmp.path().join("image"), Limits::default()).unwrap();
        self.store.wait_until_clean();
    }
}

/// The text of an error with all its causes.
pub fn chain(error: impl Into<hull_model::Error>) -> String {
    error.into().chain()
}

/// Builds tars entry by entry, hostile names included.
pub struct Tar(pub tar::Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder.mode(tar::HeaderMode::Complete);
        Self(builder)
    }

    pub fn entry(
        mut self,
        kind: tar::EntryType,
        name: &[u8],
        link: &[u8],
        mode: u32,
        data: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        // Written raw: the crate's own setters refuse what a hostile archive holds.
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn file(self, name: &str, data: &str) -> Self {
        self.entry(
            tar::EntryType::Regular,
            name.as_bytes(),
            b"",
            0o644,
            data.as_bytes(),
        )
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(tar::EntryType::Directory, name.as_bytes(), b"", 0o755, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(
            tar::EntryType::Symlink,
            name.as_bytes(),
            target.as_bytes(),
            0o777,
            b"",
        )
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(
            tar::EntryType::Link,
            name.as_bytes(),
            target.as_bytes(),
            0o644,
            b"",
        )
    }

    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0
            .append_pax_extensions(records.iter().map(|(k, v)| (*k, *v)))
            .unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(data).unwrap();
    e.finish().unwrap()
}

/// A docker-archive of one image with the given layers.
pub fn docker_archive(layers: &[Vec<u8>], tag: &str) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|l| digest_of(l)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/true"], "Env": null},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|_| serde_json::json!({"created_by": "test"}))
            .collect::<Vec<_>>(),
    });
    let config = serde_json::to_string(&config).unwrap();
    let mut tar = Tar::new();
    for (number, layer) in layers.iter().enumerate() {
        tar = tar.entry(
            tar::EntryType::Regular,
            format!("{number}/layer.tar").as_bytes(),
            b"",
            0o644,
            layer,
        );
    }
    let manifest = serde_json::json!([{
        "Config": "config.json",
        "RepoTags": [tag],
        "Layers": (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect::<Vec<_>>(),
    }]);
    tar.file("config.json", &config)
        .file("manifest.json", &manifest.to_string())
        .bytes()
}

/// Runs a program and returns its output.
pub fn run(program: &str, args: &[&str], dir: &Path) -> Vec<u8> {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|e| panic!("{program} must be installed: {e}"));
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}
