//! Resource usage: what `hull stats` computes from a sample, and its placeholders.

use hull_api_types::stats::{CpuStats, MemoryStats, Stats};

use crate::template::{Map, Value};

use super::human;
use super::list::Listing;

/// The table of usage.
pub(crate) const LISTING: Listing<'static> = Listing {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "{{.ID}}",
    headers: &[
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("ID", "CONTAINER ID"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

/// Usage of one container at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Usage {
    container: String,
    id: String,
    name: String,
    values: Option<Values>,
}

#[derive(Debug, Clone, PartialEq)]
struct Values {
    cpu_percent: f64,
    memory: f64,
    memory_limit: f64,
    received: f64,
    sent: f64,
    read: f64,
    written: f64,
    processes: u64,
}

impl Usage {
    /// What a sample says; `container` is how the user named it.
    pub(crate) fn of(stats: &Stats, container: &str) -> Self {
        let networks = stats.networks.iter().flat_map(|networks| networks.values());
        let (received, sent) = networks.fold((0.0, 0.0), |(rx, tx), network| {
            (rx + network.rx_bytes as f64, tx + network.tx_bytes as f64)
        });
        let (mut read, mut written) = (0.0, 0.0);
        for entry in stats
            .blkio_stats
            .io_service_bytes_recursive
            .iter()
            .flatten()
        {
            match entry.op.as_bytes().first() {
                Some(b'r' | b'R') => read += entry.value as f64,
                Some(b'w' | b'W') => written += entry.value as f64,
                _ => {}
            }
        }
        let values = Values {
            cpu_percent: cpu_percent(&stats.precpu_stats, &stats.cpu_stats),
            memory: memory(&stats.memory_stats),
            memory_limit: stats.memory_stats.limit as f64,
            received,
            sent,
            read,
            written,
            processes: stats.pids_stats.current,
        };
        Self {
            container: container.to_owned(),
            id: stats.id.clone(),
            name: stats.name.trim_start_matches('/').to_owned(),
            // A container that does not run reports no time at all.
            values: (!stats.read.starts_with("0001-01-01")).then_some(values),
        }
    }

    /// A container nothing is known of yet.
    pub(crate) fn unknown(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            id: String::new(),
            name: String::new(),
            values: None,
        }
    }

    /// The placeholders.
    pub(crate) fn row(&self, no_trunc: bool) -> Value {
        let mut map = Map::of_type("*container.statsContext");
        let pair = |a: String, b: String| format!("{a} / {b}");
        let values = self.values.as_ref();
        map.push(
            "BlockIO",
            values.map_or("-- / --".to_owned(), |v| {
                pair(human::size(v.read as i64), human::size(v.written as i64))
            }),
        );
        map.push(
            "CPUPerc",
            values.map_or("--".to_owned(), |v| format!("{:.2}%", v.cpu_percent)),
        );
        map.push("Container", self.container.clone());
        map.push(
            "ID",
            match (self.id.is_empty(), no_trunc) {
                (true, _) => "--".to_owned(),
                (false, true) => self.id.clone(),
                (false, false) => human::short_id(&self.id),
            },
        );
        map.push(
            "MemPerc",
            values.map_or("--".to_owned(), |v| {
                let percent = if v.memory_limit > 0.0 {
                    v.memory / v.memory_limit * 100.0
                } else {
                    0.0
                };
                format!("{percent:.2}%")
            }),
        );
        map.push(
            "MemUsage",
            values.map_or("-- / --".to_owned(), |v| {
                pair(
                    human::binary_size(v.memory),
                    human::binary_size(v.memory_limit),
                )
            }),
        );
        map.push(
            "Name",
            if self.name.is_empty() {
                "--".to_owned()
            } else {
                self.name.clone()
            },
        );
        map.push(
            "NetIO",
            values.map_or("-- / --".to_owned(), |v| {
                pair(human::size(v.received as i64), human::size(v.sent as i64))
            }),
        );
        map.push(
            "PIDs",
            values.map_or("--".to_owned(), |v| v.processes.to_string()),
        );
        Value::Map(map)
    }
}

/// Share of one CPU between two moments, in percent.
fn cpu_percent(before: &CpuStats, now: &CpuStats) -> f64 {
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let system = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let cpus = if now.online_cpus > 0 {
        f64::from(now.online_cpus)
    } else {
        now.cpu_usage.percpu_usage.len() as f64
    };
    if system > 0.0 && used > 0.0 {
        used / system * cpus * 100.0
    } else {
        0.0
    }
}

/// Memory in use without the page cache that can be dropped at any time.
fn memory(memory: &MemoryStats) -> f64 {
    let cache = memory
        .stats
        .get("total_inactive_file")
        .or_else(|| memory.stats.get("inactive_file"))
        .copied()
        .unwrap_or(0);
    (if cache < memory.usage {
        memory.usage - cache
    } else {
        memory.usage
    }) as f64
}

#[cfg(test)]
mod tests {
    use super::super::list::render;
    use super::*;

    #[test]
    fn row_computes_dockers_numbers() {
        let stats: Stats = serde_json::from_str(
            r#"{"id":"0123456789abcdef","name":"/web","read":"2026-01-01T00:00:00Z","pids_stats":{"current":3},
            "cpu_stats":{"cpu_usage":{"total_usage":2000},"system_cpu_usage":20000,"online_cpus":2},
            "precpu_stats":{"cpu_usage":{"total_usage":1000},"system_cpu_usage":10000},
            "memory_stats":{"usage":2097152,"limit":4194304,"stats":{"inactive_file":1048576}},
            "networks":{"eth0":{"rx_bytes":1000,"tx_bytes":500}},
            "blkio_stats":{"io_service_bytes_recursive":[{"op":"Read","value":4096},{"op":"write","value":0}]}}"#,
        )
        .unwrap();
        let rows = [Usage::of(&stats, "web").row(false)];
        assert_eq!(
            render(&LISTING, &rows, Some("{{.ID}} {{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}} {{.NetIO}} {{.BlockIO}} {{.PIDs}}"), false).unwrap(),
            "0123456789ab web 20.00% 1MiB / 4MiB 25.00% 1kB / 500B 4.1kB / 0B 3\n"
        );
    }

    #[test]
    fn row_of_a_stopped_container_is_dashes() {
        let rows = [Usage::unknown("x").row(false)];
        assert_eq!(
            render(
                &LISTING,
                &rows,
                Some("{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}"),
                false
            )
            .unwrap(),
            "-- -- / -- --\n"
        );
    }
}
