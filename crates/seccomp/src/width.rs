//! Arguments of which the kernel looks at the low 32 bits only.
//!
//! A filter sees whole registers, the kernel's `int` parameters do not. Were the upper half
//! compared, `socket(0x1_0000_0026, …)` would pass a rule "family above 40" and still open
//! family 38; filters of `ioctl` and `personality` have been walked around that way
//! (CVE-2019-7303, CVE-2019-10063). So these are compared by their low half.

/// System calls with the indices of their `int`, `unsigned int` and narrower parameters, from the
/// `SYSCALL_DEFINE` lines of the kernel; sorted by name.
const NARROW: &[(&str, &[u8])] = &[
    ("accept", &[0]),
    ("accept4", &[0, 3]),
    ("arch_prctl", &[0]),
    ("bind", &[0, 2]),
    ("bpf", &[0, 2]),
    ("chmod", &[1]),
    ("chown", &[1, 2]),
    ("clock_adjtime", &[0]),
    ("clock_settime", &[0]),
    ("close", &[0]),
    ("close_range", &[0, 1, 2]),
    ("connect", &[0, 2]),
    ("dup", &[0]),
    ("dup2", &[0, 1]),
    ("dup3", &[0, 1, 2]),
    ("epoll_create1", &[0]),
    ("eventfd2", &[0, 1]),
    ("execveat", &[0, 4]),
    ("fadvise64", &[0, 3]),
    ("fallocate", &[0, 1]),
    ("fanotify_init", &[0, 1]),
    ("fchmod", &[0, 1]),
    ("fchmodat", &[0, 2]),
    ("fchmodat2", &[0, 2, 3]),
    ("fchown", &[0, 1, 2]),
    ("fchownat", &[0, 2, 3, 4]),
    ("fcntl", &[0, 1]),
    ("fsconfig", &[0, 1, 4]),
    ("fsmount", &[0, 1, 2]),
    ("fsopen", &[1]),
    ("futex", &[1, 2, 5]),
    ("getsockopt", &[0, 1, 2]),
    ("inotify_init1", &[0]),
    ("io_uring_enter", &[0, 1, 2, 3]),
    ("io_uring_register", &[0, 1, 3]),
    ("io_uring_setup", &[0]),
    ("ioctl", &[0, 1]),
    ("ioprio_set", &[0, 1, 2]),
    ("kcmp", &[0, 1, 2]),
    ("keyctl", &[0]),
    ("kill", &[0, 1]),
    ("lchown", &[1, 2]),
    ("listen", &[0, 1]),
    ("lseek", &[0, 2]),
    ("madvise", &[2]),
    ("mbind", &[5]),
    ("memfd_create", &[1]),
    ("mkdir", &[1]),
    ("mkdirat", &[0, 2]),
    ("mknod", &[1, 2]),
    ("mknodat", &[0, 2, 3]),
    ("mlock2", &[2]),
    ("mlockall", &[0]),
    ("mount_setattr", &[0, 2]),
    ("move_mount", &[0, 2, 4]),
    ("msgctl", &[0, 1]),
    ("msync", &[2]),
    ("open", &[1, 2]),
    ("open_by_handle_at", &[0, 2]),
    ("open_tree", &[0, 2]),
    ("openat", &[0, 2, 3]),
    ("perf_event_open", &[1, 2, 3]),
    ("personality", &[0]),
    ("pidfd_open", &[0, 1]),
    ("pidfd_send_signal", &[0, 1, 3]),
    ("pipe2", &[1]),
    ("prctl", &[0]),
    ("prlimit64", &[0, 1]),
    ("quotactl", &[0]),
    ("reboot", &[0, 1, 2]),
    ("recvfrom", &[0, 3]),
    ("renameat2", &[0, 2, 4]),
    ("rt_sigprocmask", &[0]),
    ("rt_sigqueueinfo", &[0, 1]),
    ("sched_setscheduler", &[0, 1]),
    ("seccomp", &[0, 1]),
    ("semctl", &[0, 1, 2]),
    ("sendto", &[0, 3, 5]),
    ("setgid", &[0]),
    ("setns", &[0, 1]),
    ("setpriority", &[0, 1, 2]),
    ("setregid", &[0, 1]),
    ("setresgid", &[0, 1, 2]),
    ("setresuid", &[0, 1, 2]),
    ("setreuid", &[0, 1]),
    ("setrlimit", &[0]),
    ("setsockopt", &[0, 1, 2, 4]),
    ("setuid", &[0]),
    ("shmctl", &[0, 1]),
    ("shmget", &[0, 2]),
    ("signalfd4", &[0, 3]),
    ("socket", &[0, 1, 2]),
    ("socketcall", &[0]),
    ("socketpair", &[0, 1, 2]),
    ("splice", &[0, 2, 5]),
    ("syslog", &[0, 2]),
    ("tgkill", &[0, 1, 2]),
    ("timerfd_create", &[0, 1]),
    ("tkill", &[0, 1]),
    ("umount2", &[1]),
    ("unlinkat", &[0, 2]),
    ("userfaultfd", &[0]),
    ("waitid", &[0, 1, 3]),
];

/// Whether the kernel reads this argument of a 64 bit system call as a 32 bit number.
pub(crate) fn is_narrow(syscall: &str, index: u8) -> bool {
    NARROW
        .binary_search_by(|(name, _)| (*name).cmp(syscall))
        .ok()
        .and_then(|at| NARROW.get(at))
        .is_some_and(|(_, indices)| indices.contains(&index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_table_is_sorted() {
        assert!(NARROW.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn narrow_arguments_of_known_calls_are_told_apart() {
        assert!(is_narrow("socket", 0));
        assert!(is_narrow("ioctl", 1));
        assert!(!is_narrow("ioctl", 2));
        assert!(!is_narrow("clone", 0));
        assert!(!is_narrow("no_such_call", 0));
    }
}
