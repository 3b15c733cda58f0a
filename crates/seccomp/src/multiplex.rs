//! i386's `socketcall` and `ipc`, each carrying many operations in one system call.

use crate::profile::{ArgTest, Test};

/// Operations of `socketcall`, from `linux/net.h`.
const SOCKETCALL: &[(&str, u64)] = &[
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// Operations of `ipc`, from `linux/ipc.h`.
const IPC: &[(&str, u64)] = &[
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// The call that carries `name` on i386, and the test of its first argument that picks it.
pub(crate) fn carrier(name: &str) -> Option<(&'static str, ArgTest)> {
    [("socketcall", SOCKETCALL), ("ipc", IPC)]
        .into_iter()
        .find_map(|(carrier, operations)| {
            let (_, number) = operations
                .iter()
                .find(|(operation, _)| *operation == name)?;
            Some((
                carrier,
                ArgTest {
                    index: 0,
                    test: Test::Equal(*number),
                },
            ))
        })
}
