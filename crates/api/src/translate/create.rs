//! A create request becomes a container specification, before the image's defaults are merged.
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_api_types::container::{ContainerConfig, CreateRequest};
use hull_api_types::host_config::{HostConfig, RestartPolicy};
use hull_api_types::network::EndpointSettings;
use hull_model::spec::{self, Attach, ContainerSpec, Isolation, NamespaceMode, NetworkMode};
use hull_model::{Error, ErrorKind, Result};

use super::{egress, limits, links, mounts, options, ports};

/// Reads a request; name and platform come from the query.
///
/// # Errors
/// Says which field was refused, in Docker's words where Docker has some. What depends on the
/// image or the host, the engine checks.
pub(crate) fn request(
    name: Option<String>,
    mut wire: CreateRequest,
    platform: &str,
) -> Result<hull_engine::CreateRequest> {
    let entrypoint = wire.config.entrypoint.take().map(Vec::from);
    let endpoints = std::mem::take(&mut wire.networking_config.endpoints_config);
    let joins = endpoints.into_iter().map(|(name, wish)| join(name, wish));
    let joins = joins.collect::<Result<_>>()?;
    let spec = spec(wire, platform)?;
    Ok(hull_engine::CreateRequest {
        name,
        spec,
        entrypoint,
        joins,
    })
}

/// How a container joins a network.
///
/// # Errors
/// An address is malformed, or of a kind that networks do not have yet.
pub(crate) fn join(name: String, wish: EndpointSettings) -> Result<hull_state::Join> {
    let ipam = wish.ipam_config.unwrap_or_default();
    if !ipam.link_local_ips.is_empty() {
        return Err(Error::new(
            ErrorKind::NotImplemented,
            "link-local addresses are chosen by Hull: leave them out",
        ));
    }
    let address6 = match ipam.ipv6_address.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| Error::invalid(format!("invalid IPv6 address: {text}")))?,
        ),
    };
    let address = match ipam.ipv4_address.as_str() {
        "" => None,
        text => Some(address(text)?),
    };
    Ok(hull_state::Join {
        name,
        aliases: wish.aliases.unwrap_or_default(),
        address,
        address6,
        mac: wish.mac_address,
        gw_priority: wish.gw_priority,
        options: wish.driver_opts.unwrap_or_default(),
        links: links::of(&wish.links.unwrap_or_default())?,
        ..hull_state::Join::default()
    })
}

