//! What a container uses, in the form that `events` prints and engines read: runc's, on either
//! version of control groups.

mod v1;
mod v2;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hull_sys::cgroup::View;
use serde::Serialize;

/// One line of `events`.
#[derive(Debug, Serialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Usage>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Everything.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) cpu: Cpu,
    pub(crate) cpuset: CpuSet,
    pub(crate) memory: Memory,
    pub(crate) pids: Pids,
    pub(crate) blkio: BlockIo,
    pub(crate) hugetlb: BTreeMap<String, HugePages>,
    pub(crate) intel_rdt: BTreeMap<String, String>,
    /// None are known by name: namespaces come from outside.
    pub(crate) network_interfaces: Option<Vec<String>>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Cpu {
    pub(crate) usage: CpuUsage,
    pub(crate) throttling: Throttling,
}

/// Nanoseconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) percpu_user: Vec<u64>,
    pub(crate) kernel: u64,
    pub(crate) user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) throttled_time: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cpus: Vec<u16>,
    pub(crate) cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mems: Vec<u16>,
    pub(crate) mem_hardwall: u64,
    pub(crate) mem_exclusive: u64,
    pub(crate) memory_migrate: u64,
    pub(crate) memory_spread_page: u64,
    pub(crate) memory_spread_slab: u64,
    pub(crate) memory_pressure: u64,
    pub(crate) sched_load_balance: u64,
    pub(crate) sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) cache: u64,
    pub(crate) usage: MemoryUsage,
    pub(crate) swap: MemoryUsage,
    pub(crate) kernel: MemoryUsage,
    #[serde(rename = "kernelTCP")]
    pub(crate) kernel_tcp: MemoryUsage,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) raw: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct MemoryUsage {
    pub(crate) limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max: u64,
    pub(crate) failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_service_bytes_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_serviced_recursive: Vec<BlockIoEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_queued_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_service_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_wait_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_merged_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) io_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sectors_recursive: Vec<BlockIoEntry>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct BlockIoEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) value: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct HugePages {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max: u64,
    pub(crate) failcnt: u64,
}

/// Reads the counters of a group by its directories. What is not there stays zero.
pub(crate) fn read(views: &[View]) -> Usage {
    match views {
        [only] if only.name.is_empty() => v2::read(&only.path),
        views => v1::read(views),
    }
}

/// A directory whose files are read where they exist.
struct Files(PathBuf);

impl Files {
    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// The number in a file; `max` is the largest.
    fn number(&self, name: &str) -> u64 {
        number(self.text(name).trim())
    }

    fn numbers(&self, name: &str) -> Vec<u64> {
        self.text(name)
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    }

    /// Lines of a name and a number.
    fn pairs(&self, name: &str) -> BTreeMap<String, u64> {
        self.text(name)
            .lines()
            .filter_map(|line| {
                let (key, value) = line.split_once(' ')?;
                Some((key.to_owned(), value.trim().parse().ok()?))
            })
            .collect()
    }

    fn is_there(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }
}

fn number(text: &str) -> u64 {
    if text == "max" {
        u64::MAX
    } else {
        text.parse().unwrap_or(0)
    }
}

/// Sizes of huge pages that a directory has files of: `2MB` of `hugetlb.2MB.current`.
fn huge_page_sizes(dir: &Path, suffix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut sizes: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect();
    sizes.sort();
    sizes
}

/// A list such as `0-2,4`.
fn list(text: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            numbers.extend(first..=last);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    pub(super) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("folder");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("file");
        }
        dir
    }

    #[test]
    fn list_ranges_and_numbers() {
        assert_eq!(list("0-2,4\n"), [0, 1, 2, 4]);
        assert!(list("\n").is_empty());
    }

    #[test]
    fn event_without_data_is_type_and_id_alone() {
        let event = Event {
            kind: "oom",
            id: "c",
            data: None,
        };
        let text = serde_json::to_string(&event).expect("JSON");
        assert_eq!(text, r#"{"type":"oom","id":"c"}"#);
    }

    #[test]
    fn usage_nothing_known_has_every_part() {
        let text = serde_json::to_string(&Usage::default()).expect("JSON");
        assert!(
            text.starts_with(r#"{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},"cpuset":"#)
        );
        assert!(text.ends_with(
            r#""pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#
        ));
    }
}
