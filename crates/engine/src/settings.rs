//! Where the daemon keeps things and how it behaves: flags, `HULL_*` variables and a config
//! file become one [`Settings`], here and nowhere else.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_model::{Error, Result};
use serde::Deserialize;

use crate::images::gc::GcSettings;
pub use crate::networks::Ipv6Networks;
pub use hull_model::amount::{Bytes, Span};

/// Default place of the config file.
pub const CONFIG_FILE: &str = "/etc/hull/config.toml";

/// Where certificates and mirrors of registries are looked for: our own folder, then those that a
/// machine may have from other engines.
const CERTS_DIRS: [&str; 3] = [
    "/etc/hull/certs.d",
    "/etc/containerd/certs.d",
    "/etc/docker/certs.d",
];

/// What one source (flags, environment or file) says; the rest is left to the next one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Overrides {
    /// Folder of sockets and of what lives as long as the machine is up.
    pub run_dir: Option<PathBuf>,
    /// Folder of images, volumes, containers and the database.
    pub data_dir: Option<PathBuf>,
    /// Socket that the API is served on.
    pub socket: Option<PathBuf>,
    /// File that holds the daemon's process id.
    pub pid_file: Option<PathBuf>,
    /// Group that may use the socket.
    pub group: Option<String>,
    /// Name of the default bridge.
    pub bridge: Option<String>,
    /// Subnet of the default bridge, such as `172.17.0.0/16`.
    pub subnet: Option<String>,
    /// Networks have an IPv6 half unless their user says otherwise: `auto`, `true` or `false`.
    pub ipv6_networks: Option<Ipv6Networks>,
    /// MTU of the default bridge.
    pub mtu: Option<u32>,
    /// What `host-gateway` stands for in `--add-host` and in names of the host.
    pub host_gateway_ip: Option<Ipv4Addr>,
    /// Published ports obey the host's own rules for input.
    pub published_ports_obey_input: Option<bool>,
    /// Network namespaces kept ready.
    pub pool_size: Option<usize>,
    /// Control group below which each container gets its own.
    pub cgroup_parent: Option<String>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: Option<String>,
    /// Folder with what is known of registries, `certs.d`; empty for the usual ones.
    pub certs_dir: Option<PathBuf>,
    /// Registries that need no proof of who they are: host, host:port or CIDR.
    pub insecure_registries: Option<Vec<String>>,
    /// Layers of one pull that come at once.
    pub max_concurrent_downloads: Option<usize>,
    /// Time between two collections of garbage.
    pub gc_interval: Option<Span>,
    /// Images unused for so long are collected.
    pub gc_unused_for: Option<Span>,
    /// Images that came so long ago are collected.
    pub gc_older_than: Option<Span>,
    /// Space that images may take.
    pub gc_keep_size: Option<Bytes>,
    /// What came so recently is not collected.
    pub gc_grace: Option<Span>,
    /// Seconds that a registry may keep silent.
    pub registry_timeout: Option<f64>,
    /// Registry that names without one mean; Docker Hub if none.
    pub default_registry: Option<String>,
    /// Proxy on the way to registries without TLS.
    pub http_proxy: Option<String>,
    /// Proxy on the way to registries with TLS.
    pub https_proxy: Option<String>,
    /// Hosts reached without a proxy, comma separated.
    pub no_proxy: Option<String>,
}

