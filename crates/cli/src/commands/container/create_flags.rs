//! The flags of `run` and `create`, and the request they make.

use std::path::Path;

use clap::Args;
use hull_api_types::host_config::{Mount, Ulimit};

use crate::values::network::NetworkSpec;
use crate::values::scalar::{cpus, duration, go_int, size, size_or_unlimited};
use crate::values::{environment, mount, network, ulimit};

/// What `run` and `create` have in common.
#[derive(Debug, Args)]
pub(crate) struct CreateFlags {
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_name = "list", value_parser = extra_host)]
    pub(crate) add_host: Vec<String>,
    /// Add an annotation to the container (passed through to the OCI runtime)
    #[arg(long, value_name = "map")]
    pub(crate) annotation: Vec<String>,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short = 'a', long, value_name = "list", value_parser = stream)]
    pub(crate) attach: Vec<String>,
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)
    #[arg(long, value_name = "uint16", value_parser = go_int)]
    pub(crate) blkio_weight: Option<i64>,
    /// Add Linux capabilities
    #[arg(long, value_name = "list")]
    pub(crate) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "list")]
    pub(crate) cap_drop: Vec<String>,
    /// Optional parent cgroup for the container
    #[arg(long, value_name = "string")]
    pub(crate) cgroup_parent: Option<String>,
    /// Cgroup namespace to use (host|private)
    #[arg(long, value_name = "string")]
    pub(crate) cgroupns: Option<String>,
    /// Write the container ID to the file
    #[arg(long, value_name = "string")]
    pub(crate) cidfile: Option<String>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "int", value_parser = go_int)]
    pub(crate) cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "int", value_parser = go_int)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long, value_name = "int", value_parser = go_int)]
    pub(crate) cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "decimal", value_parser = cpus)]
    pub(crate) cpus: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_mems: Option<String>,
    /// Add a host device to the container
    #[arg(long, value_name = "list")]
    pub(crate) device: Vec<String>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long, value_name = "list")]
    pub(crate) device_cgroup_rule: Vec<String>,
    /// Skip image verification (default true)
    #[arg(long)]
    pub(crate) disable_content_trust: bool,
    /// Set custom DNS servers
    #[arg(long, value_name = "list")]
    pub(crate) dns: Vec<String>,
    /// Set DNS options
    #[arg(long, alias = "dns-opt", value_name = "list")]
    pub(crate) dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "list")]
    pub(crate) dns_search: Vec<String>,
    /// Container NIS domain name
    #[arg(long, value_name = "string")]
    pub(crate) domainname: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "string")]
    pub(crate) entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short = 'e', long, value_name = "list", value_parser = environment::variable)]
    pub(crate) env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    pub(crate) env_file: Vec<String>,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "list")]
    pub(crate) expose: Vec<String>,
    /// Add additional groups to join
    #[arg(long, value_name = "list")]
    pub(crate) group_add: Vec<String>,
    /// Command to run to check health
    #[arg(long, value_name = "string")]
    pub(crate) health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub(crate) health_interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "int", value_parser = go_int)]
    pub(crate) health_retries: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub(crate) health_start_interval: Option<i64>,
    /// Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub(crate) health_start_period: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub(crate) health_timeout: Option<i64>,
    /// Container host name
    #[arg(short = 'h', long, value_name = "string")]
    pub(crate) hostname: Option<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    pub(crate) init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long)]
    pub(crate) interactive: bool,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, value_name = "string")]
    pub(crate) ip: Option<String>,
    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long, value_name = "string")]
    pub(crate) ip6: Option<String>,
    /// IPC mode to use
    #[arg(long, value_name = "string")]
    pub(crate) ipc: Option<String>,
    /// Container isolation technology
    #[arg(long, value_name = "string")]
    pub(crate) isolation: Option<String>,
    /// Kernel memory limit
    #[arg(long, value_name = "bytes", value_parser = size)]
    pub(crate) kernel_memory: Option<i64>,
    /// Set meta data on a container
    #[arg(short = 'l', long, value_name = "list")]
    pub(crate) label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long, value_name = "list")]
    pub(crate) label_file: Vec<String>,
    /// Add link to another container
    #[arg(long, value_name = "list")]
    pub(crate) link: Vec<String>,
    /// Logging driver for the container
    #[arg(long, value_name = "string")]
    pub(crate) log_driver: Option<String>,
    /// Log driver options
    #[arg(long, value_name = "list")]
    pub(crate) log_opt: Vec<String>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long, value_name = "string")]
    pub(crate) mac_address: Option<String>,
    /// Memory limit
    #[arg(short = 'm', long, value_name = "bytes", value_parser = size)]
    pub(crate) memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "bytes", value_parser = size)]
    pub(crate) memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "bytes", value_parser = size_or_unlimited)]
    pub(crate) memory_swap: Option<i64>,
    /// Tune container memory swappiness (0 to 100) (default -1)
    #[arg(long, value_name = "int", value_parser = go_int)]
    pub(crate) memory_swappiness: Option<i64>,
    /// Attach a filesystem mount to the container
    #[arg(long, value_name = "mount", value_parser = mount_here)]
    pub(crate) mount: Vec<Mount>,
    /// Assign a name to the container
    #[arg(long, value_name = "string")]
    pub(crate) name: Option<String>,
    /// Connect a container to a network
    #[arg(long, alias = "net", value_name = "network", value_parser = network::parse)]
    pub(crate) network: Vec<NetworkSpec>,
    /// Add network-scoped alias for the container
    #[arg(long, alias = "net-alias", value_name = "list")]
    pub(crate) network_alias: Vec<String>,
    /// Driver options on the first network, such as ingress-rate=10mbit, ingress-burst=64k,
    /// egress-rate and egress-burst
    #[arg(long, value_name = "map")]
    pub(crate) network_opt: Vec<String>,
    /// Where the container may connect to beyond its own networks, where no rule says otherwise:
    /// "deny" or "allow"
    #[arg(long, value_name = "string")]
    pub(crate) egress: Option<String>,
    /// Let it connect there: ADDRESS, SUBNET, NAME, *.NAME or *, with :PORT[-PORT] and /tcp or /udp
    #[arg(long, value_name = "list")]
    pub(crate) egress_allow: Vec<String>,
    /// Do not let it connect there
    #[arg(long, value_name = "list")]
    pub(crate) egress_deny: Vec<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Disable OOM Killer
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, value_name = "int", value_parser = go_int)]
    pub(crate) oom_score_adj: Option<i64>,
    /// PID namespace to use
    #[arg(long, value_name = "string")]
    pub(crate) pid: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "int", value_parser = go_int)]
    pub(crate) pids_limit: Option<i64>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Publish a container's port(s) to the host
    #[arg(short = 'p', long, value_name = "list")]
    pub(crate) publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Pull image before creating ("always", "|missing", "never") (default "missing")
    #[arg(long, value_name = "string")]
    pub(crate) pull: Option<String>,
    /// Suppress the pull output
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Restart policy to apply when a container exits (default "no")
    #[arg(long, value_name = "string")]
    pub(crate) restart: Option<String>,
    /// Automatically remove the container and its associated anonymous volumes when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Runtime to use for this container
    #[arg(long, value_name = "string")]
    pub(crate) runtime: Option<String>,
    /// Security Options
    #[arg(long, value_name = "list")]
    pub(crate) security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes", value_parser = size)]
    pub(crate) shm_size: Option<i64>,
    /// Signal to stop the container
    #[arg(long, value_name = "string")]
    pub(crate) stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, value_name = "int", value_parser = go_int)]
    pub(crate) stop_timeout: Option<i64>,
    /// Storage driver options for the container
    #[arg(long, value_name = "list")]
    pub(crate) storage_opt: Vec<String>,
    /// Sysctl options
    #[arg(long, value_name = "map", value_parser = sysctl)]
    pub(crate) sysctl: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "list")]
    pub(crate) tmpfs: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    /// Ulimit options
    #[arg(long, value_name = "ulimit", value_parser = ulimit::parse)]
    pub(crate) ulimit: Vec<Ulimit>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short = 'u', long, value_name = "string")]
    pub(crate) user: Option<String>,
    /// User namespace to use
    #[arg(long, value_name = "string")]
    pub(crate) userns: Option<String>,
    /// UTS namespace to use
    #[arg(long, value_name = "string")]
    pub(crate) uts: Option<String>,
    /// Bind mount a volume
    #[arg(short = 'v', long, value_name = "list")]
    pub(crate) volume: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long, value_name = "string")]
    pub(crate) volume_driver: Option<String>,
    /// Mount volumes from the specified container(s)
    #[arg(long, value_name = "list")]
    pub(crate) volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(short = 'w', long, value_name = "string")]
    pub(crate) workdir: Option<String>,
}

/// Reads `--mount` against the working directory.
fn mount_here(spec: &str) -> Result<Mount, String> {
    let directory = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_path_buf());
    mount::parse(spec, &directory)
}

/// Reads `--add-host NAME:ADDRESS` or `NAME=ADDRESS`.
fn extra_host(spec: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {spec:?}");
    let (name, address) = spec.split_once(['=', ':']).ok_or_else(bad)?;
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if name.is_empty() || address.is_empty() {
        return Err(bad());
    }
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{address}"))
}

/// Reads `--attach`.
fn stream(name: &str) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "stdin" | "stdout" | "stderr" => Ok(name),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// Reads `--sysctl NAME=VALUE`; only names that belong to a namespace are let through.
fn sysctl(setting: &str) -> Result<String, String> {
    const NAMES: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let name = setting.split_once('=').map(|(name, _)| name);
    match name {
        Some(name)
            if NAMES.contains(&name)
                || name.starts_with("net.")
                || name.starts_with("fs.mqueue.") =>
        {
            Ok(setting.to_owned())
        }
        _ => Err(format!("sysctl '{setting}' is not allowed")),
    }
}
