//! Facts of the host.

/// Bytes of memory.
pub fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram
        .saturating_mul(u64::from(info.mem_unit.max(1)))
}

/// Pretty name from os-release(5).
pub fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let value = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name))
            .map(|v| v.trim_matches(['"', '\'']).to_owned())
    };
    value("PRETTY_NAME=")
        .or_else(|| value("NAME="))
        .unwrap_or_else(|| "Linux".into())
}

/// Release of the kernel.
pub fn kernel() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Name of the host.
pub fn name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// `1` or `2`.
pub fn cgroup_version() -> &'static str {
    match hull_sys::cgroup::Hierarchies::detect() {
        Ok(h) if h.is_v2() => "2",
        _ => "1",
    }
}
