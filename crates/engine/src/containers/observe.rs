//! Looking at a running container: counters, processes.

use std::fs;

use hull_model::spec::Isolation;
use hull_model::{Error, Result, Stats};
use hull_proto::{Reply, Request};
use hull_state::ContainerRecord;

use super::entry::Container;
use crate::Engine;
use crate::clock::now_ns;

/// A reading of a container's use of the host.
#[derive(Debug, Clone)]
pub struct StatsReading {
    /// The container.
    pub record: ContainerRecord,
    /// Counters; none if it does not run.
    pub stats: Option<Stats>,
    /// CPU time of the whole host.
    pub system_cpu_ns: u64,
    /// CPUs of the host.
    pub online_cpus: u32,
    /// When, ns since 1970.
    pub read_ns: u64,
    /// Bytes of memory of the host, the limit of those without one.
    pub host_memory: u64,
    /// Interfaces, by name.
    pub networks: Vec<(String, NetCounters)>,
}

/// Counters of one interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Received.
    pub rx_bytes: u64,
    /// Received.
    pub rx_packets: u64,
    /// Received wrongly.
    pub rx_errors: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Not sent.
    pub tx_errors: u64,
    /// Dropped instead of sent.
    pub tx_dropped: u64,
}

/// A table of processes.
#[derive(Debug, Clone, Default)]
pub struct Top {
    /// Names of the columns.
    pub titles: Vec<String>,
    /// Rows.
    pub processes: Vec<Vec<String>>,
}

