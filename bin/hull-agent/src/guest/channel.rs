//! The channel to the shim: a port of virtio-serial with Hull's name, or vsock if the kernel's
//! command line says so.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_proto::guest::{PORT_NAME, VSOCK_WORD};
use hull_sys::vsock;
use rustix::fs::{Mode, OFlags};

use super::Trouble;

const COMMAND_LINE: &str = "/proc/cmdline";
const PORTS: &str = "/sys/class/virtio-ports";
/// How long the host may take to offer the channel.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(1);

/// Opens it, not blocking. Waits for it if the host is not ready.
pub(super) fn open() -> Result<OwnedFd, Trouble> {
    let words = fs::read_to_string(COMMAND_LINE).unwrap_or_default();
    let port = words
        .split_whitespace()
        .find_map(|word| word.strip_prefix(VSOCK_WORD));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let opened = match port {
            Some(port) => connect(port),
            None => open_port(),
        };
        match opened {
            Ok(channel) => return Ok(channel),
            Err(trouble) if Instant::now() >= deadline => return Err(trouble),
            // The kernel makes a port once the host has announced it, in its own time.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn connect(port: &str) -> Result<OwnedFd, Trouble> {
    let what = format!("connect to port {port} of the host by vsock");
    let number = port.parse().map_err(Trouble::at(&what))?;
    let socket = vsock::connect_host(number).map_err(Trouble::at(&what))?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(Trouble::at(what))?;
    Ok(socket)
}

fn open_port() -> Result<OwnedFd, Trouble> {
    let device = find_port(&PathBuf::from(PORTS))
        .ok_or_else(|| Trouble(format!("no virtio port is named {PORT_NAME}")))?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(&device, flags, Mode::empty())
        .map_err(Trouble::at(format!("open {}", device.display())))
}

fn find_port(ports: &PathBuf) -> Option<PathBuf> {
    let entries = fs::read_dir(ports).ok()?;
    entries.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        let is_ours = name.trim_end() == PORT_NAME;
        is_ours.then(|| PathBuf::from("/dev").join(entry.file_name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_port_is_by_name() {
        let folder = tempfile::tempdir().expect("folder");
        for (port, name) in [
            ("vport0p1", "org.other\n"),
            ("vport1p1", "hull.agent\n"),
            ("vport2p1", ""),
        ] {
            let path = folder.path().join(port);
            fs::create_dir(&path).expect("port");
            fs::write(path.join("name"), name).expect("name");
        }
        fs::create_dir(folder.path().join("without")).expect("port");
        let found = find_port(&folder.path().to_owned());
        assert_eq!(found, Some(PathBuf::from("/dev/vport1p1")));
        assert_eq!(find_port(&folder.path().join("none")), None);
    }
}
