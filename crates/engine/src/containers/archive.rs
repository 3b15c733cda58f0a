//! `cp`: files of a container out and in as tar streams, whether it runs or not.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use hull_image::copy::{Owner, Pack, Place, Rename, Scope, names, pack, unpack};
use hull_model::{Error, Result};
use hull_sys::path as beneath;
use tokio::sync::mpsc;

use super::archive_path::{describe, find, find_folder};
use super::archive_root::{Root, is_kernel};
use super::attributes;
use crate::Engine;
use crate::images::blocking;
use crate::images::stream::{ChannelReader, ChannelWriter, Chunk, channel};

/// Longest file of users or groups that is read.
const MAX_DATABASE: usize = 1 << 20;

/// What the API tells of a file in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last component of the path asked for.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Bits as Go's `os.FileMode` has them.
    pub mode: u32,
    /// Time of the last change, seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// For a link: where it leads, absolute in the container.
    pub link_target: String,
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnpackOptions {
    /// A folder is not replaced by something else, nor the reverse.
    pub keep_kinds: bool,
    /// Files become those of the user that the container is configured with, if it is.
    pub owned_by_user: bool,
}

impl Engine {
    /// Looks at a path in a container.
    ///
    /// # Errors
    /// `NotFound` for container and path.
    pub async fn stat_path(self: &Arc<Self>, key: &str, path: &str) -> Result<PathStat> {
        let container = self.containers.find(key)?;
        let root = self.open_root(&container, false).await?;
        let (key, path) = (key.to_owned(), path.to_owned());
        blocking(move || Ok(describe(&root, &find(&root, &path, &key)?))).await
    }

    /// Packs what is at a path in a container, a folder with all below it. The members' names
    /// begin with the path's last component.
    ///
    /// # Errors
    /// `NotFound` for container and path, before anything is written.
    pub async fn read_archive(
        self: &Arc<Self>,
        key: &str,
        path: &str,
    ) -> Result<(PathStat, mpsc::Receiver<Chunk>)> {
        let container = self.containers.find(key)?;
        let root = self.open_root(&container, false).await?;
        let (name, path) = (key.to_owned(), path.to_owned());
        let (root, found) = blocking(move || {
            let found = find(&root, &path, &name)?;
            Ok((root, found))
        })
        .await?;
        let stat = describe(&root, &found);
        let (sender, receiver) = channel();
        tokio::task::spawn_blocking(move || {
            let mut writer = ChannelWriter::new(sender);
            let hides =
                |dir: std::os::fd::BorrowedFd<'_>, stat: &rustix::fs::Stat| root.hides(dir, stat);
            let how = Pack {
                called: names::base(&found.path).as_bytes(),
                hidden: &hides,
            };
            let outcome = pack(found.node, how, &mut writer)
                .map_err(|e| std::io::Error::other(Error::from(e).chain()))
                .and_then(|_| writer.flush());
            // The mounts go before the client hears the end.
            drop(root);
            writer.finish(outcome);
        });
        let facts = attributes(&container.record());
        self.events
            .emit("container", "archive-path", &container.id, facts);
        Ok((stat, receiver))
    }

    /// Unpacks an archive, plain, gzip or zstd, in a folder of a container.
    ///
    /// # Errors
    /// `NotFound` for container and folder; `Forbidden` where it cannot be written;
    /// `InvalidArgument` for an unsound archive. What was unpacked by then stays.
    pub async fn write_archive(
        self: &Arc<Self>,
        key: &str,
        path: &str,
        options: UnpackOptions,
        body: mpsc::Receiver<Chunk>,
    ) -> Result<()> {
        let container = self.containers.find(key)?;
        let root = self.open_root(&container, true).await?;
        let record = container.record();
        let facts = attributes(&record);
        let (key, path) = (key.to_owned(), path.to_owned());
        let limits = *self.images.store.limits();
        blocking(move || {
            let (folder, whole) = find_folder(&root, &path, &key)?;
            root.check_writable(folder.as_fd())?;
            let owner = match &record.spec.user[..] {
                "" => Owner::Archive,
                user if options.owned_by_user => {
                    let (uid, gid) = ids_of(&root, user)?;
                    Owner::Ids(uid, gid)
                }
                _ => Owner::Archive,
            };
            let place = Place {
                dir: folder.as_fd(),
                scope: Some(Scope {
                    root: root.as_fd(),
                    path: whole.as_bytes(),
                }),
                owner,
                keep_kinds: options.keep_kinds,
                rename: Rename::Keep,
                closed: &is_kernel,
            };
            unpack(&mut ChannelReader::new(body), place, &limits)
                .map(drop)
                .map_err(Error::from)
        })
        .await?;
        self.events
            .emit("container", "extract-to-dir", &container.id, facts);
        Ok(())
    }
}

/// User and group of `user[:group]`, names or numbers, by the container's own files.
fn ids_of(root: &Root, text: &str) -> Result<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let line = entry_of(root, "/etc/passwd", user);
    let field = |line: &str, number: usize| line.split(':').nth(number)?.parse::<u32>().ok();
    let uid = match &line {
        Some(line) => field(line, 2),
        None => user.parse().ok(),
    };
    let uid = uid.ok_or_else(|| {
        Error::invalid(format!(
            "unable to find user {user}: no matching entries in passwd file"
        ))
    })?;
    let gid = match group {
        None => line.as_deref().and_then(|l| field(l, 3)).unwrap_or(0),
        Some(group) => match entry_of(root, "/etc/group", group) {
            Some(line) => field(&line, 2),
            None => group.parse().ok(),
        }
        .ok_or_else(|| {
            Error::invalid(format!(
                "unable to find group {group}: no matching entries in group file"
            ))
        })?,
    };
    Ok((uid, gid))
}

/// The line of a database whose first or third field is `key`. A database that cannot be read has
/// none.
fn entry_of(root: &Root, file: &str, key: &str) -> Option<String> {
    let bytes = beneath::read_file(root.as_fd(), Path::new(file), MAX_DATABASE).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let by = |number: usize| {
        text.lines()
            .find(|line| line.split(':').nth(number) == Some(key))
            .map(str::to_owned)
    };
    by(0).or_else(|| by(2))
}
