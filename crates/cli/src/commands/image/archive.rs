//! Archives between files or standard streams and the engine.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hull_client::{ByteStream, RequestBody, upload_channel};

use crate::error::{CliError, io_text};
use crate::streams::terminal;

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// An archive on its way to the engine.
pub(crate) struct Upload {
    /// The request's body.
    pub(crate) body: RequestBody,
    /// Bytes sent so far.
    pub(crate) sent: Arc<AtomicU64>,
    /// Bytes in all, where known.
    pub(crate) total: Option<u64>,
}

/// Opens a file, or standard input, and starts to read it in a thread.
pub(crate) fn upload(path: Option<&str>) -> Result<Upload, CliError> {
    let (mut reader, total): (Box<dyn Read + Send>, Option<u64>) = match path {
        Some(path) => {
            let file = File::open(path)
                .map_err(|error| CliError::new(format!("open {path}: {}", io_text(&error))))?;
            let metadata = file
                .metadata()
                .map_err(|error| CliError::new(format!("stat {path}: {}", io_text(&error))))?;
            if metadata.is_dir() {
                return Err(CliError::new(format!("read {path}: is a directory")));
            }
            let total = metadata.is_file().then_some(metadata.len());
            (Box::new(file), total)
        }
        None => (Box::new(std::io::stdin()), None),
    };
    let (sender, body) = upload_channel();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    std::thread::Builder::new()
        .name("upload".to_owned())
        .spawn(move || {
            let mut buffer = vec![0u8; CHUNK];
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => {
                        let piece =
                            Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                        if !sender.blocking_send(Ok(piece)) {
                            return;
                        }
                        counter.fetch_add(length as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        sender.blocking_send(Err(error));
                        return;
                    }
                }
            }
        })
        .map_err(|error| {
            CliError::new(format!(
                "cannot start a thread to read the archive: {error}"
            ))
        })?;
    Ok(Upload { body, sent, total })
}

/// Refuses to write an archive to a terminal, or where its directory is missing.
pub(crate) fn check_output(path: Option<&str>, refusal: &str) -> Result<(), CliError> {
    match path {
        None | Some("") if terminal::stdout_is_terminal() => Err(CliError::new(refusal)),
        None | Some("") => Ok(()),
        Some(path) => {
            let path = PathBuf::from(path);
            let directory = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
                _ => PathBuf::from("."),
            };
            if !directory.is_dir() {
                return Err(CliError::new(format!(
                    "invalid output path: directory {:?} does not exist",
                    directory.display().to_string()
                )));
            }
            if path.is_dir() {
                return Err(CliError::new(format!(
                    "invalid output path: {} is a directory",
                    path.display()
                )));
            }
            Ok(())
        }
    }
}

/// Writes a stream to a file that appears when it is whole, or to standard output.
pub(crate) async fn receive(mut stream: ByteStream, path: Option<&str>) -> Result<(), CliError> {
    match path {
        None | Some("") => {
            let mut out = std::io::stdout().lock();
            while let Some(bytes) = stream.next().await? {
                out.write_all(&bytes)?;
            }
            out.flush()?;
            Ok(())
        }
        Some(path) => {
            let target = PathBuf::from(path);
            // A device or a pipe cannot be replaced by a rename.
            let direct = target
                .symlink_metadata()
                .is_ok_and(|metadata| !metadata.is_file());
            let temporary = if direct {
                target.clone()
            } else {
                PathBuf::from(format!("{path}.{}.tmp", std::process::id()))
            };
            let fail =
                |error: std::io::Error| CliError::new(format!("write {path}: {}", io_text(&error)));
            let mut file = File::create(&temporary).map_err(fail)?;
            let result = async {
                while let Some(bytes) = stream.next().await? {
                    file.write_all(&bytes).map_err(fail)?;
                }
                Ok::<(), CliError>(())
            }
            .await;
            if direct {
                return result;
            }
            match result.and_then(|()| std::fs::rename(&temporary, &target).map_err(fail)) {
                Ok(()) => Ok(()),
                Err(error) => {
                    let _ = std::fs::remove_file(&temporary);
                    Err(error)
                }
            }
        }
    }
}
