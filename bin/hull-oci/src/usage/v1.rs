//! Counters of the v1 hierarchies.

use std::path::PathBuf;

use hull_sys::cgroup::View;

use super::{
    BlockIoEntry, CpuSet, CpuUsage, Files, HugePages, Memory, MemoryUsage, Throttling, Usage,
    huge_page_sizes, list,
};

/// `cpuacct.stat` counts in ticks of this length.
const NS_PER_TICK: u64 = 10_000_000;

pub(super) fn read(views: &[View]) -> Usage {
    let find = |controller: &str| {
        let view = views
            .iter()
            .find(|view| view.name.split(',').any(|name| name == controller));
        Files(view.map_or_else(|| PathBuf::from("/dev/null"), |view| view.path.clone()))
    };
    let mut usage = Usage::default();
    usage.cpu.usage = cpu(&find("cpuacct"));
    let stat = find("cpu").pairs("cpu.stat");
    let value = |key: &str| stat.get(key).copied().unwrap_or(0);
    usage.cpu.throttling = Throttling {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: value("throttled_time"),
    };
    usage.cpuset = cpuset(&find("cpuset"));
    usage.memory = memory(&find("memory"));
    let pids = find("pids");
    usage.pids.current = pids.number("pids.current");
    usage.pids.limit = Some(pids.number("pids.max"))
        .filter(|limit| *limit != u64::MAX)
        .unwrap_or(0);
    block_io(&find("blkio"), &mut usage);
    let pages = find("hugetlb");
    for size in huge_page_sizes(&pages.0, ".usage_in_bytes") {
        let number = |file: &str| pages.number(&format!("hugetlb.{size}.{file}"));
        let counted = HugePages {
            usage: number("usage_in_bytes"),
            max: number("max_usage_in_bytes"),
            failcnt: number("failcnt"),
        };
        usage.hugetlb.insert(size, counted);
    }
    // On a hybrid host they may be counted in the v2 tree.
    if let Some(view) = views.iter().find(|view| view.name == "unified") {
        super::v2::huge_pages(&Files(view.path.clone()), &mut usage);
    }
    usage
}

fn cpu(dir: &Files) -> CpuUsage {
    let ticks = dir.pairs("cpuacct.stat");
    let nanoseconds = |key: &str| ticks.get(key).map_or(0, |ticks| ticks * NS_PER_TICK);
    let mut usage = CpuUsage {
        total: dir.number("cpuacct.usage"),
        percpu: dir.numbers("cpuacct.usage_percpu"),
        kernel: nanoseconds("system"),
        user: nanoseconds("user"),
        ..CpuUsage::default()
    };
    // `cpu user system`, under a heading.
    for line in dir.text("cpuacct.usage_all").lines().skip(1) {
        let mut words = line
            .split(' ')
            .skip(1)
            .map(|word| word.parse().unwrap_or(0));
        usage.percpu_user.push(words.next().unwrap_or(0));
        usage.percpu_kernel.push(words.next().unwrap_or(0));
    }
    usage
}

fn cpuset(dir: &Files) -> CpuSet {
    CpuSet {
        cpus: list(&dir.text("cpuset.cpus")),
        cpu_exclusive: dir.number("cpuset.cpu_exclusive"),
        mems: list(&dir.text("cpuset.mems")),
        mem_hardwall: dir.number("cpuset.mem_hardwall"),
        mem_exclusive: dir.number("cpuset.mem_exclusive"),
        memory_migrate: dir.number("cpuset.memory_migrate"),
        memory_spread_page: dir.number("cpuset.memory_spread_page"),
        memory_spread_slab: dir.number("cpuset.memory_spread_slab"),
        memory_pressure: dir.number("cpuset.memory_pressure"),
        sched_load_balance: dir.number("cpuset.sched_load_balance"),
        sched_relax_domain_level: dir
            .text("cpuset.sched_relax_domain_level")
            .trim()
            .parse()
            .unwrap_or(0),
    }
}

