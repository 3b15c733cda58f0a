//! What a user asked for when he created a container: typed, validated, and kept as the record
//! from which every later start is planned.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::egress::EgressPolicy;
use crate::image::HealthConfig;
use crate::resources::{Resources, Ulimit};

/// The wish, after the image's defaults were merged in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image as the user wrote it.
    pub image: String,
    /// Program and leading arguments.
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`, the image's first.
    pub env: Vec<String>,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Additional groups, names or numbers.
    pub group_add: Vec<String>,
    /// Working directory; empty is `/`.
    pub working_dir: String,
    /// Free labels, the image's merged in.
    pub labels: BTreeMap<String, String>,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
    /// Host name inside; empty takes the short id.
    pub hostname: String,
    /// NIS domain name inside.
    pub domainname: String,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep stdin open.
    pub open_stdin: bool,
    /// Close stdin after the first client went.
    pub stdin_once: bool,
    /// Streams that the creator said it would attach (shown by inspect).
    pub attach: Attach,
    /// Remove when it exits.
    pub auto_remove: bool,
    /// Signal that asks it to stop; empty is SIGTERM.
    pub stop_signal: String,
    /// Seconds between the stop signal and SIGKILL; 10 if none.
    pub stop_timeout: Option<i64>,
    /// When to start it again.
    pub restart: RestartPolicy,
    /// Health check, the image's merged in.
    pub healthcheck: Option<HealthConfig>,
    /// Mounts in the order given.
    pub mounts: Vec<Mount>,
    /// Root file system cannot be written.
    pub readonly_rootfs: bool,
    /// Options of the writable layer, as the user wrote them: `size`.
    pub storage_opt: BTreeMap<String, String>,
    /// Size of /dev/shm, bytes; 64 MiB if none.
    pub shm_size: Option<i64>,
    /// Ports that the image or user names, as `80/tcp`.
    pub exposed_ports: Vec<Port>,
    /// Ports published on the host.
    pub published: Vec<PublishSpec>,
    /// Those to be published on IPv6 addresses of the host; one for every address stands in both.
    pub published6: Vec<PublishSpec6>,
    /// Publish every exposed port on a random one.
    pub publish_all: bool,
    /// Network mode.
    pub network: NetworkMode,
    /// `name:address` lines for /etc/hosts.
    pub extra_hosts: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// Resource limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// OOM score adjustment.
    pub oom_score_adj: Option<i32>,
    /// Capabilities added, names or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities dropped, names or `ALL`.
    pub cap_drop: Vec<String>,
    /// No confinement but the namespaces.
    pub privileged: bool,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// Which system calls it may use.
    pub seccomp: SeccompChoice,
    /// Raw `--security-opt` list, for inspect.
    pub security_opt: Vec<String>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Extra device cgroup rules such as `c 1:3 rwm`.
    pub device_rules: Vec<String>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Run a small init as process 1.
    pub init: bool,
    /// Process id namespace.
    pub pid_mode: NamespaceMode,
    /// IPC namespace.
    pub ipc_mode: NamespaceMode,
    /// Host name namespace; container mode is not allowed here.
    pub uts_mode: NamespaceMode,
    /// Cgroup namespace; container mode is not allowed here.
    pub cgroupns_mode: NamespaceMode,
    /// Parent cgroup; empty is the daemon's.
    pub cgroup_parent: String,
    /// Where stdout and stderr go.
    pub log: LogConfig,
    /// Container or VM.
    pub isolation: Isolation,
    /// Platform asked for, such as `linux/amd64`; empty is the host's.
    pub platform: String,
    /// `--cidfile`, shown by inspect.
    pub container_id_file: String,
    /// Address asked for on the network.
    pub ip: Option<Ipv4Addr>,
    /// MAC address asked for.
    pub mac: String,
    /// Other containers under names of its own.
    pub links: Vec<Link>,
    /// Containers whose mounts it takes over, as `NAME[:ro]`.
    pub volumes_from: Vec<String>,
    /// Where it may connect to; `None` is everywhere.
    pub egress: Option<EgressPolicy>,
    /// Wall clock of the create request, µs since 1970, handed to hull/hello.
    pub requested_at_us: u64,
}

impl ContainerSpec {
    /// The ports it exposes, those of ranges that it publishes included.
    pub fn exposed(&self) -> impl Iterator<Item = Port> {
        let ranges = self.published.iter().filter(|wish| wish.more > 0);
        let own = self.exposed_ports.iter().copied();
        own.chain(ranges.flat_map(|wish| wish.container_ports()))
    }
}

/// Another container under a name of one's own, `--link NAME:ALIAS`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// The other as the user called it.
    pub name: String,
    /// Its id, where it had to exist already.
    pub id: String,
    /// What it is called here.
    pub alias: String,
}

/// Streams attached at creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// How a workload is separated from the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Shares the host's kernel.
    #[default]
    Container,
    /// A guest kernel of its own.
    Vm,
}

/// When to start again after an exit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After a failure, at most so often (zero: without end).
    OnFailure {
        /// Greatest number of tries.
        max: u32,
    },
    /// After each exit and at daemon start.
    Always,
    /// As always, unless the user stopped it.
    UnlessStopped,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path inside.
    pub target: String,
    /// Cannot be written.
    pub read_only: bool,
    /// Propagation of a bind: `rprivate`, `rshared`, `rslave`, `private`, `shared`, `slave`.
    #[serde(default)]
    pub propagation: String,
    /// Raw mode text of `-v` (such as `ro,z`), for inspect.
    #[serde(default)]
    pub mode: String,
    /// It came from `-v` (a missing bind source is made) and not from `--mount` (it is an error).
    #[serde(default)]
    pub from_volume_flag: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute path.
        path: String,
        /// Do not take mounts below it along.
        #[serde(default)]
        non_recursive: bool,
    },
    /// A named volume; an empty name asks for an anonymous one.
    Volume {
        /// Name.
        name: String,
        /// Made by us without a name: goes with the container.
        #[serde(default)]
        anonymous: bool,
        /// Do not copy the image's content in.
        #[serde(default)]
        no_copy: bool,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; half of the memory if none.
        size: Option<i64>,
        /// Mode of its root, such as 0o1777.
        mode: Option<u32>,
        /// Further options as in `mount(8)`, such as `noexec`.
        options: Vec<String>,
    },
}

/// A transport protocol.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The protocol with this name, in capitals or not.
    pub fn from_name(name: &str) -> Option<Self> {
        let known = [Self::Tcp, Self::Udp, Self::Sctp].into_iter();
        let mut fitting = known.filter(|known| name.eq_ignore_ascii_case(known.as_str()));
        fitting.next()
    }
}

/// A port of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Number.
    pub number: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A wish to publish one container port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishSpec<A = Ipv4Addr> {
    /// Port inside.
    pub container: Port,
    /// Host address; unspecified (0.0.0.0 or ::) is every address.
    pub host_ip: A,
    /// Lowest host port; zero takes a random one.
    pub host_port: u16,
    /// Highest host port: any free one between both; equal to `host_port` for a single one.
    pub host_port_end: u16,
    /// So many more ports follow on both sides, each one up: a range is one wish.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u16,
}

impl<A: Copy> PublishSpec<A> {
    /// Whether it publishes this port of the container.
    pub fn covers(&self, port: Port) -> bool {
        let offset = port.number.checked_sub(self.container.number);
        port.protocol == self.container.protocol && offset.is_some_and(|o| o <= self.more)
    }

    /// The ports of the container, each by itself.
    pub fn container_ports(self) -> impl Iterator<Item = Port> {
        (0..=self.more).map(move |offset| Port {
            number: self.container.number.saturating_add(offset),
            ..self.container
        })
    }
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// A port as it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPort<A = Ipv4Addr> {
    /// Port inside.
    pub container: Port,
    /// Host address; unspecified is every address.
    pub host_ip: A,
    /// Host port.
    pub host_port: u16,
    /// So many more ports follow on both sides, each one up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u16,
}

/// As [`PublishSpec`], on an IPv6 address of the host.
pub type PublishSpec6 = PublishSpec<Ipv6Addr>;

/// As [`PublishedPort`], on an IPv6 address of the host.
pub type PublishedPort6 = PublishedPort<Ipv6Addr>;

impl<A: Copy> PublishedPort<A> {
    /// The last host port.
    pub fn host_port_end(&self) -> u16 {
        self.host_port.saturating_add(self.more)
    }

    /// Whether it publishes this port of the container.
    pub fn leads_to(&self, port: Port) -> bool {
        let offset = port.number.checked_sub(self.container.number);
        port.protocol == self.container.protocol && offset.is_some_and(|o| o <= self.more)
    }

    /// Each port by itself.
    pub fn each(self) -> impl Iterator<Item = Self> {
        (0..=self.more).map(move |offset| Self {
            container: Port {
                number: self.container.number.saturating_add(offset),
                ..self.container
            },
            host_port: self.host_port.saturating_add(offset),
            more: 0,
            ..self
        })
    }
}

/// Which network it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Bridge,
    /// A namespace with loopback alone.
    None,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
    /// A network of the user's own, by name or id.
    Network(String),
}

/// Which namespace of a kind it lives in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Private,
    /// Its own, which others may join (`--ipc shareable`).
    Shareable,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// Which system calls are allowed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    /// The default profile.
    #[default]
    Default,
    /// All of them.
    Unconfined,
    /// A profile in Docker's or the OCI's JSON.
    Profile(String),
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host; a directory takes all devices in it.
    pub host_path: String,
    /// Path inside.
    pub container_path: String,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

/// Where stdout and stderr are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// The driver.
    pub driver: LogDriver,
    /// A file is rotated when it would grow above this, bytes.
    pub max_size: u64,
    /// Files kept, the current one included.
    pub max_file: u32,
    /// Raw options, for inspect.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            driver: LogDriver::JsonFile,
            max_size: 20 << 20,
            max_file: 5,
            options: BTreeMap::new(),
        }
    }
}

/// Kinds of log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// One JSON object a line, as Docker's json-file driver.
    #[default]
    JsonFile,
    /// Nothing is kept.
    None,
}
