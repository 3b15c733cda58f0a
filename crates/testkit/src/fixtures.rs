//! Images and root file systems the tests run: made once, kept in `target/fixtures/`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use crate::archive::{Image, Layer, digest};
use crate::paths;

/// Busybox as Debian's busybox-static installs it.
const BUSYBOX: &str = "/bin/busybox";
/// What is installed in the Debian root file system.
const PACKAGES: [&str; 6] = [
    "nginx-light",
    "postgresql",
    "redis-server",
    "ca-certificates",
    "procps",
    "iproute2",
];
/// Debian's release.
const SUITE: &str = "bookworm";
/// Raise when what is made changes, so that old cached files are not used.
const VERSION: u32 = 2;

/// The layer of busybox: the program, a hard link for each applet, and a little /etc.
///
/// # Panics
/// If busybox-static is not installed.
#[must_use]
pub fn busybox_layer() -> Vec<u8> {
    let program =
        fs::read(BUSYBOX).expect("busybox-static is installed (cargo xtask test does it)");
    let out = Command::new(BUSYBOX)
        .arg("--list")
        .output()
        .expect("list busybox's applets");
    let applets = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut layer = Layer::new();
    for dir in [
        "bin/",
        "etc/",
        "home/",
        "root/",
        "usr/",
        "usr/bin/",
        "usr/sbin/",
        "var/",
        "var/spool/",
        "var/www/",
    ] {
        layer = layer.dir(dir, 0o755);
    }
    layer = layer
        .dir("tmp/", 0o1777)
        .file("bin/busybox", 0o755, &program)
        .file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
              hull:x:1000:1000:hull:/home/hull:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
        )
        .file(
            "etc/group",
            0o644,
            b"root:x:0:\ndaemon:x:1:\naudio:x:29:hull\nvideo:x:44:hull\nhull:x:1000:\nnogroup:x:65534:\n",
        )
        .entry("home/hull/", tar::EntryType::Directory, 0o755, "", &[])
        .symlink("usr/bin/env", "../../bin/env");
    for applet in applets
        .lines()
        .filter(|name| *name != "busybox" && !name.contains('/'))
    {
        layer = layer.hardlink(&format!("bin/{applet}"), "bin/busybox");
    }
    layer.finish()
}

/// A docker-archive of `busybox:latest`.
#[must_use]
pub fn busybox() -> PathBuf {
    cached(&format!("busybox-{VERSION}.tar"), |path| {
        Image::new("busybox:latest").busybox().write(path);
    })
}

/// A root file system tar of Debian with nginx, PostgreSQL and Redis in it.
#[must_use]
pub fn debian() -> PathBuf {
    let key = digest(format!("{VERSION} {SUITE} {}", PACKAGES.join(",")).as_bytes());
    let key = key.get(..12).unwrap_or("x").to_owned();
    cached(&format!("debian-{key}.tar"), |path| {
        eprintln!(
            "testkit: making a Debian root file system with {} (a minute or two)",
            PACKAGES.join(", ")
        );
        let dir = path.with_extension("root");
        let _ = fs::remove_dir_all(&dir);
        let log = path.with_extension("log");
        let sink = File::create(&log).expect("make a log file");
        let status = Command::new("debootstrap")
            .arg("--variant=minbase")
            .arg(format!("--include={}", PACKAGES.join(",")))
            .arg(SUITE)
            .arg(&dir)
            .arg(mirror())
            .stdin(Stdio::null())
            .stdout(sink.try_clone().expect("copy a descriptor"))
            .stderr(sink)
            .status()
            .expect("debootstrap is installed");
        assert!(
            status.success(),
            "debootstrap failed, see {} and {}",
            log.display(),
            dir.join("debootstrap/debootstrap.log").display()
        );
        // debootstrap mounts these for the packages' scripts and may leave them.
        for mount in ["proc", "sys"] {
            let _ = Command::new("umount")
                .arg("-q")
                .arg(dir.join(mount))
                .stderr(Stdio::null())
                .status();
        }
        for heap in [
            "var/cache/apt/archives",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/man",
        ] {
            let _ = fs::remove_dir_all(dir.join(heap));
        }
        tar_of(&dir, path);
        fs::remove_dir_all(&dir).expect("remove the unpacked root file system");
    })
}

/// Debian's kernel for virtual machines, unpacked: `boot/` and `lib/modules/`.
///
/// # Panics
/// If it cannot be downloaded.
#[must_use]
pub fn kernel() -> PathBuf {
    cached("kernel-bookworm", |path| {
        eprintln!("testkit: downloading Debian's kernel for virtual machines (27 MB)");
        let script = "set -e; rm -rf \"$1\"; mkdir -p \"$1.deb\"; cd \"$1.deb\"; \
            package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2; exit}'); \
            apt-get download -qq \"$package\"; dpkg -x linux-image-*.deb \"$1\"; rm -rf \"$1.deb\"";
        let status = Command::new("bash")
            .args(["-c", script, "kernel"])
            .arg(path)
            .stdin(Stdio::null())
            .status()
            .expect("bash is installed");
        assert!(
            status.success(),
            "downloading linux-image-cloud-amd64 failed"
        );
    })
}

/// The static probe program, to be mounted into containers.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn probe() -> PathBuf {
    // Test programs lie in deps/, one below the package's own programs.
    let here = std::env::current_exe().expect("know where this program lies");
    let probe = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("hull-probe"))
        .find(|path| path.exists());
    probe.expect("hull-probe is built (cargo build --release -p hull-testkit)")
}

/// Debian's mirror as the host has it configured.
///
/// # Panics
/// If it has none: this is no Debian, or one that cannot install anything.
pub(crate) fn mirror() -> String {
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    if let Ok(list) = fs::read_dir("/etc/apt/sources.list.d") {
        texts.extend(list.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()));
    }
    texts
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(|line| line.split_whitespace())
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .expect("apt has a source of Debian packages")
        .to_owned()
}

/// Packs a folder with owners, modes and extended attributes.
///
/// # Panics
/// If tar fails.
pub fn tar_of(dir: &Path, to: &Path) {
    let status = Command::new("tar")
        .args([
            "--create",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "--one-file-system",
        ])
        .arg("--file")
        .arg(to)
        .arg("--directory")
        .arg(dir)
        .arg(".")
        .stdin(Stdio::null())
        .status()
        .expect("tar is installed");
    assert!(status.success(), "tar of {} failed", dir.display());
}

/// Makes a file once, under a lock, and lets it appear by rename.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let dir = paths::fixtures();
    let path = dir.join(name);
    if path.exists() {
        return path;
    }
    let lock = File::create(dir.join(format!("{name}.lock"))).expect("make a lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("lock");
    if !path.exists() {
        let new = dir.join(format!("new-{name}"));
        make(&new);
        fs::rename(&new, &path).expect("put the fixture in place");
    }
    path
}
