//! Limits as properties of a unit: what systemd would otherwise set back when it is reloaded.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use hull_proto::oci::SystemdUnit;
use hull_proto::plan::{CgroupPlan, DeviceRule};

use super::gvariant;
use super::value::Value;

/// systemd's word for no limit.
const INFINITY: u64 = u64::MAX;
const DEFAULT_PERIOD_US: u64 = 100_000;
/// A CPU quota is whole percents for systemd: it is rounded up to these µs in a second.
const QUOTA_STEP_US: u64 = 10_000;

/// What properties there are depends on the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manager {
    /// Version of systemd.
    pub(crate) version: u32,
    /// Limits are set through the v2 tree.
    pub(crate) is_v2: bool,
}

/// Properties in the order they are sent.
#[derive(Debug, Default)]
pub(crate) struct Properties(Vec<(String, Value)>);

impl Properties {
    fn set(&mut self, name: &str, value: Value) {
        self.0.push((name.to_owned(), value));
    }

    fn number(&mut self, name: &str, value: u64) {
        self.set(name, Value::U64(value));
    }

    pub(crate) fn into_value(self) -> Value {
        let property = |(name, value): (String, Value)| {
            Value::Struct(vec![Value::Text(name), Value::Variant(value.into())])
        };
        let list = self.0.into_iter().map(property).collect();
        Value::Array("(sv)".to_owned(), list)
    }