fn memory(dir: &Files) -> Memory {
    let usage = |kind: &str| {
        let number = |file: &str| dir.number(&format!("memory.{kind}{file}"));
        MemoryUsage {
            limit: number("limit_in_bytes"),
            usage: number("usage_in_bytes"),
            max: number("max_usage_in_bytes"),
            failcnt: number("failcnt"),
        }
    };
    let raw = dir.pairs("memory.stat");
    Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: usage(""),
        swap: usage("memsw."),
        kernel: usage("kmem."),
        kernel_tcp: usage("kmem.tcp."),
        raw,
    }
}

fn block_io(dir: &Files, usage: &mut Usage) {
    let read = |name: &str| {
        // The I/O scheduler's own counters where it has them, else those of the throttle.
        let files = [
            format!("blkio.{name}_recursive"),
            format!("blkio.bfq.{name}_recursive"),
            format!("blkio.throttle.{name}_recursive"),
        ];
        let mut found = files.iter().map(|file| entries(&dir.text(file)));
        found.find(|list| !list.is_empty()).unwrap_or_default()
    };
    let io = &mut usage.blkio;
    io.io_service_bytes_recursive = read("io_service_bytes");
    io.io_serviced_recursive = read("io_serviced");
    io.io_queued_recursive = read("io_queued");
    io.io_service_time_recursive = read("io_service_time");
    io.io_wait_time_recursive = read("io_wait_time");
    io.io_merged_recursive = read("io_merged");
    io.io_time_recursive = read("time");
    io.sectors_recursive = read("sectors");
}

/// Lines `8:0 Read 4096` or `8:0 4096`; the sum at the end has no device.
fn entries(text: &str) -> Vec<BlockIoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let (op, value) = match (words.next()?, words.next()) {
                (op, Some(value)) => (op, value),
                (value, None) => ("", value),
            };
            Some(BlockIoEntry {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                op: op.to_owned(),
                value: value.parse().ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::folder;
    use super::*;

    #[test]
    fn read_counters_of_each_hierarchy() {
        let dir = folder(&[
            ("cpuacct.usage", "30\n"),
            ("cpuacct.usage_percpu", "10 20 \n"),
            ("cpuacct.usage_all", "cpu user system\n0 1 2\n1 3 4\n"),
            ("cpuacct.stat", "user 1\nsystem 2\n"),
            (
                "cpu.stat",
                "nr_periods 5\nnr_throttled 3\nthrottled_time 9\n",
            ),
            ("memory.stat", "cache 7\nrss 8\n"),
            ("memory.usage_in_bytes", "100\n"),
            ("memory.memsw.limit_in_bytes", "200\n"),
            ("pids.current", "4\n"),
            ("pids.max", "max\n"),
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 512\nTotal 512\n",
            ),
            ("hugetlb.2MB.usage_in_bytes", "6\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "1\n"),
        ]);
        let view = |name: &str| View {
            name: name.to_owned(),
            path: dir.path().to_owned(),
        };
        let usage = read(&[
            view("cpu,cpuacct"),
            view("memory"),
            view("pids"),
            view("blkio"),
            view("hugetlb"),
        ]);
        let cpu = &usage.cpu.usage;
        assert_eq!((cpu.total, &cpu.percpu), (30, &vec![10, 20]));
        assert_eq!(
            (&cpu.percpu_user, &cpu.percpu_kernel),
            (&vec![1, 3], &vec![2, 4])
        );
        assert_eq!((cpu.user, cpu.kernel), (10_000_000, 20_000_000));
        assert_eq!(usage.cpu.throttling.throttled_time, 9);
        assert_eq!((usage.memory.cache, usage.memory.usage.usage), (7, 100));
        assert_eq!(usage.memory.swap.limit, 200);
        assert_eq!((usage.pids.current, usage.pids.limit), (4, 0));
        let entry = usage
            .blkio
            .io_service_bytes_recursive
            .first()
            .expect("entry");
        assert_eq!(
            (entry.major, entry.op.as_str(), entry.value),
            (8, "Read", 512)
        );
        assert_eq!(usage.hugetlb.len(), 1);
    }
}
