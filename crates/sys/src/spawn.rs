//! Starting a program with chosen descriptors, fast whatever the size of the caller.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::process::Pid;

use crate::{Errno, Result};

/// Starts the program behind a handle of [`crate::sealed::open`] with `args` (the first is its name), an empty environment, every signal
/// unblocked, in a session of its own, and exactly the descriptors of `fds` besides those
/// without close-on-exec: each pair is a descriptor of ours and its number over there.
///
/// glibc's posix_spawn shares the memory until the exec, so that the cost does not grow with
/// the caller. The caller reaps the process.
///
/// # Errors
/// As posix_spawn(3): `EACCES`, `EAGAIN`, …
pub fn spawn(
    program: BorrowedFd<'_>,
    args: &[CString],
    fds: &[(BorrowedFd<'_>, i32)],
) -> Result<Pid> {
    let path = crate::sealed::path(program);
    let mut argv: Vec<*mut libc::c_char> = args.iter().map(|a| a.as_ptr().cast_mut()).collect();
    argv.push(ptr::null_mut());
    let envp: [*mut libc::c_char; 1] = [ptr::null_mut()];
    let mut actions = Actions::new()?;
    for (fd, number) in fds {
        actions.dup(fd.as_raw_fd(), *number)?;
    }
    let mut attributes = Attributes::new()?;
    attributes.own_session_and_clear_mask()?;
    let mut pid: libc::pid_t = 0;
    // SAFETY: `path`, `argv` and `envp` are valid, null-terminated and outlive the call;
    // actions and attributes were initialised by their constructors.
    let code = unsafe {
        libc::posix_spawn(
            &mut pid,
            path.as_ptr(),
            &actions.0,
            &attributes.0,
            argv.as_ptr(),
            envp.as_ptr(),
        )
    };
    result(code)?;
    Pid::from_raw(pid).ok_or(Errno::SRCH)
}

fn result(code: libc::c_int) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(Errno::from_raw_os_error(code))
    }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> Result<Self> {
        let mut actions = std::mem::MaybeUninit::uninit();
        // SAFETY: the call initialises the memory it is given.
        result(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised by the successful call above.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn dup(&mut self, from: i32, to: i32) -> Result<()> {
        // SAFETY: the object is initialised; the descriptors are plain numbers.
        result(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, from, to) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> Result<Self> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: the call initialises the memory it is given.
        result(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the successful call above.
        Ok(Self(unsafe { attributes.assume_init() }))
    }

    fn own_session_and_clear_mask(&mut self) -> Result<()> {
        const POSIX_SPAWN_SETSID: libc::c_short = 0x80;
        let flags = POSIX_SPAWN_SETSID | libc::POSIX_SPAWN_SETSIGMASK as libc::c_short;
        let mut empty = std::mem::MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set that the next call reads; `self.0` is initialised.
        unsafe {
            libc::sigemptyset(empty.as_mut_ptr());
            result(libc::posix_spawnattr_setsigmask(
                &mut self.0,
                empty.as_ptr(),
            ))?;
            result(libc::posix_spawnattr_setflags(&mut self.0, flags))
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::path::Path;

    #[test]
    fn spawned_programs_of_one_handle_see_the_descriptor_at_its_number() {
        let program = crate::sealed::open(Path::new("/bin/sh")).expect("open");
        for _ in 0..2 {
            let (mut read, write) = std::io::pipe().expect("pipe");
            let args = [c"sh", c"-c", c"echo hi >&7"].map(CString::from);
            let pid = spawn(program.as_fd(), &args, &[(write.as_fd(), 7)]).expect("spawn");
            drop(write);
            let mut text = String::new();
            read.read_to_string(&mut text).expect("read");
            assert_eq!(text, "hi\n");
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
                .expect("wait");
        }
    }

    #[test]
    fn spawn_what_is_no_program_is_eacces() {
        let program = crate::sealed::open(Path::new("/etc/passwd")).expect("open");
        let args = [CString::from(c"x")];
        assert_eq!(spawn(program.as_fd(), &args, &[]), Err(Errno::ACCESS));
    }
}
