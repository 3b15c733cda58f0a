//! A realistic image made of this machine's own files: twelve layers, about a gigabyte, 600 MB
//! compressed; programs and libraries, many small files, and some that do not compress.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Where the files come from.
const SOURCE: &str = "/usr";
/// Files above are left out: one of them would be a layer.
const LARGEST: u64 = 24 << 20;
/// Up to here a file counts as small.
const SMALL: u64 = 32 << 10;
/// Largest made-up file.
const RANDOM_FILE: usize = 8 << 20;
const MB: u64 = 1_000_000;
/// A layer counts half if it belongs to the lower ones of this many.
pub const HALF: usize = 6;

/// Megabytes of each layer: programs and libraries, small files, random bytes.
const LAYERS: [[f64; 3]; 12] = [
    [95.0, 5.0, 20.0],
    [130.0, 10.0, 70.0],
    [0.0, 60.0, 0.0],
    [0.0, 1.0, 0.0],
    [60.0, 5.0, 25.0],
    [0.0, 18.0, 2.0],
    [0.0, 0.1, 0.0],
    [110.0, 10.0, 110.0],
    [70.0, 5.0, 75.0],
    [0.0, 8.0, 0.0],
    [40.0, 40.0, 30.0],
    [0.5, 0.5, 0.0],
];

/// One layer as it lies in the layout.
#[derive(Debug, Clone)]
pub struct BigLayer {
    /// Digest of the compressed form, in hexadecimal.
    pub hex: String,
    /// Digest of the tar.
    pub diff_id: String,
    /// Bytes of the tar.
    pub tar_bytes: u64,
    /// Bytes of the compressed form.
    pub packed_bytes: u64,
    /// Its members.
    pub entries: u64,
}

/// An OCI layout with the image as `full`, and its lower half as `half`.
#[derive(Debug)]
pub struct BigImage {
    /// The layout's folder.
    pub dir: PathBuf,
    /// The layers, the lowest first.
    pub layers: Vec<BigLayer>,
}

impl BigImage {
    /// Makes it in `dir`; `scale` 1 is the full size.
    ///
    /// # Errors
    /// If files cannot be read or written.
    pub fn make(dir: &Path, scale: f64) -> Result<Self> {
        let _ = fs::remove_dir_all(dir);
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let sources = Sources::find()?;
        let next = AtomicUsize::new(0);
        let made: Mutex<Vec<(usize, Result<BigLayer>)>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(recipe) = LAYERS.get(number) else {
                            break;
                        };
                        let layer = layer(&blobs, number, recipe.map(|mb| mb * scale), &sources);
                        made.lock().expect("made").push((number, layer));
                    }
                });
            }
        });
        let mut made = made.into_inner().expect("made");
        made.sort_by_key(|(number, _)| *number);
        let layers = made
            .into_iter()
            .map(|(_, layer)| layer)
            .collect::<Result<Vec<_>>>()?;
        let image = Self {
            dir: dir.to_owned(),
            layers,
        };
        let full = image.manifest(&blobs, image.layers.len(), "full")?;
        let half = image.manifest(&blobs, HALF, "half")?;
        let index = json!({"schemaVersion": 2, "manifests": [full, half]});
        fs::write(dir.join("index.json"), index.to_string())?;
        fs::write(
            dir.join("oci-layout"),
            json!({"imageLayoutVersion": "1.0.0"}).to_string(),
        )?;
        Ok(image)
    }

    /// The file of a compressed layer.
    pub fn blob(&self, layer: &BigLayer) -> PathBuf {
        self.dir.join("blobs/sha256").join(&layer.hex)
    }

    /// Sums: bytes of tar, bytes compressed, members.
    pub fn totals(&self) -> (u64, u64, u64) {
        let sum = |of: fn(&BigLayer) -> u64| self.layers.iter().map(of).sum();
        (
            sum(|l| l.tar_bytes),
            sum(|l| l.packed_bytes),
            sum(|l| l.entries),
        )
    }

    fn manifest(&self, blobs: &Path, layers: usize, tag: &str) -> Result<Value> {
        let layers = self.layers.get(..layers).context("fewer layers")?;
        let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let blob = |bytes: &[u8], kind: &str| -> Result<Value> {
            let hex = hex(&Sha256::digest(bytes));
            fs::write(blobs.join(&hex), bytes)?;
            Ok(json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": bytes.len()}))
        };
        let config = blob(
            config.to_string().as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        )?;
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| {
                json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": format!("sha256:{}", layer.hex),
                    "size": layer.packed_bytes,
                })
            })
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers,
        });
        let mut descriptor = blob(manifest.to_string().as_bytes(), kind)?;
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        Ok(descriptor)
    }
}

/// Files of the machine, in the order of their names.
struct Sources {
    large: Vec<(PathBuf, u64)>,
    small: Vec<(PathBuf, u64)>,
}

