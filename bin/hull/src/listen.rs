//! The daemon's sockets: made by us, or by systemd and handed over (sd_listen_fds(3)).
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// First descriptor that systemd hands over.
const FIRST_FD: i32 = 3;
/// Sockets accepted from systemd.
const MAX_FDS: i32 = 16;
/// Who may use the socket: root and the group.
const MODE: u32 = 0o660;

/// What the daemon listens on. A socket made by us is removed when dropped.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Ready to accept.
    pub(crate) listeners: Vec<UnixListener>,
    _made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    path: PathBuf,
    inode: u64,
}

impl Drop for Made {
    fn drop(&mut self) {
        // Another daemon may have put its own in its place.
        if inode(&self.path) == Some(self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Takes the sockets of systemd's activation. Call it first in the process, before anything
/// opens a descriptor.
///
/// # Errors
/// If what was handed over is no listening unix socket.
pub(crate) fn activated() -> anyhow::Result<Option<Sockets>> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<i32>().ok())
    };
    let ours =
        number("LISTEN_PID").and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id());
    let count = number("LISTEN_FDS").unwrap_or_default();
    if !ours || count < 1 {
        return Ok(None);
    }
    if count > MAX_FDS {
        bail!("LISTEN_FDS={count}: more than {MAX_FDS} sockets were handed over");
    }
    let take = |fd: i32| -> anyhow::Result<UnixListener> {
        let fd = hull_sys::inherited::take(fd)
            .with_context(|| format!("cannot take descriptor {fd} of LISTEN_FDS"))?;
        checked(fd)
    };
    let listeners = (FIRST_FD..FIRST_FD + count)
        .map(take)
        .collect::<anyhow::Result<_>>()?;
    Ok(Some(Sockets {
        listeners,
        _made: None,
    }))
}

fn checked(fd: OwnedFd) -> anyhow::Result<UnixListener> {
    use rustix::net::{AddressFamily, sockopt};
    let unix = sockopt::socket_domain(fd.as_fd()).is_ok_and(|family| family == AddressFamily::UNIX);
    if !unix || !sockopt::socket_acceptconn(fd.as_fd()).unwrap_or(false) {
        bail!(
            "a descriptor of LISTEN_FDS is no listening unix socket: use ListenStream=/path in the unit"
        );
    }
    let listener = UnixListener::from(fd);
    listener
        .set_nonblocking(true)
        .context("cannot prepare a socket of LISTEN_FDS")?;
    Ok(listener)
}

/// Whether somebody listens there.
pub(crate) fn is_live(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// Makes the socket. It appears under its name with its mode and group set, in the place of a
/// stale one.
///
/// # Errors
/// If a live daemon listens there, or something that is no socket bears its name.
pub(crate) fn bind(path: &Path, group: &str) -> anyhow::Result<Sockets> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            bail!("cannot listen on {shown}: a file that is no socket is there");
        }
        Ok(_) if is_live(path) => {
            bail!("cannot listen on {shown}: another daemon listens there");
        }
        _ => {}
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let made = PathBuf::from(name);
    let _ = std::fs::remove_file(&made);
    let listener =
        UnixListener::bind(&made).with_context(|| format!("cannot listen on {shown}"))?;
    let finish = || -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        if let Some(gid) = group_id(
            &std::fs::read_to_string("/etc/group").unwrap_or_default(),
            group,
        ) {
            std::os::unix::fs::chown(&made, None, Some(gid))?;
        }
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(MODE))?;
        std::fs::rename(&made, path)
    };
    if let Err(error) = finish() {
        let _ = std::fs::remove_file(&made);
        return Err(error).with_context(|| format!("cannot prepare socket {shown}"));
    }
    let made = inode(path).map(|inode| Made {
        path: path.to_owned(),
        inode,
    });
    Ok(Sockets {
        listeners: vec![listener],
        _made: made,
    })
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path)
        .ok()
        .map(|metadata| metadata.ino())
}

/// Finds a group in the text of group(5). A static program cannot ask NSS.
fn group_id(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = !name.is_empty() && fields.next()? == name;
        let gid = fields.nth(1)?.parse().ok()?;
        found.then_some(gid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("hull-listen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn live_socket_is_refused_and_stale_one_replaced() {
        let dir = dir("stale");
        let path = dir.join("h.sock");
        drop(UnixListener::bind(&path).unwrap());
        let sockets = bind(&path, "no-such-group").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(UnixStream::connect(&path).is_ok());
        let refused = bind(&path, "").unwrap_err().to_string();
        assert!(refused.contains("another daemon"), "{refused}");
        drop(sockets);
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn file_in_the_sockets_place_is_kept() {
        let dir = dir("file");
        let path = dir.join("h.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(bind(&path, "").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn group_is_found_by_its_whole_name() {
        let text = "root:x:0:\nhullabaloo:x:7:\nhull:x:998:ann\nbroken\n";
        assert_eq!(group_id(text, "hull"), Some(998));
        assert_eq!(group_id(text, "docker"), None);
        assert_eq!(group_id(text, ""), None);
    }

    #[test]
    fn descriptor_that_does_not_listen_is_refused() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(checked(one.into()).is_err());
    }
}
