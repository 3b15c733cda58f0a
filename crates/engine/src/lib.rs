//! The use-cases of the engine: what the API (and later the CRI) asks for, in terms of the
//! model. It plans and keeps records; the shims execute.

pub mod clock;
pub mod containers;
pub mod events;
pub mod filters;
pub mod images;
mod janitor;
pub mod kernels;
pub mod networks;
mod random;
mod reconcile;
pub mod settings;
mod shim;
mod standby;
pub mod system;
pub mod volumes;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hull_model::{Error, Result};
use hull_network::{Firewall, IsolatedPool, Network};
use hull_registry::Client as Registries;
use hull_snapshot::Overlay;
use hull_state::{Durability, State};
use hull_volume::VolumeStore;

pub use containers::archive::{PathStat, UnpackOptions};
pub use containers::attach::{AttachStream, WaitCondition, WaitResult};
pub use containers::commit::CommitRequest;
pub use containers::create::{CreateRequest, Created};
pub use containers::exec::{ExecRecord, ExecSpec, ExecStart};
pub use containers::list::ListOptions;
pub use containers::logs::{LogEntry, LogOptions, Logs};
pub use containers::network_name;
pub use containers::observe::{NetCounters, StatsReading, Top};
pub use containers::remove::{PruneReport, RemoveOptions};
pub use events::Event;
pub use filters::Filters;
pub use hull_registry::Credentials;
pub use hull_state::ContainerRecord;
pub use hull_state::{ContainerState, Endpoint, Health, Join, MountPoint, NetworkRecord, Place};
pub use networks::PortChange;
pub use settings::{Overrides, Settings};
pub use system::info::{DiskUsage, Info, Wanted};

use containers::exec::Execs;
use containers::registry::Registry;
use events::Events;
use images::Images;
use janitor::Janitor;
use networks::Networks;
use standby::Shims;

/// Namespaces without a network that are kept ready.
const ISOLATED: usize = 4;
/// Stands for a container's id while a shim waits for one.
const PLACEHOLDER: &str = "------------";

/// The engine of one daemon.
#[derive(Debug)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) state: State,
    pub(crate) containers: Registry,
    pub(crate) execs: Execs,
    pub(crate) images: Images,
    pub(crate) registry: Arc<Registries>,
    /// Who brings which layer in.
    pub(crate) layer_turns: images::turns::Turns,
    pub(crate) snapshots: Arc<Overlay>,
    pub(crate) janitor: Janitor,
    pub(crate) volumes: VolumeStore,
    /// The default network, or why there is none on this host.
    pub(crate) network: Result<Network, String>,
    /// The networks that users made.
    pub(crate) own_networks: Networks,
    /// Where containers may connect to.
    pub(crate) egress: networks::egress::Policies,
    /// How fast they may send.
    pub(crate) limited: networks::bandwidth::Limited,
    pub(crate) isolated: IsolatedPool,
    pub(crate) events: Events,
    pub(crate) started_ns: u64,
    pub(crate) shims: Shims,
    /// The limit of open files that containers get.
    pub(crate) nofile: Option<hull_model::Ulimit>,
    /// The archive that guests boot from has been written.
    pub(crate) initrd_made: std::sync::OnceLock<()>,
    stopping: AtomicBool,
}

