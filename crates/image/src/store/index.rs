//! The store's content in memory: every question is answered here, files are its durable copy.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use hull_model::{Digest, Reference};

use super::StoreError;
use super::record::{Image, ImageRecord, LayerMeta};

/// Names of images by full reference, `name:tag` and `name@digest`.
pub(crate) type Names = BTreeMap<String, Digest>;

#[derive(Debug, Default, Clone)]
pub(crate) struct Index {
    pub(crate) images: BTreeMap<Digest, Arc<ImageRecord>>,
    pub(crate) names: Names,
    pub(crate) by_image: HashMap<Digest, BTreeSet<String>>,
    pub(crate) layers: HashMap<Digest, Arc<LayerMeta>>,
    /// How many images and running transactions need a layer.
    pub(crate) layer_users: HashMap<Digest, usize>,
}

impl Index {
    pub(crate) fn set_names(&mut self, names: Names) {
        self.by_image.clear();
        for (name, id) in &names {
            self.by_image.entry(*id).or_default().insert(name.clone());
        }
        self.names = names;
    }

    pub(crate) fn add_image(&mut self, record: Arc<ImageRecord>) {
        if let Some(old) = self.images.insert(record.id, record.clone()) {
            self.release(old.layers());
        }
        self.retain(record.layers());
    }

    /// Takes an image out with its names: nobody finds it any more.
    pub(crate) fn take_image(&mut self, id: &Digest) -> Option<Taken> {
        let record = self.images.remove(id)?;
        self.release(record.layers());
        let names: Vec<String> = self.by_image.remove(id).into_iter().flatten().collect();
        for name in &names {
            self.names.remove(name);
        }
        Some(Taken { record, names })
    }

    /// Puts back what was taken.
    pub(crate) fn put_back(&mut self, taken: Taken) {
        let Taken { record, names } = taken;
        let id = record.id;
        self.add_image(record);
        for name in &names {
            self.names.insert(name.clone(), id);
        }
        self.by_image.entry(id).or_default().extend(names);
    }

    /// Whether an image was built upon this one.
    pub(crate) fn has_children(&self, id: &Digest) -> bool {
        self.images.values().any(|image| image.parent == Some(*id))
    }

    /// The images that one was built upon, the nearest first.
    pub(crate) fn ancestors(&self, record: &ImageRecord) -> Vec<Digest> {
        let mut row = Vec::new();
        let mut next = record.parent;
        while let Some(id) = next.filter(|id| !row.contains(id)) {
            let Some(record) = self.images.get(&id) else {
                break;
            };
            row.push(id);
            next = record.parent;
        }
        row
    }

    /// Documents that records need. Whoever keeps one more names it here, or it is swept.
    pub(crate) fn needed_blobs(&self) -> HashSet<Digest> {
        let images = self.images.values();
        images
            .flat_map(|image| std::iter::once(image.id).chain(image.manifest))
            .collect()
    }

    pub(crate) fn retain(&mut self, layers: &[Digest]) {
        for layer in layers {
            *self.layer_users.entry(*layer).or_default() += 1;
        }
    }

    pub(crate) fn release(&mut self, layers: &[Digest]) {
        for layer in layers {
            if let Some(users) = self.layer_users.get_mut(layer) {
                *users = users.saturating_sub(1);
                if *users == 0 {
                    self.layer_users.remove(layer);
                }
            }
        }
    }

    /// Takes out of the index every layer that nobody needs.
    pub(crate) fn take_unused_layers(&mut self) -> Vec<Arc<LayerMeta>> {
        let unused: Vec<Digest> = self
            .layers
            .keys()
            .filter(|id| !self.layer_users.contains_key(id))
            .copied()
            .collect();
        unused
            .iter()
            .filter_map(|id| self.layers.remove(id))
            .collect()
    }

    pub(crate) fn image(&self, record: &Arc<ImageRecord>) -> Image {
        let (mut tags, mut digests) = (Vec::new(), Vec::new());
        for name in self.by_image.get(&record.id).into_iter().flatten() {
            if let Ok(reference) = name.parse::<Reference>() {
                if reference.digest.is_some() {
                    digests.push(reference);
                } else {
                    tags.push(reference);
                }
            }
        }
        Image {
            record: record.clone(),
            tags,
            digests,
        }
    }

    pub(crate) fn by_id(&self, id: &Digest) -> Option<&Arc<ImageRecord>> {
        self.images.get(id)
    }

    /// Finds what a user's text means: a full id, a reference, or the beginning of an id.
    pub(crate) fn resolve(&self, text: &str) -> Result<(&Arc<ImageRecord>, Meaning), StoreError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(id) = Digest::from_hex(hex) {
            return match self.by_id(&id) {
                Some(record) => Ok((record, Meaning::Id)),
                None => Err(StoreError::not_found(text)),
            };
        }
        let reference = text.parse::<Reference>();
        if let Ok(reference) = &reference
            && let Some(record) = self.by_reference(reference)
        {
            return Ok((record, Meaning::Name(reference.clone())));
        }
        if let Some(range) = prefix_range(hex) {
            let mut found = self.images.range(range);
            if let Some((_, record)) = found.next() {
                if found.next().is_some() {
                    return Err(StoreError::Ambiguous {
                        prefix: text.to_owned(),
                    });
                }
                return Ok((record, Meaning::Id));
            }
        }
        match reference {
            Ok(reference) => Err(StoreError::not_found(&reference.familiar())),
            Err(source) => Err(StoreError::Reference(source)),
        }
    }

    pub(crate) fn by_reference(&self, reference: &Reference) -> Option<&Arc<ImageRecord>> {
        let id = self.names.get(&name_key(reference)).copied().or_else(|| {
            // `name@sha256:…` may carry an image id, as our own digests of unpulled images do.
            let id = reference.digest?;
            let prefix = format!("{}/{}", reference.domain, reference.path);
            let known = self.by_image.get(&id)?;
            known
                .iter()
                .any(|name| repository_of(name) == prefix)
                .then_some(id)
        })?;
        self.by_id(&id)
    }
}

/// An image on its way out.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) record: Arc<ImageRecord>,
    pub(crate) names: Vec<String>,
}

/// How a user named an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    Id,
    Name(Reference),
}

/// Key of a reference in [`Names`]: a digest wins over a tag.
pub(crate) fn name_key(reference: &Reference) -> String {
    match (&reference.tag, reference.digest) {
        (Some(_), Some(digest)) => format!("{}/{}@{digest}", reference.domain, reference.path),
        _ => reference.to_string(),
    }
}

/// The part of a key before tag or digest.
pub(crate) fn repository_of(key: &str) -> &str {
    if let Some((name, _)) = key.split_once('@') {
        return name;
    }
    match key.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => key,
    }
}

/// All digests that begin with the given hex digits.
fn prefix_range(hex: &str) -> Option<std::ops::RangeInclusive<Digest>> {
    if hex.is_empty() || hex.len() > 64 {
        return None;
    }
    let padded = |fill: &str| Digest::from_hex(&format!("{hex}{}", fill.repeat(64 - hex.len())));
    Some(padded("0").ok()?..=padded("f").ok()?)
}
