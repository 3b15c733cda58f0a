//! Stages at which the child waits for the parent. Only a launch that needs one has the pair of
//! sockets: the others pay nothing.
//!
//! ```text
//! child                      parent
//! wait(stage) ── stage ───▶  does its part
//!             ◀── stage ───  goes on to the next stage, then reads the report
//! ```

use std::os::fd::OwnedFd;

use hull_sys::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use crate::LaunchError;
use crate::error::prepare;
use crate::report::{At, Failed, Step, above_stdio};

/// Where the child stops, in the order in which it gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It is in its user namespace, which has no mappings yet.
    Mapped = 1,
    /// All mounts and devices are in place; the root is still the host's.
    BeforePivot = 2,
}

/// The child's end.
#[derive(Debug)]
pub(crate) struct ChildSync(OwnedFd);

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentSync(OwnedFd);

/// Both ends, close-on-exec.
pub(crate) fn pair() -> Result<(ParentSync, ChildSync), LaunchError> {
    let (parent, child) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(prepare("make a pair of sockets"))?;
    // Above the numbers of stdio, which the child overwrites.
    Ok((ParentSync(parent), ChildSync(above_stdio(child)?)))
}

impl ChildSync {
    /// Says that the stage is reached and waits for the parent to have done its part. Does not
    /// allocate.
    pub(crate) fn wait(&self, stage: Stage) -> Result<(), Failed> {
        self.exchange(stage).at(Step::Sync)
    }

    fn exchange(&self, stage: Stage) -> hull_sys::Result<()> {
        send_byte(&self.0, stage)?;
        match receive_byte(&self.0)? {
            Some(byte) if byte == stage as u8 => Ok(()),
            _ => Err(Errno::CONNRESET),
        }
    }
}

impl ParentSync {
    /// Waits for each of the stages in turn and does the parent's part. Ends early without an
    /// error if the child is gone: its report says why. The caller has closed the child's end, and
    /// kills the child after an error.
    pub(crate) fn serve(
        &self,
        stages: &[Stage],
        mut on: impl FnMut(Stage) -> Result<(), LaunchError>,
    ) -> Result<(), LaunchError> {
        for stage in stages {
            match receive_byte(&self.0) {
                Ok(Some(byte)) if byte == *stage as u8 => {}
                _ => return Ok(()),
            }
            on(*stage)?;
            // If it is gone meanwhile, its report or its end is found next.
            let _ = send_byte(&self.0, *stage);
        }
        Ok(())
    }
}

fn send_byte(socket: &OwnedFd, stage: Stage) -> hull_sys::Result<()> {
    loop {
        match send(socket, &[stage as u8], SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result.map(drop),
        }
    }
}

/// `None` is the end of the stream.
fn receive_byte(socket: &OwnedFd) -> hull_sys::Result<Option<u8>> {
    let mut byte = [0u8; 1];
    loop {
        match recv(socket, &mut byte[..], RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Ok((1, _)) => return Ok(byte.first().copied()),
            Ok(_) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serve_each_stage_is_answered_after_its_part() {
        let (parent, child) = pair().expect("pair");
        let waiter = std::thread::spawn(move || {
            child.wait(Stage::Mapped).expect("mapped");
            child.wait(Stage::BeforePivot).expect("before the pivot");
        });
        let mut seen = Vec::new();
        parent
            .serve(&[Stage::Mapped, Stage::BeforePivot], |stage| {
                seen.push(stage);
                Ok(())
            })
            .expect("served");
        waiter.join().expect("child");
        assert_eq!(seen, [Stage::Mapped, Stage::BeforePivot]);
    }

    #[test]
    fn serve_child_that_is_gone_ends_without_error() {
        let (parent, child) = pair().expect("pair");
        drop(child);
        parent
            .serve(&[Stage::Mapped], |_| panic!("never reached"))
            .expect("ended");
    }

    #[test]
    fn wait_parent_that_gives_up_is_an_error() {
        let (parent, child) = pair().expect("pair");
        let waiter = std::thread::spawn(move || child.wait(Stage::BeforePivot));
        let refused = parent.serve(&[Stage::BeforePivot], |_| {
            Err(LaunchError::Plan("no".to_owned()))
        });
        assert!(refused.is_err());
        drop(parent);
        let failed = waiter.join().expect("child").expect_err("refused");
        assert_eq!(failed.step, Step::Sync);
    }
}
