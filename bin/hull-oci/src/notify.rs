//! The descriptor of a seccomp filter that notifies, sent to the bundle's listener together with
//! the state of the process (config-linux.md, "The Container Process State").

use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result};
use hull_container::LaunchError;
use hull_proto::oci::SeccompListener;
use hull_sys::fdpass;
use serde_json::json;

use crate::hooks;
use crate::state::{Record, Status};

/// The name under which the listener finds the descriptor.
const FD_NAME: &str = "seccompFd";

/// A connection to the listener, made before there is a process.
pub(crate) struct Connected<'a> {
    socket: UnixStream,
    listener: &'a SeccompListener,
}

/// Connects to the socket of `linux.seccomp.listenerPath`.
pub(crate) fn connect(listener: &SeccompListener) -> Result<Connected<'_>> {
    let socket = UnixStream::connect(&listener.path).with_context(|| {
        format!(
            "config.json: linux.seccomp.listenerPath: cannot connect to {}",
            listener.path
        )
    })?;
    Ok(Connected { socket, listener })
}

impl Connected<'_> {
    /// Sends descriptor and state, as what a launch calls.
    pub(crate) fn send(
        &self,
        record: &Record,
        status: Status,
        pid: u32,
        fd: &OwnedFd,
    ) -> Result<(), LaunchError> {
        self.try_send(record, status, pid, fd)
            .map_err(|error| LaunchError::Stopped(format!("{error:#}")))
    }

    fn try_send(&self, record: &Record, status: Status, pid: u32, fd: &OwnedFd) -> Result<()> {
        // The container's own process id, which for a process that joins is another one.
        let first = if record.pid == 0 { pid } else { record.pid };
        let state: serde_json::Value =
            serde_json::from_slice(&hooks::state(record, status, first)?)
                .context("cannot write the state for the listener")?;
        let message = json!({
            "ociVersion": record.oci_version,
            "fds": [FD_NAME],
            "pid": pid,
            "metadata": self.listener.metadata,
            "state": state,
        });
        let bytes =
            serde_json::to_vec(&message).context("cannot write the state for the listener")?;
        let mut rest = bytes.as_slice();
        let mut fds = vec![fd.as_fd()];
        while !rest.is_empty() {
            let count = fdpass::send(&self.socket, rest, &fds).with_context(|| {
                format!(
                    "cannot send the descriptor of the filter to {}",
                    self.listener.path
                )
            })?;
            rest = rest.get(count..).unwrap_or_default();
            // They travel with the first bytes.
            fds.clear();
        }
        // The end of the message; the process being made still has a copy of the socket.
        self.socket
            .shutdown(Shutdown::Both)
            .context("cannot end the connection to the listener")
    }
}
