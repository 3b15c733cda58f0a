//! Compiled programs kept on disk, so that a profile is compiled once for each set of capabilities.
//!
//! A file is named after the digest of everything that decides its program and appears by rename;
//! one that does not hold together is compiled anew.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::compile::{COMPILER_VERSION, CompileError};
use crate::profile::{DOCKER_DEFAULT, ParseError, Profile};
use crate::program::{INSTRUCTION_BYTES, MAX_INSTRUCTIONS, Program};
use crate::resolve::{Env, ResolveError};

const MAGIC: &[u8; 8] = b"HULLBPF\x01";
const DIGEST_BYTES: usize = 32;
const FLAGS_BYTES: usize = 4;
const HEAD_BYTES: usize = MAGIC.len() + DIGEST_BYTES + FLAGS_BYTES;
const MAX_FILE_BYTES: usize = HEAD_BYTES + MAX_INSTRUCTIONS * INSTRUCTION_BYTES + DIGEST_BYTES;

/// Where a profile comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// Docker's default profile.
    DockerDefault,
    /// The text of a profile.
    Json(&'a [u8]),
}

impl Source<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::DockerDefault => DOCKER_DEFAULT,
            Self::Json(bytes) => bytes,
        }
    }
}

/// A program and how it was come by.
#[derive(Debug)]
pub struct Cached {
    /// The program.
    pub program: Program,
    /// Where it came from.
    pub origin: Origin,
}

/// How a program was come by.
#[derive(Debug)]
pub enum Origin {
    /// Read from the cache.
    Cache,
    /// Compiled, and stored for the next time.
    Compiled,
    /// Compiled; storing it failed, which costs time but no safety.
    NotStored(io::Error),
}

/// Why there is no program for a profile.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The profile cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It means nothing here.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It has no program.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Parses, resolves and compiles.
///
/// # Errors
/// A profile that cannot be used; the message names the field.
pub fn compile(source: Source<'_>, env: &Env) -> Result<Program, LoadError> {
    Ok(Profile::parse(source.bytes())?.resolve(env)?.compile()?)
}

/// The program of a profile for `env`, from the cache in `dir` if it is there, else compiled and
/// stored there (`dir` is made if it is missing).
///
/// # Errors
/// A profile that cannot be used. A cache that cannot be read or written is no error.
pub fn load_or_compile(dir: &Path, source: Source<'_>, env: &Env) -> Result<Cached, LoadError> {
    let key = key(source, env);
    let path = dir.join(file_name(&key));
    if let Some(program) = read(&path, &key) {
        return Ok(Cached {
            program,
            origin: Origin::Cache,
        });
    }
    let program = compile(source, env)?;
    let origin = match write(dir, &path, &encode(&key, &program)) {
        Ok(()) => Origin::Compiled,
        Err(error) => Origin::NotStored(error),
    };
    Ok(Cached { program, origin })
}

/// Name and content of the file in which [`load_or_compile`] keeps a program: for who fills a folder
/// ahead.
///
/// # Errors
/// As [`compile`].
pub fn file(source: Source<'_>, env: &Env) -> Result<(String, Vec<u8>), LoadError> {
    let key = key(source, env);
    let program = compile(source, env)?;
    Ok((file_name(&key), encode(&key, &program)))
}

/// Digest of all that decides the program.
fn key(source: Source<'_>, env: &Env) -> [u8; DIGEST_BYTES] {
    let mut hash = Sha256::new();
    hash.update(COMPILER_VERSION.to_le_bytes());
    hash.update(Sha256::digest(source.bytes()));
    hash.update(env.arch.scmp_name());
    hash.update(env.kernel.major.to_le_bytes());
    hash.update(env.kernel.minor.to_le_bytes());
    for cap in &env.caps {
        hash.update([0]);
        hash.update(cap);
    }
    hash.finalize().into()
}

fn file_name(key: &[u8; DIGEST_BYTES]) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(2 * DIGEST_BYTES + 4);
    for byte in key {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(".bpf");
    name
}

fn encode(key: &[u8; DIGEST_BYTES], program: &Program) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAX_FILE_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&program.flags().to_le_bytes());
    bytes.extend_from_slice(&program.to_bytes());
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

fn decode(bytes: &[u8], key: &[u8; DIGEST_BYTES]) -> Option<Program> {
    let (content, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
    if Sha256::digest(content).as_slice() != digest {
        return None;
    }
    let rest = content.strip_prefix(MAGIC)?.strip_prefix(key)?;
    let (flags, instructions) = rest.split_first_chunk::<FLAGS_BYTES>()?;
    Program::from_bytes(instructions, u32::from_le_bytes(*flags)).ok()
}

fn read(path: &Path, key: &[u8; DIGEST_BYTES]) -> Option<Program> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES).ok()?.saturating_add(1);
    fs::File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut bytes)
        .ok()?;
    decode(&bytes, key)
}

fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(dir)?;
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary: PathBuf = dir.join(format!(".tmp-{}-{count}", std::process::id()));
    // A crashed process with the same id may have left one behind.
    let _ = fs::remove_file(&temporary);
    let stored = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if stored.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    stored
}
