//! Installing: a plain vmlinux, one compressed with zstd, or the archive that
//! `cargo xtask guest-kernel --pack` makes. What is read is foreign: it is bounded and checked.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::store::{CONFIG, KERNEL, MANIFEST, check_name};
use crate::{Kernel, KernelError, Kernels, Manifest, elf};

/// No kernel is larger; Debian's with all drivers in it would be.
const MAX_KERNEL: u64 = 512 << 20;
const MAX_CONFIG: u64 = 4 << 20;
const MAX_MANIFEST: u64 = 64 << 10;
/// Members of an archive.
const MAX_MEMBERS: usize = 16;
/// Memory that a compressed kernel may ask for: what zstd -19 uses.
const WINDOW_LOG: u32 = 27;
const ELF: [u8; 4] = [0x7f, b'E', b'L', b'F'];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const CHUNK: usize = 256 << 10;

/// How a kernel is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Install {
    /// Its name; its version if none.
    pub name: Option<String>,
    /// The digest that the file must have, in hex.
    pub sha256: Option<String>,
    /// Replace another one of that name.
    pub force: bool,
}

impl Kernels {
    /// Installs the kernel that `source` gives. The first one becomes the default. One that is
    /// there already, byte for byte, stays.
    ///
    /// # Errors
    /// If it cannot be booted, is not what was promised, or there is no room; nothing is left then.
    pub fn install(&self, source: &mut dyn Read, options: &Install) -> Result<Kernel, KernelError> {
        if let Some(name) = &options.name {
            check_name(name)?;
        }
        let (new, _held) = self.begin()?;
        let manifest = Receiver { dir: new.path() }.receive(source, options)?;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => manifest.version.clone(),
        };
        check_name(&name)?;
        let _lock = self.lock()?;
        if let Ok(known) = self.get(&name)
            && known.manifest.sha256 == manifest.sha256
        {
            return Ok(known);
        }
        self.put(new.path(), &name, options.force)?;
        // Its content has another name now.
        let _ = new.keep();
        self.get(&name)
    }
}

/// Writes what comes into a folder.
struct Receiver<'a> {
    dir: &'a Path,
}