impl Overrides {
    /// Reads `HULL_*` variables by way of `get`.
    ///
    /// # Errors
    /// If a number is malformed.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let path = |name: &str| get(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let text = |name: &str| get(name).filter(|v| !v.is_empty());
        Ok(Self {
            run_dir: path("HULL_RUN_DIR"),
            data_dir: path("HULL_DATA_DIR"),
            socket: path("HULL_SOCKET"),
            pid_file: path("HULL_PID_FILE"),
            group: text("HULL_GROUP"),
            bridge: text("HULL_BRIDGE"),
            subnet: text("HULL_SUBNET"),
            ipv6_networks: parsed("HULL_IPV6_NETWORKS", text("HULL_IPV6_NETWORKS"))?,
            mtu: number("HULL_MTU", text("HULL_MTU"))?,
            host_gateway_ip: text("HULL_HOST_GATEWAY_IP")
                .map(|text| {
                    text.parse().map_err(|_| {
                        Error::invalid(format!("HULL_HOST_GATEWAY_IP={text}: want an IPv4 address"))
                    })
                })
                .transpose()?,
            published_ports_obey_input: truth(
                "HULL_PUBLISHED_PORTS_OBEY_INPUT",
                text("HULL_PUBLISHED_PORTS_OBEY_INPUT"),
            )?,
            pool_size: number("HULL_POOL_SIZE", text("HULL_POOL_SIZE"))?,
            cgroup_parent: text("HULL_CGROUP_PARENT"),
            log_level: text("HULL_LOG_LEVEL"),
            certs_dir: path("HULL_CERTS_DIR"),
            insecure_registries: text("HULL_INSECURE_REGISTRIES")
                .map(|list| list.split(',').map(|one| one.trim().to_owned()).collect()),
            max_concurrent_downloads: number(
                "HULL_MAX_CONCURRENT_DOWNLOADS",
                text("HULL_MAX_CONCURRENT_DOWNLOADS"),
            )?,
            gc_interval: parsed("HULL_GC_INTERVAL", text("HULL_GC_INTERVAL"))?,
            gc_unused_for: parsed("HULL_GC_UNUSED_FOR", text("HULL_GC_UNUSED_FOR"))?,
            gc_older_than: parsed("HULL_GC_OLDER_THAN", text("HULL_GC_OLDER_THAN"))?,
            gc_keep_size: parsed("HULL_GC_KEEP_SIZE", text("HULL_GC_KEEP_SIZE"))?,
            gc_grace: parsed("HULL_GC_GRACE", text("HULL_GC_GRACE"))?,
            registry_timeout: number("HULL_REGISTRY_TIMEOUT", text("HULL_REGISTRY_TIMEOUT"))?,
            default_registry: text("HULL_DEFAULT_REGISTRY"),
            // Both spellings are in use; curl and Go read either.
            http_proxy: text("HTTP_PROXY").or_else(|| text("http_proxy")),
            https_proxy: text("HTTPS_PROXY").or_else(|| text("https_proxy")),
            no_proxy: text("NO_PROXY").or_else(|| text("no_proxy")),
        })
    }

    /// Reads the config file's text (TOML, names as the flags').
    ///
    /// # Errors
    /// If it is not TOML or names something unknown.
    pub fn from_toml(path: &Path, text: &str) -> Result<Self> {
        toml::from_str(text)
            .map_err(|e| Error::invalid(format!("config file {}: {}", path.display(), e.message())))
    }

    /// What `self` leaves open is taken from `next`.
    fn or(self, next: Self) -> Self {
        Self {
            run_dir: self.run_dir.or(next.run_dir),
            data_dir: self.data_dir.or(next.data_dir),
            socket: self.socket.or(next.socket),
            pid_file: self.pid_file.or(next.pid_file),
            group: self.group.or(next.group),
            bridge: self.bridge.or(next.bridge),
            subnet: self.subnet.or(next.subnet),
            ipv6_networks: self.ipv6_networks.or(next.ipv6_networks),
            mtu: self.mtu.or(next.mtu),
            host_gateway_ip: self.host_gateway_ip.or(next.host_gateway_ip),
            published_ports_obey_input: self
                .published_ports_obey_input
                .or(next.published_ports_obey_input),
            pool_size: self.pool_size.or(next.pool_size),
            cgroup_parent: self.cgroup_parent.or(next.cgroup_parent),
            log_level: self.log_level.or(next.log_level),
            certs_dir: self.certs_dir.or(next.certs_dir),
            insecure_registries: self.insecure_registries.or(next.insecure_registries),
            max_concurrent_downloads: self
                .max_concurrent_downloads
                .or(next.max_concurrent_downloads),
            gc_interval: self.gc_interval.or(next.gc_interval),
            gc_unused_for: self.gc_unused_for.or(next.gc_unused_for),
            gc_older_than: self.gc_older_than.or(next.gc_older_than),
            gc_keep_size: self.gc_keep_size.or(next.gc_keep_size),
            gc_grace: self.gc_grace.or(next.gc_grace),
            registry_timeout: self.registry_timeout.or(next.registry_timeout),
            default_registry: self.default_registry.or(next.default_registry),
            http_proxy: self.http_proxy.or(next.http_proxy),
            https_proxy: self.https_proxy.or(next.https_proxy),
            no_proxy: self.no_proxy.or(next.no_proxy),
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, text: Option<String>) -> Result<Option<T>> {
    text.map(|t| {
        t.parse()
            .map_err(|_| Error::invalid(format!("{name}={t}: want a number")))
    })
    .transpose()
}

fn truth(name: &str, text: Option<String>) -> Result<Option<bool>> {
    text.map(|text| match text.as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Error::invalid(format!("{name}={text}: want true or false"))),
    })
    .transpose()
}

