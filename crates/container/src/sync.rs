//! Stages at which the child waits for the parent. Only a launch that needs one has the pair of
//! sockets: the others pay nothing.
//!
//! ```text
//! child                      parent
//! wait(stage) ── stage ───▶  does its part
//!             ◀── stage ───  goes on to the next stage, then reads the report
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::{Errno, fdpass};
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
    /// The process in between has made the one that counts: its id and its pidfd. Nobody waits.
    Born = 2,
    /// The terminal is open: its controlling side.
    Terminal = 3,
    /// All mounts and devices are in place; the root is still the host's.
    BeforePivot = 4,
}

/// A stage with what came along.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) stage: Stage,
    pub(crate) number: u32,
    pub(crate) fds: Vec<OwnedFd>,
}

const MESSAGE: usize = 5;

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
        self.tell(stage, 0, &[])
            .and_then(|()| self.answer(stage))
            .at(Step::Sync)
    }

    /// As [`ChildSync::wait`], with a descriptor for the parent.
    pub(crate) fn hand_over(&self, stage: Stage, fd: BorrowedFd<'_>) -> Result<(), Failed> {
        self.tell(stage, 0, &[fd])
            .and_then(|()| self.answer(stage))
            .at(Step::Sync)
    }

    /// Says that the process that counts is there. Waits for nothing.
    pub(crate) fn born(&self, pid: u32, pidfd: BorrowedFd<'_>) -> Result<(), Failed> {
        self.tell(Stage::Born, pid, &[pidfd]).at(Step::Sync)
    }

    pub(crate) fn number(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
        self.0.as_raw_fd()
    }

    fn tell(&self, stage: Stage, number: u32, fds: &[BorrowedFd<'_>]) -> hull_sys::Result<()> {
        let [a, b, c, d] = number.to_ne_bytes();
        fdpass::send(&self.0, &[stage as u8, a, b, c, d], fds).map(drop)
    }

    fn answer(&self, stage: Stage) -> hull_sys::Result<()> {
        let mut byte = [0u8; 1];
        loop {
            match recv(&self.0, &mut byte[..], RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Ok((1, _)) if byte == [stage as u8] => return Ok(()),
                Ok(_) => return Err(Errno::CONNRESET),
                Err(errno) => return Err(errno),
            }
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
        mut on: impl FnMut(Message) -> Result<(), LaunchError>,
    ) -> Result<(), LaunchError> {
        // The new process may be quicker with its next stage than its maker with its news of it.
        let mut early: Vec<Message> = Vec::new();
        for stage in stages {
            let known = early.iter().position(|message| message.stage == *stage);
            let message = match known {
                Some(index) => early.remove(index),
                None => loop {
                    match self.receive() {
                        Some(message) if message.stage == *stage => break message,
                        Some(message) => early.push(message),
                        None => return Ok(()),
                    }
                },
            };
            on(message)?;
            if *stage != Stage::Born {
                // If it is gone meanwhile, its report or its end is found next.
                let _ = send(&self.0, &[*stage as u8], SendFlags::NOSIGNAL);
            }
        }
        Ok(())
    }

    fn receive(&self) -> Option<Message> {
        let mut bytes = [0u8; MESSAGE];
        let mut fds = Vec::new();
        let count = fdpass::receive(self.0.as_fd(), &mut bytes, &mut fds).ok()?;
        let [stage, a, b, c, d] = bytes;
        let stage = [
            Stage::Mapped,
            Stage::Born,
            Stage::Terminal,
            Stage::BeforePivot,
        ]
        .into_iter()
        .find(|known| *known as u8 == stage && count == MESSAGE)?;
        Some(Message {
            stage,
            number: u32::from_ne_bytes([a, b, c, d]),
            fds,
        })
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
            .serve(&[Stage::Mapped, Stage::BeforePivot], |message| {
                seen.push(message.stage);
                Ok(())
            })
            .expect("served");
        waiter.join().expect("child");
        assert_eq!(seen, [Stage::Mapped, Stage::BeforePivot]);
    }

    #[test]
    fn serve_news_of_the_birth_after_the_next_stage_come_first() {
        let (parent, child) = pair().expect("pair");
        let null = std::fs::File::open("/dev/null").expect("null");
        let waiter = std::thread::spawn(move || {
            child
                .tell(Stage::BeforePivot, 0, &[])
                .expect("before the pivot");
            child.born(7, null.as_fd()).expect("born");
            child.answer(Stage::BeforePivot).expect("answer");
        });
        let mut seen = Vec::new();
        parent
            .serve(&[Stage::Born, Stage::BeforePivot], |message| {
                seen.push((message.stage, message.number, message.fds.len()));
                Ok(())
            })
            .expect("served");
        waiter.join().expect("child");
        assert_eq!(seen, [(Stage::Born, 7, 1), (Stage::BeforePivot, 0, 0)]);
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
