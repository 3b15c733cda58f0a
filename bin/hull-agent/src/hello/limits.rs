//! Limits of the control groups around this process: v2, v1, and both at once (hybrid).

use std::fs;
use std::path::PathBuf;

/// v1 says "no limit" by a number near the largest; anything from here up is one.
const V1_NO_LIMIT: u64 = 1 << 60;

/// What the control groups allow; `None` is no limit.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Limits {
    memory: Limit<u64>,
    /// Runtime and period, in microseconds.
    cpu: Limit<(u64, u64)>,
    processes: Limit<u64>,
}

/// A limit, or why there is none to tell.
#[derive(Debug, Default, PartialEq)]
enum Limit<T> {
    /// No control group says anything.
    #[default]
    Unseen,
    Unlimited,
    At(T),
}

impl Limits {
    pub(crate) fn read() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let file = |controller: &str, v1: &str, v2: &str| {
            let (folder, is_v1) = folder(&groups, &mounts, controller)?;
            // The root group has no such file, and no limit.
            let text = fs::read_to_string(folder.join(if is_v1 { v1 } else { v2 }));
            Some(text.unwrap_or_else(|_| "max".to_owned()))
        };
        let cpu = match file("cpu", "cpu.cfs_quota_us", "cpu.max") {
            // v1 keeps the two numbers in two files.
            Some(text) if text.split_ascii_whitespace().count() == 1 && text.trim() != "max" => {
                let period = file("cpu", "cpu.cfs_period_us", "cpu.max").unwrap_or_default();
                Some(format!("{} {}", text.trim(), period.trim()))
            }
            other => other,
        };
        Self {
            memory: number(file("memory", "memory.limit_in_bytes", "memory.max").as_deref()),
            cpu: quota(cpu.as_deref()),
            processes: number(file("pids", "pids.max", "pids.max").as_deref()),
        }
    }

    pub(crate) fn memory_text(&self) -> String {
        text(&self.memory, |bytes| format!("at most {}", size(*bytes)))
    }

    pub(crate) fn cpu_text(&self) -> String {
        text(&self.cpu, |(runtime, period)| {
            let hundredths = runtime.saturating_mul(100) / period.max(&1);
            format!(
                "at most {}.{:02} processors",
                hundredths / 100,
                hundredths % 100
            )
        })
    }

    pub(crate) fn processes_text(&self) -> String {
        text(&self.processes, |count| format!("at most {count}"))
    }
}

fn text<T>(limit: &Limit<T>, show: impl FnOnce(&T) -> String) -> String {
    match limit {
        Limit::Unseen => "no control group in sight".to_owned(),
        Limit::Unlimited => "no limit of its own".to_owned(),
        Limit::At(value) => show(value),
    }
}

fn number(text: Option<&str>) -> Limit<u64> {
    match text.map(str::trim) {
        None => Limit::Unseen,
        Some(text) => match text.parse() {
            Ok(value) if value < V1_NO_LIMIT => Limit::At(value),
            _ => Limit::Unlimited,
        },
    }
}

fn quota(text: Option<&str>) -> Limit<(u64, u64)> {
    let Some(text) = text else {
        return Limit::Unseen;
    };
    let mut words = text.split_ascii_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(runtime)), Some(Ok(period))) => Limit::At((runtime, period)),
        // "max" in v2, -1 in v1.
        _ => Limit::Unlimited,
    }
}

/// `1536 MiB`, exact where the number is whole.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    UNITS
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(
            || format!("{bytes} bytes"),
            |(name, unit)| format!("{} {name}", bytes / unit),
        )
}

/// The folder of a controller's group as mounted here, and whether it is of v1.
fn folder(groups: &str, mounts: &str, controller: &str) -> Option<(PathBuf, bool)> {
    let group = |wanted: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            wanted(controllers).then_some(path)
        })
    };
    let has = |list: &str| list.split(',').any(|name| name == controller);
    if let Some(path) = group(&has)
        && let Some(mount) = mounts
            .lines()
            .find_map(|line| Mount::read(line, "cgroup", &has))
    {
        return Some((mount.folder(path), true));
    }
    let path = group(&|controllers| controllers.is_empty())?;
    let mount = mounts
        .lines()
        .find_map(|line| Mount::read(line, "cgroup2", &|_| true))?;
    Some((mount.folder(path), false))
}

/// A mounted hierarchy.
struct Mount<'a> {
    /// Which of its folders is the root of the mount.
    root: &'a str,
    target: &'a str,
}

impl<'a> Mount<'a> {
    /// A line of mountinfo(5), if it shows this type with options that suit.
    fn read(line: &'a str, kind: &str, suits: &dyn Fn(&str) -> bool) -> Option<Self> {
        let (head, tail) = line.split_once(" - ")?;
        let mut tail = tail.split(' ');
        if tail.next()? != kind || !suits(tail.nth(1)?) {
            return None;
        }
        let mut head = head.split(' ').skip(3);
        Some(Self {
            root: head.next()?,
            target: head.next()?,
        })
    }

    /// Where the group `path` is seen. A path outside the mount means that the mount shows the
    /// group itself.
    fn folder(&self, path: &str) -> PathBuf {
        let inside = if self.root == "/" {
            Some(path)
        } else {
            path.strip_prefix(self.root)
        };
        PathBuf::from(self.target).join(inside.unwrap_or_default().trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 31 0:29 /docker/1 /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V1_GROUPS: &str = "4:memory:/a/b\n2:cpu,cpuacct:/docker/1\n8:pids:/\n0::/c\n";

    #[test]
    fn folder_v1_and_hybrid_groups_are_found() {
        let find = |controller| folder(V1_GROUPS, V1_MOUNTS, controller);
        assert_eq!(
            find("memory"),
            Some((PathBuf::from("/sys/fs/cgroup/memory/a/b"), true))
        );
        assert_eq!(
            find("cpu"),
            Some((PathBuf::from("/sys/fs/cgroup/cpu/"), true))
        );
        assert_eq!(
            find("pids"),
            Some((PathBuf::from("/sys/fs/cgroup/unified/c"), false))
        );
    }

    #[test]
    fn folder_v2_group_is_found() {
        let mounts =
            "30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(
            folder("0::/\n", mounts, "memory"),
            Some((PathBuf::from("/sys/fs/cgroup/"), false))
        );
        assert_eq!(folder("", mounts, "memory"), None);
    }

    #[test]
    fn texts_each_kind_of_limit_reads_well() {
        let limits = Limits {
            memory: number(Some("67108864\n")),
            cpu: quota(Some("150000 100000")),
            processes: number(Some("max\n")),
        };
        assert_eq!(limits.memory_text(), "at most 64 MiB");
        assert_eq!(limits.cpu_text(), "at most 1.50 processors");
        assert_eq!(limits.processes_text(), "no limit of its own");
        assert_eq!(number(Some("9223372036854771712")), Limit::Unlimited);
        assert_eq!(quota(Some("-1 100000")), Limit::Unlimited);
        assert_eq!(quota(Some("max 100000")), Limit::Unlimited);
        assert_eq!(Limits::default().memory_text(), "no control group in sight");
        assert_eq!(size(1000), "1000 bytes");
    }
}
