//! From the flags of `run` and `create` to the request body.

use std::collections::BTreeMap;
use std::path::Path;

use hull_api_types::container::{ContainerConfig, CreateRequest, HealthConfig};
use hull_api_types::host_config::{HostConfig, LogConfig, PortMap, Resources};
use hull_api_types::network::{EndpointSettings, NetworkingConfig};
use hull_api_types::{Empty, StrSlice};

use crate::values::volume::{self, VolumeSpec};
use crate::values::{device, egress, environment, port, restart, security};

use super::create_flags::CreateFlags;

/// Builds the request for `image` and `command`; relative paths start from `directory`.
pub(crate) fn build(
    flags: &CreateFlags,
    image: &str,
    command: &[String],
    directory: &Path,
) -> Result<CreateRequest, String> {
    let mut binds = Vec::new();
    let mut anonymous = BTreeMap::new();
    for spec in &flags.volume {
        match volume::parse(spec, directory)? {
            VolumeSpec::Bind(bind) => binds.push(bind),
            VolumeSpec::Anonymous(target) => {
                anonymous.insert(target, Empty {});
            }
        }
    }
    let mut port_bindings = PortMap::new();
    for spec in &flags.publish {
        port::publish(spec, &mut port_bindings)?;
    }
    let mut exposed: BTreeMap<String, Empty> = port_bindings
        .keys()
        .map(|port| (port.clone(), Empty {}))
        .collect();
    for spec in &flags.expose {
        exposed.extend(port::expose(spec)?.into_iter().map(|port| (port, Empty {})));
    }
    let restart_policy = restart::parse(flags.restart.as_deref().unwrap_or("no"))?;
    if flags.rm && !matches!(restart_policy.name.as_str(), "" | "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    check(flags)?;
    let attach = |name: &str| {
        flags
            .attach
            .iter()
            .any(|stream| stream.eq_ignore_ascii_case(name))
    };
    let attach_all = flags.attach.is_empty();
    let attach_stdin = attach("stdin") || (flags.interactive && attach_all);
    let (security_opt, unmasked) = security::parse(&flags.security_opt)?;
    let networking = networking(flags)?;
    let network_mode = flags
        .network
        .first()
        .map_or_else(|| "default".to_owned(), |network| network.name.clone());
    let config = ContainerConfig {
        hostname: flags.hostname.clone().unwrap_or_default(),
        domainname: flags.domainname.clone().unwrap_or_default(),
        user: flags.user.clone().unwrap_or_default(),
        attach_stdin,
        attach_stdout: attach_all || attach("stdout"),
        attach_stderr: attach_all || attach("stderr"),
        exposed_ports: exposed,
        tty: flags.tty,
        open_stdin: flags.interactive,
        stdin_once: flags.interactive && attach_stdin,
        env: environment::variables(&flags.env_file, &flags.env)?,
        cmd: (!command.is_empty()).then(|| StrSlice(command.to_vec())),
        healthcheck: health(flags)?,
        image: image.to_owned(),
        volumes: (!anonymous.is_empty()).then_some(anonymous),
        working_dir: flags.workdir.clone().unwrap_or_default(),
        entrypoint: flags
            .entrypoint
            .clone()
            .map(|entrypoint| StrSlice(vec![entrypoint])),
        mac_address: flags.mac_address.clone().unwrap_or_default(),
        labels: environment::labels(&flags.label_file, &flags.label)?,
        stop_signal: flags.stop_signal.clone().unwrap_or_default(),
        stop_timeout: flags.stop_timeout,
        ..ContainerConfig::default()
    };
    let host_config = HostConfig {
        binds: some(binds),
        container_id_file: flags.cidfile.clone().unwrap_or_default(),
        log_config: log_config(flags)?,
        network_mode,
        port_bindings,
        restart_policy,
        auto_remove: flags.rm,
        volume_driver: flags.volume_driver.clone().unwrap_or_default(),
        volumes_from: some(flags.volumes_from.clone()),
        annotations: environment::pairs(&flags.annotation),
        cap_add: some(flags.cap_add.clone()),
        cap_drop: some(flags.cap_drop.clone()),
        cgroupns_mode: flags.cgroupns.clone().unwrap_or_default(),
        dns: flags.dns.clone(),
        dns_options: flags.dns_option.clone(),
        dns_search: flags.dns_search.clone(),
        extra_hosts: some(flags.add_host.clone()),
        group_add: some(flags.group_add.clone()),
        ipc_mode: flags.ipc.clone().unwrap_or_default(),
        links: some(flags.link.clone()),
        oom_score_adj: flags.oom_score_adj.unwrap_or(0),
        pid_mode: flags.pid.clone().unwrap_or_default(),
        privileged: flags.privileged,
        publish_all_ports: flags.publish_all,
        readonly_rootfs: flags.read_only,
        security_opt: some(security_opt),
        storage_opt: environment::pairs(&flags.storage_opt),
        tmpfs: flags
            .tmpfs
            .iter()
            .map(|spec| {
                spec.split_once(':')
                    .map_or((spec.clone(), String::new()), |(path, options)| {
                        (path.to_owned(), options.to_owned())
                    })
            })
            .collect(),
        uts_mode: flags.uts.clone().unwrap_or_default(),
        userns_mode: flags.userns.clone().unwrap_or_default(),
        shm_size: flags.shm_size.unwrap_or(0),
        sysctls: environment::pairs(&flags.sysctl),
        runtime: flags.runtime.clone().unwrap_or_default(),
        isolation: flags.isolation.clone().unwrap_or_default(),
        resources: resources(flags)?,
        mounts: flags.mount.clone(),
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
        init: flags.init.then_some(true),
        egress: egress::of(
            flags.egress.as_deref(),
            &flags.egress_allow,
            &flags.egress_deny,
        ),
        ..HostConfig::default()
    };
    Ok(CreateRequest {
        config,
        host_config,
        networking_config: networking,
    })
}

fn some(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}

/// Values that the flags' own parsers do not check.
fn check(flags: &CreateFlags) -> Result<(), String> {
    let one_of = |flag: &str, title: &str, value: &Option<String>, known: &[&str]| match value {
        Some(value)
            if !value.is_empty()
                && !known.contains(&value.as_str())
                && !value.starts_with("container:") =>
        {
            Err(format!("--{flag}: invalid {title} mode"))
        }
        _ => Ok(()),
    };
    one_of("pid", "PID", &flags.pid, &["host", "private"])?;
    one_of("uts", "UTS", &flags.uts, &["host"])?;
    one_of("userns", "USER", &flags.userns, &["host"])?;
    match flags.cgroupns.as_deref() {
        None | Some("" | "private" | "host") => {}
        Some(_) => return Err("--cgroupns: invalid CGROUP mode".to_owned()),
    }
    if let Some(swappiness) = flags.memory_swappiness
        && swappiness != -1
        && !(0..=100).contains(&swappiness)
    {
        return Err(format!(
            "invalid value: {swappiness}. Valid memory swappiness range is 0-100"
        ));
    }
    Ok(())
}

fn networking(flags: &CreateFlags) -> Result<NetworkingConfig, String> {
    let mut out = NetworkingConfig::default();
    for (index, network) in flags.network.iter().enumerate() {
        let mut endpoint = network.endpoint.clone();
        if index == 0 {
            if !flags.network_alias.is_empty() {
                if endpoint.aliases.is_some() {
                    return Err("conflicting options: cannot specify both --network-alias and per-network alias".to_owned());
                }
                endpoint.aliases = Some(flags.network_alias.clone());
            }
            if let Some(ip) = &flags.ip {
                endpoint.ipam_config.get_or_insert_default().ipv4_address = ip.clone();
            }
            if let Some(ip) = &flags.ip6 {
                endpoint.ipam_config.get_or_insert_default().ipv6_address = ip.clone();
            }
            if let Some(mac) = &flags.mac_address {
                endpoint.mac_address = mac.clone();
            }
            driver_options(flags, &mut endpoint)?;
        }
        if network.name.starts_with("container:") && flags.network.len() > 1 {
            return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".to_owned());
        }
        // With nothing to say about it, the network mode says it all.
        if flags.network.len() == 1 && endpoint == Default::default() {
            continue;
        }
        if out
            .endpoints_config
            .insert(network.name.clone(), endpoint)
            .is_some()
        {
            return Err(format!(
                "network {:?} is specified multiple times",
                network.name
            ));
        }
    }
    if flags.network.is_empty() && !(flags.network_alias.is_empty() && flags.network_opt.is_empty())
    {
        let mut endpoint = EndpointSettings::default();
        if !flags.network_alias.is_empty() {
            endpoint.aliases = Some(flags.network_alias.clone());
        }
        driver_options(flags, &mut endpoint)?;
        out.endpoints_config.insert("default".to_owned(), endpoint);
    }
    Ok(out)
}

/// Adds what `--network-opt` says.
fn driver_options(flags: &CreateFlags, endpoint: &mut EndpointSettings) -> Result<(), String> {
    for option in &flags.network_opt {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("invalid network option {option}: write NAME=VALUE"))?;
        let options = endpoint.driver_opts.get_or_insert_default();
        options.insert(name.to_owned(), value.to_owned());
    }
    Ok(())
}

