//! `load`: an archive from any stream becomes images, all of them or none.

use std::collections::BTreeSet;
use std::io::{self, Read};

use hull_model::{Digest, Reference};

use super::spool::{Spool, SpooledLayer};
use super::{LoadError, Plan, PlannedConfig, docker, kept, legacy, oci};
use crate::builtin::config_bytes;
use crate::content::ContentStore;
use crate::limits::{LimitError, Limits};
use crate::store::{
    Image, ImageStore, LayerJob, LayerProgress, LayerSource, NewImage, parse_config,
};
use crate::unpack::Expectation;

/// How far a load is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadProgress {
    /// So many bytes of the archive have been read.
    Reading {
        /// Bytes as they came, before decompression.
        bytes: u64,
    },
    /// A layer got further.
    Layer(LayerProgress),
}

/// A loaded image.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The image with all its names.
    pub image: Image,
    /// The names that the archive gave it.
    pub names: Vec<Reference>,
}

/// How an archive is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions<'a> {
    /// `os/architecture[/variant]`; this host's if none.
    pub platform: Option<&'a str>,
    /// Layers that the store has may be missing. Only for archives from whoever may use every
    /// image here, since it need not have the layers that it names.
    pub partial: bool,
    /// Where artifacts and whole indexes are kept; none to leave them out.
    pub content: Option<&'a ContentStore>,
}

/// What was loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Images.
    pub images: Vec<Loaded>,
    /// Names of artifacts, and of indexes that have no image for this host.
    pub kept: Vec<Reference>,
    /// What had to be left out.
    pub warnings: Vec<String>,
}

impl ImageStore {
    /// Loads every image of an archive: docker-archive or OCI layout, plain, gzip or zstd.
    /// `platform` (`os/architecture[/variant]`) chooses where there are several.
    /// Returns what was loaded and what had to be left out of it.
    ///
    /// # Errors
    /// See [`LoadError`]. The store is then as it was.
    pub fn load(
        &self,
        input: &mut dyn Read,
        platform: Option<&str>,
        progress: &(dyn Fn(LoadProgress) + Sync),
    ) -> Result<(Vec<Loaded>, Vec<String>), LoadError> {
        let options = LoadOptions {
            platform,
            ..LoadOptions::default()
        };
        let report = self.load_with(input, &options, progress)?;
        Ok((report.images, report.warnings))
    }

