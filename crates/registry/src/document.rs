//! Manifests and indexes: the few fields that are needed, of both families of media types.

use std::collections::BTreeMap;

use hull_model::Digest;
use serde::{Deserialize, Serialize};

use crate::RegistryError;
use crate::link::harmless;
use crate::platform::Wanted;

/// Media types.
pub mod media {
    /// Docker's manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, gzip.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// OCI manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, gzip.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// What is asked for.
    pub(crate) const ACCEPT: [&str; 4] = [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX];
}

/// Most entries of an index, and most layers listed.
const MAX_ENTRIES: usize = 4_096;

/// A document as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Byte for byte.
    pub bytes: Vec<u8>,
    /// As the registry says, or as the document itself does.
    pub media_type: String,
    /// Of the bytes.
    pub digest: Digest,
}

/// What a descriptor points to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type.
    #[serde(default)]
    pub media_type: String,
    /// Digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformOf>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Where a blob that is not in the registry can be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

/// A platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformOf {
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system.
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// What the operating system must have.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

impl PlatformOf {
    /// `os/architecture[/variant]`.
    pub fn text(&self) -> String {
        match &self.variant {
            Some(variant) => format!("{}/{}/{variant}", self.os, self.architecture),
            None => format!("{}/{}", self.os, self.architecture),
        }
    }
}

/// An index or manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Its entries.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// The best entry for `os/architecture[/variant]`.
    pub fn choose(&self, wanted: &str) -> Option<&Descriptor> {
        let wanted = Wanted::read(wanted);
        let mut real = self
            .manifests
            .iter()
            .filter(|entry| !is_about_another(entry));
        let rank = |entry: &&Descriptor| wanted.rank(entry.platform.as_ref()?);
        real.clone()
            .filter_map(|entry| Some((rank(&entry)?, entry)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
            .or_else(|| {
                // An index of a single image that names no platform.
                let only = real.next()?;
                (real.next().is_none() && only.platform.is_none()).then_some(only)
            })
    }

    /// Its platforms, for a message.
    pub fn platforms(&self) -> Vec<String> {
        self.manifests
            .iter()
            .filter(|entry| !is_about_another(entry))
            .filter_map(|entry| Some(harmless(&entry.platform.as_ref()?.text())))
            .collect()
    }
}

/// Attestations and the like, which stand beside the images of an index.
pub fn is_about_another(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
        || entry.platform.as_ref().is_some_and(|p| p.os == "unknown")
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Configuration.
    pub config: Descriptor,
    /// Layers from the bottom up.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// What it is about, for a referrer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Whether it is a container image, and no artifact of another kind.
    pub fn is_image(&self) -> bool {
        let config = self.config.media_type.as_str();
        let known = config.is_empty()
            || matches!(
                config,
                media::DOCKER_CONFIG | media::OCI_CONFIG | "application/octet-stream"
            );
        let layers = self
            .layers
            .iter()
            .all(|layer| layer.media_type.is_empty() || layer.media_type.contains("tar"));
        known && layers
    }

    /// What kind of artifact it is.
    pub fn kind(&self) -> &str {
        match &self.artifact_type {
            Some(kind) if !kind.is_empty() => kind,
            _ => &self.config.media_type,
        }
    }
}

/// What a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// One for each platform.
    Index(Index),
    /// One image or artifact.
    Manifest(Box<Manifest>),
}

impl Document {
    /// Reads it. What it is follows from its members, since media types are often wrong or absent;
    /// a document that could be both is refused (CVE-2021-41190).
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(&self) -> Result<Parsed, RegistryError> {
        let wrong = |why: String| RegistryError::Malformed {
            what: format!("manifest {}", self.digest),
            why,
        };
        hull_model::json::check_values(&self.bytes).map_err(|e| wrong(e.to_string()))?;
        let value: serde_json::Value =
            serde_json::from_slice(&self.bytes).map_err(|e| wrong(e.to_string()))?;
        let has = |name: &str| value.get(name).is_some_and(|member| !member.is_null());
        if has("manifests") && (has("layers") || has("config")) {
            return Err(wrong("it is an index and a manifest at once".to_owned()));
        }
        if has("fsLayers") || value.get("schemaVersion") == Some(&1.into()) {
            return Err(wrong(
                "Docker's schema 1 is out of use: build or push the image anew".to_owned(),
            ));
        }
        if has("manifests") {
            let index: Index = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
            if index.manifests.len() > MAX_ENTRIES {
                return Err(wrong(format!("more than {MAX_ENTRIES} entries")));
            }
            return Ok(Parsed::Index(index));
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
        if manifest.layers.len() > MAX_ENTRIES {
            return Err(wrong(format!("more than {MAX_ENTRIES} layers")));
        }
        Ok(Parsed::Manifest(Box::new(manifest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document {
            bytes: text.as_bytes().to_vec(),
            media_type: String::new(),
            digest: Digest::from_bytes([0; 32]),
        }
    }

    fn digest(n: u8) -> String {
        Digest::from_bytes([n; 32]).to_string()
    }

    #[test]
    fn parse_both_at_once_and_schema_1_are_refused() {
        for (text, part) in [
            (
                r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
                "at once",
            ),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
            ("[]", "manifest sha256"),
            (
                r#"{"schemaVersion":2,"config":{"digest":"sha256:x","size":1}}"#,
                "",
            ),
        ] {
            let error = document(text).parse().expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn choose_takes_the_platform_and_leaves_attestations() {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[
            {{"digest":"{}","size":1,"platform":{{"os":"unknown","architecture":"unknown"}}}},
            {{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}},
            {{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
            digest(1),
            digest(2),
            digest(3)
        );
        let Parsed::Index(index) = document(&text).parse().expect("index") else {
            panic!("no index")
        };
        let chosen = |wanted| index.choose(wanted).map(|d| d.digest.to_string());
        assert_eq!(chosen("linux/amd64"), Some(digest(3)));
        assert_eq!(chosen("linux/arm"), Some(digest(2)));
        assert_eq!(chosen("linux/s390x"), None);
        assert_eq!(index.platforms(), ["linux/arm/v7", "linux/amd64"]);
    }
}
