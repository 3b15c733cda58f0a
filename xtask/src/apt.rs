//! Debian packages the tests need: found by the file each brings, installed only if missing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process::run;

/// (file that shows the package is there, package).
const NEEDS: [(&str, &str); 35] = [
    ("/bin/busybox", "busybox-static"),
    ("/usr/sbin/debootstrap", "debootstrap"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/psql", "postgresql-client"),
    ("/usr/bin/redis-cli", "redis-tools"),
    ("/usr/bin/skopeo", "skopeo"),
    ("/usr/bin/umoci", "umoci"),
    ("/usr/bin/docker-registry", "docker-registry"),
    ("/usr/bin/htpasswd", "apache2-utils"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/wrk", "wrk"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/bin/crun", "crun"),
    ("/usr/bin/time", "time"),
    ("/usr/sbin/dockerd", "docker.io"),
    ("/usr/bin/podman", "podman"),
    ("/usr/bin/strace", "strace"),
    ("/usr/bin/jq", "jq"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("/bin/ps", "procps"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/gpgv", "gpgv"),
    (
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
    ),
    ("/usr/bin/xz", "xz-utils"),
    ("/usr/bin/zstd", "zstd"),
    ("/usr/sbin/mke2fs", "e2fsprogs"),
    ("/usr/bin/mkfs.erofs", "erofs-utils"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/cpio", "cpio"),
    ("/usr/sbin/depmod", "kmod"),
    ("/usr/sbin/setcap", "libcap2-bin"),
    ("/usr/bin/setpriv", "util-linux"),
];

/// Installs by apt what is missing, and says so.
pub(crate) fn install_missing() -> Result<()> {
    install(&NEEDS, "the tests need")
}

/// Installs those of some packages that are missing, and says for whom.
pub(crate) fn install(needs: &[(&str, &'static str)], who: &str) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|(file, _)| !present(file))
        .map(|&(_, package)| package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "{who} {}: install them (this is no Debian, so xtask cannot)",
            missing.join(" ")
        );
    }
    eprintln!("xtask: installing what {who}: {}", missing.join(" "));
    update()?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    run(&mut apt(&arguments))
}

/// Refreshes the lists of packages.
pub(crate) fn update() -> Result<()> {
    run(&mut apt(&["update", "-qq"]))
}

/// Whether a file is there; on a merged /usr, /bin and /usr/bin are one.
fn present(file: &str) -> bool {
    Path::new(file).exists()
        || Path::new(&file.replace("/usr/sbin/", "/sbin/")).exists()
        || Path::new(&file.replace("/usr/sbin/", "/usr/bin/")).exists()
        || Path::new(&format!("/usr{file}")).exists()
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // A package must not start its service on this machine: the tests start their own.
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null());
    command
}
