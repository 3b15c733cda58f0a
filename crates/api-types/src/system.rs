//! The engine as a whole: version, info, events, disk usage.
use std::collections::BTreeMap;

use crate::container::ContainerSummary;
use crate::image::ImageSummary;
use crate::volume::Volume;

/// Headers of `GET /_ping`.
pub mod ping {
    /// The newest API version spoken.
    pub const API_VERSION: &str = "Api-Version";
    /// `true` when experimental features are on.
    pub const EXPERIMENTAL: &str = "Docker-Experimental";
    /// `linux`.
    pub const OS_TYPE: &str = "Ostype";
    /// The builder preferred: `1` classic, `2` BuildKit.
    pub const BUILDER_VERSION: &str = "Builder-Version";
    /// `inactive`.
    pub const SWARM: &str = "Swarm";
}

wire! {
    /// Reply of `GET /version`.
    #[derive(Eq)]
    pub struct Version {
        platform: VersionPlatform,
        components!: Vec<VersionComponent>,
        version: String,
        api_version: String,
        #[serde(rename = "MinAPIVersion")]
        min_api_version!: String,
        git_commit: String,
        go_version: String,
        os: String,
        arch: String,
        kernel_version!: String,
        experimental!: bool,
        build_time!: String,
    }
}

wire! {
    /// The product's name.
    #[derive(Eq)]
    pub struct VersionPlatform {
        name: String,
    }
}

wire! {
    /// A part of the engine and its version.
    #[derive(Eq)]
    pub struct VersionComponent {
        name: String,
        version: String,
        details!: BTreeMap<String, String>,
    }
}

wire! {
    /// Reply of `GET /info`.
    pub struct Info {
        #[serde(rename = "ID")]
        id: String,
        containers: i64,
        containers_running: i64,
        containers_paused: i64,
        containers_stopped: i64,
        images: i64,
        driver: String,
        /// Pairs of name and value.
        driver_status: Vec<[String; 2]>,
        plugins: Plugins,
        memory_limit: bool,
        swap_limit: bool,
        cpu_cfs_period: bool,
        cpu_cfs_quota: bool,
        #[serde(rename = "CPUShares")]
        cpu_shares: bool,
        #[serde(rename = "CPUSet")]
        cpu_set: bool,
        pids_limit: bool,
        #[serde(rename = "IPv4Forwarding")]
        ipv4_forwarding: bool,
        debug: bool,
        n_fd: i64,
        oom_kill_disable: bool,
        n_goroutines: i64,
        system_time: String,
        logging_driver: String,
        cgroup_driver: String,
        cgroup_version!: String,
        n_events_listener: i64,
        kernel_version: String,
        operating_system: String,
        #[serde(rename = "OSVersion")]
        os_version: String,
        #[serde(rename = "OSType")]
        os_type: String,
        architecture: String,
        index_server_address: String,
        registry_config: Option<RegistryConfig>,
        #[serde(rename = "NCPU")]
        ncpu: i64,
        mem_total: i64,
        generic_resources: Option<Vec<serde_json::Value>>,
        docker_root_dir: String,
        http_proxy: String,
        https_proxy: String,
        no_proxy: String,
        name: String,
        labels: Vec<String>,
        experimental_build: bool,
        server_version: String,
        runtimes: BTreeMap<String, Runtime>,
        default_runtime: String,
        swarm: Swarm,
        live_restore_enabled: bool,
        /// The default isolation; Hull says `container`.
        isolation: String,
        /// What runs virtual machines, and how (Hull's own).
        hypervisor: String,
        /// Why that is not KVM (Hull's own).
        hypervisor_reason: String,
        init_binary: String,
        containerd_commit: Commit,
        runc_commit: Commit,
        init_commit: Commit,
        /// `name=…` with options after commas.
        security_options: Vec<String>,
        product_license!: String,
        #[serde(rename = "CDISpecDirs")]
        cdi_spec_dirs: Vec<String>,
        warnings: Vec<String>,
    }
}

wire! {
    /// Drivers the engine has, by kind.
    #[derive(Eq)]
    pub struct Plugins {
        volume: Vec<String>,
        network: Vec<String>,
        authorization: Option<Vec<String>>,
        log: Vec<String>,
    }
}

wire! {
    /// A way to run containers.
    #[derive(Eq)]
    pub snake struct Runtime {
        path!: String,
        #[serde(rename = "runtimeArgs")]
        runtime_args!: Vec<String>,
    }
}

wire! {
    /// Registries the daemon treats apart.
    pub struct RegistryConfig {
        #[serde(rename = "InsecureRegistryCIDRs")]
        insecure_registry_cidrs: Vec<String>,
        index_configs: BTreeMap<String, serde_json::Value>,
        mirrors: Vec<String>,
    }
}

wire! {
    /// Always inactive.
    #[derive(Eq)]
    pub struct Swarm {
        #[serde(rename = "NodeID")]
        node_id: String,
        node_addr: String,
        local_node_state: String,
        control_available: bool,
        error: String,
        remote_managers: Option<Vec<String>>,
    }
}

wire! {
    /// The source version of a part.
    #[derive(Eq)]
    pub struct Commit {
        #[serde(rename = "ID")]
        id: String,
    }
}

wire! {
    /// One line of `GET /events`.
    #[derive(Eq)]
    pub struct Event {
        #[serde(rename = "status")]
        status!: String,
        #[serde(rename = "id")]
        id!: String,
        #[serde(rename = "from")]
        from!: String,
        /// container, image, volume, network, daemon.
        #[serde(rename = "Type")]
        kind: String,
        action: String,
        actor: EventActor,
        #[serde(rename = "scope")]
        scope!: String,
        /// Unix seconds.
        #[serde(rename = "time")]
        time!: i64,
        /// Unix nanoseconds.
        #[serde(rename = "timeNano")]
        time_nano!: i64,
    }
}

wire! {
    /// What an event happened to.
    #[derive(Eq)]
    pub struct EventActor {
        #[serde(rename = "ID")]
        id: String,
        attributes: BTreeMap<String, String>,
    }
}

wire! {
    /// Reply of `GET /system/df`.
    pub struct DiskUsage {
        layers_size!: i64,
        images: Vec<ImageSummary>,
        containers: Vec<ContainerSummary>,
        volumes: Vec<Volume>,
        build_cache: Option<Vec<serde_json::Value>>,
    }
}

wire! {
    /// Reply of `POST /auth`.
    #[derive(Eq)]
    pub struct AuthReply {
        status: String,
        identity_token!: String,
    }
}
