//! Adding images: layers are unpacked under `tmp`, then everything moves into place at once.
//! Whoever brings layers (an archive now, a registry the same way) implements [`LayerSource`].

mod capture;
mod early;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hull_model::{Digest, ImageConfig, Reference};
use rustix::fs::{CWD, Mode, OFlags, fsync, openat, syncfs};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::capture::{CaptureError, Upper};
use self::early::Early;
use super::index::name_key;
use super::record::{Image, ImageRecord, LayerMeta, RootKind};
use super::{ImageStore, META_FILE, StoreError, files};
use crate::hash::digest_of;
use crate::unpack::{Expectation, UnpackError, unpack_layer};

/// Fewest and most layers that come in at the same time unless somebody says otherwise: each keeps
/// a connection and about one and a half processors busy.
const AT_ONCE: (usize, usize) = (3, 6);
/// Bytes between two reports of progress on one layer.
const PROGRESS_STEP_BYTES: u64 = 1 << 20;

/// Where the stream of a layer comes from.
pub trait LayerSource: Sync {
    /// Short name for messages and progress.
    fn name(&self) -> String;
    /// Size of the stream as it will be read, 0 if unknown.
    fn packed_bytes(&self) -> u64;
    /// Starts reading. Called once, on the thread that will read.
    ///
    /// # Errors
    /// If the stream cannot be had.
    fn open(&self) -> io::Result<Box<dyn Read + Send + '_>>;
}

/// A layer to be brought in.
pub struct LayerJob<'a> {
    /// Its stream.
    pub source: &'a dyn LayerSource,
    /// What is promised about it.
    pub expect: Expectation,
}

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerProgress {
    /// It was in the store already.
    Exists {
        /// Name of the source.
        name: String,
    },
    /// Others come first.
    Waiting {
        /// Name of the source.
        name: String,
    },
    /// So many bytes of the stream are unpacked.
    Unpacking {
        /// Name of the source.
        name: String,
        /// Bytes read.
        done: u64,
        /// Bytes in all, 0 if unknown.
        total: u64,
    },
    /// All of its stream has been read; the last of it is still being unpacked.
    Fetched {
        /// Name of the source.
        name: String,
    },
    /// It is complete and verified.
    Complete {
        /// Name of the source.
        name: String,
        /// Its digest.
        diff_id: Digest,
    },
}

/// Why a layer could not be brought in.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The layer itself.
    #[error("layer {name}")]
    Layer {
        /// Name of the source.
        name: String,
        /// What went wrong.
        #[source]
        source: UnpackError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image to be added by [`Transaction::commit`].
#[derive(Debug, Clone, Default)]
pub struct NewImage {
    /// The configuration document, byte for byte; its digest is the image id.
    pub config: Vec<u8>,
    /// The OCI manifest it came with.
    pub manifest: Option<Vec<u8>>,
    /// The image it was built upon.
    pub parent: Option<Digest>,
    /// Root file system.
    pub root: RootKind,
    /// Free text.
    pub comment: String,
    /// See [`ImageRecord::source_stamp`].
    pub source_stamp: Option<String>,
    /// Names it gets; whoever had them loses them.
    pub names: Vec<Reference>,
}

/// Brings layers and images in; leaves nothing behind if it is dropped before [`Self::commit`].
pub struct Transaction<'s> {
    store: &'s ImageStore,
    dir: PathBuf,
    fresh: BTreeMap<Digest, (PathBuf, LayerMeta)>,
    /// Layers that must not be removed meanwhile.
    pinned: Vec<Digest>,
    /// Images whose records were written.
    written: Vec<Digest>,
    numbers: AtomicUsize,
    at_once: usize,
    early: Early,
}

impl ImageStore {
    /// Begins to add images.
    ///
    /// # Errors
    /// If the working directory cannot be made.
    pub fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        let dir = self.dirs.fresh();
        fs::create_dir(&dir).map_err(|e| StoreError::io("create", &dir, e))?;
        early::spread(&dir);
        Ok(Transaction {
            store: self,
            dir,
            fresh: BTreeMap::new(),
            pinned: Vec::new(),
            written: Vec::new(),
            numbers: AtomicUsize::new(0),
            at_once: default_at_once(),
            early: Early::default(),
        })
    }
}

