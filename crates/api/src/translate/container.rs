//! A container's record as lists and inspect show it.
use std::collections::BTreeMap;
use std::path::Path;

use hull_api_types::Empty;
use hull_api_types::container::{
    ContainerConfig, ContainerSummary, Port, SummaryHostConfig, SummaryNetworks,
};
use hull_api_types::host_config::{DeviceMapping, HostConfig, LogConfig, RestartPolicy};
use hull_api_types::inspect::{
    ContainerInspect, ContainerState, GraphDriver, Health, HealthcheckResult, NetworkSettings,
};
use hull_api_types::network::{EndpointIpamConfig, EndpointSettings};
use hull_model::spec::{self, ContainerSpec, Isolation, LogDriver, NamespaceMode, NetworkMode};
use hull_state::{ContainerRecord, ContainerState as State, Endpoint, Join};

use super::{config, egress, limits, links, mounts, ports, six, time};

/// What Docker's clients know a store of layers on overlayfs by.
pub(crate) const DRIVER: &str = "overlay2";

/// The name of the network it has a place of its own on, of those that are always there.
pub(crate) fn network_name(record: &ContainerRecord) -> Option<&'static str> {
    match &record.spec.network {
        NetworkMode::Bridge if record.joins.is_none() => Some("bridge"),
        NetworkMode::None => Some("none"),
        NetworkMode::Host => Some("host"),
        // It shares another's and has none of its own, or it says what it joins.
        NetworkMode::Container(_) | NetworkMode::Bridge | NetworkMode::Network(_) => None,
    }
}

/// What inspect shows that is not in the record.
#[derive(Debug, Default)]
pub(crate) struct Around {
    /// Id of its network.
    pub(crate) network_id: String,
    /// Folder of the container's files.
    pub(crate) files: std::path::PathBuf,
    /// Its log.
    pub(crate) log_path: std::path::PathBuf,
    /// Where its root file system lies.
    pub(crate) storage: std::collections::BTreeMap<String, String>,
    /// Sessions that run.
    pub(crate) exec_ids: Vec<String>,
    /// Bytes written, where asked for.
    pub(crate) size_rw: Option<i64>,
    /// Bytes of the whole root file system, where asked for.
    pub(crate) size_root_fs: Option<i64>,
}