fn resources(flags: &CreateFlags) -> Result<Resources, String> {
    let devices = flags
        .device
        .iter()
        .map(|spec| device::parse(spec))
        .collect::<Result<Vec<_>, _>>()?;
    let blkio_weight = u16::try_from(flags.blkio_weight.unwrap_or(0))
        .map_err(|_| "range of blkio weight is from 10 to 1000".to_owned())?;
    Ok(Resources {
        cpu_shares: flags.cpu_shares.unwrap_or(0),
        memory: flags.memory.unwrap_or(0),
        nano_cpus: flags.cpus.unwrap_or(0),
        cgroup_parent: flags.cgroup_parent.clone().unwrap_or_default(),
        blkio_weight,
        cpu_period: flags.cpu_period.unwrap_or(0),
        cpu_quota: flags.cpu_quota.unwrap_or(0),
        cpuset_cpus: flags.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: flags.cpuset_mems.clone().unwrap_or_default(),
        devices,
        device_cgroup_rules: flags.device_cgroup_rule.clone(),
        kernel_memory: flags.kernel_memory.unwrap_or(0),
        memory_reservation: flags.memory_reservation.unwrap_or(0),
        memory_swap: flags.memory_swap.unwrap_or(0),
        memory_swappiness: flags
            .memory_swappiness
            .filter(|swappiness| *swappiness != -1),
        oom_kill_disable: flags.oom_kill_disable.then_some(true),
        pids_limit: flags.pids_limit,
        ulimits: flags.ulimit.clone(),
        ..Resources::default()
    })
}