    /// A new unit that holds the process `holder` (a slice holds none).
    pub(crate) fn of_new(
        unit: &SystemdUnit,
        id: &str,
        plan: &CgroupPlan,
        holder: Option<u32>,
        manager: Manager,
    ) -> Result<Self> {
        let mut all = Self::default();
        all.set("Description", Value::Text(format!("hull container {id}")));
        match holder {
            Some(pid) => {
                all.set("Slice", Value::text(&unit.slice));
                all.set("Delegate", Value::Bool(true));
                all.set("PIDs", Value::Array("u".to_owned(), vec![Value::U32(pid)]));
            }
            None => {
                let slice = vec![Value::text(&unit.slice)];
                all.set("Wants", Value::Array("s".to_owned(), slice));
            }
        }
        let io = if manager.is_v2 {
            "IOAccounting"
        } else {
            "BlockIOAccounting"
        };
        for name in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
            all.set(name, Value::Bool(true));
        }
        all.set("DefaultDependencies", Value::Bool(false));
        all.devices(&plan.devices, manager, &device_names());
        all.limits(plan, manager);
        for (name, text) in &unit.properties {
            let (name, value) = gvariant::property(name, text)?;
            all.0.retain(|(known, _)| *known != name);
            all.set(&name, value);
        }
        Ok(all)
    }

    /// Other limits for a unit that exists.
    pub(crate) fn of_update(plan: &CgroupPlan, manager: Manager) -> Self {
        let mut all = Self::default();
        all.limits(plan, manager);
        all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn limits(&mut self, plan: &CgroupPlan, manager: Manager) {
        let limits = &plan.resources;
        let given = |value: Option<i64>| value.filter(|value| *value != 0).map(limit);
        if manager.is_v2 {
            if let Some(memory) = given(limits.memory) {
                self.number("MemoryMax", memory);
            }
            if let Some(soft) = given(limits.memory_reservation) {
                self.number("MemoryLow", soft);
            }
            match (limits.memory_swap, limits.memory) {
                (Some(-1), _) | (None, Some(-1)) => self.number("MemorySwapMax", INFINITY),
                (Some(both), Some(memory)) if both > 0 && memory > 0 => {
                    let swap = both.saturating_sub(memory).max(0).unsigned_abs();
                    self.number("MemorySwapMax", swap);
                }
                _ => {}
            }
            // 0 is systemd's word for idle.
            if plan.extra.cpu_idle == Some(1) && manager.version >= 252 {
                self.number("CPUWeight", 0);
            } else if let Some(shares) = limits.cpu_shares.filter(|shares| *shares != 0) {
                self.number("CPUWeight", hull_sys::cgroup::weight_of_shares(shares));
            }
        } else {
            if let Some(memory) = given(limits.memory) {
                self.number("MemoryLimit", memory);
            }
            if let Some(shares) = limits.cpu_shares.filter(|shares| *shares != 0) {
                self.number("CPUShares", shares);
            }
            if let Some(weight) = limits.blkio_weight.filter(|weight| *weight != 0) {
                self.number("BlockIOWeight", weight.into());
            }
        }
        self.quota(limits.cpu_quota, limits.cpu_period, manager);
        if let Some(pids) = given(limits.pids_limit) {
            self.number("TasksMax", pids);
        }
        if manager.version >= 244 && manager.is_v2 {
            self.list("AllowedCPUs", limits.cpuset_cpus.as_deref());
            self.list("AllowedMemoryNodes", limits.cpuset_mems.as_deref());
        }
        self.unified(&plan.extra.unified, manager);
    }

    fn quota(&mut self, quota: Option<i64>, period: Option<u64>, manager: Manager) {
        let quota = quota.filter(|quota| *quota != 0);
        let period = period.filter(|period| *period != 0);
        if let Some(period) = period
            && manager.version >= 242
        {
            self.number("CPUQuotaPeriodUSec", period);
        }
        let Some(quota) = quota else { return };
        let second = match u64::try_from(quota) {
            Ok(quota) => {
                let period = period.unwrap_or(DEFAULT_PERIOD_US);
                let exact = u128::from(quota) * 1_000_000 / u128::from(period);
                u64::try_from(exact)
                    .unwrap_or(INFINITY)
                    .checked_next_multiple_of(QUOTA_STEP_US)
                    .unwrap_or(INFINITY)
            }
            Err(_) => INFINITY,
        };
        self.number("CPUQuotaPerSecUSec", second);
    }

    /// A list such as `0-2,4` as a mask, the lowest byte first.
    fn list(&mut self, name: &str, list: Option<&str>) {
        const MOST: usize = 8192;
        let mut mask: Vec<u8> = Vec::new();
        for part in list.unwrap_or_default().split(',') {
            let part = part.trim();
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
                continue;
            };
            for bit in first..=last.min(MOST) {
                let byte = bit / 8;
                if mask.len() <= byte {
                    mask.resize(byte + 1, 0);
                }
                if let Some(slot) = mask.get_mut(byte) {
                    *slot |= 1 << (bit % 8);
                }
            }
        }
        if !mask.is_empty() {
            let mask = mask.into_iter().map(Value::Byte).collect();
            self.set(name, Value::Array("y".to_owned(), mask));
        }
    }

    /// Files of the v2 tree that systemd has properties for; the others are its delegate's.
    fn unified(&mut self, files: &BTreeMap<String, String>, manager: Manager) {
        let size = |text: &str| match text.trim() {
            "max" => Some(INFINITY),
            number => number.parse().ok(),
        };
        for (file, text) in files {
            let name = match file.as_str() {
                "memory.high" => "MemoryHigh",
                "memory.low" => "MemoryLow",
                "memory.min" => "MemoryMin",
                "memory.max" => "MemoryMax",
                "memory.swap.max" => "MemorySwapMax",
                "pids.max" => "TasksMax",
                "cpu.weight" => "CPUWeight",
                "cpu.max" => {
                    let mut words = text.split_whitespace();
                    let quota = match words.next() {
                        Some("max") => Some(-1),
                        word => word.and_then(|word| word.parse().ok()),
                    };
                    let period = words.next().and_then(|word| word.parse().ok());
                    self.quota(quota, period, manager);
                    continue;
                }
                "cpuset.cpus" if manager.version >= 244 => {
                    self.list("AllowedCPUs", Some(text));
                    continue;
                }
                "cpuset.mems" if manager.version >= 244 => {
                    self.list("AllowedMemoryNodes", Some(text));
                    continue;
                }
                _ => continue,
            };
            if let Some(value) = size(text) {
                self.0.retain(|(known, _)| known != name);
                self.number(name, value);
            }
        }
    }

    /// Rules in order become what is allowed in the end; what systemd cannot say, the rules of the
    /// group itself do.
    fn devices(&mut self, rules: &[DeviceRule], manager: Manager, names: &DeviceNames) {
        let mut policy = "auto";
        let mut allowed: Vec<(String, String)> = Vec::new();
        for rule in rules {
            let everything = rule.kind == 'a' && rule.major.is_none() && rule.minor.is_none();
            if everything {
                policy = if rule.allow { "auto" } else { "strict" };
                allowed.clear();
                continue;
            }
            if policy == "auto" {
                continue;
            }
            let access = if rule.access.is_empty() {
                "rwm"
            } else {
                &rule.access
            };
            for device in device_paths(rule, manager, names) {
                if rule.allow {
                    match allowed.iter_mut().find(|(known, _)| *known == device) {
                        Some((_, letters)) => {
                            let more = access.chars().filter(|c| !letters.contains(*c));
                            let more: String = more.collect();
                            letters.push_str(&more);
                        }
                        None => allowed.push((device, access.to_owned())),
                    }
                } else {
                    for (known, letters) in &mut allowed {
                        if *known == device {
                            letters.retain(|letter| !access.contains(letter));
                        }
                    }
                    allowed.retain(|(_, letters)| !letters.is_empty());
                }
            }
        }
        self.set("DevicePolicy", Value::text(policy));
        let entries = allowed
            .into_iter()
            .map(|(device, access)| Value::Struct(vec![Value::Text(device), Value::Text(access)]))
            .collect();
        self.set("DeviceAllow", Value::Array("(ss)".to_owned(), entries));
    }
}

