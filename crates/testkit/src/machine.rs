//! A machine with Debian's own kernel and pure cgroup v2: what the test host itself may lack.
//!
//! QEMU interprets it, so times in it mean nothing; it boots from memory in a few seconds, runs a
//! list of commands with Hull's programs on its PATH, and powers off. [`Guest`] is the same with a
//! whole Debian on a disk, for what a memory disk is too small.

pub mod disk;
mod guest;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::Run;
use crate::fixtures;
use crate::paths;

pub use guest::{Guest, Report};

/// How long boot, commands and shutdown may take together.
const LIMIT: Duration = Duration::from_secs(300);

/// Makes the memory disk: $1 kernel tree, $2 Hull's programs, $3 busybox archive, $4 work script, $5 where.
const MAKE: &str = r#"
set -e
kernel=$1; dist=$2; archive=$3; work=$4; to=$5
root=$to.d; rm -rf "$root"; mkdir -p "$root"/{bin,etc,root,hull,lib/modules}
cp /bin/busybox "$root/bin/busybox"
for applet in sh mount mkdir modprobe insmod cat ls sleep cp ip switch_root poweroff grep uname tail echo true wc nc mknod; do
  ln -s busybox "$root/bin/$applet"
done
version=$(ls "$kernel/lib/modules"); modules="$root/lib/modules/$version"; mkdir -p "$modules"
depmod -b "$kernel" "$version" 2>/dev/null
for module in overlay veth bridge nf_tables nft_chain_nat nft_masq nft_ct nft_nat nft_fib_ipv4 nft_fib_inet nft_redir; do
  modprobe -d "$kernel" -S "$version" --show-depends $module 2>/dev/null | while read -r verb file rest; do
    [ "$verb" = insmod ] || continue
    part=${file#*lib/modules/}; mkdir -p "$root/lib/modules/$(dirname "$part")"; cp "$kernel/lib/modules/$part" "$root/lib/modules/$part"
  done
done
cp "$kernel/lib/modules/$version/modules.order" "$kernel/lib/modules/$version/modules.builtin" "$modules/"
depmod -b "$root" "$version" 2>/dev/null
cp "$dist"/hull* "$root/hull/"; cp "$archive" "$root/busybox.tar"; cp "$work" "$root/work.sh"
# pivot_root does not work on the first root file system, so the machine moves to another.
cat >"$root/init" <<'END'
#!/bin/sh
mkdir /new; mount -t tmpfs -o size=1500m none /new
cp -a /bin /lib /hull /etc /root /busybox.tar /work.sh /new/
cd /new; mkdir dev proc sys tmp run var
exec switch_root /new /work.sh
END
chmod +x "$root/init" "$root/work.sh"
(cd "$root"; find . | cpio -o -H newc --quiet | gzip -1) >"$to"
rm -rf "$root"
"#;

/// What stands before the commands.
const START: &str = r#"#!/bin/sh
export PATH=/bin:/hull
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts none /dev/pts
mount -t cgroup2 none /sys/fs/cgroup
for module in overlay veth bridge nf_tables nft_chain_nat nft_masq nft_ct nft_nat nft_fib_ipv4 nft_fib_inet nft_redir; do modprobe $module; done
ip link set lo up
"#;

/// One command's fate in the machine.
#[derive(Debug, Clone, Default)]
pub struct Fate {
    /// Its exit code, -1 if it never ended.
    pub code: i32,
    /// What it printed on both streams.
    pub output: String,
}

/// Boots the machine, runs shell commands by name in their order, and tells what each did.
/// Everything the machine's console showed comes along for messages.
///
/// # Panics
/// If the machine cannot be made or does not end.
#[must_use]
pub fn run(dir: &Path, commands: &[(&str, &str)]) -> (BTreeMap<String, Fate>, String) {
    let kernel = fixtures::kernel();
    let mut script = START.to_owned();
    for (name, command) in commands {
        script.push_str(&format!(
            "echo; echo '<<{name}'\n( {command} ) 2>&1\ncode=$?; echo; echo \"{name}>> $code\"\n"
        ));
    }
    script.push_str("poweroff -f\n");
    let work = dir.join("work.sh");
    fs::write(&work, script).expect("write the work script");
    let disk = dir.join("initrd.gz");
    Run::new("bash")
        .args(["-c", MAKE, "make"])
        .arg(&kernel)
        .arg(paths::dist())
        .arg(fixtures::busybox())
        .arg(&work)
        .arg(&disk)
        .limit(LIMIT)
        .ok();
    let out = Run::new("qemu-system-x86_64")
        .args([
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            "3072",
            "-smp",
            "2",
        ])
        .args([
            "-display",
            "none",
            "-no-reboot",
            "-nodefaults",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(image(&kernel))
        .arg("-initrd")
        .arg(&disk)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
        .limit(LIMIT)
        .run();
    let console = out.stdout.replace('\r', "");
    (parse(&console), console)
}

/// The kernel's image in an unpacked kernel package.
fn image(kernel: &Path) -> PathBuf {
    fs::read_dir(kernel.join("boot"))
        .expect("read the kernel's folder")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        })
        .expect("a kernel image")
}

fn parse(console: &str) -> BTreeMap<String, Fate> {
    let mut fates = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    for line in console.lines() {
        if let Some(name) = line.strip_prefix("<<") {
            current = Some((name.to_owned(), String::new()));
        } else if let Some((name, output)) = &mut current {
            if let Some(code) = line.strip_prefix(&format!("{name}>> ")) {
                let fate = Fate {
                    code: code.trim().parse().unwrap_or(-1),
                    output: output.trim().to_owned(),
                };
                fates.insert(name.clone(), fate);
                current = None;
            } else if !is_kernel_message(line) {
                output.push_str(line);
                output.push('\n');
            }
        }
    }
    fates
}

/// Whether a line begins with the time as the kernel writes it: `[   12.345678] `.
fn is_kernel_message(line: &str) -> bool {
    let time = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    time.is_some_and(|(time, _)| time.trim_start().parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_console_gives_codes_and_outputs() {
        let fates = parse(
            "boot\n<<a\nx\n[1,2]\n[    1.012345] kernel\n\na>> 0\n<<b\nb>> 7\n<<c\nnever ends",
        );
        assert_eq!(fates["a"].output, "x\n[1,2]");
        assert_eq!((fates["a"].code, fates["b"].code), (0, 7));
        assert!(!fates.contains_key("c"));
    }
}
