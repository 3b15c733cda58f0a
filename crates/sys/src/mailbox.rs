//! A word of memory shared with a child, for news that must pass without a system call: a filter
//! that is in force may stop any.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::{Errno, Result, check};

const SIZE: usize = 4096;
const EMPTY: i32 = -1;
const TAKEN: i32 = -2;
/// Turns a child waits for: some seconds, for a parent that was killed meanwhile.
const MAX_TURNS: u32 = 1 << 28;

/// Holds one descriptor's number at a time.
#[derive(Debug)]
pub struct Mailbox(NonNull<AtomicI32>);

// SAFETY: the word is an atomic in memory that lives as long as the value.
unsafe impl Send for Mailbox {}
// SAFETY: as above; all access is atomic.
unsafe impl Sync for Mailbox {}

impl Mailbox {
    /// An empty one. Children made by clone without `CLONE_VM` share it until they execute.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = check(unsafe {
            libc::syscall(
                libc::SYS_mmap,
                std::ptr::null::<u8>(),
                SIZE,
                protection,
                flags,
                -1,
                0,
            )
        })?;
        let word = NonNull::new(address as *mut AtomicI32).ok_or(Errno::NOMEM)?;
        let made = Self(word);
        made.word().store(EMPTY, Ordering::Release);
        Ok(made)
    }

    fn word(&self) -> &AtomicI32 {
        // SAFETY: a page of its own, aligned, writable, and mapped until the value is dropped.
        unsafe { self.0.as_ref() }
    }

    /// Offers a number and waits until it was taken, by spinning: no system call is made.
    ///
    /// # Errors
    /// `ETIMEDOUT` if nobody takes it.
    pub fn offer(&self, number: i32) -> Result<()> {
        self.word().store(number, Ordering::Release);
        for _ in 0..MAX_TURNS {
            if self.word().load(Ordering::Acquire) == TAKEN {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        Err(Errno::TIMEDOUT)
    }

    /// What is offered.
    #[must_use]
    pub fn offered(&self) -> Option<i32> {
        Some(self.word().load(Ordering::Acquire)).filter(|number| *number >= 0)
    }

    /// Lets the one that offered go on.
    pub fn take(&self) {
        self.word().store(TAKEN, Ordering::Release);
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`, to which no reference is left.
        let _ = unsafe { libc::syscall(libc::SYS_munmap, self.0.as_ptr(), SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone3::{Clone3, Namespaces, clone3};
    use crate::pidfd::{Exit, wait};

    #[test]
    fn offer_of_a_child_arrives_and_it_goes_on() {
        let mailbox = Mailbox::new().expect("mailbox");
        assert_eq!(mailbox.offered(), None);
        let args = Clone3 {
            namespaces: Namespaces::NONE,
            cgroup: None,
            sibling: false,
        };
        let child = clone3(&args, || i32::from(mailbox.offer(7).is_err())).expect("clone3");
        while mailbox.offered().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(mailbox.offered(), Some(7));
        mailbox.take();
        let ended = wait(&child.pidfd, true).expect("wait").expect("ended");
        assert_eq!(ended.exit, Exit::Code(0));
    }
}
