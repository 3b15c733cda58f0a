//! Documents and blobs kept as they came: indexes of several platforms, images of platforms that
//! are not this host's, artifacts, and what refers to an image (signatures, bills of materials).
//!
//! - `content/blobs/sha256/<hex>`: the bytes, under their digest,
//! - `content/roots.json`: names, and the document each of them leads to.
//!
//! What no root leads to is removed by [`ContentStore::sweep`], never while something is being
//! brought in. A root counts only while its name means the image it was kept with, so that giving
//! the name to another image needs no word here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hull_model::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::hash::Hasher;
use crate::store::StoreError;

/// Bytes copied at a time.
const CHUNK: usize = 256 << 10;
/// Largest file of names.
const MAX_ROOTS_BYTES: u64 = 64 << 20;
/// Largest document that is looked into.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// A blob that a document names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pointer {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The document: an index, or the manifest of an artifact.
    pub document: Pointer,
    /// The image of this host's platform that the name means, too; none for an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// Whether all that the document leads to was brought in.
    #[serde(default)]
    pub complete: bool,
    /// Documents about it or about a manifest in it, by the digest of what they are about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<(Digest, serde_json::Value)>,
    /// When it was kept, RFC 3339.
    pub stored: String,
}

/// Why bytes could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// They could not be had.
    #[error("cannot read blob {0}")]
    Read(Digest, #[source] io::Error),
    /// They are others than promised.
    #[error("blob {expected} is damaged: its content has digest {found}")]
    Digest {
        /// Promised.
        expected: Digest,
        /// Computed.
        found: Digest,
    },
    /// They are more or fewer than promised.
    #[error("blob {digest} has {found} bytes, expected {expected}")]
    Size {
        /// Which.
        digest: Digest,
        /// Promised.
        expected: u64,
        /// Counted.
        found: u64,
    },
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<KeepError> for hull_model::Error {
    fn from(error: KeepError) -> Self {
        use hull_model::ErrorKind::InvalidArgument;
        match error {
            KeepError::Store(error) => error.into(),
            error => crate::store::from_chain(InvalidArgument, error),
        }
    }
}

/// The store.
#[derive(Debug)]
pub struct ContentStore {
    base: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    roots: BTreeMap<String, Root>,
    /// Who brings something in.
    keepers: usize,
    counter: u64,
}

/// While it lives nothing is removed.
#[derive(Debug)]
pub struct Keeper<'a>(&'a ContentStore);

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.keepers = state.keepers.saturating_sub(1);
    }
}

impl ContentStore {
    /// Opens the store in `base`, making it if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be used or the names are damaged.
    pub fn open(base: &Path) -> Result<Self, StoreError> {
        let store = Self {
            base: base.to_owned(),
            state: Mutex::default(),
        };
        for dir in [store.blobs(), store.tmp()] {
            fs::create_dir_all(&dir).map_err(|e| StoreError::io("create", &dir, e))?;
        }
        // What an interrupted download left.
        for entry in fs::read_dir(store.tmp())
            .map_err(|e| StoreError::io("list", &store.tmp(), e))?
            .flatten()
        {
            let _ = fs::remove_file(entry.path());
        }
        let path = store.roots_file();
        match read_bounded(&path, MAX_ROOTS_BYTES) {
            Ok(bytes) => {
                store.lock().roots = serde_json::from_slice(&bytes)
                    .map_err(|source| StoreError::Json { path, source })?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("read", &path, error)),
        }
        Ok(store)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blobs(&self) -> PathBuf {
        self.base.join("blobs/sha256")
    }

    fn tmp(&self) -> PathBuf {
        self.base.join("tmp")
    }

    fn roots_file(&self) -> PathBuf {
        self.base.join("roots.json")
    }

    /// Begins to bring something in: until it is dropped nothing is removed.
    pub fn keeper(&self) -> Keeper<'_> {
        self.lock().keepers += 1;
        Keeper(self)
    }

