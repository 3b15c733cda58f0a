//! `import`: a root file system tar becomes an image of one layer.

use std::io::Read;

use hull_model::image::{History, RootFs};
use hull_model::{ImageConfig, Reference};

use crate::archive::LoadError;
use crate::builtin::config_bytes;
use crate::change;
use crate::store::{Image, ImageStore, LayerProgress, NewImage, now};
use crate::unpack::Expectation;

/// What the new image shall be like.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Dockerfile instructions that change its configuration.
    pub changes: Vec<String>,
    /// Comment in the history.
    pub message: String,
    /// Its name.
    pub name: Option<Reference>,
    /// `os/architecture[/variant]`, if not this host's.
    pub platform: Option<String>,
}

impl ImageStore {
    /// Imports a tar, plain, gzip or zstd. Returns the image and what had to be left out of it.
    ///
    /// # Errors
    /// See [`LoadError`]. The store is then as it was.
    pub fn import(
        &self,
        input: &mut (dyn Read + Send),
        options: &ImportOptions,
        progress: &(dyn Fn(LayerProgress) + Sync),
    ) -> Result<(Image, Vec<String>), LoadError> {
        let created = now();
        let mut config = ImageConfig {
            architecture: crate::platform::architecture().into(),
            os: crate::platform::OS.into(),
            created: Some(created.clone()),
            history: vec![History {
                created: Some(created),
                comment: Some(options.message.clone()),
                ..History::default()
            }],
            ..ImageConfig::default()
        };
        if let Some(platform) = &options.platform {
            let mut parts = platform.split('/').map(str::to_owned);
            if let (Some(os), Some(architecture)) = (parts.next(), parts.next()) {
                config.os = os;
                config.architecture = architecture;
                config.variant = parts.next();
            }
        }
        // Before the stream is read: a mistake in a change costs no time.
        for text in &options.changes {
            change::apply(&mut config.config, text)?;
        }
        let mut transaction = self.begin()?;
        let (diff_id, bytes) =
            transaction.ingest_stream("import", input, Expectation::default(), progress)?;
        if bytes == 0 {
            return Err(LoadError::Empty);
        }
        config.rootfs = RootFs {
            diff_ids: vec![diff_id],
            ..RootFs::default()
        };
        let warnings = transaction.warnings();
        let mut images = transaction.commit(vec![NewImage {
            config: config_bytes(&config)?,
            comment: options.message.clone(),
            names: options.name.iter().cloned().collect(),
            ..NewImage::default()
        }])?;
        let image = images
            .pop()
            .ok_or_else(|| LoadError::Corrupt("it gave no image".into()))?;
        Ok((image, warnings))
    }
}