/// Writes everything about a container.
pub(crate) fn inspect(record: &ContainerRecord, around: Around) -> ContainerInspect {
    let spec = &record.spec;
    let mut line = spec.entrypoint.iter().chain(&spec.cmd).cloned();
    let path = line.next().unwrap_or_default();
    let mut volumes = BTreeMap::new();
    let mut host = host_config(spec);
    host.links = links::shown(record);
    mounts::to_wire(&spec.mounts, &mut host, &mut volumes);
    let file = |name: &str| text(&around.files.join(name));
    ContainerInspect {
        id: record.id.clone(),
        created: time::rfc3339(record.created_at_ns),
        path,
        args: line.collect(),
        state: state(record),
        image: record.image_id.map(|id| id.to_string()).unwrap_or_default(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: if spec.log.driver == LogDriver::None {
            String::new()
        } else {
            text(&around.log_path)
        },
        name: format!("/{}", record.name),
        restart_count: i64::from(record.restart_count),
        driver: DRIVER.into(),
        platform: "linux".into(),
        exec_ids: Some(around.exec_ids).filter(|ids| !ids.is_empty()),
        graph_driver: GraphDriver {
            data: Some(around.storage).filter(|data| !data.is_empty()),
            name: DRIVER.into(),
        },
        size_rw: around.size_rw,
        size_root_fs: around.size_root_fs,
        mounts: record.mounts.iter().map(mounts::point).collect(),
        config: container_config(record, volumes),
        network_settings: network_settings(record, around.network_id),
        host_config: host,
        ..ContainerInspect::default()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn state(record: &ContainerRecord) -> ContainerState {
    let paused = matches!(record.state, State::Paused { .. });
    let restarting = record.state == State::Restarting;
    ContainerState {
        status: record.state.as_str().into(),
        // What is paused, or waits to be restarted, counts as running.
        running: record.state.is_running() || restarting,
        paused,
        restarting,
        oom_killed: record.oom_killed,
        dead: record.state == State::Dead,
        pid: record.state.pid().map_or(0, i64::from),
        exit_code: i64::from(record.exit_code),
        error: record.error.clone(),
        started_at: time::rfc3339(record.started_at_ns),
        finished_at: time::rfc3339(record.finished_at_ns),
        health: record.health.as_ref().map(health),
    }
}

fn health(health: &hull_state::Health) -> Health {
    let probe = |probe: &hull_state::HealthProbe| HealthcheckResult {
        start: time::rfc3339(probe.start_ns),
        end: time::rfc3339(probe.end_ns),
        exit_code: i64::from(probe.exit_code),
        output: probe.output.clone(),
    };
    Health {
        status: health.status.clone(),
        failing_streak: i64::from(health.failing_streak),
        log: health.log.iter().map(probe).collect(),
    }
}

fn container_config(record: &ContainerRecord, volumes: BTreeMap<String, Empty>) -> ContainerConfig {
    let spec = &record.spec;
    let hostname = match (&spec.hostname, &spec.network) {
        (name, _) if !name.is_empty() => name.clone(),
        (_, NetworkMode::Host | NetworkMode::Container(_)) => String::new(),
        _ => record.id.get(..12).unwrap_or(&record.id).to_owned(),
    };
    ContainerConfig {
        hostname,
        domainname: spec.domainname.clone(),
        user: spec.user.clone(),
        attach_stdin: spec.attach.stdin,
        attach_stdout: spec.attach.stdout,
        attach_stderr: spec.attach.stderr,
        exposed_ports: ports::all_exposed(spec),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        env: spec.env.clone(),
        cmd: some(&spec.cmd).map(Into::into),
        healthcheck: spec.healthcheck.as_ref().map(config::health),
        image: spec.image.clone(),
        volumes: (!volumes.is_empty()).then_some(volumes),
        working_dir: spec.working_dir.clone(),
        entrypoint: some(&spec.entrypoint).map(Into::into),
        mac_address: spec.mac.clone(),
        labels: spec.labels.clone(),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_timeout,
        ..ContainerConfig::default()
    }
}

fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let mut resources = limits::to_wire(&spec.resources, &spec.ulimits);
    resources.cgroup_parent = spec.cgroup_parent.clone();
    resources.device_cgroup_rules = spec.device_rules.clone();
    resources.devices = spec
        .devices
        .iter()
        .map(|d| DeviceMapping {
            path_on_host: d.host_path.clone(),
            path_in_container: d.container_path.clone(),
            cgroup_permissions: d.permissions.clone(),
        })
        .collect();
    HostConfig {
        container_id_file: spec.container_id_file.clone(),
        log_config: LogConfig {
            kind: match spec.log.driver {
                LogDriver::JsonFile => "json-file".into(),
                LogDriver::None => "none".into(),
            },
            config: spec.log.options.clone(),
        },
        network_mode: network_mode(&spec.network),
        port_bindings: ports::wished(&spec.published, &spec.published6),
        restart_policy: restart_policy(spec.restart),
        auto_remove: spec.auto_remove,
        annotations: spec.annotations.clone(),
        cap_add: some(&spec.cap_add),
        cap_drop: some(&spec.cap_drop),
        cgroupns_mode: namespace(&spec.cgroupns_mode, "private"),
        dns: spec.dns.clone(),
        dns_options: spec.dns_options.clone(),
        dns_search: spec.dns_search.clone(),
        extra_hosts: some(&spec.extra_hosts),
        group_add: some(&spec.group_add),
        volumes_from: some(&spec.volumes_from),
        ipc_mode: namespace(&spec.ipc_mode, "private"),
        oom_score_adj: spec.oom_score_adj.map_or(0, i64::from),
        pid_mode: namespace(&spec.pid_mode, ""),
        privileged: spec.privileged,
        publish_all_ports: spec.publish_all,
        readonly_rootfs: spec.readonly_rootfs,
        security_opt: some(&spec.security_opt),
        storage_opt: spec.storage_opt.clone(),
        uts_mode: namespace(&spec.uts_mode, ""),
        shm_size: spec.shm_size.unwrap_or(64 << 20),
        sysctls: spec.sysctls.clone(),
        runtime: "hull".into(),
        isolation: match spec.isolation {
            Isolation::Container => "container".into(),
            Isolation::Vm => "vm".into(),
        },
        resources,
        init: spec.init.then_some(true),
        egress: spec.egress.as_ref().map(egress::shown),
        ..HostConfig::default()
    }
}

fn network_mode(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::Bridge => "bridge".into(),
        NetworkMode::None => "none".into(),
        NetworkMode::Host => "host".into(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Network(name) => name.clone(),
    }
}

fn namespace(mode: &NamespaceMode, private: &str) -> String {
    match mode {
        NamespaceMode::Private => private.to_owned(),
        NamespaceMode::Shareable => "shareable".into(),
        NamespaceMode::Host => "host".into(),
        NamespaceMode::Container(id) => format!("container:{id}"),
    }
}

fn restart_policy(policy: spec::RestartPolicy) -> RestartPolicy {
    let (name, max) = match policy {
        spec::RestartPolicy::No => ("no", 0),
        spec::RestartPolicy::OnFailure { max } => ("on-failure", max),
        spec::RestartPolicy::Always => ("always", 0),
        spec::RestartPolicy::UnlessStopped => ("unless-stopped", 0),
    };
    RestartPolicy {
        name: name.into(),
        maximum_retry_count: i64::from(max),
    }
}

fn endpoints(record: &ContainerRecord, network_id: String) -> BTreeMap<String, EndpointSettings> {
    if let Some(joins) = &record.joins {
        let of = |join: &Join| (join.name.clone(), joined(record, join));
        return joins.iter().map(of).collect();
    }
    let Some(name) = network_name(record) else {
        return BTreeMap::new();
    };
    let mut settings = EndpointSettings {
        network_id,
        ..EndpointSettings::default()
    };
    if let Some(endpoint) = &record.endpoint {
        place(&mut settings, &record.id, endpoint);
    }
    BTreeMap::from([(name.to_owned(), settings)])
}

/// A container's end on a network as it was asked for and, while it runs, as it is.
fn joined(record: &ContainerRecord, join: &Join) -> EndpointSettings {
    let short = record.id.get(..12).unwrap_or(&record.id).to_owned();
    let mut names = vec![record.name.clone()];
    names.extend(join.aliases.iter().cloned());
    names.push(short);
    let mut settings = EndpointSettings {
        network_id: join.network.clone(),
        ipam_config: (join.address.is_some() || join.address6.is_some()).then(|| {
            let text = |ip: Option<std::net::IpAddr>| ip.map(|ip| ip.to_string());
            EndpointIpamConfig {
                ipv4_address: text(join.address.map(Into::into)).unwrap_or_default(),
                ipv6_address: text(join.address6.map(Into::into)).unwrap_or_default(),
                ..EndpointIpamConfig::default()
            }
        }),
        aliases: some(&join.aliases),
        mac_address: join.mac.clone(),
        driver_opts: (!join.options.is_empty()).then(|| join.options.clone()),
        gw_priority: join.gw_priority,
        links: links::on_network(&join.links),
        dns_names: Some(names),
        ..EndpointSettings::default()
    };
    if let Some(found) = record.places.iter().find(|p| p.network == join.network) {
        place(&mut settings, &record.id, &found.endpoint);
    }
    settings
}

fn place(settings: &mut EndpointSettings, id: &str, endpoint: &Endpoint) {
    settings.endpoint_id = id.to_owned();
    settings.gateway = six::shown(endpoint.gateway);
    settings.ip_address = six::shown(endpoint.address);
    settings.ip_prefix_len = six::prefix(endpoint);
    settings.mac_address = endpoint.mac.clone();
    six::place(settings, endpoint);
}

fn network_settings(record: &ContainerRecord, network_id: String) -> NetworkSettings {
    let bridge = record.joins.iter().flatten().find(|j| j.name == "bridge");
    let bridge = bridge.map(|join| join.network.clone());
    let networks = endpoints(record, network_id);
    let mut settings = NetworkSettings {
        networks,
        ..NetworkSettings::default()
    };
    if record.endpoints().next().is_none() {
        return settings;
    }
    settings.sandbox_id = record.id.clone();
    let (four, six) = (record.published(), record.published6());
    settings.ports = ports::actual(record.spec.exposed(), four, six);
    // Docker's clients of old look here for the place on the default network alone.
    let of_default = record
        .places
        .iter()
        .find(|p| Some(&p.network) == bridge.as_ref());
    let of_default = of_default.map(|place| &place.endpoint);
    if let Some(endpoint) = record.endpoint.as_ref().or(of_default) {
        settings.endpoint_id = record.id.clone();
        settings.gateway = endpoint.gateway.to_string();
        settings.ip_address = endpoint.address.to_string();
        settings.ip_prefix_len = i64::from(endpoint.prefix);
        settings.mac_address = endpoint.mac.clone();
    }
    settings
}

/// Writes a line of a list; sizes (written, whole) where asked for.
pub(crate) fn summary(
    record: &ContainerRecord,
    network_id: String,
    sizes: Option<(i64, i64)>,
    now_ns: i64,
) -> ContainerSummary {
    let spec = &record.spec;
    ContainerSummary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: spec.image.clone(),
        image_id: record.image_id.map(|id| id.to_string()).unwrap_or_default(),
        command: command(spec),
        created: seconds(record.created_at_ns),
        ports: summary_ports(record),
        size_rw: sizes.map(|(rw, _)| rw),
        size_root_fs: sizes.map(|(_, root)| root),
        labels: spec.labels.clone(),
        state: record.state.as_str().into(),
        status: status(record, now_ns),
        host_config: SummaryHostConfig {
            network_mode: network_mode(&spec.network),
            annotations: spec.annotations.clone(),
        },
        network_settings: SummaryNetworks {
            networks: endpoints(record, network_id),
        },
        mounts: record.mounts.iter().map(mounts::point).collect(),
    }
}

fn seconds(ns: u64) -> i64 {
    i64::try_from(ns / 1_000_000_000).unwrap_or_default()
}

/// The command line as lists show it.
fn command(spec: &ContainerSpec) -> String {
    let mut words = spec.entrypoint.iter().chain(&spec.cmd);
    let mut line = words.next().cloned().unwrap_or_default();
    for word in words {
        if word.contains(' ') {
            line.push_str(&format!(" '{word}'"));
        } else {
            line.push_str(&format!(" {word}"));
        }
    }
    line
}

/// What people read: `Up 5 minutes (healthy)`.
fn status(record: &ContainerRecord, now_ns: i64) -> String {
    let since = |ns: u64| time::human(now_ns.saturating_sub(i64::try_from(ns).unwrap_or_default()));
    match record.state {
        State::Created => "Created".into(),
        State::Running { .. } => {
            let up = since(record.started_at_ns);
            match record.health.as_ref().map(|h| h.status.as_str()) {
                None | Some("none" | "") => format!("Up {up}"),
                Some("starting") => format!("Up {up} (health: starting)"),
                Some(health) => format!("Up {up} ({health})"),
            }
        }
        State::Paused { .. } => format!("Up {} (Paused)", since(record.started_at_ns)),
        State::Restarting => {
            format!(
                "Restarting ({}) {} ago",
                record.exit_code,
                since(record.finished_at_ns)
            )
        }
        State::Removing => "Removal In Progress".into(),
        State::Dead => "Dead".into(),
        State::Exited => format!(
            "Exited ({}) {} ago",
            record.exit_code,
            since(record.finished_at_ns)
        ),
    }
}

fn summary_ports(record: &ContainerRecord) -> Vec<Port> {
    let published: Vec<_> = record.published().collect();
    let running = record.state.is_running();
    let mut list: Vec<Port> = published
        .iter()
        .flat_map(|p| p.each())
        .map(|p| Port {
            ip: p.host_ip.to_string(),
            private_port: p.container.number,
            public_port: p.host_port,
            kind: p.container.protocol.as_str().into(),
        })
        .collect();
    let published6: Vec<_> = record.published6().collect();
    list.extend(published6.iter().flat_map(|p| p.each()).map(|p| Port {
        ip: p.host_ip.to_string(),
        private_port: p.container.number,
        public_port: p.host_port,
        kind: p.container.protocol.as_str().into(),
    }));
    for port in record.spec.exposed_ports.iter().filter(|_| running) {
        let four = published.iter().any(|p| p.leads_to(*port));
        if !four && !published6.iter().any(|p| p.leads_to(*port)) {
            list.push(Port {
                private_port: port.number,
                kind: port.protocol.as_str().into(),
                ..Port::default()
            });
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: u64 = 1_000_000_000;

    fn record() -> ContainerRecord {
        ContainerRecord {
            id: "0123456789abcdef".repeat(4),
            name: "web".into(),
            started_at_ns: 100 * NS,
            finished_at_ns: 200 * NS,
            exit_code: 3,
            spec: ContainerSpec {
                entrypoint: vec!["sh".into()],
                cmd: vec!["-c".into(), "echo hi".into()],
                ..ContainerSpec::default()
            },
            ..ContainerRecord::default()
        }
    }

    #[test]
    fn status_tells_state_in_dockers_words() {
        let mut record = record();
        let now = 400 * NS as i64;
        let mut says = |state, want: &str| {
            record.state = state;
            assert_eq!(status(&record, now), want);
        };
        says(State::Created, "Created");
        says(State::Running { pid: 1 }, "Up 5 minutes");
        says(State::Paused { pid: 1 }, "Up 5 minutes (Paused)");
        says(State::Exited, "Exited (3) 3 minutes ago");
        says(State::Restarting, "Restarting (3) 3 minutes ago");
    }

    #[test]
    fn health_follows_the_status() {
        let mut record = record();
        record.state = State::Running { pid: 1 };
        record.health = Some(hull_state::Health {
            status: "starting".into(),
            ..Default::default()
        });
        assert_eq!(
            status(&record, 102 * NS as i64),
            "Up 2 seconds (health: starting)"
        );
    }

    #[test]
    fn inspect_shows_command_state_and_defaults() {
        let mut record = record();
        record.state = State::Paused { pid: 7 };
        let shown = inspect(&record, Around::default());
        assert_eq!((shown.path.as_str(), shown.args.len()), ("sh", 2));
        assert!(shown.state.running && shown.state.paused);
        assert_eq!(shown.state.pid, 7);
        assert_eq!(shown.name, "/web");
        assert_eq!(shown.config.hostname, "0123456789ab");
        assert_eq!(shown.host_config.isolation, "container");
        assert_eq!(shown.host_config.restart_policy.name, "no");
    }

    #[test]
    fn command_with_space_is_quoted() {
        assert_eq!(
            summary(&record(), String::new(), None, 0).command,
            "sh -c 'echo hi'"
        );
    }
}