fn parsed<T: std::str::FromStr<Err = Error>>(
    name: &str,
    text: Option<String>,
) -> Result<Option<T>> {
    text.map(|text| {
        text.parse()
            .map_err(|error: Error| Error::invalid(format!("{name}: {error}")))
    })
    .transpose()
}

/// The daemon's settings, complete.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of sockets and of what lives as long as the machine is up.
    pub run_dir: PathBuf,
    /// Folder of images, volumes, containers and the database.
    pub data_dir: PathBuf,
    /// Socket that the API is served on.
    pub socket: PathBuf,
    /// File that holds the daemon's process id.
    pub pid_file: PathBuf,
    /// Group that may use the socket, if it exists.
    pub group: String,
    /// Name of the default bridge.
    pub bridge: String,
    /// Subnet of the default bridge; chosen around the host's routes if none.
    pub subnet: Option<String>,
    /// Whether networks have an IPv6 half where their user says nothing of it.
    pub ipv6_networks: Ipv6Networks,
    /// MTU of the default bridge.
    pub mtu: u32,
    /// What `host-gateway` stands for; the network's own gateway if none.
    pub host_gateway_ip: Option<Ipv4Addr>,
    /// Published ports obey the host's own rules for input.
    pub published_ports_obey_input: bool,
    /// Network namespaces kept ready.
    pub pool_size: usize,
    /// Control group below which each container gets its own.
    pub cgroup_parent: String,
    /// Log level.
    pub log_level: String,
    /// Folders with what is known of registries; the first that knows one decides.
    pub certs_dirs: Vec<PathBuf>,
    /// Registries that need no proof of who they are.
    pub insecure_registries: Vec<String>,
    /// Layers of one pull that come at once; by the machine's processors if none.
    pub max_concurrent_downloads: Option<usize>,
    /// When garbage is collected, and what counts as such.
    pub gc: GcSettings,
    /// How long a registry may keep silent; half a minute if none.
    pub registry_timeout: Option<Duration>,
    /// Registry that names without one mean; Docker Hub if none.
    pub default_registry: Option<String>,
    /// Proxies on the way to registries.
    pub proxies: hull_registry::Proxies,
    /// Folder in which hull, hull-shim and hull-agent sit side by side.
    pub bin_dir: PathBuf,
}