impl Transaction<'_> {
    /// A directory for temporary files that goes with the transaction.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Sets how many layers come in at the same time.
    pub fn set_at_once(&mut self, layers: usize) {
        self.at_once = layers.max(1);
    }

    /// Layers that unpacking warned about.
    pub fn warnings(&self) -> Vec<String> {
        let metas = self.fresh.values();
        metas.flat_map(|(_, meta)| meta.warnings.clone()).collect()
    }

    /// Keeps a layer of the store from being removed while this transaction lives; false if it is
    /// not there.
    fn pin(&mut self, diff_id: &Digest) -> bool {
        let mut index = self.store.write_index();
        let known = index.layers.contains_key(diff_id);
        if known {
            index.retain(&[*diff_id]);
            self.pinned.push(*diff_id);
        }
        known
    }

    /// Unpacks and verifies layers, several at once; those that the store has already are not
    /// read. Returns the diff-ids in the order of the jobs.
    ///
    /// # Errors
    /// The first failure of any layer.
    pub fn ingest(
        &mut self,
        jobs: &[LayerJob<'_>],
        progress: &(dyn Fn(LayerProgress) + Sync),
    ) -> Result<Vec<Digest>, IngestError> {
        let mut results: Vec<Option<Digest>> = vec![None; jobs.len()];
        let mut todo: Vec<usize> = Vec::new();
        let mut first_of: HashMap<Digest, usize> = HashMap::new();
        for (number, job) in jobs.iter().enumerate() {
            if let Some(diff_id) = job.expect.diff_id {
                let here = self.fresh.contains_key(&diff_id) || self.pin(&diff_id);
                if here {
                    progress(LayerProgress::Exists {
                        name: job.source.name(),
                    });
                }
                if here || first_of.contains_key(&diff_id) {
                    if let Some(result) = results.get_mut(number) {
                        *result = Some(diff_id);
                    }
                    continue;
                }
                first_of.insert(diff_id, number);
            }
            todo.push(number);
        }
        // The largest first, so that the threads end together.
        todo.sort_by_key(|&n| {
            std::cmp::Reverse(jobs.get(n).map_or(0, |job| job.source.packed_bytes()))
        });
        for job in todo.iter().skip(self.at_once).filter_map(|&n| jobs.get(n)) {
            progress(LayerProgress::Waiting {
                name: job.source.name(),
            });
        }
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let done: Mutex<Vec<(usize, Result<LayerOut, IngestError>)>> = Mutex::new(Vec::new());
        let worker = || {
            while !stop.load(Ordering::Relaxed) {
                let Some(&number) = todo.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                let Some(job) = jobs.get(number) else { break };
                let result = self.unpack(job, &stop, progress);
                let failed = result.is_err();
                done.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((number, result));
                // After the push: the failure that stops the others must stand before theirs.
                if failed {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        let synced = if todo.is_empty() {
            Ok(())
        } else {
            let (early, dir) = (&self.early, &self.dir);
            let at_once = self.at_once.min(todo.len());
            // Goes even if a worker panics.
            let ending = early.begin();
            std::thread::scope(|scope| {
                let syncing = scope.spawn(|| early.run(dir));
                let ending = ending;
                std::thread::scope(|workers| {
                    for _ in 0..at_once {
                        workers.spawn(worker);
                    }
                });
                drop(ending);
                let broke_off = |_| Err(io::Error::other("the sync broke off"));
                syncing.join().unwrap_or_else(broke_off)
            })
        };
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (number, result) in done {
            let out = result?;
            if let Some(slot) = results.get_mut(number) {
                *slot = Some(out.1.diff_id);
            }
            self.keep(out)?;
        }
        synced.map_err(|e| StoreError::io("sync", &self.dir, e))?;
        Ok(results.into_iter().flatten().collect())
    }

    /// Unpacks and verifies a single layer from a stream that is at hand. Returns its diff-id and
    /// the size of its tar.
    ///
    /// # Errors
    /// See [`IngestError`].
    pub fn ingest_stream(
        &mut self,
        name: &str,
        stream: &mut (dyn Read + Send),
        expect: Expectation,
        progress: &(dyn Fn(LayerProgress) + Sync),
    ) -> Result<(Digest, u64), IngestError> {
        let never = AtomicBool::new(false);
        let out = self.unpack_stream(name, 0, stream, expect, &never, progress)?;
        let (diff_id, bytes) = (out.1.diff_id, out.1.tar_bytes);
        self.keep(out)?;
        Ok((diff_id, bytes))
    }

    /// Notes an unpacked layer, or drops it if another has brought it meanwhile.
    fn keep(&mut self, (path, meta): LayerOut) -> Result<(), StoreError> {
        if self.fresh.contains_key(&meta.diff_id) || self.pin(&meta.diff_id) {
            files::delete(&path)
        } else {
            self.fresh.insert(meta.diff_id, (path, meta));
            Ok(())
        }
    }

    fn unpack(
        &self,
        job: &LayerJob<'_>,
        stop: &AtomicBool,
        progress: &(dyn Fn(LayerProgress) + Sync),
    ) -> Result<LayerOut, IngestError> {
        let name = job.source.name();
        let mut stream = job.source.open().map_err(|e| IngestError::Layer {
            name: name.clone(),
            source: UnpackError::Read(e),
        })?;
        let total = job.source.packed_bytes();
        self.unpack_stream(&name, total, &mut *stream, job.expect, stop, progress)
    }

    /// Unpacks one layer into a directory of its own and completes that directory.
    fn unpack_stream(
        &self,
        name: &str,
        total: u64,
        stream: &mut (dyn Read + Send),
        expect: Expectation,
        stop: &AtomicBool,
        progress: &(dyn Fn(LayerProgress) + Sync),
    ) -> Result<LayerOut, IngestError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(early::layer_name(number));
        fs::create_dir(&path).map_err(|e| StoreError::io("create", &path, e))?;
        let dir = openat(
            CWD,
            &path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| StoreError::io("open", &path, e))?;
        let (reported, counted) = (AtomicU64::new(0), AtomicU64::new(0));
        let report = |bytes: u64| {
            let before = counted.swap(bytes, Ordering::Relaxed);
            self.early.add(bytes.saturating_sub(before));
            if total > 0 && bytes == total && reported.swap(bytes, Ordering::Relaxed) != bytes {
                progress(LayerProgress::Fetched {
                    name: name.to_owned(),
                });
                return;
            }
            if bytes.saturating_sub(reported.load(Ordering::Relaxed)) >= PROGRESS_STEP_BYTES {
                reported.store(bytes, Ordering::Relaxed);
                progress(LayerProgress::Unpacking {
                    name: name.to_owned(),
                    done: bytes,
                    total,
                });
            }
        };
        let mut stream = Stoppable {
            inner: stream,
            stop,
        };
        let unpacked = unpack_layer(
            &mut stream,
            dir.as_fd(),
            expect,
            &self.store.limits,
            &report,
        )
        .map_err(|source| IngestError::Layer {
            name: name.to_owned(),
            source,
        })?;
        let meta = LayerMeta {
            diff_id: unpacked.diff_id,
            tar_bytes: unpacked.tar_bytes,
            tree_bytes: unpacked.tree_bytes,
            entries: unpacked.entries,
            link: self.store.new_link(),
            moved: unpacked.moved,
            warnings: unpacked.warnings,
        };
        // Made durable with the layer, by the sync of the commit.
        let meta_file = path.join(META_FILE);
        let document = serde_json::to_vec(&meta).map_err(|source| StoreError::Json {
            path: meta_file.clone(),
            source,
        })?;
        fs::write(&meta_file, document).map_err(|e| StoreError::io("write", &meta_file, e))?;
        progress(LayerProgress::Complete {
            name: name.to_owned(),
            diff_id: meta.diff_id,
        });
        Ok((path, meta))
    }

    /// Makes layers, images and names visible, in this order.
    ///
    /// # Errors
    /// If a layer of an image is neither ingested nor stored, a configuration is malformed, or a
    /// file operation fails. Then no new name is visible.
    pub fn commit(mut self, images: Vec<NewImage>) -> Result<Vec<Image>, StoreError> {
        let placed = self.place(images);
        if placed.is_err() {
            self.undo();
        }
        placed
    }

    /// Takes back what a commit that failed in its middle had moved into place: it was to take
    /// room that there is not. What cannot be taken back is removed when the store is opened next.
    fn undo(&mut self) {
        let store = self.store;
        {
            let _writing = store.lock_writing();
            store
                .write_index()
                .release(&std::mem::take(&mut self.pinned));
            for id in std::mem::take(&mut self.written) {
                if !store.read_index().images.contains_key(&id) {
                    let _ = files::delete(&store.image_file(&id));
                }
            }
            let _ = store.remove_unused_blobs();
        }
        let _ = store.remove_unused_layers();
    }

    fn place(&mut self, images: Vec<NewImage>) -> Result<Vec<Image>, StoreError> {
        let store = self.store;
        if !self.fresh.is_empty() {
            let dir =
                fs::File::open(&self.dir).map_err(|e| StoreError::io("open", &self.dir, e))?;
            syncfs(&dir).map_err(|e| StoreError::io("sync", &self.dir, e))?;
        }
        let _writing = store.lock_writing();
        for (diff_id, (path, meta)) in std::mem::take(&mut self.fresh) {
            if !self.pin(&diff_id) {
                let place = store.layer_dir(&diff_id);
                fs::rename(&path, &place).map_err(|e| StoreError::io("rename", &place, e))?;
                if let Err(error) = store.make_link(&meta) {
                    let _ = files::delete(&place);
                    return Err(error);
                }
                let mut index = store.write_index();
                index.layers.insert(diff_id, Arc::new(meta));
                index.retain(&[diff_id]);
                self.pinned.push(diff_id);
            }
        }
        sync_dir(&store.dirs.layers())?;
        let mut names = store.read_index().names.clone();
        let mut records = Vec::new();
        for image in images {
            let (record, image_names) = self.write_image(image)?;
            names.extend(image_names.iter().map(|n| (name_key(n), record.id)));
            records.push(Arc::new(record));
        }
        sync_dir(&store.dirs.images())?;
        store.dirs.write_json(&store.dirs.refs(), &names)?;
        let mut index = store.write_index();
        for record in &records {
            index.add_image(record.clone());
            store.uses.arrived(record.id);
        }
        index.set_names(names);
        Ok(records.iter().map(|record| index.image(record)).collect())
    }

    fn write_image(
        &mut self,
        image: NewImage,
    ) -> Result<(ImageRecord, Vec<Reference>), StoreError> {
        let store = self.store;
        let id = digest_of(&image.config);
        if image.root != RootKind::Host && image.config == crate::builtin::host_config()? {
            return Err(StoreError::Conflict(format!(
                "image {id} is the built-in image {} and cannot be brought in",
                crate::builtin::HOST
            )));
        }
        let config: ImageConfig =
            parse_config(&image.config).map_err(|source| StoreError::Json {
                path: store.image_file(&id),
                source,
            })?;
        let mut size = 0;
        for layer in &config.rootfs.diff_ids {
            // Layers that were here before must stay until the record says who needs them.
            if !self.pin(layer) {
                return Err(StoreError::LayerMissing(*layer));
            }
            size += store.layer(layer).map_or(0, |meta| meta.tree_bytes);
        }
        store.dirs.write(&store.blob_file(&id), &image.config)?;
        let mut manifest = None;
        if let Some(bytes) = &image.manifest {
            let digest = digest_of(bytes);
            store.dirs.write(&store.blob_file(&digest), bytes)?;
            manifest = Some(digest);
        }
        let record = ImageRecord {
            id,
            config,
            size,
            parent: image.parent,
            root: image.root,
            manifest,
            comment: image.comment,
            stored: now(),
            tagged: (!image.names.is_empty()).then(now),
            source_stamp: image.source_stamp,
        };
        self.written.push(id);
        store.dirs.write_json(&store.image_file(&id), &record)?;
        Ok((record, image.names))
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.store.write_index().release(&self.pinned);
        // Best effort: what stays is removed when the store is opened next.
        let _ = files::delete(&self.dir);
    }
}

/// As many as the machine has processors, within [`AT_ONCE`].
fn default_at_once() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.clamp(AT_ONCE.0, AT_ONCE.1)
}

type LayerOut = (PathBuf, LayerMeta);

/// Ends a stream early when another layer has failed.
struct Stoppable<'a> {
    inner: &'a mut (dyn Read + Send),
    stop: &'a AtomicBool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("given up because another layer failed"));
        }
        self.inner.read(buf)
    }
}

/// Reads a configuration; members that are `null` count as absent.
///
/// # Errors
/// If it is no JSON, or a member has another type than the specification says.
pub fn parse_config(bytes: &[u8]) -> serde_json::Result<ImageConfig> {
    hull_model::json::check_values(bytes).map_err(serde::de::Error::custom)?;
    let mut value: serde_json::Value = serde_json::from_slice(bytes)?;
    if !value.is_object() {
        return Err(serde::de::Error::custom("it is no object"));
    }
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, member| !member.is_null());
        if let Some(config) = object.get_mut("config").and_then(|c| c.as_object_mut()) {
            config.retain(|_, member| !member.is_null());
        }
    }
    serde_json::from_value(value)
}

/// The present in RFC 3339.
pub(crate) fn now() -> String {
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default()
}

fn sync_dir(path: &std::path::Path) -> Result<(), StoreError> {
    let synced = fs::File::open(path).and_then(|dir| Ok(fsync(&dir)?));
    synced.map_err(|e| StoreError::io("sync", path, e))
}
