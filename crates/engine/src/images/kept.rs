//! What is kept as it came: indexes, artifacts, images of other platforms, referrers.

use std::collections::{BTreeMap, BTreeSet};

use hull_image::archive::SaveKept;
use hull_image::content::{ContentStore, Pointer, Root, is_document};
use hull_image::store::Removed;
use hull_model::{Digest, Error, Reference, Result};
use hull_registry::{Descriptor, Document, Parsed};

use super::{Images, blocking, name_fact};
use crate::Engine;

/// Something that a registry had and that is no image of this host's platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its names, sorted.
    pub names: Vec<Reference>,
    /// Its manifest or index.
    pub document: Pointer,
    /// What it is: the type of the artifact, or the media type of an index.
    pub kind: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Bytes of all its blobs.
    pub size: u64,
    /// When it came, RFC 3339.
    pub stored: String,
}

/// An index or manifest that an image or artifact came with, and what is known around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The document.
    pub document: Pointer,
    /// The entries of an index, with whether all of each is here.
    pub manifests: Vec<(Descriptor, bool)>,
    /// Documents about it.
    pub referrers: Vec<serde_json::Value>,
}

impl Images {
    /// What a name leads to, if it still means what it meant when that was kept.
    pub(crate) fn kept(&self, name: &Reference) -> Option<Root> {
        let root = self.content.root(name)?;
        (self.store.find(name).map(|image| image.id()) == root.image).then_some(root)
    }

    /// Removes what no name leads to.
    pub(crate) fn sweep_kept(&self) -> Result<u64> {
        let counts = |name: &str, root: &Root| {
            name.parse::<Reference>()
                .is_ok_and(|name| self.store.find(&name).map(|image| image.id()) == root.image)
        };
        Ok(self.content.sweep(&counts)?)
    }

    /// The root of an artifact by a name, a digest or the beginning of one; and its names.
    pub(crate) fn artifact_root(&self, key: &str) -> Option<(Vec<Reference>, Root)> {
        let hex = key.strip_prefix("sha256:").unwrap_or(key);
        let prefix = hex.len() >= 4 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let name: Option<Reference> = key.parse().ok();
        let all: Vec<_> = self
            .content
            .roots()
            .into_iter()
            .filter(|(name, root)| root.image.is_none() && self.kept(name).is_some())
            .collect();
        let wanted = all
            .iter()
            .find(|(known, _)| Some(known) == name.as_ref())
            .or_else(|| {
                all.iter().find(|(known, root)| {
                    let by_digest = name.as_ref().is_some_and(|name| {
                        name.digest == Some(root.document.digest)
                            && (&name.domain, &name.path) == (&known.domain, &known.path)
                    });
                    by_digest || prefix && root.document.digest.hex().starts_with(hex)
                })
            })
            .map(|(_, root)| root.clone())?;
        let names = all
            .into_iter()
            .filter(|(_, root)| root.document.digest == wanted.document.digest)
            .map(|(name, _)| name)
            .collect();
        Some((names, wanted))
    }

    /// What is saved as it came: an artifact, or an image of which all platforms are here.
    pub(crate) fn save_kept(&self, key: &str) -> Option<SaveKept> {
        let name: Option<Reference> = key.parse().ok();
        let named = name.and_then(|name| Some((self.kept(&name)?, name)));
        let (root, name) = match named.filter(|(root, _)| root.complete) {
            Some(found) => found,
            None => {
                let (names, root) = self.artifact_root(key)?;
                (root, names.into_iter().next()?)
            }
        };
        let blobs = self.content.reachable(&root.document);
        let blobs = blobs
            .into_iter()
            .map(|pointer| {
                let path = self.content.path(&pointer.digest)?;
                Some((pointer, path))
            })
            .collect::<Option<Vec<_>>>()?;
        Some(SaveKept {
            name,
            document: root.document,
            blobs,
        })
    }

    fn artifact_of(&self, names: Vec<Reference>, root: &Root) -> Artifact {
        let mut kind = root.document.media_type.clone();
        let mut annotations = BTreeMap::new();
        if let Ok(document) = read(&self.content, &root.document)
            && let Ok(Parsed::Manifest(manifest)) = document.parse()
        {
            kind = manifest.kind().to_owned();
            annotations = manifest.annotations;
        }
        let reachable = self.content.reachable(&root.document);
        Artifact {
            names,
            document: root.document.clone(),
            kind,
            annotations,
            size: reachable.iter().map(|pointer| pointer.size).sum(),
            stored: root.stored.clone(),
        }
    }
}

/// A document of the store.
pub(super) fn read(content: &ContentStore, pointer: &Pointer) -> Result<Document> {
    Ok(Document {
        bytes: content.document(&pointer.digest)?,
        media_type: pointer.media_type.clone(),
        digest: pointer.digest,
    })
}

impl Engine {
    /// All artifacts.
    pub fn artifacts(&self) -> Vec<Artifact> {
        let mut groups: BTreeMap<Digest, (Vec<Reference>, Root)> = BTreeMap::new();
        for (name, root) in self.images.content.roots() {
            if root.image.is_none() && self.images.kept(&name).is_some() {
                let group = groups.entry(root.document.digest);
                group.or_insert_with(|| (Vec::new(), root)).0.push(name);
            }
        }
        groups
            .into_values()
            .map(|(names, root)| self.images.artifact_of(names, &root))
            .collect()
    }

