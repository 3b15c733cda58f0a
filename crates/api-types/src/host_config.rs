//! Containers: what a host grants them (`HostConfig`) and the limits within.
use std::collections::BTreeMap;

wire! {
    /// Log driver and its options.
    #[derive(Eq)]
    pub struct LogConfig {
        #[serde(rename = "Type")]
        kind: String,
        config: BTreeMap<String, String>,
    }
}

wire! {
    /// When a container is started again.
    #[derive(Eq)]
    pub struct RestartPolicy {
        /// "", no, always, unless-stopped, on-failure.
        name: String,
        maximum_retry_count: i64,
    }
}

wire! {
    /// One address and port of the host; "" and "0" let the engine choose.
    #[derive(Eq)]
    pub struct PortBinding {
        host_ip: String,
        host_port: String,
    }
}

/// `80/tcp` to the host's side of it; `None` is exposed but not published.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

wire! {
    /// A mount asked for by `--mount`.
    #[derive(Eq)]
    pub struct Mount {
        /// bind, volume, tmpfs, image, npipe, cluster.
        #[serde(rename = "Type")]
        kind!: String,
        source!: String,
        target!: String,
        read_only!: bool,
        consistency!: String,
        bind_options?: BindOptions,
        volume_options?: VolumeOptions,
        image_options?: ImageOptions,
        tmpfs_options?: TmpfsOptions,
    }
}

wire! {
    /// Options of a bind mount.
    #[derive(Eq)]
    pub struct BindOptions {
        propagation!: String,
        non_recursive!: bool,
        create_mountpoint!: bool,
        read_only_non_recursive!: bool,
        read_only_force_recursive!: bool,
    }
}

wire! {
    /// Options of a named volume's mount.
    #[derive(Eq)]
    pub struct VolumeOptions {
        no_copy!: bool,
        labels!: BTreeMap<String, String>,
        subpath!: String,
        driver_config?: DriverConfig,
    }
}

wire! {
    /// A volume driver and its options.
    #[derive(Eq)]
    pub struct DriverConfig {
        name!: String,
        options!: BTreeMap<String, String>,
    }
}

wire! {
    /// Options of an image's mount.
    #[derive(Eq)]
    pub struct ImageOptions {
        subpath!: String,
    }
}

wire! {
    /// Options of a tmpfs mount.
    #[derive(Eq)]
    pub struct TmpfsOptions {
        size_bytes!: i64,
        /// Permission bits.
        mode!: u32,
        options!: Vec<Vec<String>>,
    }
}

wire! {
    /// A relative block I/O weight of one device.
    #[derive(Eq)]
    pub struct WeightDevice {
        path: String,
        weight: u16,
    }
}

wire! {
    /// A block I/O rate limit of one device.
    #[derive(Eq)]
    pub struct ThrottleDevice {
        path: String,
        rate: u64,
    }
}

wire! {
    /// A device of the host made visible inside.
    #[derive(Eq)]
    pub struct DeviceMapping {
        path_on_host: String,
        path_in_container: String,
        /// Of `r`, `w`, `m`.
        cgroup_permissions: String,
    }
}

wire! {
    /// Devices asked of a driver (`--gpus`).
    #[derive(Eq)]
    pub struct DeviceRequest {
        driver: String,
        count: i64,
        #[serde(rename = "DeviceIDs")]
        device_ids: Vec<String>,
        capabilities: Vec<Vec<String>>,
        options: BTreeMap<String, String>,
    }
}

wire! {
    /// A resource limit of processes.
    #[derive(Eq)]
    pub struct Ulimit {
        name: String,
        hard: i64,
        soft: i64,
    }
}