fn spec(request: CreateRequest, platform: &str) -> Result<ContainerSpec> {
    let CreateRequest {
        config,
        host_config: host,
        networking_config: _,
    } = request;
    refuse_unsupported(&host)?;
    let network = network_mode(&host.network_mode)?;
    let published = ports::published(&host.port_bindings)?;
    let published6: Vec<spec::PublishSpec6> = ports::published(&host.port_bindings)?;
    let exposed_ports = ports::exposed(&config.exposed_ports, &published)?;
    check_network(
        &config,
        &host,
        &network,
        !(published.is_empty() && published6.is_empty()),
    )?;
    let security = options::security(&host)?;
    let resources = limits::resources(&host.resources)?;
    Ok(ContainerSpec {
        mounts: mounts::of(&config, &host)?,
        restart: restart_policy(&host.restart_policy)?,
        log: options::log(&host.log_config)?,
        isolation: isolation(&host.isolation)?,
        pid_mode: namespace("PID", &host.pid_mode, &["host", "container"])?,
        ipc_mode: namespace(
            "IPC",
            &host.ipc_mode,
            &["host", "container", "private", "shareable"],
        )?,
        uts_mode: namespace("UTS", &host.uts_mode, &["host"])?,
        cgroupns_mode: namespace("cgroup", &host.cgroupns_mode, &["host", "private"])?,
        shm_size: Some(host.shm_size).filter(|size| *size != 0),
        oom_score_adj: oom_score(host.oom_score_adj)?,
        ulimits: limits::ulimits(&host.resources)?,
        devices: host
            .resources
            .devices
            .iter()
            .map(options::device)
            .collect::<Result<_>>()?,
        device_rules: host.resources.device_cgroup_rules.clone(),
        cgroup_parent: host.resources.cgroup_parent.clone(),
        stop_timeout: config.stop_timeout,
        image: config.image,
        entrypoint: Vec::new(),
        cmd: config.cmd.unwrap_or_default().0,
        env: environment(config.env)?,
        user: config.user,
        group_add: host.group_add.unwrap_or_default(),
        working_dir: config.working_dir,
        labels: config.labels,
        annotations: host.annotations,
        hostname: hostname(config.hostname)?,
        domainname: config.domainname,
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        attach: Attach {
            stdin: config.attach_stdin,
            stdout: config.attach_stdout,
            stderr: config.attach_stderr,
        },
        auto_remove: host.auto_remove,
        stop_signal: config.stop_signal,
        healthcheck: config.healthcheck.map(options::health).transpose()?,
        readonly_rootfs: host.readonly_rootfs,
        storage_opt: host.storage_opt,
        exposed_ports,
        published,
        published6,
        publish_all: host.publish_all_ports,
        network: if config.network_disabled {
            NetworkMode::None
        } else {
            network
        },
        extra_hosts: extra_hosts(host.extra_hosts.unwrap_or_default())?,
        dns: host.dns,
        dns_search: host.dns_search,
        dns_options: host.dns_options,
        resources,
        cap_add: host.cap_add.unwrap_or_default(),
        cap_drop: host.cap_drop.unwrap_or_default(),
        privileged: host.privileged,
        no_new_privileges: security.no_new_privileges,
        seccomp: security.seccomp,
        security_opt: host.security_opt.unwrap_or_default(),
        sysctls: host.sysctls,
        init: host.init.unwrap_or_default(),
        platform: platform.to_owned(),
        container_id_file: host.container_id_file,
        mac: config.mac_address,
        ip: None,
        egress: match &host.egress {
            Some(wire) => egress::policy(wire)?,
            None => None,
        },
        links: links::of(&host.links.unwrap_or_default())?,
        volumes_from: host.volumes_from.unwrap_or_default(),
        requested_at_us: now_us(),
    })
}

fn now_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_micros().try_into().unwrap_or_default()
}

fn refuse_unsupported(host: &HostConfig) -> Result<()> {
    let what = if !host.resources.device_requests.is_empty() {
        "--gpus and other device requests"
    } else if !matches!(host.userns_mode.as_str(), "" | "host") {
        "--userns other than host"
    } else if host.masked_paths.is_some() != host.readonly_paths.is_some()
        || [&host.masked_paths, &host.readonly_paths]
            .iter()
            .any(|l| l.is_some())
    {
        "--security-opt systempaths=unconfined and lists of masked paths"
    } else if !matches!(host.volume_driver.as_str(), "" | "local") {
        "--volume-driver other than local"
    } else if !matches!(host.runtime.as_str(), "" | "hull" | "runc") {
        return Err(Error::invalid(format!(
            "unknown or invalid runtime name: {}",
            host.runtime
        )));
    } else {
        return Ok(());
    };
    let message = format!("{what} is not supported by this version of Hull: leave it out");
    Err(Error::new(ErrorKind::NotImplemented, message))
}

fn network_mode(text: &str) -> Result<NetworkMode> {
    match text {
        "" | "default" | "bridge" => Ok(NetworkMode::Bridge),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => match text.strip_prefix("container:") {
            Some("") => Err(Error::invalid(
                "invalid network mode: container: needs the name or id of a container",
            )),
            Some(name) => Ok(NetworkMode::Container(name.to_owned())),
            None => Ok(NetworkMode::Network(text.to_owned())),
        },
    }
}

fn check_network(
    config: &ContainerConfig,
    host: &HostConfig,
    network: &NetworkMode,
    publishes: bool,
) -> Result<()> {
    if !matches!(network, NetworkMode::Container(_)) {
        return Ok(());
    }
    let conflict = |what: &str| {
        Err(Error::invalid(format!(
            "conflicting options: {what} and the container type network mode"
        )))
    };
    if !config.hostname.is_empty() {
        return Err(Error::invalid(
            "conflicting options: hostname and the network mode",
        ));
    }
    if publishes || host.publish_all_ports {
        return conflict("port publishing");
    }
    if !config.exposed_ports.is_empty() {
        return conflict("port exposing");
    }
    if !host.dns.is_empty() {
        return conflict("dns");
    }
    if host
        .extra_hosts
        .as_ref()
        .is_some_and(|list| !list.is_empty())
    {
        return conflict("custom host-to-IP mapping");
    }
    Ok(())
}