impl Engine {
    /// Opens what is there, finds the containers that run, and repairs what a kill left.
    ///
    /// # Errors
    /// If folders, database or network cannot be had; each says what to do.
    pub async fn open(settings: Settings) -> Result<Arc<Self>> {
        if let Some(domain) = &settings.default_registry {
            hull_model::reference::set_default_registry(domain)?;
        }
        settings.proxies.check()?;
        for (dir, mode) in [
            (settings.run_dir.clone(), 0o755),
            (settings.run_dir.join("s"), 0o711),
            (settings.run_dir.join("seccomp"), 0o700),
            (settings.data_dir.clone(), 0o710),
            (settings.data_dir.join("container"), 0o710),
        ] {
            make_dir(&dir, mode)?;
        }
        let state = State::open(&settings.data_dir.join("state.db"))
            .map_err(internal("cannot open the state"))?;
        let loaded = state.load().map_err(internal("cannot read the state"))?;
        for (id, reason) in &loaded.unreadable {
            tracing::error!(id, reason, "a record cannot be read: it is left alone");
        }
        let all_known = loaded.unreadable.is_empty();
        let found = reconcile::find(&settings, loaded.containers).await;
        let firewall = Arc::new(Firewall::gathering(&settings.table()));
        networks::obey_input(&settings, &firewall)?;
        let mut network = networks::open(&settings, &firewall, &found)?;
        let mut own = Networks::open(&settings, &firewall, loaded.networks, &found);
        networks::write_firewall(&firewall, &mut network, &mut own);
        match &network {
            Ok(network) => {
                for warning in network.info().warnings {
                    tracing::warn!("{warning}");
                }
            }
            Err(why) => tracing::warn!("{why}"),
        }
        let own_networks = Networks::serving(firewall, own).await;
        let snapshots = Overlay::open(&settings.data_dir.join("snapshot"))
            .map_err(internal("cannot open the writable layers"))?;
        let snapshots = Arc::new(snapshots);
        containers::rootfs::make_skeleton(&settings)?;
        let engine = Arc::new(Self {
            images: Images::open(&settings)?,
            registry: Arc::new(Registries::new(settings.registries())),
            layer_turns: images::turns::Turns::default(),
            janitor: Janitor::start(Arc::clone(&snapshots))?,
            snapshots,
            volumes: VolumeStore::open(&settings.data_dir.join("volume"))
                .map_err(internal("cannot open the volumes"))?,
            state,
            containers: Registry::default(),
            execs: Execs::default(),
            network,
            egress: networks::egress::Policies::open(&settings, own_networks.names.gates()),
            limited: networks::bandwidth::Limited::default(),
            own_networks,
            isolated: IsolatedPool::start(settings.pool_size.min(ISOLATED))
                .map_err(|e| Error::internal("cannot start a thread", e))?,
            events: Events::default(),
            started_ns: clock::now_ns(),
            shims: Shims::new(
                settings.binary("hull-shim"),
                settings.sandbox_dir(PLACEHOLDER),
                settings.pool_size,
            )?,
            nofile: system::descriptors::raise(),
            initrd_made: std::sync::OnceLock::new(),
            stopping: AtomicBool::new(false),
            settings,
        });
        engine.take_over_egress(&found).await;
        engine.take_over_bandwidth(&found);
        engine.adopt(found).await;
        engine.start_gc(all_known);
        networks::watch::start(&engine, &engine.own_networks.firewall);
        Ok(engine)
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Prepares for the end of the daemon: containers run on, but none is restarted any more.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits for deletions under way, for a moment: the next start finishes the rest.
    pub fn finish(&self) {
        self.images.store.write_uses();
        self.janitor.finish(Duration::from_secs(5));
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Writes a record so that a power failure keeps it, unless it is to vanish anyway.
    pub(crate) fn store(&self, record: &ContainerRecord) -> Result<()> {
        if record.spec.auto_remove {
            return self.store_soon(record);
        }
        tokio::task::block_in_place(|| self.state.put(record, Durability::Disk))
            .map_err(internal("cannot record the container; is the disk full?"))
    }

    /// Writes a record so that the death of this process keeps it: after a power failure no
    /// container runs, whatever its record said.
    pub(crate) fn store_soon(&self, record: &ContainerRecord) -> Result<()> {
        self.state
            .put(record, Durability::Process)
            .map_err(internal("cannot record the container; is the disk full?"))
    }

    /// Deletes a record.
    pub(crate) fn forget(&self, record: &ContainerRecord) -> Result<()> {
        let durability = if record.spec.auto_remove {
            Durability::Process
        } else {
            Durability::Disk
        };
        let delete = || self.state.delete(&record.id, durability);
        let outcome = if record.spec.auto_remove {
            delete()
        } else {
            tokio::task::block_in_place(delete)
        };
        outcome.map_err(internal("cannot delete the container's record"))
    }
}

/// Maps a foreign error to an internal one with this message.
pub(crate) fn internal<E: std::error::Error + Send + Sync + 'static>(
    message: &'static str,
) -> impl FnOnce(E) -> Error {
    move |error| Error::internal(message, error)
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|e| Error::internal(format!("cannot make {}", path.display()), e))
}
