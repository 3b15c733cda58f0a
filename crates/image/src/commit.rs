//! `commit`: what a container wrote becomes one more layer on its image.

use hull_model::image::{History, RunConfig};
use hull_model::{ErrorKind, ImageConfig, Reference};

use crate::builtin::config_bytes;
use crate::limits::LimitError;
use crate::store::{CaptureError, Image, ImageStore, NewImage, StoreError, Upper, now};

/// What the new image shall be like.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// How processes of it run by default.
    pub config: RunConfig,
    /// The command that made what is committed, for the history.
    pub created_by: String,
    /// Who commits.
    pub author: String,
    /// Free text for the history.
    pub message: String,
    /// Its name.
    pub name: Option<Reference>,
}

/// Why nothing was committed. The store is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The layer could not be made.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The image would have too many layers.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CommitError> for hull_model::Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) | CommitError::Capture(CaptureError::Store(error)) => {
                error.into()
            }
            CommitError::Limit(error) => {
                crate::store::from_chain(ErrorKind::InvalidArgument, error)
            }
            CommitError::Capture(error) => {
                let kind = match &error {
                    CaptureError::Write { source, .. } => crate::store::io_kind(source),
                    _ => ErrorKind::Internal,
                };
                crate::store::from_chain(kind, error)
            }
        }
    }
}

impl ImageStore {
    /// Makes an image of `parent` and what was written above it; without that, or if it is
    /// nothing, the image has no further layer.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit(
        &self,
        parent: &Image,
        upper: Option<Upper<'_>>,
        options: CommitOptions,
    ) -> Result<Image, CommitError> {
        let base = parent.config();
        let mut transaction = self.begin()?;
        transaction.pin_all(parent.record.layers())?;
        let layer = match upper {
            Some(upper) => transaction.capture(upper)?,
            None => None,
        };
        let mut rootfs = base.rootfs.clone();
        rootfs.diff_ids.extend(layer);
        let limit = self.limits().max_layers;
        let found = rootfs.diff_ids.len();
        if found > limit {
            return Err(LimitError::Layers { found, limit }.into());
        }
        let created = now();
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut history = base.history.clone();
        history.push(History {
            created: Some(created.clone()),
            created_by: some(&options.created_by),
            author: some(&options.author),
            comment: some(&options.message),
            empty_layer: layer.is_none(),
        });
        let config = ImageConfig {
            created: Some(created),
            author: some(&options.author),
            config: options.config,
            rootfs,
            history,
            ..base.clone()
        };
        let mut images = transaction.commit(vec![NewImage {
            config: config_bytes(&config)?,
            parent: Some(parent.id()),
            comment: options.message,
            names: options.name.into_iter().collect(),
            ..NewImage::default()
        }])?;
        images
            .pop()
            .ok_or_else(|| StoreError::not_found("the new image").into())
    }
}