impl Receiver<'_> {
    fn receive(&self, source: &mut dyn Read, options: &Install) -> Result<Manifest, KernelError> {
        let mut promised = None;
        let (head, mut rest) = peek(source)?;
        let sha256 = match head {
            ELF => self.kernel(&mut rest)?,
            ZSTD => self.kernel(&mut unpacked(rest)?)?,
            _ => {
                let (sha256, manifest) = self.archive(rest)?;
                promised = manifest;
                sha256
            }
        };
        let path = self.dir.join(KERNEL);
        let file = File::open(&path).map_err(|e| KernelError::io("read", &path, e))?;
        let size = file.metadata().map_or(0, |meta| meta.len());
        let wanted = [
            ("who installs it", options.sha256.as_deref()),
            (
                "its manifest",
                promised
                    .as_ref()
                    .map(|manifest: &Manifest| &*manifest.sha256),
            ),
        ];
        for (who, wanted) in wanted {
            let Some(wanted) = wanted.filter(|text| !text.is_empty()) else {
                continue;
            };
            let wanted = wanted.trim_start_matches("sha256:").to_ascii_lowercase();
            if wanted != sha256 {
                return Err(KernelError::Digest {
                    who,
                    wanted,
                    found: sha256,
                });
            }
        }
        elf::check(&file, size)?;
        let mut manifest = promised.unwrap_or_default().tame();
        // What the kernel says of itself counts; a manifest only adds to it.
        if let Some(version) = elf::version_of(&file) {
            manifest.version = version;
        }
        if manifest.version.is_empty() {
            manifest.version = "unknown".to_owned();
        }
        manifest.architecture = "x86_64".to_owned();
        manifest.size = size;
        manifest.sha256 = sha256;
        manifest.config_sha256 = self.config_digest()?;
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| KernelError::io("write", &self.dir.join(MANIFEST), e))?;
        self.write(MANIFEST, &mut &text[..], text.len() as u64)?;
        Ok(manifest)
    }

    fn archive(&self, source: impl Read) -> Result<(String, Option<Manifest>), KernelError> {
        // The reader's own words repeat what it was given, which may be any file of the user's.
        let wrong = |_: io::Error| {
            KernelError::Archive("neither a kernel's file nor a whole tar of one".to_owned())
        };
        let mut archive = tar::Archive::new(source);
        let (mut kernel, mut manifest) = (None, None);
        for (number, entry) in archive.entries().map_err(wrong)?.enumerate() {
            if number >= MAX_MEMBERS {
                return Err(KernelError::Archive(format!(
                    "it has more than MAX_MEMBERS = {MAX_MEMBERS} members"
                )));
            }
            let mut entry = entry.map_err(wrong)?;
            let path = entry.path_bytes().into_owned();
            let name = path.strip_prefix(b"./").unwrap_or(&path);
            let kind = entry.header().entry_type();
            // A kernel's file has holes, which some writers leave out.
            let file = kind.is_file() || kind.is_gnu_sparse();
            match name {
                b"vmlinux" if file && kernel.is_none() => kernel = Some(self.kernel(&mut entry)?),
                b"vmlinux.zst" if file && kernel.is_none() => {
                    kernel = Some(self.kernel(&mut unpacked(entry)?)?);
                }
                b"config" if file => {
                    self.write(CONFIG, &mut entry, MAX_CONFIG)?;
                }
                b"manifest.json" if file => {
                    let mut text = Vec::new();
                    entry
                        .take(MAX_MANIFEST)
                        .read_to_end(&mut text)
                        .map_err(KernelError::Read)?;
                    let read = serde_json::from_slice(&text);
                    manifest = Some(read.map_err(|e| {
                        KernelError::Archive(format!("its manifest.json is damaged: {e}"))
                    })?);
                }
                // Room for what later versions add.
                _ => {}
            }
        }
        match kernel {
            Some(sha256) => Ok((sha256, manifest)),
            None => Err(KernelError::Archive(
                "it has neither vmlinux nor vmlinux.zst".to_owned(),
            )),
        }
    }

    fn kernel(&self, source: &mut dyn Read) -> Result<String, KernelError> {
        self.write(KERNEL, source, MAX_KERNEL)
    }

    fn config_digest(&self) -> Result<String, KernelError> {
        let path = self.dir.join(CONFIG);
        match fs::read(&path) {
            Ok(text) => Ok(hex(&Sha256::digest(&text))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(KernelError::io("read", &path, e)),
        }
    }

    /// Writes a file that is on the disk afterwards; returns its digest.
    fn write(&self, name: &str, source: &mut dyn Read, limit: u64) -> Result<String, KernelError> {
        let path = self.dir.join(name);
        let fail = |e| KernelError::io("write", &path, e);
        let mut file = File::create(&path).map_err(fail)?;
        let (mut hash, mut left) = (Sha256::new(), limit);
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match source.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(KernelError::Read)?,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            left = left.checked_sub(count as u64).ok_or_else(|| {
                KernelError::Archive(format!("{name} is larger than {limit} bytes"))
            })?;
            hash.update(bytes);
            file.write_all(bytes).map_err(fail)?;
        }
        file.set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| file.sync_all())
            .map_err(fail)?;
        Ok(hex(&hash.finalize()))
    }
}

/// The first bytes, and everything.
fn peek(source: &mut dyn Read) -> Result<([u8; 4], impl Read + '_), KernelError> {
    let mut head = Vec::with_capacity(4);
    (&mut *source)
        .take(4)
        .read_to_end(&mut head)
        .map_err(KernelError::Read)?;
    let mut magic = [0; 4];
    if let Some(place) = magic.get_mut(..head.len()) {
        place.copy_from_slice(&head);
    }
    Ok((magic, io::Cursor::new(head).chain(source)))
}

fn unpacked(source: impl Read) -> Result<impl Read, KernelError> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(BufReader::new(source))
        .map_err(KernelError::Read)?;
    decoder
        .window_log_max(WINDOW_LOG)
        .map_err(KernelError::Read)?;
    Ok(decoder)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
