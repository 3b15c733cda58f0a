//! `hull cp CONTAINER:SRC DEST`: a tree is unpacked while it comes.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use hull_client::ByteStream;
use hull_image::copy::{CopyError, Owner, Place, Rename, names, unpack};
use hull_image::limits::Limits;

use super::cp::{Copied, Copy, Side, absolute, followed, target};
use super::cp_upload::{failure, open_folder};
use crate::context::Context;
use crate::error::{CliError, io_text};

/// Most links from the destination to where it leads.
const MAX_LINKS: usize = 10;
/// Pieces that wait to be unpacked.
const QUEUE: usize = 4;
/// Go's bits of a mode: folder and link.
const GO_DIR: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;

/// Copies a file or folder out of a container; none if it went to standard output.
pub(super) async fn download(context: &Context, copy: &Copy) -> Result<Option<Copied>, CliError> {
    let to_stdout = copy.destination == "-";
    let destination = if to_stdout {
        None
    } else {
        let path = absolute(&copy.destination)?;
        check_output(&path)?;
        Some(path)
    };
    let client = context.client().await?;
    let mut source = copy.source.clone();
    let mut called = None;
    if copy.follow
        && let Ok(stat) = client.container_path_stat(&copy.container, &source).await
        && stat.mode & GO_LINK != 0
    {
        (source, called) = followed(&copy.source, &stat.link_target);
    }
    let (stat, mut stream) = client.container_archive(&copy.container, &source).await?;
    let Some(destination) = destination else {
        let mut out = io::stdout().lock();
        while let Some(bytes) = stream.next().await? {
            out.write_all(&bytes)?;
        }
        out.flush()?;
        return Ok(None);
    };
    let side = side(&destination)?;
    let target = target(stat.mode & GO_DIR != 0, &side)?;
    let name = target.name.or(called);
    let folder = open_folder(&target.folder)
        .map_err(|e| CliError::new(format!("open {}: {}", target.folder, io_text(&e))))?;
    let content = matches!(names::base(&source), "." | "/");
    let owner = if copy.archive {
        Owner::Archive
    } else {
        Owner::Caller
    };
    let (sender, receiver) = sync_channel(QUEUE);
    let unpacking = std::thread::Builder::new()
        .name("unpack".to_owned())
        .spawn(move || {
            let rename = match &name {
                Some(name) if content => Rename::Prefix(name.as_bytes()),
                Some(name) => Rename::First(name.as_bytes()),
                None => Rename::Keep,
            };
            let place = Place {
                dir: folder.as_fd(),
                scope: None,
                owner,
                keep_kinds: true,
                rename,
                closed: &|_| false,
            };
            let mut pieces = Pieces {
                receiver,
                piece: Bytes::new(),
            };
            unpack(&mut pieces, place, &Limits::default())
        })
        .map_err(|e| CliError::new(format!("cannot start a thread: {e}")))?;
    let received = receive(&mut stream, |piece| sender.send(piece).is_ok()).await;
    if received.is_err() {
        let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    drop(sender);
    let unpacked = unpacking
        .join()
        .map_err(|_| CliError::new("the copy broke off"))?;
    match unpacked {
        Ok(content) => Ok(Some(Copied {
            content,
            stream: received?,
        })),
        // The stream's own failure is why it could not be read.
        Err(CopyError::Stream(_) | CopyError::Tar(_)) if received.is_err() => {
            received.map(|_| None)
        }
        Err(error) => Err(failure(&error)),
    }
}

/// Hands on what comes until `take` wants no more; returns the bytes.
async fn receive(
    stream: &mut ByteStream,
    take: impl Fn(io::Result<Bytes>) -> bool,
) -> Result<u64, CliError> {
    let mut received = 0;
    while let Some(bytes) = stream.next().await? {
        received += bytes.len() as u64;
        if !take(Ok(bytes)) {
            break;
        }
    }
    Ok(received)
}

/// Refuses a destination whose folder is missing, or that is a device.
fn check_output(path: &str) -> Result<(), CliError> {
    let (folder, _) = names::split_entry(path.trim_end_matches("/."));
    if !Path::new(&folder).exists() {
        return Err(CliError::new(format!(
            "invalid output path: directory {folder:?} does not exist"
        )));
    }
    match fs::metadata(path) {
        Ok(there) if !there.is_dir() && !there.is_file() => Err(CliError::new(format!(
            "invalid output path: {path:?} must be a directory or a regular file"
        ))),
        _ => Ok(()),
    }
}

/// What is at the destination, links followed; the end of a broken link is where it will be.
fn side(path: &str) -> Result<Side, CliError> {
    let fail = |path: &str, e: &io::Error| CliError::new(format!("lstat {path}: {}", io_text(e)));
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Side {
                    path,
                    exists: false,
                    is_dir: false,
                });
            }
            Err(e) => return Err(fail(&path, &e)),
        };
        if !meta.is_symlink() {
            return Ok(Side {
                path,
                exists: true,
                is_dir: meta.is_dir(),
            });
        }
        let link = fs::read_link(&path).map_err(|e| fail(&path, &e))?;
        let link = link
            .to_str()
            .ok_or_else(|| CliError::new(format!("{path}: link is not valid UTF-8")))?;
        let (folder, _) = names::split_entry(&path);
        path = if link.starts_with('/') {
            names::clean_keeping_end(link)
        } else {
            names::clean_keeping_end(&format!("{folder}/{link}"))
        };
    }
    Err(CliError::new(format!("{path}: too many symbolic links")))
}

/// The pieces as a stream to read from.
struct Pieces {
    receiver: Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.recv() {
                Ok(piece) => self.piece = piece?,
                Err(_) => return Ok(0),
            }
        }
        let n = self.piece.len().min(buffer.len());
        let now = self.piece.split_to(n);
        if let Some(to) = buffer.get_mut(..n) {
            to.copy_from_slice(&now);
        }
        Ok(n)
    }
}
