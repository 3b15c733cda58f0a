//! Readings as `docker stats` reads them.
use std::collections::BTreeMap;

use hull_api_types::stats as wire;
use hull_engine::{NetCounters, StatsReading};
use hull_model::Stats;

use super::time;

/// Writes a reading beside the one before; without one, its place shows zeros.
pub(crate) fn of(now: &StatsReading, before: Option<&StatsReading>) -> wire::Stats {
    let stats = &now.stats.clone().unwrap_or_default();
    let base = wire::Stats {
        id: now.record.id.clone(),
        name: format!("/{}", now.record.name),
        read: time::rfc3339(now.read_ns),
        preread: time::rfc3339(before.map_or(0, |b| b.read_ns)),
        ..wire::Stats::default()
    };
    if now.stats.is_none() {
        // Of a container that does not run Docker shows zeros, the times too.
        return wire::Stats {
            read: time::NEVER.into(),
            preread: time::NEVER.into(),
            ..base
        };
    }
    wire::Stats {
        pids_stats: wire::PidsStats {
            current: stats.pids_current,
            limit: stats.pids_limit,
        },
        blkio_stats: blkio(stats),
        cpu_stats: cpu(now),
        precpu_stats: before.map(cpu).unwrap_or_default(),
        memory_stats: memory(stats, now.host_memory),
        networks: networks(now),
        ..base
    }
}

fn networks(reading: &StatsReading) -> Option<BTreeMap<String, wire::NetworkStats>> {
    let one = |counters: &NetCounters| wire::NetworkStats {
        rx_bytes: counters.rx_bytes,
        rx_packets: counters.rx_packets,
        rx_errors: counters.rx_errors,
        rx_dropped: counters.rx_dropped,
        tx_bytes: counters.tx_bytes,
        tx_packets: counters.tx_packets,
        tx_errors: counters.tx_errors,
        tx_dropped: counters.tx_dropped,
    };
    let map: BTreeMap<_, _> = reading
        .networks
        .iter()
        .map(|(name, c)| (name.clone(), one(c)))
        .collect();
    (!map.is_empty()).then_some(map)
}

fn blkio(stats: &Stats) -> wire::BlkioStats {
    let entry = |op: &str, value| wire::BlkioEntry {
        op: op.into(),
        value,
        ..wire::BlkioEntry::default()
    };
    wire::BlkioStats {
        io_service_bytes_recursive: Some(vec![
            entry("read", stats.blkio_read),
            entry("write", stats.blkio_write),
        ]),
        ..wire::BlkioStats::default()
    }
}

fn cpu(reading: &StatsReading) -> wire::CpuStats {
    let stats = reading.stats.clone().unwrap_or_default();
    wire::CpuStats {
        cpu_usage: wire::CpuUsage {
            total_usage: stats.cpu_total_ns,
            percpu_usage: Vec::new(),
            usage_in_kernelmode: stats.cpu_system_ns,
            usage_in_usermode: stats.cpu_user_ns,
        },
        system_cpu_usage: reading.system_cpu_ns,
        online_cpus: reading.online_cpus,
        throttling_data: wire::ThrottlingData {
            periods: stats.cpu_periods,
            throttled_periods: stats.cpu_throttled_periods,
            throttled_time: stats.cpu_throttled_ns,
        },
    }
}

fn memory(stats: &Stats, host_memory: u64) -> wire::MemoryStats {
    let fields = [
        ("anon", stats.memory_anon),
        ("file", stats.memory_file),
        ("inactive_file", stats.memory_inactive_file),
        // What clients subtract under cgroup v1.
        ("total_inactive_file", stats.memory_inactive_file),
    ];
    wire::MemoryStats {
        usage: stats.memory_usage,
        max_usage: stats.memory_max_usage,
        stats: fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        failcnt: stats.memory_failcnt,
        limit: stats.memory_limit.min(host_memory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(stats: Option<Stats>) -> StatsReading {
        StatsReading {
            record: hull_state::ContainerRecord {
                id: "id".into(),
                name: "web".into(),
                ..Default::default()
            },
            stats,
            system_cpu_ns: 100,
            online_cpus: 2,
            read_ns: 1_000_000_000,
            host_memory: 9,
            networks: vec![(
                "eth0".into(),
                NetCounters {
                    rx_bytes: 3,
                    ..NetCounters::default()
                },
            )],
        }
    }

    #[test]
    fn first_reading_has_zeros_before_it() {
        let now = reading(Some(Stats {
            cpu_total_ns: 5,
            memory_limit: u64::MAX,
            ..Stats::default()
        }));
        let shown = of(&now, None);
        assert_eq!(shown.precpu_stats, wire::CpuStats::default());
        assert_eq!(
            (shown.name.as_str(), shown.preread.as_str()),
            ("/web", time::NEVER)
        );
        assert_eq!(shown.memory_stats.limit, 9);
        assert_eq!(shown.networks.unwrap()["eth0"].rx_bytes, 3);
        assert_eq!(of(&now, Some(&now)).precpu_stats.cpu_usage.total_usage, 5);
    }

    #[test]
    fn container_that_does_not_run_shows_zeros() {
        let shown = of(&reading(None), None);
        assert_eq!((shown.read.as_str(), shown.networks), (time::NEVER, None));
    }
}
