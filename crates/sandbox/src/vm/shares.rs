//! Folders and files of the host in a guest: a file server in a container of its own.
//!
//! What is shared is bound side by side into that container, which has nothing else to show: no
//! path, link or handle of a guest leads anywhere but there. The server speaks with the machine
//! over a socket and the guest's memory (virtio-fs), so that both sides see each other's writes.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use hull_container::{Host, Options};
use hull_proto::Failure;
use hull_proto::plan::{
    LaunchPlan, MountKind, MountOptions, PlanMount, PlanUser, ProcessPlan, RootFs, SeccompPlan,
};
use hull_proto::vm::VmPlan;
use hull_sys::pidfd;
use rustix::fs::{Mode, OFlags};

use super::boot::failed;
use super::cell;

/// Folder of the server's container in which everything shared is.
const TREE: &str = "/share";
/// What it takes to act for the users of a guest on files, and to shut itself in.
const CAPABILITIES: [&str; 10] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "SETGID",
    "SETUID",
    "MKNOD",
    "SETFCAP",
    "SETPCAP",
    "SYS_CHROOT",
];
const SIGKILL: i32 = 9;

/// A file server. It is killed with its value.
#[derive(Debug)]
pub(super) struct FileServer {
    pidfd: OwnedFd,
    dir: PathBuf,
}

impl FileServer {
    /// Becomes readable when it has ended.
    pub(super) fn process(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        let _ = pidfd::send_signal(&self.pidfd, SIGKILL);
        let _ = pidfd::wait(&self.pidfd, true);
        let _ = cell::remove(&self.dir);
    }
}

/// Starts the server of a machine that shares something, and the machine's end of its socket.
pub(super) fn start(
    host: &Host,
    vm: &VmPlan,
    id: &str,
) -> Result<Option<(FileServer, OwnedFd)>, Failure> {
    if vm.shares.is_empty() {
        return Ok(None);
    }
    let wrong = |what: &str, error: &dyn std::fmt::Display| {
        failed(format!(
            "cannot share files with the virtual machine: {what}: {error}"
        ))
    };
    let dir = vm.dir.with_file_name("shares");
    std::fs::create_dir_all(&dir).map_err(|e| wrong("its folder", &e))?;
    // The server wants a socket that listens: a name for the time of one connect.
    let name = vm.dir.with_file_name("fs.sock");
    let _ = std::fs::remove_file(&name);
    let listener = UnixListener::bind(&name).map_err(|e| wrong("its socket", &e))?;
    let client = UnixStream::connect(&name).map_err(|e| wrong("its socket", &e));
    let _ = std::fs::remove_file(&name);
    let client = client?;
    let keep = [OwnedFd::from(listener)];
    let plan = plan(vm, id, &dir, keep[0].as_raw_fd());
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| wrong("/dev/null", &e))?;
    let stdio = hull_container::Stdio {
        stdin: null.as_fd(),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
    };
    let options = Options {
        die_with_parent: true,
        keep: &keep,
        ..Options::default()
    };
    let none: [OwnedFd; 0] = [];
    let launched = hull_container::launch(host, &plan, &none, &stdio, &options);
    let launched = launched.map_err(|error| {
        let _ = cell::remove(&dir);
        wrong("its server", &crate::container::failed(&error).message)
    })?;
    let server = FileServer {
        pidfd: launched.process.pidfd,
        dir,
    };
    Ok(Some((server, client.into())))
}

fn plan(vm: &VmPlan, id: &str, dir: &std::path::Path, listener: i32) -> LaunchPlan {
    let mut mounts = cell::programs(&vm.file_server);
    mounts.push(PlanMount {
        target: "/proc".into(),
        kind: MountKind::Proc,
        options: MountOptions {
            nosuid: true,
            nodev: true,
            noexec: true,
            ..MountOptions::default()
        },
    });
    mounts.extend(vm.shares.iter().map(|share| PlanMount {
        target: format!("{TREE}/{}", share.name),
        kind: MountKind::Bind {
            source: share.source.clone(),
            recursive: share.recursive,
        },
        options: MountOptions {
            read_only: share.read_only,
            recursive_read_only: share.read_only && share.recursive,
            // The server executes nothing and opens no device; what the guest may is its own mount's.
            nosuid: true,
            nodev: true,
            noexec: true,
            ..MountOptions::default()
        },
    }));
    let mut args = vec![
        vm.file_server.to_string_lossy().into_owned(),
        format!("--fd={listener}"),
        "--rlimit-nofile=0".into(),
    ];
    let tree = format!("source={TREE}");
    // Nothing is remembered on either side: what one writes the other reads.
    for option in [
        tree.as_str(),
        "sandbox=chroot",
        "cache=auto",
        "timeout=0",
        "xattr",
        "announce_submounts",
        "log_level=err",
    ] {
        args.extend(["-o".into(), option.into()]);
    }
    LaunchPlan {
        id: id.to_owned(),
        rootfs: RootFs::Directory {
            path: dir.to_owned(),
        },
        readonly_rootfs: true,
        hostname: "files".into(),
        mounts,
        devices: cell::nodes(false, 0),
        // The hypervisor's, which comes second: the rules for devices are one.
        cgroup: cell::group(vm, None, vm.kvm),
        process: ProcessPlan {
            args,
            cwd: "/".into(),
            user: PlanUser::Ids {
                uid: 0,
                gid: 0,
                groups: Vec::new(),
            },
            capabilities: CAPABILITIES.map(String::from).into(),
            no_new_privileges: true,
            // It installs a filter of its own, narrower than any for containers.
            seccomp: SeccompPlan::Unconfined,
            ..ProcessPlan::default()
        },
        seccomp_cache: vm.seccomp_cache.clone(),
        ..LaunchPlan::default()
    }
}
