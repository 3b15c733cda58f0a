//! Installing a seccomp filter (seccomp(2)).

use crate::{Result, check};

/// One instruction of classic BPF, laid out as `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const NEW_LISTENER: u32 = 1 << 3;

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Forbids the caller and its children to gain privileges by execve.
///
/// # Errors
/// None on supported kernels.
pub fn no_new_privs() -> Result<()> {
    // SAFETY: prctl with integer arguments alone.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
        .map(drop)
}

/// Installs a filter on the calling thread, with `SECCOMP_FILTER_FLAG_*` flags.
///
/// # Errors
/// `EACCES` with neither `CAP_SYS_ADMIN` nor no_new_privs, `EINVAL` for a bad program (more than
/// 4096 instructions too).
pub fn install(program: &[Instruction], flags: u32) -> Result<()> {
    install_listening(program, flags).map(drop)
}

/// As [`install`]; with `SECCOMP_FILTER_FLAG_NEW_LISTENER` the number of the listener's
/// descriptor, which is close-on-exec, else 0.
///
/// # Errors
/// As [`install`], and `EBUSY` if another filter of the thread has a listener.
pub fn install_listening(program: &[Instruction], flags: u32) -> Result<i32> {
    let length = u16::try_from(program.len()).map_err(|_| crate::Errno::INVAL)?;
    let program = Program {
        length,
        instructions: program.as_ptr(),
    };
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    // SAFETY: the program points to `length` instructions of the layout the kernel expects, which
    // it copies and verifies.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })
    .map(|number| number as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone3::{Clone3, Namespaces, clone3};
    use crate::pidfd::{Exit, wait};

    #[test]
    fn install_filter_refusing_getppid_it_fails_in_the_child() {
        // ld nr; jeq getppid → ERRNO(38); else ALLOW
        let program = [
            Instruction {
                code: 0x20,
                jt: 0,
                jf: 0,
                k: 0,
            },
            Instruction {
                code: 0x15,
                jt: 0,
                jf: 1,
                k: libc::SYS_getppid as u32,
            },
            Instruction {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: 0x0005_0000 | 38,
            },
            Instruction {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: 0x7fff_0000,
            },
        ];
        let args = Clone3 {
            namespaces: Namespaces::NONE,
            cgroup: None,
            sibling: false,
        };
        let child = clone3(&args, || {
            if no_new_privs().is_err() || install(&program, 0).is_err() {
                return 1;
            }
            // SAFETY: getppid takes no arguments.
            let result = check(unsafe { libc::syscall(libc::SYS_getppid) });
            if result == Err(crate::Errno::NOSYS) {
                0
            } else {
                2
            }
        })
        .expect("clone3");
        let ended = wait(&child.pidfd, true).expect("wait").expect("ended");
        assert_eq!(ended.exit, Exit::Code(0));
    }
}