wire! {
    /// Limits of a container, which also can be changed while it runs.
    #[derive(Eq)]
    pub struct Resources {
        cpu_shares: i64,
        /// Bytes.
        memory: i64,
        /// Billionths of a CPU.
        nano_cpus: i64,
        cgroup_parent: String,
        blkio_weight: u16,
        blkio_weight_device: Vec<WeightDevice>,
        blkio_device_read_bps: Vec<ThrottleDevice>,
        blkio_device_write_bps: Vec<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        blkio_device_read_iops: Vec<ThrottleDevice>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        blkio_device_write_iops: Vec<ThrottleDevice>,
        /// Microseconds.
        cpu_period: i64,
        /// Microseconds.
        cpu_quota: i64,
        cpu_realtime_period: i64,
        cpu_realtime_runtime: i64,
        cpuset_cpus: String,
        cpuset_mems: String,
        devices: Vec<DeviceMapping>,
        device_cgroup_rules: Vec<String>,
        device_requests: Vec<DeviceRequest>,
        kernel_memory!: i64,
        #[serde(rename = "KernelMemoryTCP")]
        kernel_memory_tcp!: i64,
        memory_reservation: i64,
        /// Bytes of memory and swap together; -1 is unlimited.
        memory_swap: i64,
        memory_swappiness: Option<i64>,
        oom_kill_disable: Option<bool>,
        /// `None` and 0 leave it, -1 is unlimited.
        pids_limit: Option<i64>,
        ulimits: Vec<Ulimit>,
        cpu_count: i64,
        cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")]
        io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")]
        io_maximum_bandwidth: u64,
    }
}

wire! {
    /// What the host grants a container.
    #[derive(Eq)]
    pub struct HostConfig {
        /// `source:target[:options]`.
        binds: Option<Vec<String>>,
        #[serde(rename = "ContainerIDFile")]
        container_id_file: String,
        log_config: LogConfig,
        /// bridge, none, host, `container:ID`, a network's name; "" and `default` mean bridge.
        network_mode: String,
        port_bindings: PortMap,
        restart_policy: RestartPolicy,
        auto_remove: bool,
        volume_driver: String,
        volumes_from: Option<Vec<String>>,
        /// Height and width.
        console_size: [u32; 2],
        annotations!: BTreeMap<String, String>,
        cap_add: Option<Vec<String>>,
        cap_drop: Option<Vec<String>>,
        /// "", private, host.
        cgroupns_mode: String,
        dns: Vec<String>,
        dns_options: Vec<String>,
        dns_search: Vec<String>,
        /// `name:address`.
        extra_hosts: Option<Vec<String>>,
        group_add: Option<Vec<String>>,
        ipc_mode: String,
        cgroup: String,
        links: Option<Vec<String>>,
        oom_score_adj: i64,
        pid_mode: String,
        privileged: bool,
        publish_all_ports: bool,
        readonly_rootfs: bool,
        security_opt: Option<Vec<String>>,
        storage_opt!: BTreeMap<String, String>,
        /// Target to mount options.
        tmpfs!: BTreeMap<String, String>,
        #[serde(rename = "UTSMode")]
        uts_mode: String,
        userns_mode: String,
        /// Bytes; 0 is the default of 64 MiB.
        shm_size: i64,
        sysctls!: BTreeMap<String, String>,
        runtime: String,
        /// "", default, container, vm.
        isolation: String,
        /// The limits, whose fields lie at the same level.
        flatten resources: Resources,
        mounts!: Vec<Mount>,
        /// `None` is the default list.
        masked_paths: Option<Vec<String>>,
        /// `None` is the default list.
        readonly_paths: Option<Vec<String>>,
        init?: bool,
        /// Hull's own: where the container may connect to.
        egress?: Egress,
    }
}

wire! {
    /// Hull's own: where a container may connect to beyond its networks.
    #[derive(Eq)]
    pub struct Egress {
        /// What becomes of what no rule is about: `deny` or `allow`; one list alone says it too.
        default: String,
        /// `TARGET[:PORTS][/PROTOCOL]`, TARGET an address, a subnet, a name, `*.NAME` or `*`.
        allow!: Vec<String>,
        /// The same.
        deny!: Vec<String>,
    }
}