/// Names of drivers by kind and major number, from `/proc/devices`.
type DeviceNames = BTreeMap<(char, u32), String>;

fn device_names() -> DeviceNames {
    parse_devices(&std::fs::read_to_string("/proc/devices").unwrap_or_default())
}

fn parse_devices(text: &str) -> DeviceNames {
    let mut names = DeviceNames::new();
    let mut kind = 'c';
    for line in text.lines() {
        if line.starts_with("Block") {
            kind = 'b';
        }
        if let Some((major, name)) = line.trim().split_once(' ')
            && let Ok(major) = major.parse()
        {
            names
                .entry((kind, major))
                .or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// A rule's devices as systemd spells them.
fn device_paths(rule: &DeviceRule, manager: Manager, names: &DeviceNames) -> Vec<String> {
    let kinds: &[char] = match rule.kind {
        'a' => &['b', 'c'],
        'b' => &['b'],
        _ => &['c'],
    };
    let mut paths = Vec::new();
    for kind in kinds {
        let word = if *kind == 'b' { "block" } else { "char" };
        match (rule.major, rule.minor) {
            (None, None) => paths.push(format!("{word}-*")),
            (Some(major), None) => {
                if let Some(name) = names.get(&(*kind, major)) {
                    paths.push(format!("{word}-{name}"));
                }
            }
            (Some(major), Some(minor)) => {
                let mut path = String::new();
                // Writing to a String cannot fail.
                let _ = write!(path, "/dev/{word}/{major}:{minor}");
                // Before, systemd looked for the node.
                if manager.version >= 240 || std::path::Path::new(&path).exists() {
                    paths.push(path);
                }
            }
            // A minor number of every driver has no spelling.
            (None, Some(_)) => {}
        }
    }
    paths
}

fn limit(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: Manager = Manager {
        version: 252,
        is_v2: true,
    };

    fn find<'a>(all: &'a Properties, name: &str) -> Option<&'a Value> {
        let mut found = all.0.iter().filter(|(known, _)| known == name);
        let first = found.next();
        assert!(found.next().is_none(), "{name} is there twice");
        first.map(|(_, value)| value)
    }

    #[test]
    fn of_update_limits_of_v2() {
        let mut plan = CgroupPlan::default();
        plan.resources.memory = Some(100);
        plan.resources.memory_swap = Some(150);
        plan.resources.memory_reservation = Some(50);
        plan.resources.cpu_shares = Some(1024);
        plan.resources.cpu_quota = Some(12_345);
        plan.resources.cpu_period = Some(100_000);
        plan.resources.cpuset_cpus = Some("0-2,9".to_owned());
        plan.resources.pids_limit = Some(-1);
        let files = [
            ("memory.high", "90"),
            ("memory.max", "max"),
            ("misc.max", "x 1"),
        ];
        plan.extra.unified = files.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let all = Properties::of_update(&plan, V2);
        for (name, value) in [
            ("MemoryMax", INFINITY),
            ("MemoryHigh", 90),
            ("MemorySwapMax", 50),
            ("MemoryLow", 50),
            ("CPUWeight", 39),
            ("CPUQuotaPeriodUSec", 100_000),
            ("CPUQuotaPerSecUSec", 130_000),
            ("TasksMax", INFINITY),
        ] {
            assert_eq!(find(&all, name), Some(&Value::U64(value)), "{name}");
        }
        let mask = Value::Array("y".to_owned(), vec![Value::Byte(7), Value::Byte(2)]);
        assert_eq!(find(&all, "AllowedCPUs"), Some(&mask));
    }

    #[test]
    fn of_update_idle_and_v1() {
        let mut plan = CgroupPlan::default();
        plan.extra.cpu_idle = Some(1);
        plan.resources.cpu_shares = Some(512);
        plan.resources.memory = Some(-1);
        let all = Properties::of_update(&plan, V2);
        assert_eq!(find(&all, "CPUWeight"), Some(&Value::U64(0)));
        assert_eq!(find(&all, "MemorySwapMax"), Some(&Value::U64(INFINITY)));
        let v1 = Manager { is_v2: false, ..V2 };
        let all = Properties::of_update(&plan, v1);
        assert_eq!(find(&all, "CPUShares"), Some(&Value::U64(512)));
        assert_eq!(find(&all, "MemoryLimit"), Some(&Value::U64(INFINITY)));
    }

    #[test]
    fn devices_rules_in_order_become_what_is_allowed() {
        let names =
            parse_devices("Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n");
        let rule = |allow, kind, major, minor, access: &str| DeviceRule {
            allow,
            kind,
            major,
            minor,
            access: access.to_owned(),
        };
        let mut all = Properties::default();
        let rules = [
            rule(true, 'c', Some(9), None, "rwm"),
            rule(false, 'a', None, None, ""),
            rule(true, 'c', None, None, "m"),
            rule(true, 'c', Some(1), Some(3), "rw"),
            rule(true, 'c', Some(1), Some(3), "wm"),
            rule(true, 'c', Some(136), None, ""),
            rule(true, 'b', Some(8), None, "r"),
            rule(true, 'c', Some(5), Some(0), "rw"),
            rule(false, 'c', Some(5), Some(0), "w"),
        ];
        all.devices(&rules, V2, &names);
        assert_eq!(find(&all, "DevicePolicy"), Some(&Value::text("strict")));
        let Some(Value::Array(_, entries)) = find(&all, "DeviceAllow") else {
            panic!("no list")
        };
        let shown: Vec<String> = entries
            .iter()
            .map(|entry| match entry {
                Value::Struct(both) => both
                    .iter()
                    .filter_map(Value::as_text)
                    .collect::<Vec<_>>()
                    .join(" "),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "char-* m",
                "/dev/char/1:3 rwm",
                "char-pts rwm",
                "block-sd r",
                "/dev/char/5:0 r"
            ]
        );
        let mut all = Properties::default();
        all.devices(&[rule(true, 'a', None, None, "")], V2, &names);
        assert_eq!(find(&all, "DevicePolicy"), Some(&Value::text("auto")));
    }

    #[test]
    fn of_new_annotations_win() {
        let mut unit = SystemdUnit {
            slice: "a.slice".to_owned(),
            ..SystemdUnit::default()
        };
        let mut set = |name: &str, text: &str| {
            unit.properties.insert(name.to_owned(), text.to_owned());
        };
        set("TimeoutStopSec", "7");
        set("DefaultDependencies", "true");
        let plan = CgroupPlan::default();
        let all = Properties::of_new(&unit, "c", &plan, Some(77), V2).expect("properties");
        assert_eq!(find(&all, "TimeoutStopUSec"), Some(&Value::U64(7_000_000)));
        assert_eq!(find(&all, "DefaultDependencies"), Some(&Value::Bool(true)));
        assert_eq!(find(&all, "Delegate"), Some(&Value::Bool(true)));
        assert_eq!(find(&all, "Slice"), Some(&Value::text("a.slice")));
        let pids = Value::Array("u".to_owned(), vec![Value::U32(77)]);
        assert_eq!(find(&all, "PIDs"), Some(&pids));
    }
}