fn namespace(kind: &str, text: &str, allowed: &[&str]) -> Result<NamespaceMode> {
    let wrong = || Error::invalid(format!("invalid {kind} mode: {text}"));
    let (word, name) = text
        .split_once(':')
        .map_or((text, None), |(w, n)| (w, Some(n)));
    if !word.is_empty() && !allowed.contains(&word) {
        return Err(wrong());
    }
    match (word, name) {
        ("" | "private", None) => Ok(NamespaceMode::Private),
        ("shareable", None) => Ok(NamespaceMode::Shareable),
        ("host", None) => Ok(NamespaceMode::Host),
        ("container", Some(name)) if !name.is_empty() => {
            Ok(NamespaceMode::Container(name.to_owned()))
        }
        _ => Err(wrong()),
    }
}

fn isolation(text: &str) -> Result<Isolation> {
    match text {
        "" | "default" | "container" => Ok(Isolation::Container),
        "vm" => Ok(Isolation::Vm),
        _ => Err(Error::invalid(format!(
            "invalid isolation mode {text:?}: use container or vm"
        ))),
    }
}

/// Reads a restart policy.
///
/// # Errors
/// If it is unknown or contradicts itself.
pub(crate) fn restart_policy(policy: &RestartPolicy) -> Result<spec::RestartPolicy> {
    let max = policy.maximum_retry_count;
    let read = match policy.name.as_str() {
        "" | "no" => spec::RestartPolicy::No,
        "always" => spec::RestartPolicy::Always,
        "unless-stopped" => spec::RestartPolicy::UnlessStopped,
        "on-failure" => {
            let max = u32::try_from(max).map_err(|_| {
                Error::invalid("invalid restart policy: maximum retry count cannot be negative")
            })?;
            return Ok(spec::RestartPolicy::OnFailure { max });
        }
        other => {
            return Err(Error::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', \
                 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    if max != 0 {
        return Err(Error::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    Ok(read)
}

fn environment(env: Vec<String>) -> Result<Vec<String>> {
    for entry in &env {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Error::invalid(format!(
                "invalid environment variable: {entry}"
            )));
        }
        if entry.contains('\0') {
            return Err(Error::invalid(
                "invalid environment variable: it contains a NUL byte",
            ));
        }
    }
    Ok(env)
}

fn hostname(name: String) -> Result<String> {
    /// What the kernel holds.
    const MAX_HOSTNAME: usize = 64;
    let fits = name.len() <= MAX_HOSTNAME
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        && !name.starts_with('-');
    if fits {
        return Ok(name);
    }
    Err(Error::invalid(format!("invalid hostname format: {name}")))
}

fn extra_hosts(list: Vec<String>) -> Result<Vec<String>> {
    for line in &list {
        let valid = line
            .split_once([':', '='])
            .is_some_and(|(name, address)| !name.is_empty() && !address.is_empty());
        if !valid || line.contains(char::is_whitespace) {
            return Err(Error::invalid(format!("bad format for add-host: {line:?}")));
        }
    }
    Ok(list)
}

fn address(text: &str) -> Result<Ipv4Addr> {
    text.parse()
        .map_err(|_| Error::invalid(format!("invalid IPv4 address: {text}")))
}

fn oom_score(score: i64) -> Result<Option<i32>> {
    match i32::try_from(score) {
        Ok(0) => Ok(None),
        Ok(score @ -1000..=1000) => Ok(Some(score)),
        _ => Err(Error::invalid(format!(
            "invalid value {score}, range for oom score adj is [-1000, 1000]"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = include_str!("../../../api-types/tests/data/create-full.json");
    const PLAIN: &str = include_str!("../../../api-types/tests/data/create-plain.json");

    fn read(text: &str) -> CreateRequest {
        serde_json::from_str(text).unwrap()
    }

    fn with(change: impl FnOnce(&mut CreateRequest)) -> Result<ContainerSpec> {
        let mut request = read(PLAIN);
        change(&mut request);
        spec(request, "")
    }

    #[test]
    fn plain_request_of_docker_cli_asks_for_nothing_special() {
        let spec = spec(read(PLAIN), "").unwrap();
        assert!(spec.requested_at_us > 0);
        let want = ContainerSpec {
            image: "busybox".into(),
            attach: Attach {
                stdin: false,
                stdout: true,
                stderr: true,
            },
            requested_at_us: spec.requested_at_us,
            ..ContainerSpec::default()
        };
        assert_eq!(spec, want);
    }

    #[test]
    fn full_request_of_docker_cli_is_translated() {
        let spec = spec(read(FULL), "linux/amd64").unwrap();
        assert_eq!(spec.restart, spec::RestartPolicy::OnFailure { max: 3 });
        assert_eq!(spec.published[0].host_port, 8080);
        assert!(spec.no_new_privileges && spec.init);
        assert_eq!(spec.log.max_size, 1 << 20);
        assert_eq!(spec.resources.memory, Some(64 << 20));
        assert_eq!(spec.resources.memory_swappiness, None);
        assert_eq!(spec.mounts.len(), 3);
        assert_eq!(spec.platform, "linux/amd64");
        assert_eq!(spec.devices[0].permissions, "rwm");
    }

    #[test]
    fn contradictions_and_unknown_words_are_refused() {
        let refuse = |change: fn(&mut CreateRequest), words: &str| {
            let error = with(change).expect_err(words);
            assert!(error.to_string().contains(words), "{error} lacks {words}");
        };
        refuse(|r| r.host_config.isolation = "hyperv".into(), "isolation");
        refuse(
            |r| r.host_config.restart_policy.name = "often".into(),
            "unknown policy",
        );
        refuse(
            |r| r.host_config.restart_policy.maximum_retry_count = 2,
            "only be used",
        );
        refuse(
            |r| r.host_config.log_config.kind = "syslog".into(),
            "no log driver",
        );
        refuse(
            |r| r.host_config.pid_mode = "container:".into(),
            "invalid PID mode",
        );
        refuse(
            |r| r.host_config.uts_mode = "private".into(),
            "invalid UTS mode",
        );
        refuse(|r| r.config.env = vec!["=x".into()], "environment");
        refuse(|r| r.config.hostname = "a b".into(), "hostname");
        refuse(|r| r.host_config.oom_score_adj = 2000, "oom score");
        refuse(|r| r.host_config.links = Some(vec!["a:".into()]), "links");
        refuse(|r| r.host_config.runtime = "kata".into(), "runtime name");
        refuse(
            |r| r.host_config.security_opt = Some(vec!["seccomp={".into()]),
            "seccomp profile",
        );
        refuse(
            |r| r.host_config.security_opt = Some(vec!["x".into()]),
            "security-opt",
        );
        refuse(
            |r| {
                r.host_config.network_mode = "container:web".into();
                r.config.hostname = "h".into();
            },
            "hostname and the network mode",
        );
    }

    #[test]
    fn entrypoint_cleared_differs_from_none() {
        let mut wire = read(PLAIN);
        assert_eq!(request(None, wire.clone(), "").unwrap().entrypoint, None);
        wire.config.entrypoint = Some(Vec::new().into());
        assert_eq!(
            request(None, wire, "").unwrap().entrypoint,
            Some(Vec::new())
        );
        let full = request(Some("web".into()), read(FULL), "").unwrap();
        assert_eq!(full.entrypoint, Some(vec![String::new()]));
        assert_eq!(full.name.as_deref(), Some("web"));
    }

    #[test]
    fn isolation_vm_is_passed_to_the_engine() {
        let spec = with(|r| r.host_config.isolation = "vm".into()).unwrap();
        assert_eq!(spec.isolation, Isolation::Vm);
    }
}
