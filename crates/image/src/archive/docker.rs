//! docker-archive: `manifest.json` lists for each image its configuration, tags and layers.

use hull_model::Digest;
use serde::Deserialize;

use super::spool::Spool;
use super::{LoadError, Plan, PlannedConfig};
use crate::hash::digest_of;
use crate::limits::{LimitError, MAX_CONFIG_BYTES, MAX_IMAGES, MAX_MANIFEST_BYTES};

/// Name of the document.
pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images that the document lists.
pub(super) fn plans(spool: &Spool) -> Result<Vec<Plan>, LoadError> {
    let bytes = spool.document(
        MANIFEST,
        MANIFEST,
        ("MAX_MANIFEST_BYTES", MAX_MANIFEST_BYTES),
    )?;
    let items: Vec<Item> = serde_json::from_slice(&bytes)
        .map_err(|source| LoadError::Document(MANIFEST.into(), source))?;
    if items.len() > MAX_IMAGES {
        return Err(LimitError::Images {
            found: items.len(),
            limit: MAX_IMAGES,
        }
        .into());
    }
    items.into_iter().map(|item| plan(spool, item)).collect()
}

fn plan(spool: &Spool, item: Item) -> Result<Plan, LoadError> {
    spool.check(&item.config)?;
    let config = spool.document(
        &item.config,
        "image configuration",
        ("MAX_CONFIG_BYTES", MAX_CONFIG_BYTES),
    )?;
    // Writers name the member after its digest; where they do, it must be right.
    let stem = item.config.strip_suffix(".json");
    if let Some(Ok(expected)) = stem.map(Digest::from_hex) {
        let found = digest_of(&config);
        if found != expected {
            return Err(LoadError::Digest {
                name: item.config,
                expected,
                found,
            });
        }
    }
    let mut names = Vec::new();
    for tag in item.repo_tags.unwrap_or_default() {
        names.push(hull_model::Reference::parse_archived(&tag).map_err(LoadError::Name)?);
    }
    Ok(Plan {
        config: PlannedConfig::Known(config),
        layers: item.layers.unwrap_or_default(),
        names,
        manifest: None,
    })
}
