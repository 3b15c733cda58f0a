//! Containers: configuration, requests and replies that are not the long inspect.
use std::collections::BTreeMap;

use crate::host_config::{Egress, HostConfig, PortMap, Resources, RestartPolicy};
use crate::inspect::MountPoint;
use crate::network::{EndpointSettings, NetworkingConfig};
use crate::{Empty, StrSlice};

wire! {
    /// What a container runs; also the configuration an image carries.
    pub struct ContainerConfig {
        hostname: String,
        domainname: String,
        user: String,
        attach_stdin: bool,
        attach_stdout: bool,
        attach_stderr: bool,
        /// Keys like `80/tcp`.
        exposed_ports!: BTreeMap<String, Empty>,
        tty: bool,
        open_stdin: bool,
        stdin_once: bool,
        /// `NAME=value`; a bare `NAME` removes one the image sets.
        env: Vec<String>,
        /// `None` leaves the image's command.
        cmd: Option<StrSlice>,
        healthcheck?: HealthConfig,
        args_escaped!: bool,
        image: String,
        volumes: Option<BTreeMap<String, Empty>>,
        working_dir: String,
        /// `None` leaves the image's entry point, an empty list or `[""]` clears it.
        entrypoint: Option<StrSlice>,
        network_disabled!: bool,
        mac_address!: String,
        on_build: Option<Vec<String>>,
        labels: BTreeMap<String, String>,
        stop_signal!: String,
        /// Seconds.
        stop_timeout?: i64,
        shell!: Vec<String>,
    }
}

wire! {
    /// A health check; durations in nanoseconds, 0 inherits.
    #[derive(Eq)]
    pub struct HealthConfig {
        /// `[]` inherits, `["NONE"]` disables, `["CMD", …]`, `["CMD-SHELL", line]`.
        test!: Vec<String>,
        interval!: i64,
        timeout!: i64,
        start_period!: i64,
        start_interval!: i64,
        retries!: i64,
    }
}

wire! {
    /// Body of `POST /containers/create`.
    pub struct CreateRequest {
        /// The container's configuration, whose fields lie at the top level.
        flatten config: ContainerConfig,
        host_config: HostConfig,
        networking_config: NetworkingConfig,
    }
}

wire! {
    /// Reply of `POST /containers/create`.
    #[derive(Eq)]
    pub struct CreateResponse {
        id: String,
        warnings: Vec<String>,
    }
}

wire! {
    /// One line of `GET /containers/json`.
    pub struct ContainerSummary {
        id: String,
        /// With a leading `/`.
        names: Vec<String>,
        image: String,
        #[serde(rename = "ImageID")]
        image_id: String,
        command: String,
        /// Unix seconds.
        created: i64,
        ports: Vec<Port>,
        size_rw?: i64,
        size_root_fs?: i64,
        labels: BTreeMap<String, String>,
        /// created, running, paused, restarting, removing, exited, dead.
        state: String,
        /// For people: `Up 5 minutes (healthy)`.
        status: String,
        host_config: SummaryHostConfig,
        network_settings: SummaryNetworks,
        mounts: Vec<MountPoint>,
    }
}

wire! {
    /// A port of a container in a list.
    #[derive(Eq)]
    pub struct Port {
        #[serde(rename = "IP")]
        ip!: String,
        private_port: u16,
        public_port!: u16,
        /// tcp, udp, sctp.
        #[serde(rename = "Type")]
        kind: String,
    }
}

wire! {
    /// The part of the host configuration that lists show.
    #[derive(Eq)]
    pub struct SummaryHostConfig {
        network_mode!: String,
        annotations!: BTreeMap<String, String>,
    }
}

wire! {
    /// The networks of a container in a list, by name.
    pub struct SummaryNetworks {
        networks: BTreeMap<String, EndpointSettings>,
    }
}

wire! {
    /// Reply of `POST /containers/{id}/wait`.
    #[derive(Eq)]
    pub struct WaitResponse {
        status_code: i64,
        error?: WaitError,
    }
}

wire! {
    /// Why waiting failed.
    #[derive(Eq)]
    pub struct WaitError {
        message: String,
    }
}

wire! {
    /// Reply of `GET /containers/{id}/top`.
    #[derive(Eq)]
    pub struct TopResponse {
        titles: Vec<String>,
        processes: Vec<Vec<String>>,
    }
}

wire! {
    /// Body of `POST /containers/{id}/update`: zero values leave things as they are.
    #[derive(Eq)]
    pub struct UpdateRequest {
        flatten resources: Resources,
        restart_policy: RestartPolicy,
        /// Hull's own: ports to publish, as at creation.
        publish_add!: PortMap,
        /// Hull's own: ports to publish no more; an empty host address or port is any.
        publish_rm!: PortMap,
        /// Hull's own: where it may connect to, in place of what was said before.
        egress?: Egress,
    }
}

wire! {
    /// Reply of `POST /containers/{id}/update`.
    #[derive(Eq)]
    pub struct UpdateResponse {
        warnings: Vec<String>,
    }
}

wire! {
    /// One line of `GET /containers/{id}/changes`.
    #[derive(Eq)]
    pub struct FilesystemChange {
        path: String,
        /// 0 modified, 1 added, 2 deleted.
        kind: u8,
    }
}

wire! {
    /// Reply of `POST /containers/prune`.
    #[derive(Eq)]
    pub struct ContainersPruneResponse {
        containers_deleted: Vec<String>,
        space_reclaimed: u64,
    }
}

wire! {
    /// What `X-Docker-Container-Path-Stat` carries, in base64, about a path in a container.
    #[derive(Eq)]
    pub snake struct PathStat {
        name: String,
        size: i64,
        /// Go's `os.FileMode` bits.
        mode: u32,
        mtime: String,
        #[serde(rename = "linkTarget")]
        link_target: String,
    }
}
