//! `hull cp SRC CONTAINER:DEST`: a local tree is packed while it is sent.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hull_client::{Client, UploadSender, upload_channel};
use hull_image::copy::{CopyError, Node, Pack, names, node, pack};
use rustix::fs::FileType;

use super::cp::{Copied, Copy, Side, absolute, check_mode, target};
use crate::context::Context;
use crate::error::{CliError, io_text};

/// Bytes sent at a time.
const CHUNK: usize = 256 << 10;
/// Go's bits of a mode: folder and link.
const GO_DIR: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;

/// Copies a file, a folder or an archive from standard input into a container.
pub(super) async fn upload(context: &Context, copy: &Copy) -> Result<Copied, CliError> {
    let source = match &copy.source[..] {
        "-" => None,
        path => Some(local(path, copy.follow)?),
    };
    let client = context.client().await?;
    let destination = destination(&client, copy).await?;
    let (sender, body) = upload_channel();
    let sent = Arc::new(AtomicU64::new(0));
    let mut out = Sender {
        sender,
        sent: Arc::clone(&sent),
    };
    let (folder, work): (String, Box<dyn FnOnce() -> Result<u64, CopyError> + Send>) = match source
    {
        None => {
            if !destination.is_dir {
                return Err(CliError::new(format!(
                    "destination \"{}:{}\" must be a directory",
                    copy.container, copy.destination
                )));
            }
            let work = move || forward(&mut io::stdin().lock(), &mut out);
            (destination.path, Box::new(work))
        }
        Some((node, name)) => {
            let target = target(node.kind() == FileType::Directory, &destination)?;
            let name = target.name.unwrap_or(name);
            let work = move || {
                let how = Pack {
                    called: name.as_bytes(),
                    hidden: &|_, _| false,
                };
                let packed = pack(node, how, &mut out);
                if let Err(error) = &packed {
                    // The engine must not take what was sent for the whole.
                    let text = io::Error::other(error.to_string());
                    out.sender.blocking_send(Err(text));
                }
                packed
            };
            (target.folder, Box::new(work))
        }
    };
    let packing = std::thread::Builder::new()
        .name("pack".to_owned())
        .spawn(work)
        .map_err(|e| CliError::new(format!("cannot start a thread: {e}")))?;
    let refused = client
        .container_unpack(&copy.container, &folder, copy.archive, body)
        .await
        .err();
    let refused = match refused {
        // The thread may wait for input that nobody needs any more.
        Some(error) if copy.source == "-" => return Err(error.into()),
        refused => refused,
    };
    let packed = packing
        .join()
        .map_err(|_| CliError::new("the copy broke off"))?;
    match (packed, refused) {
        (Ok(content), None) => Ok(Copied {
            content,
            stream: sent.load(Ordering::Relaxed),
        }),
        // The engine's own reason says more than that it stopped to read.
        (Ok(_) | Err(CopyError::Write(_)), Some(error)) => Err(error.into()),
        (Err(error), _) => Err(failure(&error)),
    }
}

/// Opens the source without following a link that it is, unless told to or a `/` follows; and says
/// what it is called.
fn local(path: &str, follow: bool) -> Result<(Node, String), CliError> {
    let path = absolute(path)?;
    let fail = |e: io::Error| CliError::new(format!("lstat {}: {}", path, io_text(&e)));
    let (folder, last) = if follow || names::says_folder(&path) {
        (path.clone(), ".".to_owned())
    } else {
        names::split_entry(&path)
    };
    let last = if last == "/" { ".".to_owned() } else { last };
    let name = names::base(&path).to_owned();
    if follow && !Path::new(&path).is_dir() {
        // The file behind the link, under the link's name.
        let real = std::fs::canonicalize(&path).map_err(fail)?;
        let real = real
            .to_str()
            .ok_or_else(|| CliError::new(format!("{}: not valid UTF-8", real.display())))?;
        let (folder, last) = names::split_entry(real);
        let folder = open_folder(&folder).map_err(fail)?;
        let node = node(folder.as_fd(), last.as_bytes()).map_err(|e| fail(e.into()))?;
        return Ok((node, name));
    }
    let folder = open_folder(&folder).map_err(fail)?;
    let node = node(folder.as_fd(), last.as_bytes()).map_err(|e| fail(e.into()))?;
    Ok((node, name))
}

/// Opens a folder to look up names in it.
pub(super) fn open_folder(path: &str) -> io::Result<std::fs::File> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// What is at the destination, links followed. What cannot be seen counts as missing: the copy
/// then tells.
async fn destination(client: &Client, copy: &Copy) -> Result<Side, CliError> {
    let mut side = Side {
        path: copy.destination.clone(),
        exists: false,
        is_dir: false,
    };
    let Ok(mut stat) = client
        .container_path_stat(&copy.container, &side.path)
        .await
    else {
        return Ok(side);
    };
    if stat.mode & GO_LINK != 0 {
        side.path = stat.link_target.clone();
        match client
            .container_path_stat(&copy.container, &side.path)
            .await
        {
            Ok(behind) => stat = behind,
            Err(_) => return Ok(side),
        }
    }
    check_mode(stat.mode).map_err(|why| {
        CliError::new(format!(
            "destination \"{}:{}\" must be a directory or a regular file: {why}",
            copy.container, copy.destination
        ))
    })?;
    side.exists = true;
    side.is_dir = stat.mode & GO_DIR != 0;
    Ok(side)
}

/// An error with its cause.
pub(super) fn failure(error: &CopyError) -> CliError {
    let cause = std::error::Error::source(error);
    CliError::new(match cause {
        Some(cause) => match cause.downcast_ref::<io::Error>() {
            Some(cause) => format!("{error}: {}", io_text(cause)),
            None => format!("{error}: {cause}"),
        },
        None => error.to_string(),
    })
}

/// Sends standard input as it is.
fn forward(input: &mut dyn Read, out: &mut Sender) -> Result<u64, CopyError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(out.sent.load(Ordering::Relaxed)),
            Ok(n) => out
                .write_all(buffer.get(..n).unwrap_or_default())
                .map_err(CopyError::Write)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                let text = io::Error::other(e.to_string());
                out.sender.blocking_send(Err(text));
                return Err(CopyError::Stream(e));
            }
        }
    }
}

/// The request's body, as a stream to write to.
struct Sender {
    sender: UploadSender,
    sent: Arc<AtomicU64>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.sender.blocking_send(Ok(Bytes::copy_from_slice(bytes))) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
