//! A Debian guest on a disk: the whole userland, a kernel with every module, pure cgroup v2, and
//! as its first process either a script or a real systemd.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Fate, disk, parse};
use crate::command::Run;
use crate::fixtures;
use crate::paths;

/// How long boot, commands and shutdown may take together.
const LIMIT: Duration = Duration::from_secs(300);
/// Memory of the guest in MiB.
const MEMORY: &str = "2048";
/// Room for what a test brings along, in MiB.
const PAYLOAD_MIB: u64 = 256;

/// What a script as first process needs before the commands.
const FIRST: &str = r"mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue; mount -t devpts -o ptmxmode=666 none /dev/pts; mount -t tmpfs none /dev/shm; mount -t mqueue none /dev/mqueue
mount -t tmpfs -o mode=755 none /run; mount -t tmpfs none /tmp; chmod 1777 /tmp /dev/shm
mount -t cgroup2 -o nsdelegate none /sys/fs/cgroup
mount -t securityfs none /sys/kernel/security
# The root group's own process moves away, as under every service manager.
mkdir /sys/fs/cgroup/first; echo 1 >/sys/fs/cgroup/first/cgroup.procs
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$controller >/sys/fs/cgroup/cgroup.subtree_control; done
hostname guest
";

/// The first process of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Script,
    Systemd,
}

/// A guest about to be booted.
#[derive(Debug)]
pub struct Guest {
    first: First,
    dir: PathBuf,
    files: Vec<(PathBuf, String)>,
    texts: Vec<(String, u32, String)>,
    commands: Vec<(String, String)>,
    limit: Duration,
}

/// What came out of a guest.
#[derive(Debug, Clone)]
pub struct Report {
    fates: BTreeMap<String, Fate>,
    results: String,
    console: String,
}

impl Guest {
    /// A guest whose commands run beneath a script that is process 1; files are made in `dir`.
    #[must_use]
    pub fn script(dir: &Path) -> Self {
        Self::new(dir, First::Script)
    }

    /// A guest whose commands are a service of systemd.
    #[must_use]
    pub fn systemd(dir: &Path) -> Self {
        Self::new(dir, First::Systemd)
    }

    fn new(dir: &Path, first: First) -> Self {
        Self {
            first,
            dir: dir.to_owned(),
            files: Vec::new(),
            texts: Vec::new(),
            commands: Vec::new(),
            limit: LIMIT,
        }
    }

    /// How long it may take altogether; five minutes unless told.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Brings a file or a folder of the host to /payload/NAME.
    #[must_use]
    pub fn file(mut self, host: &Path, name: &str) -> Self {
        self.files.push((host.to_owned(), name.to_owned()));
        self
    }

    /// Writes a file in the guest.
    #[must_use]
    pub fn text(mut self, path: &str, mode: u32, text: &str) -> Self {
        self.texts.push((path.to_owned(), mode, text.to_owned()));
        self
    }

    /// Runs shell commands as root, after those given before.
    #[must_use]
    pub fn command(mut self, name: &str, command: &str) -> Self {
        self.commands.push((name.to_owned(), command.to_owned()));
        self
    }

    /// Boots, runs the commands, powers off.
    ///
    /// # Panics
    /// If the guest cannot be made.
    #[must_use]
    pub fn run(self) -> Report {
        let base = disk::debian();
        let payload = self.payload();
        let results = self.dir.join("results");
        let kernel = fixtures::kernel();
        let drive = |path: &Path| {
            format!(
                "file={},format=raw,if=virtio,snapshot=on,cache=unsafe",
                path.display()
            )
        };
        let out = Run::new("qemu-system-x86_64")
            .args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-m", MEMORY, "-smp", "2", "-display", "none", "-no-reboot"])
            .args(["-nodefaults", "-serial", "stdio", "-serial"])
            .arg(format!("file:{}", results.display()))
            .arg("-kernel")
            .arg(super::image(&kernel))
            .arg("-initrd")
            .arg(base.join("initrd"))
            .arg("-drive")
            .arg(drive(&base.join("disk.img")))
            .arg("-drive")
            .arg(drive(&payload))
            .arg("-append")
            .arg(
                "console=ttyS0 quiet panic=-1 mitigations=off hugepages=4 \
                 systemd.show_status=no systemd.log_level=warning",
            )
            .limit(self.limit)
            .run();
        let results = fs::read_to_string(&results)
            .unwrap_or_default()
            .replace('\r', "");
        Report {
            fates: parse(&results),
            results,
            console: out.stdout,
        }
    }

    /// The second disk, with what this test brings.
    fn payload(&self) -> PathBuf {
        let dir = self.dir.join("payload");
        let root = dir.join("root");
        fs::create_dir_all(&root).expect("make the payload's folder");
        let copy = |from: &Path, to: &Path| {
            fs::create_dir_all(to.parent().expect("a folder")).expect("make a folder");
            Run::new("cp").arg("-a").arg(from).arg(to).ok();
        };
        copy(&paths::dist(), &dir.join("hull"));
        for (host, name) in &self.files {
            copy(host, &dir.join(name));
        }
        let write = |path: &Path, mode: u32, text: &str| {
            fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
            fs::write(path, text).expect("write a file of the payload");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set its mode");
        };
        for (path, mode, text) in &self.texts {
            write(&root.join(path.trim_start_matches('/')), *mode, text);
        }
        let init = match self.first {
            First::Script => "/payload/work.sh\n",
            First::Systemd => "/lib/systemd/systemd\n",
        };
        write(&dir.join("init"), 0o644, init);
        write(&dir.join("work.sh"), 0o755, &self.work());
        let disk = self.dir.join("payload.img");
        Run::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E"])
            .args(["root_owner=0:0", "-d"])
            .arg(&dir)
            .arg(&disk)
            .arg(format!("{PAYLOAD_MIB}M"))
            .ok();
        fs::remove_dir_all(&dir).expect("remove the payload's folder");
        disk
    }

    fn work(&self) -> String {
        let mut script = String::from(
            "#!/bin/bash\nexport PATH=/payload/hull:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n",
        );
        if self.first == First::Script {
            script.push_str(FIRST);
        }
        script.push_str(
            "exec </dev/null >/dev/ttyS1 2>&1\nip link set lo up; modprobe overlay; modprobe bfq\ncd /root\n",
        );
        for (name, command) in &self.commands {
            script.push_str(&format!(
                "echo; echo '<<{name}'\n( {command}\n)\ncode=$?; echo; echo \"{name}>> $code\"\n"
            ));
        }
        // Whatever hangs must not hold the machine.
        script.push_str("busybox poweroff -f\n");
        script
    }
}

impl Report {
    /// What one command did.
    ///
    /// # Panics
    /// If it never ended.
    #[must_use]
    pub fn fate(&self, name: &str) -> &Fate {
        self.fates
            .get(name)
            .unwrap_or_else(|| panic!("{name} never ended:\n{}", self.all()))
    }

    /// Checks one command's exit code, and that its output has a part.
    ///
    /// # Panics
    /// If it is otherwise.
    pub fn check(&self, name: &str, code: i32, part: &str) {
        let fate = self.fate(name);
        assert!(
            fate.code == code && fate.output.contains(part),
            "{name}: wanted {code} and {part:?}, got {} and\n{}\n\nall:\n{}",
            fate.code,
            fate.output,
            self.all()
        );
    }

    /// Everything the guest said.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}\n--- console ---\n{}", self.results, self.console)
    }
}
