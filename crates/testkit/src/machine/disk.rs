//! The disk of the Debian guest, and the memory disk that finds it: made once, kept with the fixtures.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::archive::digest;
use crate::fixtures;

/// What is installed in the guest.
const PACKAGES: [&str; 16] = [
    "apparmor",
    "busybox-static",
    "crun",
    "dbus",
    "dbus-user-session",
    "iproute2",
    "jq",
    "kmod",
    "libpam-systemd",
    "procps",
    "runc",
    "strace",
    "systemd",
    "systemd-sysv",
    "uidmap",
    "xfsprogs",
];

/// Makes the disk: $1 kernel tree, $2 Debian's mirror, $3 packages, $4 folder to make.
const MAKE: &str = r#"
set -eu
kernel=$1; mirror=$2; packages=$3; to=$4
rm -rf "$to" "$to.root" "$to.init"; mkdir -p "$to"
root=$to.root
debootstrap --variant=minbase --include="$packages" bookworm "$root" "$mirror"
umount -q "$root/proc" "$root/sys" || true
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info}
version=$(ls "$kernel/lib/modules")
cp -a "$kernel/lib/modules" "$root/usr/lib/"
depmod -b "$root" "$version"
# ada has ids to give away, bob has none.
chroot "$root" useradd -m -u 1000 -s /bin/sh ada
chroot "$root" useradd -m -u 1001 -s /bin/sh bob
echo ada:100000:65536 >"$root/etc/subuid"; cp "$root/etc/subuid" "$root/etc/subgid"
echo guest >"$root/etc/hostname"; echo 127.0.0.1 localhost guest >"$root/etc/hosts"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
mkdir -p "$root/payload"
# Nothing here has hardware to find, a clock to set or a person to greet.
for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
  systemd-hwdb-update.service systemd-journal-catalog-update.service systemd-random-seed.service systemd-timesyncd.service \
  systemd-update-utmp.service systemd-binfmt.service systemd-pstore.service ldconfig.service apparmor.service \
  systemd-sysctl.service systemd-firstboot.service systemd-update-done.service systemd-sysusers.service \
  systemd-journal-flush.service systemd-remount-fs.service modprobe@.service dev-hugepages.mount dev-mqueue.mount \
  sys-kernel-debug.mount sys-kernel-tracing.mount systemd-machine-id-commit.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cat >"$root/etc/systemd/system/guest.target" <<'END'
[Unit]
Description=Work, then power off
Requires=basic.target guest.service
After=basic.target
AllowIsolate=yes
END
cat >"$root/etc/systemd/system/guest.service" <<'END'
[Unit]
After=basic.target dbus.socket systemd-logind.service
Wants=dbus.socket systemd-logind.service
[Service]
ExecStart=/payload/work.sh
TimeoutStopSec=2
END
ln -sf guest.target "$root/etc/systemd/system/default.target"
mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$root" "$to/disk.img" 3G

init=$to.init; mkdir -p "$init"/{bin,dev,proc,new,lib}
cp /bin/busybox "$init/bin/busybox"
modules=$kernel/lib/modules/$version/kernel/drivers
for module in virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci block/virtio_blk; do
  cp "$modules/$module.ko" "$init/lib/"
done
cat >"$init/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev; mount -t proc none /proc
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do insmod /lib/$module.ko; done
while [ ! -b /dev/vdb ]; do sleep 0.05; done
mount -t ext4 -o noatime /dev/vda /new
mount -t ext4 -o noatime /dev/vdb /new/payload
cp -a /new/payload/root/. /new/
read -r init </new/payload/init
umount /proc /dev
exec switch_root /new $init
END
chmod +x "$init/init"
(cd "$init"; find . | cpio -o -H newc --quiet) >"$to/initrd"
rm -rf "$root" "$init"
"#;

/// The folder with `disk.img` and `initrd`.
///
/// # Panics
/// If Debian's packages cannot be had.
#[must_use]
pub fn debian() -> PathBuf {
    let packages = PACKAGES.join(",");
    let key = digest(format!("{MAKE}{packages}").as_bytes());
    let key = key.get(..12).unwrap_or("x").to_owned();
    fixtures::cached(&format!("guest-{key}"), |path| {
        let kernel = fixtures::kernel();
        eprintln!("testkit: making the disk of a Debian guest (a minute)");
        run(path, &kernel, &packages);
    })
}

fn run(path: &Path, kernel: &Path, packages: &str) {
    let log = path.with_extension("log");
    let sink = File::create(&log).expect("make a log file");
    let status = Command::new("bash")
        .args(["-c", MAKE, "make"])
        .arg(kernel)
        .arg(fixtures::mirror())
        .arg(packages)
        .arg(path)
        .stdin(Stdio::null())
        .stdout(sink.try_clone().expect("copy a descriptor"))
        .stderr(sink)
        .status()
        .expect("bash is installed");
    assert!(
        status.success(),
        "the guest's disk was not made:\n{}",
        fs::read_to_string(&log).unwrap_or_default()
    );
    let _ = fs::remove_file(&log);
}