impl Settings {
    /// Flags win over the environment, which wins over the file, which wins over the defaults.
    pub fn resolve(flags: Overrides, env: Overrides, file: Overrides, bin_dir: PathBuf) -> Self {
        let all = flags.or(env).or(file);
        let run_dir = all.run_dir.unwrap_or_else(|| "/run/hull".into());
        Self {
            socket: all.socket.unwrap_or_else(|| run_dir.join("hull.sock")),
            pid_file: all.pid_file.unwrap_or_else(|| run_dir.join("hull.pid")),
            data_dir: all.data_dir.unwrap_or_else(|| "/var/lib/hull".into()),
            group: all.group.unwrap_or_else(|| "hull".into()),
            bridge: all.bridge.unwrap_or_else(|| "hull0".into()),
            subnet: all.subnet,
            ipv6_networks: all.ipv6_networks.unwrap_or_default(),
            mtu: all.mtu.unwrap_or(1500),
            host_gateway_ip: all.host_gateway_ip,
            published_ports_obey_input: all.published_ports_obey_input.unwrap_or(false),
            pool_size: all.pool_size.unwrap_or(8),
            cgroup_parent: all.cgroup_parent.unwrap_or_else(|| "/hull".into()),
            log_level: all.log_level.unwrap_or_else(|| "info".into()),
            certs_dirs: match all.certs_dir {
                Some(dir) => vec![dir],
                None => CERTS_DIRS.map(PathBuf::from).to_vec(),
            },
            insecure_registries: all.insecure_registries.unwrap_or_default(),
            max_concurrent_downloads: all.max_concurrent_downloads.filter(|&layers| layers > 0),
            gc: GcSettings {
                interval: all.gc_interval.map(|span| span.0),
                unused_for: all.gc_unused_for.map(|span| span.0),
                older_than: all.gc_older_than.map(|span| span.0),
                keep_size: all.gc_keep_size.map(|bytes| bytes.0),
                grace: all.gc_grace.map(|span| span.0),
            },
            // What is no time counts as not said.
            registry_timeout: all
                .registry_timeout
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .filter(|time| !time.is_zero()),
            default_registry: all.default_registry,
            proxies: hull_registry::Proxies {
                http: all.http_proxy,
                https: all.https_proxy,
                direct: all.no_proxy.unwrap_or_default(),
            },
            run_dir,
            bin_dir,
        }
    }

    /// Name of our nftables table: one for each bridge, so that two daemons do not meet.
    pub fn table(&self) -> String {
        if self.bridge == "hull0" {
            "hull".into()
        } else {
            format!("hull-{}", self.bridge)
        }
    }

    /// What the client of registries is told.
    pub(crate) fn registries(&self) -> hull_registry::Settings {
        hull_registry::Settings {
            folders: self.certs_dirs.clone(),
            insecure: self.insecure_registries.clone(),
            patience: self.registry_timeout,
            proxies: self.proxies.clone(),
        }
    }

    /// Run folder of one sandbox. The short id keeps socket paths within `sun_path`.
    pub fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.run_dir.join("s").join(id.get(..12).unwrap_or(id))
    }

    /// Folder of one container's log and files.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.data_dir.join("container").join(id)
    }

    /// The container's log.
    pub fn log_path(&self, id: &str) -> PathBuf {
        self.container_dir(id).join(format!("{id}-json.log"))
    }

    /// One of our own binaries.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolve_flag_wins_over_variable_over_file() {
        let env = Overrides::from_env(|n| match n {
            "HULL_BRIDGE" => Some("env0".into()),
            "HULL_RUN_DIR" => Some("/r".into()),
            _ => None,
        })
        .unwrap();
        let file =
            Overrides::from_toml(Path::new("f"), "bridge = 'file0'\ndata-dir = '/d'").unwrap();
        let flags = Overrides {
            bridge: Some("flag0".into()),
            ..Overrides::default()
        };
        let s = Settings::resolve(flags, env, file, "/bin".into());
        assert_eq!(
            (s.bridge.as_str(), s.socket.to_str()),
            ("flag0", Some("/r/hull.sock"))
        );
        assert_eq!(s.data_dir, Path::new("/d"));
        assert_eq!(s.table(), "hull-flag0");
    }

    #[test]
    fn from_toml_unknown_name_is_an_error() {
        assert!(Overrides::from_toml(Path::new("f"), "brigde = 'x'").is_err());
    }
}
