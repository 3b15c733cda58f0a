//! Counters of the v2 tree, told by the names of v1's.

use std::path::Path;

use super::{
    BlockIoEntry, Files, HugePages, Memory, MemoryUsage, Throttling, Usage, huge_page_sizes, list,
};

const NS_PER_US: u64 = 1000;

pub(super) fn read(dir: &Path) -> Usage {
    let dir = Files(dir.to_owned());
    let mut usage = Usage::default();
    let stat = dir.pairs("cpu.stat");
    let value = |key: &str| stat.get(key).copied().unwrap_or(0);
    let nanoseconds = |key: &str| value(key).saturating_mul(NS_PER_US);
    usage.cpu.usage.total = nanoseconds("usage_usec");
    usage.cpu.usage.user = nanoseconds("user_usec");
    usage.cpu.usage.kernel = nanoseconds("system_usec");
    usage.cpu.throttling = Throttling {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: nanoseconds("throttled_usec"),
    };
    usage.cpuset.cpus = list(&dir.text("cpuset.cpus.effective"));
    usage.cpuset.mems = list(&dir.text("cpuset.mems.effective"));
    usage.memory = memory(&dir);
    usage.pids.current = dir.number("pids.current");
    usage.pids.limit = Some(dir.number("pids.max"))
        .filter(|limit| *limit != u64::MAX)
        .unwrap_or(0);
    block_io(&dir.text("io.stat"), &mut usage);
    huge_pages(&dir, &mut usage);
    usage
}

fn memory(dir: &Files) -> Memory {
    let raw = dir.pairs("memory.stat");
    let events = dir.pairs("memory.events");
    let usage = MemoryUsage {
        limit: dir.number("memory.max"),
        usage: dir.number("memory.current"),
        max: dir.number("memory.peak"),
        failcnt: events.get("max").copied().unwrap_or(0),
    };
    // v1 counts memory and swap together.
    let swap = if dir.is_there("memory.swap.current") {
        MemoryUsage {
            limit: usage.limit.saturating_add(dir.number("memory.swap.max")),
            usage: usage
                .usage
                .saturating_add(dir.number("memory.swap.current")),
            ..MemoryUsage::default()
        }
    } else {
        MemoryUsage::default()
    };
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        raw,
        ..Memory::default()
    }
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`.
fn block_io(text: &str, usage: &mut Usage) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(a, b)| (a.parse(), b.parse())) else {
            continue;
        };
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let io = &mut usage.blkio;
            let (op, list) = match key {
                "rbytes" => ("Read", &mut io.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut io.io_service_bytes_recursive),
                "rios" => ("Read", &mut io.io_serviced_recursive),
                "wios" => ("Write", &mut io.io_serviced_recursive),
                _ => continue,
            };
            list.push(BlockIoEntry {
                major,
                minor,
                op: op.to_owned(),
                value: value.parse().unwrap_or(0),
            });
        }
    }
}

pub(super) fn huge_pages(dir: &Files, usage: &mut Usage) {
    for size in huge_page_sizes(&dir.0, ".current") {
        let events = dir.pairs(&format!("hugetlb.{size}.events"));
        let counted = HugePages {
            usage: dir.number(&format!("hugetlb.{size}.current")),
            max: 0,
            failcnt: events.get("max").copied().unwrap_or(0),
        };
        usage.hugetlb.insert(size, counted);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::folder;
    use super::*;

    #[test]
    fn read_counters_have_the_shape_of_v1() {
        let dir = folder(&[
            (
                "cpu.stat",
                "usage_usec 3\nuser_usec 1\nsystem_usec 2\nnr_throttled 4\n",
            ),
            ("memory.current", "100\n"),
            ("memory.max", "500\n"),
            ("memory.peak", "150\n"),
            ("memory.swap.current", "10\n"),
            ("memory.swap.max", "max\n"),
            ("memory.stat", "anon 5\nfile 6\n"),
            ("memory.events", "low 0\nmax 2\noom_kill 1\n"),
            ("pids.current", "4\n"),
            ("pids.max", "9\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
            ),
            ("hugetlb.2MB.current", "6\n"),
            ("hugetlb.2MB.rsvd.current", "6\n"),
            ("hugetlb.2MB.events", "max 7\n"),
        ]);
        let usage = read(dir.path());
        assert_eq!(
            (usage.cpu.usage.total, usage.cpu.usage.kernel),
            (3000, 2000)
        );
        assert_eq!(usage.cpu.throttling.throttled_periods, 4);
        let memory = &usage.memory;
        assert_eq!((memory.usage.limit, memory.usage.max), (500, 150));
        assert_eq!((memory.usage.failcnt, memory.cache), (2, 6));
        assert_eq!((memory.swap.usage, memory.swap.limit), (110, u64::MAX));
        assert_eq!((usage.pids.current, usage.pids.limit), (4, 9));
        assert_eq!(usage.blkio.io_service_bytes_recursive.len(), 2);
        assert_eq!(
            usage.blkio.io_serviced_recursive.last().map(|e| e.value),
            Some(4)
        );
        let pages: Vec<_> = usage
            .hugetlb
            .iter()
            .map(|(k, v)| (k.as_str(), v.failcnt))
            .collect();
        assert_eq!(pages, [("2MB", 7)]);
    }
}