fn health(flags: &CreateFlags) -> Result<Option<HealthConfig>, String> {
    let given = flags.health_cmd.is_some()
        || flags.health_interval.is_some()
        || flags.health_timeout.is_some()
        || flags.health_start_period.is_some()
        || flags.health_start_interval.is_some()
        || flags.health_retries.is_some();
    if flags.no_healthcheck {
        if given {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(Some(HealthConfig {
            test: vec!["NONE".to_owned()],
            ..HealthConfig::default()
        }));
    }
    if !given {
        return Ok(None);
    }
    for (name, value) in [
        ("health-interval", flags.health_interval),
        ("health-timeout", flags.health_timeout),
        ("health-start-period", flags.health_start_period),
        ("health-start-interval", flags.health_start_interval),
        ("health-retries", flags.health_retries),
    ] {
        if value.is_some_and(|value| value < 0) {
            return Err(format!("--{name} cannot be negative"));
        }
    }
    let test = flags
        .health_cmd
        .as_ref()
        .filter(|command| !command.is_empty())
        .map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]);
    Ok(Some(HealthConfig {
        test: test.unwrap_or_default(),
        interval: flags.health_interval.unwrap_or(0),
        timeout: flags.health_timeout.unwrap_or(0),
        start_period: flags.health_start_period.unwrap_or(0),
        start_interval: flags.health_start_interval.unwrap_or(0),
        retries: flags.health_retries.unwrap_or(0),
    }))
}

fn log_config(flags: &CreateFlags) -> Result<LogConfig, String> {
    let kind = flags.log_driver.clone().unwrap_or_default();
    if kind == "none" && !flags.log_opt.is_empty() {
        return Err("invalid logging opts for driver none".to_owned());
    }
    Ok(LogConfig {
        kind,
        config: environment::pairs(&flags.log_opt),
    })
}
