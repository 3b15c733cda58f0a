//! The two images that need no network: `hull/hello`, made from a static binary, and `host`, the
//! host's own root file system.

use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hull_model::image::{History, RootFs, RunConfig};
use hull_model::{ImageConfig, Reference};

use crate::store::{
    Image, ImageStore, IngestError, LayerJob, LayerSource, NewImage, RootKind, StoreError,
};
use crate::tar::{Kind, TarWriter, WriteEntry};
use crate::unpack::Expectation;

/// Name of the image that shows what an isolated process sees.
pub const HELLO: &str = "hull/hello";
/// Name of the image that is the host's own root.
pub const HOST: &str = "host";
/// Path of the binary in the image `hull/hello`.
const HELLO_PATH: &str = "/hello";
/// Search path of processes where an image names none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Creation time of what must be the same everywhere.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Why a built-in image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// The binary cannot be read.
    #[error("cannot read {} for the image {HELLO}", path.display())]
    Binary {
        /// Where it should be.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The layer could not be unpacked.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<BuiltinError> for hull_model::Error {
    fn from(error: BuiltinError) -> Self {
        match error {
            BuiltinError::Store(error) => error.into(),
            error => crate::store::from_chain(hull_model::ErrorKind::Internal, error),
        }
    }
}

/// A name that is known to be well formed.
fn name_of(name: &str) -> Result<Reference, StoreError> {
    name.parse().map_err(StoreError::Reference)
}

impl ImageStore {
    /// Makes sure that `hull/hello` holds the binary at `path`, and returns it. Cheap when it
    /// does: one stat.
    ///
    /// # Errors
    /// See [`BuiltinError`].
    pub fn ensure_hello(&self, path: &Path) -> Result<Image, BuiltinError> {
        let fail = |source| BuiltinError::Binary {
            path: path.to_owned(),
            source,
        };
        let meta = fs::metadata(path).map_err(fail)?;
        let stamp = format!(
            "{}:{}:{}:{}",
            meta.size(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        let name = name_of(HELLO)?;
        if let Some(image) = self.find(&name)
            && image.record.source_stamp.as_ref() == Some(&stamp)
        {
            return Ok(image);
        }
        let mut binary = Vec::new();
        File::open(path)
            .and_then(|mut file| file.read_to_end(&mut binary))
            .map_err(fail)?;
        let source = Bytes(one_file_tar(&binary).map_err(fail)?);
        let mut transaction = self.begin()?;
        let layers = transaction.ingest(
            &[LayerJob {
                source: &source,
                expect: Expectation::default(),
            }],
            &|_| {},
        )?;
        let config = ImageConfig {
            config: RunConfig {
                cmd: vec![HELLO_PATH.into()],
                env: vec![PATH.into()],
                working_dir: "/".into(),
                ..RunConfig::default()
            },
            rootfs: RootFs {
                diff_ids: layers,
                ..RootFs::default()
            },
            history: vec![History {
                created: Some(EPOCH.into()),
                created_by: Some(format!("COPY hull-agent {HELLO_PATH}")),
                ..History::default()
            }],
            ..base_config()
        };
        commit_one(
            transaction,
            NewImage {
                config: config_bytes(&config)?,
                source_stamp: Some(stamp),
                names: vec![name],
                ..NewImage::default()
            },
        )
    }

    /// Makes sure that the image `host` exists, and returns it.
    ///
    /// # Errors
    /// See [`BuiltinError`].
    pub fn ensure_host(&self) -> Result<Image, BuiltinError> {
        let name = name_of(HOST)?;
        if let Some(image) = self.find(&name)
            && image.record.root == RootKind::Host
        {
            return Ok(image);
        }
        commit_one(
            self.begin()?,
            NewImage {
                config: host_config()?,
                root: RootKind::Host,
                source_stamp: Some(HOST.into()),
                names: vec![name],
                ..NewImage::default()
            },
        )
    }
}

fn commit_one(
    transaction: crate::store::Transaction<'_>,
    image: NewImage,
) -> Result<Image, BuiltinError> {
    let mut images = transaction.commit(vec![image])?;
    images
        .pop()
        .ok_or_else(|| StoreError::not_found(HELLO).into())
}

/// Configuration of the image `host`. An archive that brings the same document would share its id
/// and with it the host's root, so the store refuses it from others.
pub(crate) fn host_config() -> Result<Vec<u8>, StoreError> {
    config_bytes(&ImageConfig {
        config: RunConfig {
            cmd: vec!["/bin/sh".into()],
            env: vec![PATH.into()],
            working_dir: "/".into(),
            ..RunConfig::default()
        },
        history: vec![History {
            created: Some(EPOCH.into()),
            created_by: Some("the host's own root file system".into()),
            empty_layer: true,
            ..History::default()
        }],
        ..base_config()
    })
}

fn base_config() -> ImageConfig {
    ImageConfig {
        architecture: crate::platform::architecture().into(),
        os: crate::platform::OS.into(),
        created: Some(EPOCH.into()),
        ..ImageConfig::default()
    }
}

/// The configuration document of an image of ours.
pub(crate) fn config_bytes(config: &ImageConfig) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(config).map_err(|source| StoreError::Json {
        path: PathBuf::from("config.json"),
        source,
    })
}

/// A tar that depends on the content alone.
fn one_file_tar(binary: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(Vec::new());
    let entry = WriteEntry::new(b"hello", Kind::File, 0o755, binary.len() as u64);
    tar.file(&entry, &mut &binary[..])?;
    tar.finish()
}

struct Bytes(Vec<u8>);

impl LayerSource for Bytes {
    fn name(&self) -> String {
        HELLO.into()
    }

    fn packed_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(Cursor::new(&self.0)))
    }
}
