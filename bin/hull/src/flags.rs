//! The flags of `hull daemon`, and where its settings come from.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use hull_engine::settings::{Bytes, CONFIG_FILE, Ipv6Networks, Span};
use hull_engine::{Overrides, Settings};

/// Serves the Docker Engine API on a unix socket. Flags win over HULL_* variables, which win over
/// the config file.
#[derive(Debug, Parser)]
#[command(name = "hull daemon", version)]
struct Flags {
    /// Config file in TOML, with the names of these flags
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of sockets and of what lives as long as the machine is up
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Folder of images, volumes, containers and the database
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Socket that the API is served on
    #[arg(short = 'H', long, value_name = "PATH", alias = "host")]
    socket: Option<PathBuf>,
    /// File that holds the daemon's process id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Group that may use the socket
    #[arg(short = 'G', long)]
    group: Option<String>,
    /// Name of the default bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
    /// Subnet of the default bridge
    #[arg(long, value_name = "CIDR")]
    subnet: Option<String>,
    /// Networks get IPv6 addresses unless --ipv6=false is said: auto (where the host has a global one), true or false
    #[arg(long, value_name = "WHEN")]
    ipv6_networks: Option<Ipv6Networks>,
    /// MTU of the default bridge
    #[arg(long)]
    mtu: Option<u32>,
    /// What host-gateway stands for in --add-host, and the names of the host: an IPv4 address [default: the network's gateway]
    #[arg(long, value_name = "ADDRESS")]
    host_gateway_ip: Option<std::net::Ipv4Addr>,
    /// Published ports obey the host's own rules for input, so that they do not bypass its firewall
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    published_ports_obey_input: Option<bool>,
    /// Network namespaces kept ready
    #[arg(long, value_name = "N")]
    pool_size: Option<usize>,
    /// Control group below which each container gets its own
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// error, warn, info, debug or trace
    #[arg(short = 'l', long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Folder with certificates and mirrors of registries
    #[arg(long, value_name = "DIR")]
    certs_dir: Option<PathBuf>,
    /// Registry that needs no proof of who it is: host, host:port or CIDR (may be repeated)
    #[arg(long = "insecure-registry", value_name = "REGISTRY")]
    insecure_registries: Vec<String>,
    /// Layers of one pull that come at once [default: one per processor, 3 to 6]
    #[arg(long, value_name = "N")]
    max_concurrent_downloads: Option<usize>,
    /// Time between two collections of garbage, 0 for none [default: 1h]
    #[arg(long, value_name = "DURATION")]
    gc_interval: Option<Span>,
    /// Collect images that no container has used for so long (30d, 12h)
    #[arg(long, value_name = "DURATION")]
    gc_unused_for: Option<Span>,
    /// Collect unused images that came so long ago
    #[arg(long, value_name = "DURATION")]
    gc_older_than: Option<Span>,
    /// Collect the images used least recently beyond this size of all (50G)
    #[arg(long, value_name = "SIZE")]
    gc_keep_size: Option<Bytes>,
    /// Keep what came so recently [default: 10s]
    #[arg(long, value_name = "DURATION")]
    gc_grace: Option<Span>,
    /// Seconds that a registry may keep silent [default: 30]
    #[arg(long, value_name = "SECONDS")]
    registry_timeout: Option<f64>,
    /// Registry that names without one mean [default: docker.io]
    #[arg(long, value_name = "REGISTRY")]
    default_registry: Option<String>,
    /// Proxy on the way to registries without TLS [env: HTTP_PROXY]
    #[arg(long, value_name = "URL")]
    http_proxy: Option<String>,
    /// Proxy on the way to registries with TLS [env: HTTPS_PROXY]
    #[arg(long, value_name = "URL")]
    https_proxy: Option<String>,
    /// Hosts reached without a proxy, comma separated [env: NO_PROXY]
    #[arg(long, value_name = "LIST")]
    no_proxy: Option<String>,
}

