//! A launch plan becomes a process.
//!
//! "Plan, then execute": the parent prepares everything that can be prepared (strings, mounts as
//! descriptors, ids, the system call filter, the control group with its limits), then one clone3
//! makes the process with its namespaces, and the child runs a straight list of system calls
//! without allocating, locking or panicking. It reports `(step, errno)` over a close-on-exec
//! pipe: the end of the stream is success.
//!
//! ```text
//! launch ─▶ rootfs · mounts · process · cgroup ──clone3──▶ child: init ─▶ enter ─▶ execve
//! exec   ─▶ process ─────────────────────────────clone3──▶ child: join ─▶ enter ─▶ execve
//! ```

mod cgroup;
mod devices;
mod enter;
mod error;
mod exec;
mod hook;
mod host;
mod hostmounts;
mod idmap;
mod init;
mod launch;
mod listener;
mod lsm;
mod makers;
mod mounts;
mod paths;
mod process;
mod report;
mod rootchange;
mod rootfs;
mod schedule;
mod served;
mod spaces;
mod spawn;
mod stdio;
mod sync;
mod sysctl;
mod target;
mod timens;
mod user;
mod userns;

pub use cgroup::create as create_group;
pub use error::LaunchError;
pub use exec::{ExecTarget, exec};
pub use hook::{Hook, InnerHooks, Outcome};
pub use host::Host;
pub use hostmounts::detach_root;
pub use launch::{BeforePivot, Launched, Options, launch};
pub use listener::Listener;
pub use process::Started;
pub use stdio::Stdio;
pub use user::{Identity, UserError};