    /// Where the blob lies, if it is here.
    pub fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.blobs().join(digest.hex());
        path.exists().then_some(path)
    }

    /// Bytes of all blobs.
    pub fn disk_usage(&self) -> u64 {
        let entries = fs::read_dir(self.blobs()).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some(entry.metadata().ok()?.len()))
            .sum()
    }

    /// A small document that is here.
    ///
    /// # Errors
    /// If it is not, or is larger than a document may be.
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blobs().join(digest.hex());
        read_bounded(&path, MAX_DOCUMENT_BYTES).map_err(|e| StoreError::io("read", &path, e))
    }

    /// Keeps what `source` brings, if it is what was promised; what is here already is not read.
    ///
    /// # Errors
    /// See [`KeepError`]. Nothing is kept then.
    pub fn keep(
        &self,
        digest: &Digest,
        size: u64,
        source: &mut dyn Read,
        progress: &dyn Fn(u64),
    ) -> Result<(), KeepError> {
        if self.path(digest).is_some() {
            return Ok(());
        }
        let number = {
            let mut state = self.lock();
            state.counter += 1;
            state.counter
        };
        let path = self.tmp().join(number.to_string());
        let outcome = self.write(&path, digest, size, source, progress);
        if outcome.is_err() {
            let _ = fs::remove_file(&path);
        }
        outcome
    }

    fn write(
        &self,
        path: &Path,
        digest: &Digest,
        size: u64,
        source: &mut dyn Read,
        progress: &dyn Fn(u64),
    ) -> Result<(), KeepError> {
        let failed = |e| StoreError::io("write", path, e);
        let mut file = File::create_new(path).map_err(failed)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = source
                .read(&mut buffer)
                .map_err(|e| KeepError::Read(*digest, e))?;
            if count == 0 {
                break;
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            hasher.update(bytes);
            if hasher.bytes() > size {
                break;
            }
            file.write_all(bytes).map_err(failed)?;
            progress(hasher.bytes());
        }
        let found = hasher.bytes();
        if found != size {
            return Err(KeepError::Size {
                digest: *digest,
                expected: size,
                found,
            });
        }
        let found = hasher.finish();
        if found != *digest {
            return Err(KeepError::Digest {
                expected: *digest,
                found,
            });
        }
        file.sync_data().map_err(failed)?;
        let place = self.blobs().join(digest.hex());
        fs::rename(path, &place).map_err(|e| StoreError::io("rename", &place, e))?;
        Ok(())
    }

    /// Keeps bytes that are at hand.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn keep_bytes(&self, bytes: &[u8]) -> Result<Digest, KeepError> {
        let digest = crate::hash::digest_of(bytes);
        self.keep(&digest, bytes.len() as u64, &mut &*bytes, &|_| {})?;
        Ok(digest)
    }

    /// Has a name lead to a document that is here.
    ///
    /// # Errors
    /// If the names cannot be written.
    pub fn set_root(&self, name: &Reference, root: Root) -> Result<(), StoreError> {
        let mut state = self.lock();
        let mut roots = state.roots.clone();
        roots.insert(name.to_string(), root);
        self.write_roots(&roots)?;
        state.roots = roots;
        Ok(())
    }

    fn write_roots(&self, roots: &BTreeMap<String, Root>) -> Result<(), StoreError> {
        let place = self.roots_file();
        let bytes = serde_json::to_vec(roots).map_err(|source| StoreError::Json {
            path: place.clone(),
            source,
        })?;
        let fresh = self.tmp().join("roots");
        let written = File::create(&fresh)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_data()
            })
            .and_then(|()| fs::rename(&fresh, &place));
        written.map_err(|e| StoreError::io("write", &place, e))
    }

    /// What a name leads to, whether or not it still counts.
    pub fn root(&self, name: &Reference) -> Option<Root> {
        self.lock().roots.get(&name.to_string()).cloned()
    }

    /// All names with what they lead to.
    pub fn roots(&self) -> Vec<(Reference, Root)> {
        let state = self.lock();
        let read = |(name, root): (&String, &Root)| Some((name.parse().ok()?, root.clone()));
        state.roots.iter().filter_map(read).collect()
    }

    /// Takes a name away; false if it was not there.
    ///
    /// # Errors
    /// If the names cannot be written.
    pub fn forget(&self, name: &Reference) -> Result<bool, StoreError> {
        let mut state = self.lock();
        let mut roots = state.roots.clone();
        let known = roots.remove(&name.to_string()).is_some();
        if known {
            self.write_roots(&roots)?;
            state.roots = roots;
        }
        Ok(known)
    }

    /// Drops roots that do not count any more, by `counts`, and blobs that none leads to. Returns
    /// the bytes freed; none while something is being brought in.
    ///
    /// # Errors
    /// If the names cannot be written.
    pub fn sweep(&self, counts: &dyn Fn(&str, &Root) -> bool) -> Result<u64, StoreError> {
        let mut state = self.lock();
        if state.keepers > 0 {
            return Ok(0);
        }
        let mut roots = state.roots.clone();
        roots.retain(|name, root| counts(name, root));
        if roots.len() != state.roots.len() {
            self.write_roots(&roots)?;
            state.roots = roots;
        }
        let mut needed = BTreeSet::new();
        for root in state.roots.values() {
            self.reach(root.document.digest, &mut needed);
            for (_, descriptor) in &root.referrers {
                if let Ok(pointer) = Pointer::deserialize(descriptor) {
                    self.reach(pointer.digest, &mut needed);
                }
            }
        }
        let mut freed = 0;
        let entries = fs::read_dir(self.blobs()).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let known = name.to_str().and_then(|hex| Digest::from_hex(hex).ok());
            if known.is_some_and(|digest| needed.contains(&digest)) {
                continue;
            }
            let size = entry.metadata().map_or(0, |meta| meta.len());
            if fs::remove_file(entry.path()).is_ok() {
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Adds a document and all it leads to.
    fn reach(&self, digest: Digest, found: &mut BTreeSet<Digest>) {
        let mut todo = vec![digest];
        while let Some(digest) = todo.pop() {
            if !found.insert(digest) {
                continue;
            }
            let Ok(bytes) = self.document(&digest) else {
                continue;
            };
            todo.extend(pointers(&bytes).into_iter().map(|pointer| pointer.digest));
        }
    }

    /// What a document leads to as far as it is here: itself first, each once, documents before
    /// the documents that they name.
    pub fn reachable(&self, root: &Pointer) -> Vec<Pointer> {
        let (mut found, mut todo) = (Vec::<Pointer>::new(), vec![root.clone()]);
        let mut seen = BTreeSet::new();
        while let Some(pointer) = todo.pop() {
            if !seen.insert(pointer.digest) {
                continue;
            }
            if is_document(&pointer.media_type)
                && let Ok(bytes) = self.document(&pointer.digest)
            {
                todo.extend(pointers(&bytes));
            }
            found.push(pointer);
        }
        found
    }

    /// Whether all that a document leads to is here.
    pub fn is_complete(&self, root: &Pointer) -> bool {
        self.reachable(root)
            .iter()
            .all(|pointer| self.path(&pointer.digest).is_some())
    }
}

/// Whether a media type is that of an index or manifest.
pub fn is_document(media_type: &str) -> bool {
    media_type.contains("manifest") || media_type.contains("image.index")
}

/// What an index or manifest names; nothing for what is neither.
pub fn pointers(bytes: &[u8]) -> Vec<Pointer> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        manifests: Option<Vec<Pointer>>,
        #[serde(default)]
        config: Option<Pointer>,
        #[serde(default)]
        layers: Option<Vec<Pointer>>,
        #[serde(default)]
        blobs: Option<Vec<Pointer>>,
    }
    if bytes.first() != Some(&b'{') {
        return Vec::new();
    }
    let Ok(document) = serde_json::from_slice::<Document>(bytes) else {
        return Vec::new();
    };
    let mut found: Vec<Pointer> = document.config.into_iter().collect();
    found.extend(document.layers.into_iter().flatten());
    found.extend(document.blobs.into_iter().flatten());
    found.extend(document.manifests.into_iter().flatten());
    found
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other("it is too large"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::digest_of;

    fn store() -> (tempfile::TempDir, ContentStore) {
        let dir = tempfile::tempdir().expect("dir");
        let store = ContentStore::open(&dir.path().join("content")).expect("open");
        (dir, store)
    }

    fn root(store: &ContentStore, text: &str) -> Root {
        let digest = store.keep_bytes(text.as_bytes()).expect("keep");
        Root {
            document: Pointer {
                media_type: "application/vnd.oci.image.manifest.v1+json".into(),
                digest,
                size: text.len() as u64,
            },
            image: None,
            complete: true,
            referrers: Vec::new(),
            stored: String::new(),
        }
    }

    #[test]
    fn keep_refuses_what_is_not_promised_and_leaves_nothing() {
        let (_dir, store) = store();
        let digest = digest_of(b"right");
        let keep = |mut bytes: &[u8]| store.keep(&digest, 5, &mut bytes, &|_| {});
        assert!(matches!(keep(b"wrong"), Err(KeepError::Digest { .. })));
        assert!(matches!(keep(b"right!"), Err(KeepError::Size { .. })));
        assert!(matches!(keep(b"righ"), Err(KeepError::Size { .. })));
        assert_eq!(store.path(&digest), None);
        assert_eq!(fs::read_dir(store.tmp()).expect("tmp").count(), 0);
        keep(b"right").expect("keep");
        assert!(store.path(&digest).is_some());
    }

    #[test]
    fn sweep_keeps_what_a_root_leads_to_and_survives_a_restart() {
        let (dir, store) = store();
        let layer = store.keep_bytes(b"layer").expect("keep");
        let stray = store.keep_bytes(b"stray").expect("keep");
        let manifest = format!(
            r#"{{"schemaVersion":2,"layers":[{{"mediaType":"x","digest":"{layer}","size":5}}]}}"#
        );
        let kept = root(&store, &manifest);
        let name: Reference = "reg.example/a:1".parse().expect("name");
        store.set_root(&name, kept.clone()).expect("set");
        {
            let _keeper = store.keeper();
            assert_eq!(store.sweep(&|_, _| true).expect("sweep"), 0);
            assert!(store.path(&stray).is_some());
        }
        assert_eq!(store.sweep(&|_, _| true).expect("sweep"), 5);
        assert_eq!(store.path(&stray), None);
        assert!(store.is_complete(&kept.document));
        drop(store);
        let store = ContentStore::open(&dir.path().join("content")).expect("open");
        assert_eq!(store.root(&name), Some(kept));
        store.sweep(&|_, _| false).expect("sweep");
        assert_eq!(store.root(&name), None);
        assert_eq!(store.disk_usage(), 0);
    }

    #[test]
    fn pointers_of_what_is_no_document_are_none() {
        for bytes in [&b""[..], b"{", b"[]", b"\x1f\x8b", b"{\"layers\":3}"] {
            assert!(pointers(bytes).is_empty());
        }
    }
}