/// What the command line asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To serve with these settings.
    Serve(Box<Settings>),
    /// To print this, help or an error.
    Print(clap::Error),
}

/// Reads flags, environment and config file.
///
/// # Errors
/// If the environment or the file is malformed, or a file named explicitly is missing.
pub(crate) fn settings(args: Vec<OsString>) -> anyhow::Result<Asked> {
    let name = OsString::from("hull daemon");
    let flags = match Flags::try_parse_from(std::iter::once(name).chain(args)) {
        Ok(flags) => flags,
        Err(error) => return Ok(Asked::Print(error)),
    };
    let variable = |name: &str| std::env::var(name).ok();
    let env = Overrides::from_env(variable)?;
    let named = flags
        .config
        .clone()
        .or_else(|| variable("HULL_CONFIG").map(PathBuf::from));
    let file = match &named {
        Some(path) => Some(read(path)?),
        None => read(Path::new(CONFIG_FILE)).ok(),
    };
    let path = named.as_deref().unwrap_or(Path::new(CONFIG_FILE));
    let file = match file {
        Some(text) => Overrides::from_toml(path, &text)?,
        None => Overrides::default(),
    };
    let flags = Overrides {
        run_dir: flags.run_dir,
        data_dir: flags.data_dir,
        socket: flags.socket.map(|path| without_scheme(&path)),
        pid_file: flags.pid_file,
        group: flags.group,
        bridge: flags.bridge,
        subnet: flags.subnet,
        ipv6_networks: flags.ipv6_networks,
        mtu: flags.mtu,
        host_gateway_ip: flags.host_gateway_ip,
        published_ports_obey_input: flags.published_ports_obey_input,
        pool_size: flags.pool_size,
        cgroup_parent: flags.cgroup_parent,
        log_level: flags.log_level,
        certs_dir: flags.certs_dir,
        insecure_registries: Some(flags.insecure_registries).filter(|list| !list.is_empty()),
        max_concurrent_downloads: flags.max_concurrent_downloads,
        gc_interval: flags.gc_interval,
        gc_unused_for: flags.gc_unused_for,
        gc_older_than: flags.gc_older_than,
        gc_keep_size: flags.gc_keep_size,
        gc_grace: flags.gc_grace,
        registry_timeout: flags.registry_timeout,
        default_registry: flags.default_registry,
        http_proxy: flags.http_proxy,
        https_proxy: flags.https_proxy,
        no_proxy: flags.no_proxy,
    };
    let program =
        std::fs::read_link("/proc/self/exe").context("cannot find this program's own file")?;
    let bin_dir = program.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Asked::Serve(Box::new(Settings::resolve(
        flags, env, file, bin_dir,
    ))))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("cannot read config file {}", path.display()))
}

/// Takes `unix://` off, as Docker's `-H` has it.
fn without_scheme(path: &Path) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_prefix("unix://")) {
        Some(rest) => rest.into(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(args: &[&str]) -> Asked {
        settings(args.iter().map(OsString::from).collect()).unwrap()
    }

    #[test]
    fn flags_are_read_into_settings() {
        let Asked::Serve(settings) =
            asked(&["--run-dir", "/r", "-H", "unix:///s/x.sock", "--mtu", "1400"])
        else {
            panic!("flags were refused");
        };
        assert_eq!(settings.run_dir, Path::new("/r"));
        assert_eq!(settings.socket, Path::new("/s/x.sock"));
        assert_eq!(settings.mtu, 1400);
    }

    #[test]
    fn unknown_flag_and_help_are_printed() {
        assert!(matches!(asked(&["--nope"]), Asked::Print(error) if error.exit_code() != 0));
        assert!(matches!(asked(&["--help"]), Asked::Print(error) if error.exit_code() == 0));
    }

    #[test]
    fn config_file_named_but_missing_is_an_error() {
        let args = ["--config", "/does/not/exist"].map(OsString::from).to_vec();
        assert!(settings(args).is_err());
    }
}