impl Engine {
    /// Reads counters.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stats(&self, key: &str) -> Result<StatsReading> {
        let container = self.containers.find(key)?;
        let record = container.record();
        let stats = match container.shim() {
            Some(shim) if record.state.is_running() => match shim.call(Request::Stats, &[]).await {
                Ok(Reply::Stats(stats)) => Some(*stats),
                _ => None,
            },
            _ => None,
        };
        let networks = match record.spec.isolation {
            // Its interfaces are the guest's to see: the other ends are here.
            Isolation::Vm => networks_of_guest(&record),
            Isolation::Container => record.state.pid().map(networks).unwrap_or_default(),
        };
        Ok(StatsReading {
            record,
            stats,
            system_cpu_ns: system_cpu_ns(),
            online_cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
                as u32,
            read_ns: now_ns(),
            host_memory: crate::system::host::memory(),
            networks,
        })
    }

    /// Lists the processes of a container, as `ps` with these arguments shows them.
    ///
    /// # Errors
    /// `Conflict` if it does not run; `InvalidArgument` for arguments that hide the process id.
    pub async fn top(&self, key: &str, ps_args: &str) -> Result<Top> {
        let container = self.containers.find(key)?;
        if container.with(|r| r.spec.isolation == Isolation::Vm) {
            return self.top_guest(&container, ps_args).await;
        }
        let pids = self.pids(&container).await?;
        let args = if ps_args.is_empty() { "-ef" } else { ps_args };
        if args
            .bytes()
            .any(|b| !(b.is_ascii_alphanumeric() || b" -,_=+:".contains(&b)))
        {
            return Err(Error::invalid(format!("invalid ps arguments: {args:?}")));
        }
        let output = tokio::process::Command::new("ps")
            .args(args.split_whitespace())
            .output()
            .await
            .map_err(|e| Error::internal("cannot run ps on the host", e))?;
        if !output.status.success() {
            return Err(Error::invalid(format!(
                "ps: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        select(&String::from_utf8_lossy(&output.stdout), &pids)
    }

    async fn pids(&self, container: &Container) -> Result<Vec<u32>> {
        let idle = || Error::conflict(format!("container {} is not running", container.id));
        if !container.with(|r| r.state.is_running()) {
            return Err(idle());
        }
        match container
            .shim()
            .ok_or_else(idle)?
            .call(Request::Pids, &[])
            .await?
        {
            Reply::Pids(pids) => Ok(pids),
            _ => Err(Error::internal(
                "the shim did not list processes",
                std::io::Error::other("protocol error"),
            )),
        }
    }
}

/// Picks the rows of our processes out of ps' table.
fn select(text: &str, pids: &[u32]) -> Result<Top> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles.iter().position(|t| t == "PID").ok_or_else(|| {
        Error::invalid("Couldn't find PID field in ps output: choose arguments that show it")
    })?;
    let mut processes = Vec::new();
    for line in lines {
        let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let ours = fields
            .get(column)
            .and_then(|p| p.parse::<u32>().ok())
            .is_some_and(|p| pids.contains(&p));
        if !ours {
            continue;
        }
        // The last column, the command, keeps its blanks.
        if fields.len() > titles.len() {
            let rest = fields.split_off(titles.len() - 1).join(" ");
            fields.push(rest);
        }
        processes.push(fields);
    }
    Ok(Top { titles, processes })
}

/// CPU time of the host from /proc/stat (proc_stat(5)): user to softirq and steal, in ticks.
fn system_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: u64 = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Interfaces of a process's network namespace, without loopback.
fn networks(pid: u32) -> Vec<(String, NetCounters)> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines()
        .skip(2)
        .filter_map(interface)
        .filter(|(name, _)| name != "lo")
        .collect()
}

/// Interfaces of a guest, by the host's ends of them, which count the other way round.
fn networks_of_guest(record: &ContainerRecord) -> Vec<(String, NetCounters)> {
    let default = record.endpoint.iter();
    let default = default.map(|endpoint| (hull_network::INTERFACE, endpoint));
    let places = record.places.iter();
    let places = places.map(|place| (place.interface.as_str(), &place.endpoint));
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let ends: Vec<(String, NetCounters)> = text.lines().skip(2).filter_map(interface).collect();
    let found = default.chain(places).filter_map(|(name, endpoint)| {
        let (_, end) = ends.iter().find(|(name, _)| *name == endpoint.veth)?;
        let counters = NetCounters {
            rx_bytes: end.tx_bytes,
            rx_packets: end.tx_packets,
            rx_errors: end.tx_errors,
            rx_dropped: end.tx_dropped,
            tx_bytes: end.rx_bytes,
            tx_packets: end.rx_packets,
            tx_errors: end.rx_errors,
            tx_dropped: end.rx_dropped,
        };
        Some((name.to_owned(), counters))
    });
    found.collect()
}

fn interface(line: &str) -> Option<(String, NetCounters)> {
    let (name, rest) = line.split_once(':')?;
    let n: Vec<u64> = rest
        .split_whitespace()
        .map(|f| f.parse().unwrap_or(0))
        .collect();
    let at = |i: usize| n.get(i).copied().unwrap_or(0);
    let counters = NetCounters {
        rx_bytes: at(0),
        rx_packets: at(1),
        rx_errors: at(2),
        rx_dropped: at(3),
        tx_bytes: at(8),
        tx_packets: at(9),
        tx_errors: at(10),
        tx_dropped: at(11),
    };
    Some((name.trim().to_owned(), counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn select_keeps_our_rows_and_blanks_of_commands() {
        let text = "UID   PID  CMD\nroot  7    sleep 1 2\nroot 8 other\n";
        let top = select(text, &[7]).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "CMD"]);
        assert_eq!(top.processes, [["root", "7", "sleep 1 2"]]);
        assert!(select("UID\nroot", &[7]).is_err());
    }

    #[test]
    fn interface_line_is_read_by_position() {
        let (name, c) = interface("  eth0: 10 1 0 0 0 0 0 0 20 2 0 3 0 0 0 0").unwrap();
        assert_eq!(
            (name.as_str(), c.rx_bytes, c.tx_bytes, c.tx_dropped),
            ("eth0", 10, 20, 3)
        );
    }
}
