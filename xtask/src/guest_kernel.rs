//! `xtask guest-kernel`: the kernel that virtual machines boot, built of Debian's source package
//! into `target/guest-kernel/DIGEST/`, where DIGEST is that of everything it is made of.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::apt;
use crate::process::{output, root, run, target};

/// Raise when the way of building changes the result.
const RECIPE: u32 = 1;
/// What the build is done with.
const NEEDS: [(&str, &str); 9] = [
    ("/usr/bin/gcc", "gcc"),
    ("/usr/bin/make", "make"),
    ("/usr/bin/bc", "bc"),
    ("/usr/bin/flex", "flex"),
    ("/usr/bin/bison", "bison"),
    ("/usr/include/libelf.h", "libelf-dev"),
    ("/usr/bin/xz", "xz-utils"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/zstd", "zstd"),
];
/// Who built it and when is the same for everyone.
const SAME_FOR_ALL: [(&str, &str); 4] = [
    ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970"),
    ("KBUILD_BUILD_USER", "hull"),
    ("KBUILD_BUILD_HOST", "hull"),
    ("KBUILD_BUILD_VERSION", "1"),
];

/// Two thirds of the source that are never looked at; the Kconfig files in them are.
const NOT_NEEDED: [&str; 16] = [
    "*/Documentation/*/*",
    "*/sound/*.[ch]",
    "*/drivers/gpu/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/drivers/infiniband/*.[ch]",
    "*/drivers/scsi/*.[ch]",
    "*/drivers/usb/*.[ch]",
    "*/drivers/iio/*.[ch]",
    "*/drivers/net/ethernet/*.[ch]",
    "*/drivers/net/wireless/*.[ch]",
    "*/arch/[a-wyz]*/*.[chS]",
    "*/arch/*.dts",
    "*/arch/*.dtsi",
    "*/tools/perf/*",
    "*/tools/testing/*",
];

/// Debian's package of the source.
struct Pin {
    package: String,
    version: String,
    sha256: String,
}

/// Builds the kernel unless it is there; with `--pack` also the archive that `hull kernel install`
/// takes. The path of what was made is printed.
pub(crate) fn guest_kernel(args: &[OsString]) -> Result<ExitCode> {
    let pack = match args {
        [] => false,
        [flag] if flag == "--pack" => true,
        _ => bail!("usage: cargo xtask guest-kernel [--pack]"),
    };
    let dir = build()?;
    let made = if pack {
        packed(&dir)?
    } else {
        dir.join("vmlinux")
    };
    println!("{}", made.display());
    Ok(ExitCode::SUCCESS)
}

fn home() -> PathBuf {
    target().join("guest-kernel")
}

/// The folder with `vmlinux`, `config` and `manifest.json`.
fn build() -> Result<PathBuf> {
    let config = read(&root().join("guest/kernel.config"))?;
    let mut pin = Pin::parse(&read(&root().join("guest/kernel.pin"))?)?;
    let home = home();
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    // Two builds at once would take twice as long and end in the same.
    let lock = File::create(home.join("lock")).context("cannot make the lock file")?;
    lock.lock().context("cannot lock")?;

    let mut done = home.join(digest(&pin, &config));
    if !done.join("manifest.json").exists() {
        apt::install(&NEEDS, "the guest kernel's build needs")?;
        let work = home.join("work");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        let archive = download(&mut pin, &work)?;
        done = home.join(digest(&pin, &config));
        if !done.join("manifest.json").exists() {
            compile(&pin, &config, &archive, &work, &done)?;
        }
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    point_at(&home.join("vmlinux"), &done)?;
    Ok(done)
}

/// Everything the kernel is made of; remarks in the config change nothing.
fn digest(pin: &Pin, config: &str) -> String {
    let Pin {
        package, version, ..
    } = pin;
    let options = wishes(config).collect::<Vec<_>>().join("\n");
    let all = format!("{RECIPE}\n{package} {version}\n{options}\n");
    sha256(all.as_bytes()).chars().take(16).collect()
}

/// Gets the package by apt, which proves its origin. If Debian no longer has the version asked
/// for, the one it has now is taken, and said.
fn download(pin: &mut Pin, work: &Path) -> Result<PathBuf> {
    let get = |wish: &str| {
        Command::new("apt-get")
            .current_dir(work)
            .args(["download", "-qq", "-o", "APT::Sandbox::User=root", wish])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot start apt-get")
    };
    let wish = |pin: &Pin| format!("{}={}", pin.package, pin.version);
    if !get(&wish(pin))?.success() {
        // The lists may be missing, or old.
        apt::update()?;
        if !get(&wish(pin))?.success() {
            let now = candidate(&pin.package)?;
            if now == pin.version {
                bail!("apt-get cannot download {}", wish(pin));
            }
            eprintln!(
                "xtask: Debian no longer has {} {}, which guest/kernel.pin names: building {now}, \
                 which it has now. Change version and sha256 in guest/kernel.pin once it is tested",
                pin.package, pin.version
            );
            pin.version = now;
            pin.sha256.clear();
            if !get(&wish(pin))?.success() {
                bail!("apt-get cannot download {}", wish(pin));
            }
        }
    }
    let archive = only_file(work, "deb")?;
    let sum = sha256_of(&archive)?;
    if !pin.sha256.is_empty() && sum != pin.sha256 {
        bail!(
            "{} has the digest {sum}, and guest/kernel.pin wants {}: the version is the same, so \
             one of them is wrong",
            archive.display(),
            pin.sha256
        );
    }
    pin.sha256 = sum;
    Ok(archive)
}

/// The version of a package that apt would install.
fn candidate(package: &str) -> Result<String> {
    let policy = output(
        Command::new("apt-cache")
            .env("LC_ALL", "C")
            .args(["policy", package]),
    )?;
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
        .map(str::to_owned)
        .with_context(|| {
            format!("apt knows no package {package}: Debian 12 (bookworm) has it among its main packages")
        })
}

fn compile(pin: &Pin, config: &str, archive: &Path, work: &Path, done: &Path) -> Result<()> {
    let started = Instant::now();
    eprintln!(
        "xtask: building the guest kernel of {} {} (a few minutes)",
        pin.package, pin.version
    );
    let unpacked = work.join("package");
    run(Command::new("dpkg").arg("-x").arg(archive).arg(&unpacked))?;
    let sources = only_file(&unpacked.join("usr/src"), "tar.xz")?;
    run(Command::new("tar")
        .args(NOT_NEEDED.map(|glob| format!("--exclude={glob}")))
        .arg("-xf")
        .arg(&sources)
        .arg("-C")
        .arg(work))?;
    let source = work.join(&pin.package);
    let tree = work.join("tree");
    fs::create_dir_all(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
    configure(config, &source, &tree)?;

    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    // Minutes of all processors: others who work on the machine go first.
    let mut make = Command::new("nice");
    make.args(["-n", "10", "make", "-s"])
        .arg("-C")
        .arg(&tree)
        .arg(format!("-j{jobs}"))
        .arg("vmlinux")
        .envs(SAME_FOR_ALL)
        // Its warnings are Debian's affair.
        .stdout(Stdio::null());
    run(&mut make)?;

    let new = done.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    let vmlinux = new.join("vmlinux");
    run(Command::new("strip")
        .arg("--strip-all")
        .arg("-o")
        .arg(&vmlinux)
        .arg(tree.join("vmlinux")))?;
    has_pvh_entry(&vmlinux)?;
    fs::copy(tree.join(".config"), new.join("config")).context("cannot keep the config")?;
    let release = read(&tree.join("include/config/kernel.release"))?;
    let manifest = serde_json::json!({
        "version": release.trim(),
        "architecture": "x86_64",
        "source": format!("{} {}", pin.package, pin.version),
        "source_sha256": pin.sha256,
        "config_sha256": sha256_of(&new.join("config"))?,
        "size": fs::metadata(&vmlinux)?.len(),
        "sha256": sha256_of(&vmlinux)?,
    });
    fs::write(new.join("manifest.json"), format!("{manifest:#}\n"))
        .context("cannot write the manifest")?;
    let _ = fs::remove_dir_all(done);
    fs::rename(&new, done).with_context(|| format!("cannot make {}", done.display()))?;
    eprintln!(
        "xtask: the guest kernel took {} s",
        started.elapsed().as_secs()
    );
    Ok(())
}

/// Everything off, but for what our file names; what it names and the kernel does not take is an
/// error, since options that depend on others vanish without a word.
fn configure(config: &str, source: &Path, tree: &Path) -> Result<()> {
    let make = |goal: &str| -> Result<()> {
        let mut make = Command::new("make");
        make.arg("-s")
            .arg("-C")
            .arg(source)
            .arg(format!("O={}", tree.display()))
            .arg(goal)
            .envs(SAME_FOR_ALL)
            .stdin(Stdio::null());
        // It warns of every line that changes another: that is what the lines are for.
        let out = make.output().context("cannot start make")?;
        if !out.status.success() {
            bail!(
                "make {goal} failed:\n{}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
        Ok(())
    };
    make("tinyconfig")?;
    let path = tree.join(".config");
    // Of two lines about one option the later counts.
    fs::write(&path, read(&path)? + config).context("cannot write the config")?;
    make("olddefconfig")?;
    let made = read(&path)?;
    let lost: Vec<&str> = wishes(config)
        .filter(|wish| !is_kept(wish, &made))
        .collect();
    if !lost.is_empty() {
        bail!(
            "this kernel does not take these lines of guest/kernel.config, for want of options they \
             depend on or because others choose them: {}",
            lost.join(" ")
        );
    }
    Ok(())
}

fn wishes(config: &str) -> impl Iterator<Item = &str> {
    config.lines().filter(|line| line.starts_with("CONFIG_"))
}

fn is_kept(wish: &str, made: &str) -> bool {
    match wish.strip_suffix("=n") {
        Some(option) => !made.lines().any(|line| {
            line.strip_prefix(option)
                .is_some_and(|rest| rest.starts_with('='))
        }),
        None => made.lines().any(|line| line == wish),
    }
}

/// Hypervisors enter at the address that a note names; without it they cannot boot the file.
fn has_pvh_entry(vmlinux: &Path) -> Result<()> {
    let notes = output(Command::new("readelf").arg("-nW").arg(vmlinux))?;
    if !notes
        .lines()
        .any(|line| line.contains("Xen") && line.contains("0x00000012"))
    {
        bail!("{} has no PVH note", vmlinux.display());
    }
    Ok(())
}

/// The archive that `hull kernel install` takes: manifest, config and the kernel in zstd.
fn packed(dir: &Path) -> Result<PathBuf> {
    let manifest: serde_json::Value = serde_json::from_str(&read(&dir.join("manifest.json"))?)
        .context("the manifest is broken")?;
    let version = manifest["version"].as_str().unwrap_or("unknown");
    let name = format!("hull-kernel-{version}-x86_64.tar");
    let (to, new) = (dir.join(&name), dir.join(format!("{name}.new")));
    run(Command::new("zstd")
        .args(["-q", "-f", "-19", "-T0"])
        .arg(dir.join("vmlinux"))
        .arg("-o")
        .arg(dir.join("vmlinux.zst")))?;
    run(Command::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--numeric-owner"])
        .args(["--mode=0644", "--mtime=@0", "--format=ustar"])
        .arg("--file")
        .arg(&new)
        .arg("--directory")
        .arg(dir)
        .args(["manifest.json", "config", "vmlinux.zst"]))?;
    fs::remove_file(dir.join("vmlinux.zst")).context("cannot remove the compressed kernel")?;
    fs::rename(&new, &to).with_context(|| format!("cannot make {}", to.display()))?;
    Ok(to)
}

/// Lets a link lead to a kernel, at one stroke.
fn point_at(link: &Path, dir: &Path) -> Result<()> {
    let name = dir.file_name().unwrap_or_default();
    let to = Path::new(name).join("vmlinux");
    if fs::read_link(link).is_ok_and(|old| old == to) {
        return Ok(());
    }
    let new = link.with_extension("new");
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(&to, &new)
        .and_then(|()| fs::rename(&new, link))
        .with_context(|| format!("cannot make {}", link.display()))
}

impl Pin {
    fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
                .with_context(|| format!("guest/kernel.pin names no {name}"))
        };
        Ok(Self {
            package: field("package")?,
            version: field("version")?,
            sha256: field("sha256")?,
        })
    }
}

/// The one file of a folder whose name ends so.
fn only_file(folder: &Path, ending: &str) -> Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with(ending))
        .with_context(|| format!("{} has no {ending}", folder.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file
            .read(&mut buffer)
            .with_context(|| format!("cannot read {}", path.display()))?;
        match buffer.get(..count) {
            Some(bytes) if count > 0 => hash.update(bytes),
            _ => return Ok(hex(&hash.finalize())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_reads_its_three_fields() {
        let pin = Pin::parse("# x = y\npackage = p\nversion = 1-2\nsha256 = ab\n").unwrap();
        assert_eq!(
            (&*pin.package, &*pin.version, &*pin.sha256),
            ("p", "1-2", "ab")
        );
        assert!(Pin::parse("package = p\n").is_err());
    }

    #[test]
    fn is_kept_tells_lost_options() {
        let made = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_CC=y\n";
        assert!(is_kept("CONFIG_A=y", made));
        assert!(!is_kept("CONFIG_B=y", made));
        assert!(is_kept("CONFIG_B=n", made));
        assert!(is_kept("CONFIG_C=n", made));
        assert!(!is_kept("CONFIG_A=n", made));
    }
}