    /// As [`Self::load`], with more options.
    ///
    /// # Errors
    /// See [`LoadError`]. The store is then as it was.
    pub fn load_with(
        &self,
        input: &mut dyn Read,
        options: &LoadOptions<'_>,
        progress: &(dyn Fn(LoadProgress) + Sync),
    ) -> Result<LoadReport, LoadError> {
        let mut transaction = self.begin()?;
        let dir = transaction.dir().to_owned();
        let spool = Spool::read(input, &dir, self.limits(), &|bytes| {
            progress(LoadProgress::Reading { bytes });
        })?;
        let host = format!(
            "{}/{}",
            crate::platform::OS,
            crate::platform::architecture()
        );
        // Whoever names a platform wants that one alone.
        let content = options.content.filter(|_| options.platform.is_none());
        let keeper = content.map(ContentStore::keeper);
        let kept = match content {
            Some(_) => kept::entries(&spool)?,
            None => Vec::new(),
        };
        let artifacts = kept.iter().filter(|entry| entry.artifact);
        let mut others: BTreeSet<Digest> = artifacts.map(|entry| entry.digest()).collect();
        let plans = if spool.has(docker::MANIFEST) {
            docker::plans(&spool)?
        } else if spool.has(oci::INDEX) {
            let platform = options.platform.unwrap_or(&host);
            match oci::plans(&spool, platform, &others) {
                // All platforms are kept, and this host's is not among them.
                Err(LoadError::Platform { .. }) if !kept.is_empty() => {
                    others.extend(kept.iter().map(|entry| entry.digest()));
                    oci::plans(&spool, platform, &others)?
                }
                plans => plans?,
            }
        } else if spool.has(legacy::REPOSITORIES) {
            legacy::plans(&spool)?
        } else if spool.is_empty() {
            return Err(LoadError::Empty);
        } else if !spool.complete {
            return Err(LoadError::Truncated);
        } else {
            return Err(LoadError::NoManifest);
        };
        if plans.is_empty() && kept.is_empty() {
            return Err(LoadError::Corrupt("it lists no image".into()));
        }
        // All documents are judged before the first layer is unpacked.
        let here = |layer: &Digest| options.partial && self.layer(layer).is_some();
        let mut sources: Vec<(Source<'_>, Expectation)> = Vec::new();
        for plan in &plans {
            sources.extend(layers_of(plan, &spool, self.limits(), &here)?);
        }
        let jobs: Vec<LayerJob<'_>> = sources
            .iter()
            .map(|(source, expect)| LayerJob {
                source,
                expect: *expect,
            })
            .collect();
        let mut diff_ids = transaction
            .ingest(&jobs, &|layer| progress(LoadProgress::Layer(layer)))?
            .into_iter();
        drop(jobs);
        drop(sources);
        if let Some(content) = content {
            kept::keep(&spool, content, &kept)?;
        }
        drop(spool);
        let mut images = Vec::new();
        let mut names = Vec::new();
        for plan in plans {
            let own: Vec<Digest> = diff_ids.by_ref().take(plan.layers.len()).collect();
            names.push(plan.names.clone());
            images.push(NewImage {
                config: match plan.config {
                    PlannedConfig::Known(bytes) => bytes,
                    PlannedConfig::Legacy(mut config) => {
                        config.rootfs.diff_ids = own;
                        config_bytes(&config)?
                    }
                },
                manifest: plan.manifest,
                names: plan.names,
                ..NewImage::default()
            });
        }
        let warnings = transaction.warnings();
        let images = transaction.commit(images)?;
        if let Some(content) = content {
            let image = |name: &Reference| self.find(name).map(|image| image.id());
            kept::name(content, &kept, &image)?;
        }
        drop(keeper);
        let images: Vec<Loaded> = images
            .into_iter()
            .zip(names)
            .map(|(image, names)| Loaded { image, names })
            .collect();
        // Those that are images, too, are told as such.
        let told = |name: &Reference| images.iter().any(|image| image.names.contains(name));
        let kept = kept.into_iter().map(|entry| entry.name);
        let kept = kept.filter(|name| !told(name)).collect();
        Ok(LoadReport {
            images,
            kept,
            warnings,
        })
    }
}

/// Where a layer is.
enum Source<'s> {
    Spooled(SpooledLayer<'s>),
    /// In the store, by this name in the archive.
    Here(String),
}

impl LayerSource for Source<'_> {
    fn name(&self) -> String {
        match self {
            Self::Spooled(layer) => layer.name(),
            Self::Here(name) => name.clone(),
        }
    }

    fn packed_bytes(&self) -> u64 {
        match self {
            Self::Spooled(layer) => layer.packed_bytes(),
            Self::Here(_) => 0,
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send + '_>> {
        match self {
            Self::Spooled(layer) => layer.open(),
            // It was removed between the look and the use.
            Self::Here(name) => Err(io::Error::other(format!(
                "{name} is neither in the archive nor, any more, in the store"
            ))),
        }
    }
}

/// The layers of one image with what its configuration promises about them.
fn layers_of<'s>(
    plan: &Plan,
    spool: &'s Spool,
    limits: &Limits,
    here: &dyn Fn(&Digest) -> bool,
) -> Result<Vec<(Source<'s>, Expectation)>, LoadError> {
    let found = plan.layers.len();
    if found > limits.max_layers {
        return Err(LimitError::Layers {
            found,
            limit: limits.max_layers,
        }
        .into());
    }
    let promised: Vec<Option<Digest>> = match &plan.config {
        PlannedConfig::Legacy(_) => vec![None; found],
        PlannedConfig::Known(bytes) => {
            let config = parse_config(bytes)
                .map_err(|source| LoadError::Document("image configuration".into(), source))?;
            config.rootfs.diff_ids.into_iter().map(Some).collect()
        }
    };
    if promised.len() != found {
        return Err(LoadError::Corrupt(format!(
            "the manifest lists {found} layers, the image configuration {}",
            promised.len()
        )));
    }
    plan.layers
        .iter()
        .zip(promised)
        .map(|(name, diff_id)| {
            let expect = Expectation {
                diff_id,
                packed: None,
            };
            let source = match diff_id {
                Some(diff_id) if !spool.has(name) && here(&diff_id) => Source::Here(name.clone()),
                _ => Source::Spooled(spool.layer(name)?),
            };
            Ok((source, expect))
        })
        .collect()
}
