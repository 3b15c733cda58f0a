//! The oldest docker-archive: `repositories` names the uppermost layer of each image, and each
//! layer's directory has a `json` document that names its parent.

use std::collections::BTreeMap;

use hull_model::image::{History, RunConfig};
use hull_model::{ImageConfig, Reference};
use serde::Deserialize;

use super::spool::Spool;
use super::{LoadError, Plan, PlannedConfig};
use crate::limits::{LimitError, MAX_CONFIG_BYTES, MAX_IMAGES, MAX_LAYERS, MAX_MANIFEST_BYTES};

/// Name of the document.
pub(super) const REPOSITORIES: &str = "repositories";

/// The document of one layer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct V1 {
    parent: Option<String>,
    created: Option<String>,
    author: Option<String>,
    comment: Option<String>,
    architecture: Option<String>,
    os: Option<String>,
    config: Option<RunConfig>,
    container_config: Option<RunConfig>,
}

/// The images that the document lists.
pub(super) fn plans(spool: &Spool) -> Result<Vec<Plan>, LoadError> {
    let bytes = spool.document(
        REPOSITORIES,
        REPOSITORIES,
        ("MAX_MANIFEST_BYTES", MAX_MANIFEST_BYTES),
    )?;
    let repositories: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&bytes)
            .map_err(|source| LoadError::Document(REPOSITORIES.into(), source))?;
    let found = repositories.values().map(BTreeMap::len).sum();
    if found > MAX_IMAGES {
        return Err(LimitError::Images {
            found,
            limit: MAX_IMAGES,
        }
        .into());
    }
    let mut plans = BTreeMap::<String, Plan>::new();
    for (repository, tags) in repositories {
        for (tag, top) in tags {
            let name = Reference::parse_archived(&format!("{repository}:{tag}"))
                .map_err(LoadError::Name)?;
            let plan = match plans.remove(&top) {
                Some(plan) => plan,
                None => plan(spool, &top)?,
            };
            let plan = plans.entry(top).or_insert(plan);
            plan.names.push(name);
        }
    }
    Ok(plans.into_values().collect())
}

fn plan(spool: &Spool, top: &str) -> Result<Plan, LoadError> {
    let mut layers = Vec::new();
    let mut history = Vec::new();
    let mut config: Option<ImageConfig> = None;
    let mut next = Some(top.to_owned());
    while let Some(id) = next {
        if layers.len() >= MAX_LAYERS {
            return Err(LimitError::Layers {
                found: layers.len() + 1,
                limit: MAX_LAYERS,
            }
            .into());
        }
        let name = format!("{id}/json");
        let bytes = spool.document(
            &name,
            "image configuration",
            ("MAX_CONFIG_BYTES", MAX_CONFIG_BYTES),
        )?;
        let v1: V1 =
            serde_json::from_slice(&bytes).map_err(|source| LoadError::Document(name, source))?;
        layers.push(format!("{id}/layer.tar"));
        let command = v1.container_config.as_ref().map(|c| c.cmd.join(" "));
        history.push(History {
            created: v1.created.clone(),
            created_by: command,
            author: v1.author.clone(),
            comment: v1.comment,
            empty_layer: false,
        });
        if config.is_none() {
            config = Some(ImageConfig {
                architecture: v1
                    .architecture
                    .unwrap_or_else(|| crate::platform::architecture().into()),
                os: v1.os.unwrap_or_else(|| crate::platform::OS.into()),
                created: v1.created,
                author: v1.author,
                config: v1.config.unwrap_or_default(),
                ..ImageConfig::default()
            });
        }
        next = v1.parent.filter(|parent| !parent.is_empty());
    }
    layers.reverse();
    history.reverse();
    let mut config = config.unwrap_or_default();
    config.history = history;
    Ok(Plan {
        config: PlannedConfig::Legacy(Box::new(config)),
        layers,
        names: Vec::new(),
        manifest: None,
    })
}
