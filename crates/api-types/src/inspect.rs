//! Containers: the reply of `GET /containers/{id}/json`.
use std::collections::BTreeMap;

use crate::container::ContainerConfig;
use crate::host_config::{HostConfig, PortMap};
use crate::network::EndpointSettings;

wire! {
    /// Everything about one container.
    pub struct ContainerInspect {
        id: String,
        /// RFC 3339 with nanoseconds, as all times here.
        created: String,
        path: String,
        args: Vec<String>,
        state: ContainerState,
        image: String,
        resolv_conf_path: String,
        hostname_path: String,
        hosts_path: String,
        log_path: String,
        /// With a leading `/`.
        name: String,
        restart_count: i64,
        driver: String,
        platform: String,
        mount_label: String,
        process_label: String,
        app_armor_profile: String,
        #[serde(rename = "ExecIDs")]
        exec_ids: Option<Vec<String>>,
        host_config: HostConfig,
        graph_driver: GraphDriver,
        size_rw?: i64,
        size_root_fs?: i64,
        mounts: Vec<MountPoint>,
        config: ContainerConfig,
        network_settings: NetworkSettings,
    }
}

wire! {
    /// What a container is doing.
    #[derive(Eq)]
    pub struct ContainerState {
        /// created, running, paused, restarting, removing, exited, dead.
        status: String,
        running: bool,
        paused: bool,
        restarting: bool,
        #[serde(rename = "OOMKilled")]
        oom_killed: bool,
        dead: bool,
        pid: i64,
        exit_code: i64,
        error: String,
        started_at: String,
        finished_at: String,
        health?: Health,
    }
}

wire! {
    /// The state of a health check.
    #[derive(Eq)]
    pub struct Health {
        /// none, starting, healthy, unhealthy.
        status: String,
        failing_streak: i64,
        log: Vec<HealthcheckResult>,
    }
}

wire! {
    /// One run of a health check.
    #[derive(Eq)]
    pub struct HealthcheckResult {
        start: String,
        end: String,
        exit_code: i64,
        output: String,
    }
}

wire! {
    /// How the root file system is kept.
    #[derive(Eq)]
    pub struct GraphDriver {
        data: Option<BTreeMap<String, String>>,
        name: String,
    }
}

wire! {
    /// A mount of a container, as it is.
    #[derive(Eq)]
    pub struct MountPoint {
        /// bind, volume, tmpfs.
        #[serde(rename = "Type")]
        kind!: String,
        name!: String,
        source: String,
        destination: String,
        driver!: String,
        mode: String,
        #[serde(rename = "RW")]
        rw: bool,
        propagation: String,
    }
}

wire! {
    /// A container's network as it is.
    pub struct NetworkSettings {
        bridge: String,
        #[serde(rename = "SandboxID")]
        sandbox_id: String,
        sandbox_key: String,
        ports: PortMap,
        #[serde(rename = "HairpinMode")]
        hairpin_mode: bool,
        #[serde(rename = "LinkLocalIPv6Address")]
        link_local_ipv6_address: String,
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        link_local_ipv6_prefix_len: i64,
        #[serde(rename = "SecondaryIPAddresses")]
        secondary_ip_addresses: Option<Vec<Address>>,
        #[serde(rename = "SecondaryIPv6Addresses")]
        secondary_ipv6_addresses: Option<Vec<Address>>,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: i64,
        #[serde(rename = "IPAddress")]
        ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        mac_address: String,
        networks: BTreeMap<String, EndpointSettings>,
    }
}

wire! {
    /// An address and the length of its prefix.
    #[derive(Eq)]
    pub struct Address {
        addr: String,
        prefix_len: i64,
    }
}
