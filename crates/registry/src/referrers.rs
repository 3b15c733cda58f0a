//! Referrers: documents about another one, such as signatures and bills of materials.
//!
//! A registry that knows the referrers API lists them; on one that does not, the list is the index
//! under the tag `sha256-HEX` (distribution specification, "Referrers Tag Schema").

use hull_model::Digest;
use reqwest::Method;
use reqwest::header::ACCEPT;

use crate::client::{Intent, Repository, digest_of, whole};
use crate::document::media;
use crate::{Descriptor, Document, Index, Parsed, RegistryError};

/// Largest list of referrers.
const MAX_LIST_BYTES: u64 = 4 << 20;
/// Most referrers of one document.
const MAX_REFERRERS: usize = 1_000;

/// The tag that stands for the list of a document's referrers.
pub fn fallback_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

impl Repository {
    /// What refers to a document here, by whichever way the registry tells it.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let index = match self.referrers_by_api(digest).await? {
            Some(index) => Some(index),
            None => self.referrers_by_tag(digest).await?,
        };
        let found = index.map(|index| index.manifests).unwrap_or_default();
        if found.len() > MAX_REFERRERS {
            return Err(RegistryError::Limit {
                what: format!("list of the referrers of {digest}"),
                name: "MAX_REFERRERS",
                limit: MAX_REFERRERS as u64,
            });
        }
        Ok(found)
    }

    /// None if the registry does not know the API.
    async fn referrers_by_api(&self, digest: &Digest) -> Result<Option<Index>, RegistryError> {
        let what = format!("referrers of {digest} in {}", self.name());
        let path = format!("referrers/{digest}");
        let asked = self
            .ask(Intent::Resolve, Method::GET, &path, &what, |request| {
                request.header(ACCEPT, media::OCI_INDEX)
            })
            .await;
        let (link, mut answer) = match asked {
            Ok(answered) => answered,
            Err(RegistryError::NotFound { .. } | RegistryError::Status { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = whole(&link, &mut answer, &what, "MAX_LIST_BYTES", MAX_LIST_BYTES).await?;
        let document = Document {
            digest: digest_of(&bytes),
            media_type: media::OCI_INDEX.to_owned(),
            bytes,
        };
        match document.parse() {
            Ok(Parsed::Index(index)) => Ok(Some(index)),
            // Some answer unknown paths with a page for people.
            _ => Ok(None),
        }
    }

    async fn referrers_by_tag(&self, digest: &Digest) -> Result<Option<Index>, RegistryError> {
        match self.manifest(&fallback_tag(digest)).await {
            Ok(document) => match document.parse()? {
                Parsed::Index(index) => Ok(Some(index)),
                Parsed::Manifest(_) => Ok(None),
            },
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends the manifest of a referrer and has the registry list it: by itself where it knows
    /// the API, else in the index under the fallback tag.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn put_referrer(
        &self,
        subject: &Digest,
        descriptor: &Descriptor,
        document: &Document,
    ) -> Result<(), RegistryError> {
        self.put_manifest(&document.digest.to_string(), document)
            .await?;
        if self.referrers_by_api(subject).await?.is_some() {
            return Ok(());
        }
        let known = self.referrers_by_tag(subject).await?;
        let mut list = known.map(|index| index.manifests).unwrap_or_default();
        if list.iter().any(|one| one.digest == descriptor.digest) {
            return Ok(());
        }
        list.push(descriptor.clone());
        let bytes = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_INDEX,
            "manifests": list,
        }))
        .map_err(|error| RegistryError::Source(error.to_string()))?;
        let index = Document {
            digest: digest_of(&bytes),
            media_type: media::OCI_INDEX.to_owned(),
            bytes,
        };
        self.put_manifest(&fallback_tag(subject), &index).await
    }
}
