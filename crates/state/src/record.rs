//! The record of a container.
//!
//! ```text
//!             start              exit
//!  Created ─────────▶ Running ─────────▶ Exited ──start──▶ Running
//!                      │   ▲               │
//!                pause ▼   │ unpause       │ restart policy
//!                     Paused            Restarting ──▶ Running
//!  any but Running/Paused ──remove──▶ Removing ──▶ (gone)
//! ```

use std::net::Ipv4Addr;

use hull_model::Digest;
use hull_model::spec::{ContainerSpec, PublishedPort, PublishedPort6};
use serde::{Deserialize, Serialize};

use crate::network::Join;
use crate::six::Endpoint6;

/// Everything known about a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerRecord {
    /// 64 hex digits.
    pub id: String,
    /// Name without slash.
    pub name: String,
    /// Id of its image.
    pub image_id: Option<Digest>,
    /// What was asked for, the image's defaults merged in.
    pub spec: ContainerSpec,
    /// When it was created, ns since 1970.
    pub created_at_ns: u64,
    /// Its state.
    pub state: ContainerState,
    /// When it last started; zero if never.
    pub started_at_ns: u64,
    /// When it last ended; zero if never.
    pub finished_at_ns: u64,
    /// Exit code of the last run.
    pub exit_code: i32,
    /// The last run ended for want of memory.
    pub oom_killed: bool,
    /// Why the last start failed; empty if it did not.
    pub error: String,
    /// Restarts by policy since the user's last start.
    pub restart_count: u32,
    /// The user stopped it, so that `unless-stopped` rests.
    pub stopped_by_user: bool,
    /// Its mounts, with volumes named.
    pub mounts: Vec<MountPoint>,
    /// Its place on the default network while it runs, where that is the only one.
    pub endpoint: Option<Endpoint>,
    /// The networks it joins at each start; `None` is what its mode says.
    pub joins: Option<Vec<Join>>,
    /// Its places on those while it runs.
    pub places: Vec<Place>,
    /// Its health, where a check is configured.
    pub health: Option<Health>,
}

/// State of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Never started.
    #[default]
    Created,
    /// Runs.
    Running {
        /// First process, as the host sees it.
        pid: u32,
    },
    /// Frozen.
    Paused {
        /// First process.
        pid: u32,
    },
    /// Ended, waits to be started again by its policy.
    Restarting,
    /// Ended.
    Exited,
    /// On its way out; a daemon that finds it finishes the removal.
    Removing,
    /// Could not be removed or its shim vanished with parts left.
    Dead,
}

impl ContainerState {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// First process, while there is one.
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::Running { pid } | Self::Paused { pid } => Some(pid),
            _ => None,
        }
    }

    /// Processes exist, frozen or not.
    pub fn is_running(self) -> bool {
        self.pid().is_some()
    }
}

/// A mount as made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    /// Name of the volume.
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path inside.
    pub target: String,
    /// Mode text.
    pub mode: String,
    /// Can be written.
    pub rw: bool,
    /// Propagation of a bind.
    pub propagation: String,
    /// An unnamed volume made for this container.
    pub anonymous: bool,
    /// Mounts below a bind's source stay out.
    pub non_recursive: bool,
    /// tmpfs options.
    pub data: String,
}

/// A place on a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address.
    pub address: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Default route.
    pub gateway: Ipv4Addr,
    /// MAC address.
    pub mac: String,
    /// Name of the host's end.
    pub veth: String,
    /// Published ports.
    pub ports: Vec<PublishedPort>,
    /// Its IPv6 half.
    #[serde(default)]
    pub v6: Option<Endpoint6>,
}

/// A place on one of several networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Id of the network.
    pub network: String,
    /// The interface as the container sees it.
    pub interface: String,
    /// Where it is.
    pub endpoint: Endpoint,
}

impl ContainerRecord {
    /// Every place it has on a network.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let places = self.places.iter().map(|place| &place.endpoint);
        self.endpoint.iter().chain(places)
    }

    /// Every port it has published on IPv6 addresses of the host.
    pub fn published6(&self) -> impl Iterator<Item = &PublishedPort6> {
        self.endpoints()
            .filter_map(|endpoint| endpoint.v6.as_ref())
            .flat_map(|v6| &v6.ports)
    }

    /// Every port it has published.
    pub fn published(&self) -> impl Iterator<Item = &PublishedPort> {
        self.endpoints().flat_map(|endpoint| &endpoint.ports)
    }
}

/// Health of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last probes, oldest first.
    pub log: Vec<HealthProbe>,
}

/// One probe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthProbe {
    /// ns since 1970.
    pub start_ns: u64,
    /// ns since 1970.
    pub end_ns: u64,
    /// Exit code of the probe; -1 if it could not run or took too long.
    pub exit_code: i32,
    /// First 4 KiB of its output.
    pub output: String,
}
