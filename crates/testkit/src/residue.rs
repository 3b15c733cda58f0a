//! The gate that nothing is left behind: mounts, cgroups, links, firewall tables, processes and
//! files of one test daemon, told apart from all others by its names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::wait::wait_until;

/// Roots of the cgroup hierarchies: v1 controllers, the unified one of a hybrid host, or pure v2.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The names that belong to one daemon.
#[derive(Debug, Clone)]
pub struct Territory {
    /// Folder of its run and data dirs.
    pub base: PathBuf,
    /// Its bridge.
    pub bridge: String,
    /// Its cgroup parent without the leading slash.
    pub cgroup: String,
    /// Its nftables table.
    pub table: String,
}

impl Territory {
    /// Everything a stopped daemon without containers must not have left, one line each.
    #[must_use]
    pub fn residue(&self) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(
            self.mounts()
                .iter()
                .map(|at| format!("mount {}", at.display())),
        );
        for root in self.cgroup_roots() {
            left.extend(
                subfolders(&root)
                    .iter()
                    .map(|dir| format!("cgroup {}", dir.display())),
            );
        }
        left.extend(self.ports().iter().map(|name| format!("link {name}")));
        left.extend(self.bridges().iter().map(|name| format!("bridge {name}")));
        left.extend(
            self.processes()
                .iter()
                .map(|(pid, what)| format!("process {pid} {what}")),
        );
        left.extend(
            entries(&self.base.join("run/s"))
                .iter()
                .map(|path| format!("file {}", path.display())),
        );
        left
    }

    /// Waits until nothing is left, and tells what is when the time is up.
    #[must_use]
    pub fn residue_after(&self, limit: Duration) -> Vec<String> {
        let mut left = Vec::new();
        wait_until(limit, || {
            left = self.residue();
            left.is_empty()
        });
        left
    }

    /// Mounts at or below the daemon's folder, deepest last.
    #[must_use]
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(PathBuf::from)
            .filter(|at| at.starts_with(&self.base) && *at != self.base)
            .collect()
    }

    /// The daemon's parent cgroup in every hierarchy where it exists.
    #[must_use]
    pub fn cgroup_roots(&self) -> Vec<PathBuf> {
        let mut roots = vec![PathBuf::from(CGROUP_ROOT)];
        roots.extend(subfolders(Path::new(CGROUP_ROOT)));
        roots
            .into_iter()
            .map(|root| root.join(&self.cgroup))
            .filter(|dir| dir.is_dir())
            .collect()
    }

    /// Links attached to the daemon's bridge.
    #[must_use]
    pub fn ports(&self) -> Vec<String> {
        let ports = Path::new("/sys/class/net").join(&self.bridge).join("brif");
        entries(&ports)
            .iter()
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    /// Bridges of networks that users of the daemon made.
    #[must_use]
    pub fn bridges(&self) -> Vec<String> {
        let prefix = network_prefix(&self.bridge);
        entries(Path::new("/sys/class/net"))
            .iter()
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| name.starts_with(&prefix))
            .collect()
    }

    /// Processes in the daemon's cgroups, and shims or daemons that hold its files.
    #[must_use]
    pub fn processes(&self) -> Vec<(u32, String)> {
        let base = self.base.to_string_lossy().into_owned();
        let mut found = Vec::new();
        for path in entries(Path::new("/proc")) {
            let Some(pid) = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<u32>().ok())
            else {
                continue;
            };
            if pid == std::process::id() {
                continue;
            }
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let cgroups = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
            let within = format!("/{}", self.cgroup);
            let in_cgroup = cgroups.lines().any(|line| {
                line.splitn(3, ':').nth(2).is_some_and(|at| {
                    at.strip_prefix(&within)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            });
            if in_cgroup || (is_ours(&path) && mentions(&path, &command, &base)) {
                found.push((pid, command));
            }
        }
        found
    }

    /// Removes by force whatever is there, so that one failed test does not spoil the next.
    pub fn raze(&self) {
        for (pid, _) in self.processes() {
            quiet("kill", &["-KILL", &pid.to_string()]);
        }
        // A frozen cgroup lets nothing die.
        for root in self.cgroup_roots() {
            for dir in all_below(&root) {
                let _ = fs::write(dir.join("freezer.state"), "THAWED");
                let _ = fs::write(dir.join("cgroup.freeze"), "0");
            }
        }
        wait_until(Duration::from_secs(5), || self.processes().is_empty());
        for at in self.mounts().iter().rev() {
            quiet("umount", &["-l", &at.to_string_lossy()]);
        }
        for root in self.cgroup_roots() {
            for dir in all_below(&root).iter().rev() {
                wait_until(Duration::from_secs(2), || {
                    fs::remove_dir(dir).is_ok() || !dir.exists()
                });
            }
        }
        for port in self.ports() {
            quiet("ip", &["link", "del", &port]);
        }
        for bridge in self.bridges() {
            quiet("ip", &["link", "del", &bridge]);
        }
        if Path::new("/sys/class/net").join(&self.bridge).exists() {
            quiet("ip", &["link", "del", &self.bridge]);
        }
        for family in ["ip", "ip6", "inet", "bridge"] {
            quiet("nft", &["delete", "table", family, &self.table]);
        }
        let egress = format!("{}-egress", self.table);
        for family in ["inet", "bridge"] {
            quiet("nft", &["delete", "table", family, &egress]);
        }
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// What the names of bridges begin with that a daemon on this bridge chooses: `hb` and six digits
/// of base 32 that depend on its name (FNV-1a, and the last steps of MurmurHash3).
fn network_prefix(bridge: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let mut hash = bridge.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^= hash >> 33;
    let digit = |index: u32| DIGITS[hash.rotate_right(5 * index) as usize & 31];
    let digits = (0..6).map(|index| char::from(digit(index)));
    std::iter::once("hb".to_owned())
        .chain(digits.map(String::from))
        .collect()
}

fn quiet(program: &str, args: &[&str]) {
    let _ = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Whether a process runs one of Hull's programs.
fn is_ours(process: &Path) -> bool {
    fs::read_link(process.join("exe")).is_ok_and(|exe| {
        exe.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("hull"))
    }) || fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("hull"))
}

/// Whether a process names the folder in its command, environment, folder or open files.
fn mentions(process: &Path, command: &str, base: &str) -> bool {
    let at =
        |path: &Path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with(base));
    command.contains(base)
        || at(&process.join("cwd"))
        || entries(&process.join("fd")).iter().any(|fd| at(fd))
        || fs::read(process.join("environ"))
            .is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(base))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .map(|list| list.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default()
}

fn subfolders(dir: &Path) -> Vec<PathBuf> {
    entries(dir)
        .into_iter()
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}

/// A folder and all below it, parents first.
fn all_below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_path_buf()];
    let mut next = 0;
    while let Some(current) = all.get(next).cloned() {
        all.extend(subfolders(&current));
        next += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_the_one_that_daemons_choose() {
        assert_eq!(network_prefix("ht27f2x0"), "hbmn5dq5");
    }
}