impl Sources {
    fn find() -> Result<Self> {
        let mut found = Self {
            large: Vec::new(),
            small: Vec::new(),
        };
        let device = fs::metadata(SOURCE)?.dev();
        let mut stack = vec![PathBuf::from(SOURCE)];
        while let Some(dir) = stack.pop() {
            let mut names: Vec<_> = fs::read_dir(&dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            names.sort_unstable();
            for path in names {
                let Ok(meta) = path.symlink_metadata() else {
                    continue;
                };
                if meta.is_dir() && meta.dev() == device {
                    stack.push(path);
                } else if meta.is_file() && meta.len() <= LARGEST {
                    let list = if meta.len() > SMALL {
                        &mut found.large
                    } else {
                        &mut found.small
                    };
                    list.push((path, meta.len()));
                }
            }
        }
        if found.large.is_empty() || found.small.is_empty() {
            bail!("{SOURCE} has no files to make an image of");
        }
        Ok(found)
    }
}

/// Digests and counts what is written.
struct Digesting<W> {
    inner: W,
    state: Sha256,
    bytes: u64,
}

impl<W> Digesting<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            state: Sha256::new(),
            bytes: 0,
        }
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.state.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

type Sink = Digesting<GzEncoder<Digesting<BufWriter<File>>>>;

/// Writes one layer.
struct Writer {
    tar: tar::Builder<Sink>,
    dirs: BTreeSet<PathBuf>,
    entries: u64,
}

impl Writer {
    /// The folders above a member, each once.
    fn parents(&mut self, name: &Path) -> Result<()> {
        let above: Vec<&Path> = name.ancestors().skip(1).collect();
        for dir in above.into_iter().rev() {
            if dir.as_os_str().is_empty() || !self.dirs.insert(dir.to_owned()) {
                continue;
            }
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            self.tar
                .append_data(&mut header, dir.join(""), io::empty())?;
            self.entries += 1;
        }
        Ok(())
    }

    fn file(&mut self, name: &Path, mode: u32, size: u64, content: impl Read) -> Result<()> {
        self.parents(name)?;
        let mut header = header(tar::EntryType::Regular, mode, size);
        self.tar.append_data(&mut header, name, content)?;
        self.entries += 1;
        Ok(())
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header
}

fn layer(
    blobs: &Path,
    number: usize,
    [programs, small, random]: [f64; 3],
    sources: &Sources,
) -> Result<BigLayer> {
    let part = blobs.join(format!("part-{number}"));
    let file = Digesting::new(BufWriter::with_capacity(1 << 20, File::create(&part)?));
    let mut writer = Writer {
        tar: tar::Builder::new(Digesting::new(GzEncoder::new(file, Compression::default()))),
        dirs: BTreeSet::new(),
        entries: 0,
    };
    if number == 0 {
        // What containers of the image run.
        for name in ["bin/busybox", "bin/sh"] {
            let program = fs::read("/bin/busybox").context("busybox-static is not installed")?;
            writer.file(Path::new(name), 0o755, program.len() as u64, &program[..])?;
        }
    }
    let prefix = PathBuf::from(format!("layer{number}"));
    for (mb, list) in [(programs, &sources.large), (small, &sources.small)] {
        let mut left = (mb * MB as f64) as u64;
        // Each layer begins elsewhere in the list.
        let start = list.len() * number / LAYERS.len();
        for (path, size) in list.iter().cycle().skip(start).take(list.len()) {
            if left == 0 {
                break;
            }
            let (Ok(file), Ok(meta)) = (File::open(path), path.metadata()) else {
                continue;
            };
            if meta.len() != *size || *size > left.saturating_mul(2) {
                continue;
            }
            let name = prefix.join(path.strip_prefix("/")?);
            writer.file(&name, meta.mode() & 0o755, *size, file.take(*size))?;
            left = left.saturating_sub(*size);
        }
    }
    let mut left = (random * MB as f64) as usize;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64.wrapping_add(number as u64);
    let mut count = 0;
    while left > 0 {
        let size = left.min(RANDOM_FILE);
        let mut content = Vec::with_capacity(size + 8);
        while content.len() < size {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            content.extend_from_slice(&seed.to_le_bytes());
        }
        let name = prefix.join(format!("data/blob-{count}"));
        writer.file(&name, 0o644, size as u64, &content[..size])?;
        left -= size;
        count += 1;
    }
    let entries = writer.entries;
    let tar = writer.tar.into_inner()?;
    let (tar_bytes, diff_id) = (tar.bytes, hex(&tar.state.finalize()));
    let mut packed = tar.inner.finish()?;
    packed.flush()?;
    let (packed_bytes, hex) = (packed.bytes, hex(&packed.state.finalize()));
    fs::rename(&part, blobs.join(&hex))?;
    Ok(BigLayer {
        hex,
        diff_id: format!("sha256:{diff_id}"),
        tar_bytes,
        packed_bytes,
        entries,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
