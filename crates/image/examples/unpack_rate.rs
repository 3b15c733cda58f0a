//! Rate of unpacking a layer of about 100 MB, beside GNU tar on the same bytes.
//!
//! `cargo run --release -p hull-image --example unpack_rate [FILE.tar[.gz|.zst]]`

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hull_image::limits::Limits;
use hull_image::tar::{Kind, TarWriter, WriteEntry};
use hull_image::unpack::{Expectation, unpack_layer};

/// Runs of each side; the best counts, so that another user of the machine disturbs less.
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::temp_dir().join(format!("hull-unpack-rate-{}", std::process::id()));
    fs::create_dir(&base)?;
    let result = measure(&base);
    fs::remove_dir_all(&base)?;
    result
}

fn measure(base: &Path) -> Result<(), Box<dyn Error>> {
    let layers: Vec<PathBuf> = match std::env::args_os().nth(1) {
        Some(path) => vec![path.into()],
        None => make_layers(base)?,
    };
    let mut out = std::io::stdout().lock();
    for layer in layers {
        let plain_bytes = plain_size(&layer)?;
        let ours = best(base, |dir| {
            let mut input = File::open(&layer)?;
            let fd = File::open(dir)?;
            unpack_layer(
                &mut input,
                fd.as_fd(),
                Expectation::default(),
                &Limits::default(),
                &|_| {},
            )?;
            Ok(())
        })?;
        let theirs = best(base, |dir| {
            let status = Command::new("tar")
                .arg("-xpf")
                .arg(&layer)
                .arg("-C")
                .arg(dir)
                .status()?;
            if status.success() {
                Ok(())
            } else {
                Err("tar failed".into())
            }
        })?;
        let rate = |time: Duration| plain_bytes as f64 / 1e6 / time.as_secs_f64();
        writeln!(
            out,
            "{:<16} {:>4} MB   hull {:>6.0} MB/s   tar -x {:>6.0} MB/s",
            layer.file_name().unwrap_or_default().to_string_lossy(),
            plain_bytes / 1_000_000,
            rate(ours),
            rate(theirs)
        )?;
    }
    Ok(())
}

/// A layer like those of distributions: many small files, some large, half of it compressible.
fn make_layers(base: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let plain = base.join("layer.tar");
    let mut tar = TarWriter::new(std::io::BufWriter::new(File::create(&plain)?));
    let mut state = 0x1234_5678_9abc_def0u64;
    let mut content = Vec::new();
    for number in 0..6000u32 {
        let size = match number % 100 {
            0 => 700_000,
            n if n < 10 => 60_000,
            n => 300 * n as usize / 2,
        };
        content.clear();
        while content.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_le_bytes());
            content.extend_from_slice(b" text that packs");
        }
        content.truncate(size);
        if number % 40 == 0 {
            let dir = format!("usr/share/d{}", number / 40);
            tar.header(&WriteEntry::new(dir.as_bytes(), Kind::Dir, 0o755, 0))?;
        }
        let name = format!("usr/share/d{}/file-{number}", number / 40);
        let entry = WriteEntry::new(name.as_bytes(), Kind::File, 0o644, size as u64);
        tar.file(&entry, &mut &content[..])?;
    }
    tar.finish()?.into_inner()?.sync_all()?;
    let packed = base.join("layer.tar.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(&packed)?, flate2::Compression::default());
    std::io::copy(&mut File::open(&plain)?, &mut encoder)?;
    encoder.finish()?;
    let zstd = base.join("layer.tar.zst");
    zstd::stream::copy_encode(File::open(&plain)?, File::create(&zstd)?, 3)?;
    Ok(vec![plain, packed, zstd])
}

fn plain_size(layer: &Path) -> Result<u64, Box<dyn Error>> {
    let limits = Limits::default();
    let bound = hull_image::compress::Bound::layer(&limits);
    let mut decoder = hull_image::compress::Decoder::new(File::open(layer)?, bound)?;
    Ok(std::io::copy(&mut decoder, &mut std::io::sink())?)
}

fn best(
    base: &Path,
    mut run: impl FnMut(&Path) -> Result<(), Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let dir = base.join("out");
        fs::create_dir(&dir)?;
        let start = Instant::now();
        run(&dir)?;
        best = best.min(start.elapsed());
        fs::remove_dir_all(&dir)?;
    }
    Ok(best)
}