    /// One artifact, by a name or by its digest.
    pub fn artifact(&self, key: &str) -> Option<Artifact> {
        let (names, root) = self.images.artifact_root(key)?;
        Some(self.images.artifact_of(names, &root))
    }

    /// What was kept of an image's or artifact's name.
    pub fn kept(&self, key: &str) -> Option<Kept> {
        let root = match key
            .parse::<Reference>()
            .ok()
            .and_then(|n| self.images.kept(&n))
        {
            Some(root) => root,
            // By its id: whatever name of it has something.
            None => match self.images.store.resolve(key) {
                Ok(image) => image
                    .tags
                    .iter()
                    .chain(&image.digests)
                    .find_map(|name| self.images.kept(name))?,
                Err(_) => self.images.artifact_root(key)?.1,
            },
        };
        let content = &self.images.content;
        let mut manifests = Vec::new();
        if let Ok(document) = read(content, &root.document)
            && let Ok(Parsed::Index(index)) = document.parse()
        {
            for entry in index.manifests {
                let pointer = Pointer {
                    media_type: entry.media_type.clone(),
                    digest: entry.digest,
                    size: entry.size,
                };
                let here = content.is_complete(&pointer);
                manifests.push((entry, here));
            }
        }
        Some(Kept {
            document: root.document,
            manifests,
            referrers: root.referrers.into_iter().map(|(_, one)| one).collect(),
        })
    }

    /// Gives what is kept under one name another name, too. True for an artifact, which has no
    /// image that could be named.
    pub(crate) async fn tag_kept(&self, from: &str, to: &Reference) -> Result<bool> {
        let named: Option<Root> = from.parse().ok().and_then(|name| self.images.kept(&name));
        let artifact = self.images.artifact_root(from).map(|(_, root)| root);
        let Some(root) = named.or(artifact) else {
            return Ok(false);
        };
        let is_artifact = root.image.is_none();
        if is_artifact && self.images.store.find(to).is_some() {
            return Err(in_use(to));
        }
        let (content, to) = (self.images.content.clone(), to.clone());
        blocking(move || Ok(content.set_root(&to, root)?)).await?;
        Ok(is_artifact)
    }

    /// Removes an artifact by a name of it, or by its digest with all its names. None if there is
    /// no such artifact.
    pub(crate) async fn remove_artifact(&self, key: &str) -> Result<Option<Vec<Removed>>> {
        let Some((names, root)) = self.images.artifact_root(key) else {
            return Ok(None);
        };
        let named = key.parse::<Reference>().ok();
        let mut gone: Vec<Reference> = match named.filter(|name| names.contains(name)) {
            Some(name) => vec![name],
            None => names.clone(),
        };
        // With the last tag of a repository its names by digest go, too.
        let tagged = |name: &Reference| name.digest.is_none() && !gone.contains(name);
        let repositories: BTreeSet<(String, String)> = names
            .iter()
            .filter(|name| tagged(name))
            .map(|name| (name.domain.clone(), name.path.clone()))
            .collect();
        let alone: Vec<Reference> = names
            .iter()
            .filter(|name| {
                name.digest.is_some()
                    && !gone.contains(name)
                    && !repositories.contains(&(name.domain.clone(), name.path.clone()))
            })
            .cloned()
            .collect();
        gone.extend(alone);
        let last = gone.len() == names.len();
        let content = self.images.content.clone();
        let taken = gone.clone();
        blocking(move || {
            for name in &taken {
                content.forget(name)?;
            }
            Ok(())
        })
        .await?;
        self.sweep_kept().await?;
        for name in &gone {
            let text = name.familiar();
            self.events.emit("image", "untag", &text, name_fact(&text));
        }
        let mut removed: Vec<Removed> = gone
            .iter()
            .map(|name| Removed::Untagged(name.familiar()))
            .collect();
        removed.extend(last.then_some(Removed::Deleted(root.document.digest)));
        Ok(Some(removed))
    }

    /// Removes what no name leads to any more.
    pub(crate) async fn sweep_kept(&self) -> Result<u64> {
        let (store, content) = (self.images.store.clone(), self.images.content.clone());
        blocking(move || {
            let counts = |name: &str, root: &Root| {
                name.parse::<Reference>()
                    .is_ok_and(|name| store.find(&name).map(|image| image.id()) == root.image)
            };
            Ok(content.sweep(&counts)?)
        })
        .await
    }
}

/// The name belongs to an image.
pub(super) fn in_use(name: &Reference) -> Error {
    Error::conflict(format!(
        "{} is the name of an image: remove that first (hull rmi)",
        name.familiar()
    ))
}

/// The present in RFC 3339.
pub(super) fn now() -> String {
    time::OffsetDateTime::now_utc()
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

/// A document's own pointer.
pub(super) fn pointer(document: &Document) -> Pointer {
    let media_type = if is_document(&document.media_type) {
        document.media_type.clone()
    } else {
        own_type(&document.bytes)
    };
    Pointer {
        media_type,
        digest: document.digest,
        size: document.bytes.len() as u64,
    }
}

/// What a document says that it is, or what its members say.
fn own_type(bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    match value.get("mediaType").and_then(|text| text.as_str()) {
        Some(text) if is_document(text) => text.to_owned(),
        _ if value.get("manifests").is_some() => hull_registry::media::OCI_INDEX.to_owned(),
        _ => hull_registry::media::OCI_MANIFEST.to_owned(),
    }
}
