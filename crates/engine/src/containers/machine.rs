//! `--isolation vm`: the plan that would run on the host's kernel becomes one for the agent of a
//! guest, with the machine around it.
//!
//! ```text
//! plan for a container ─▶ root: image as a block device below a disk of its own
//!                         /etc/hosts and its kin: files that the agent writes
//!                         volumes and binds: shared by a file server
//!                         namespaces: the guest's; the shim leads the network's interfaces in
//!                         limits: of the machine and, inside, of the container
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_hypervisor::{Accelerator, initramfs, probe, qemu};
use hull_model::spec::{ContainerSpec, Isolation, NamespaceMode, NetworkMode};
use hull_model::{Error, ErrorKind, Resources, Result};
use hull_proto::guest::{
    AGENT_PATH, CGROUP_PARENT, Disk, DiskName, GuestFile, MOUNTS_PATH, Prepare, Share, ShareKind,
};
use hull_proto::plan::{CgroupPlan, LaunchPlan, MountKind, Namespace, Namespaces, RootFs};
use hull_proto::vm::{SHARES_TAG, VmDisk, VmPlan, VmShare};
use hull_state::ContainerRecord;

use super::devices::Devices;
use crate::Engine;
use crate::images::{Image, blocking};

/// Memory of a machine where no limit is set, bytes. The host gives it page by page.
const MEMORY: u64 = 512 << 20;
/// What a guest's kernel and agent take beside the container, bytes.
const OVERHEAD: u64 = 64 << 20;
/// Nanoseconds of processor time in a second of one processor.
const NANO: i64 = 1_000_000_000;
/// Users of hypervisors are numbered from here, above those that people and subordinate ids have.
const FIRST_UID: u32 = 0x6000_0000;
/// How many there are: two machines with one number would still be apart by their namespaces.
const UIDS: u32 = 1 << 24;
/// Serial numbers of the disks.
const IMAGE: &str = "image";
const DISK: &str = "disk";
/// Folder of written files in the guest.
const FILES: &str = "files";
/// Folder of what is shared, there.
const HOST: &str = "host";

/// Refuses what has no meaning with a kernel of its own, and what is not built yet, each by name.
///
/// # Errors
/// `InvalidArgument` and `NotImplemented`.
pub(crate) fn check(spec: &ContainerSpec) -> Result<()> {
    if spec.isolation != Isolation::Vm {
        return Ok(());
    }
    let own =
        |mode: &NamespaceMode| matches!(mode, NamespaceMode::Private | NamespaceMode::Shareable);
    let meaningless = [
        (spec.network == NetworkMode::Host, "--network host"),
        (
            matches!(spec.network, NetworkMode::Container(_)),
            "--network container:ID",
        ),
        (!own(&spec.pid_mode), "--pid host and --pid container:ID"),
        (!own(&spec.ipc_mode), "--ipc host and --ipc container:ID"),
        (!own(&spec.uts_mode), "--uts host"),
        (!own(&spec.cgroupns_mode), "--cgroupns host"),
        (
            !spec.devices.is_empty() || !spec.device_rules.is_empty(),
            "--device",
        ),
    ];
    if let Some((_, what)) = meaningless.iter().find(|(asked, _)| *asked) {
        return Err(Error::invalid(format!(
            "{what} has no meaning with --isolation vm: a virtual machine has a kernel of its own \
             and shares none of the host's namespaces and devices"
        )));
    }
    let missing = [(!spec.cgroup_parent.is_empty(), "--cgroup-parent")];
    match missing.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(not_built(what)),
        None => Ok(()),
    }
}

fn not_built(what: &str) -> Error {
    let text = format!("{what}: not built yet for --isolation vm");
    Error::new(ErrorKind::NotImplemented, text)
}

/// Refuses what reaches for the files or processes of a container from the host, where it has a
/// kernel of its own.
///
/// # Errors
/// `NotImplemented`.
pub(crate) fn refuse(record: &ContainerRecord, what: &str) -> Result<()> {
    match record.spec.isolation {
        Isolation::Vm => Err(not_built(what)),
        Isolation::Container => Ok(()),
    }
}

impl Engine {
    /// Puts a machine around a plan.
    ///
    /// # Errors
    /// `Unavailable` without a hypervisor, a guest kernel, or room for disks.
    pub(crate) async fn machine(
        self: &Arc<Self>,
        record: &ContainerRecord,
        image: &Image,
        mut plan: LaunchPlan,
    ) -> Result<LaunchPlan> {
        let found = blocking(|| Ok(probe())).await?;
        let Some(hypervisor) = found.program.clone() else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "cannot run a virtual machine: {}; install it (Debian: qemu-system-x86)",
                    found.program_and_accelerator()
                ),
            ));
        };
        let base = self.block_image(image.stored().record.id).await?;
        let engine = Arc::clone(self);
        let wanted = record.clone();
        let (disk, kernel, initrd) = blocking(move || {
            let kernel = engine.kernels().default_kernel()?;
            Ok((engine.guest_disk(&wanted)?, kernel.path, engine.initrd()?))
        })
        .await?;
        let inside = |name: &str| Path::new(MOUNTS_PATH).join(name);
        let (upper, work) = (inside("disk/upper"), inside("disk/work"));
        let host_group = std::mem::take(&mut plan.cgroup);
        let (around, within) = limits(&host_group.resources);
        let limit = within.memory.and_then(|bytes| u64::try_from(bytes).ok());
        let netns = match plan.namespaces.net {
            Namespace::Fd(index) => Some(index),
            _ => None,
        };
        let dir = self.settings.sandbox_dir(&record.id);
        let (files, shares) = bring(&mut plan, &dir)?;
        let file_server = match qemu::find_file_server() {
            Some(program) => program,
            None if shares.is_empty() => PathBuf::new(),
            None => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "cannot share folders with a virtual machine: virtiofsd is not installed (Debian: qemu-system-common)",
                ));
            }
        };
        let vm = VmPlan {
            hypervisor,
            kvm: found.accelerator == Accelerator::Kvm,
            kernel,
            initrd,
            // By which a program in it can tell.
            command_line: "hull.isolation=vm".to_owned(),
            processors: processors(&host_group.resources),
            memory: limit.map_or(MEMORY, |bytes| bytes.saturating_add(OVERHEAD)),
            disks: vec![
                attached(IMAGE, base.path, true),
                attached(DISK, disk.path, false),
            ],
            netns,
            prepare: Prepare {
                hostname: plan.hostname.clone(),
                disks: vec![
                    mounted(IMAGE, inside(IMAGE), "erofs", true),
                    mounted(DISK, inside(DISK), "ext4", false),
                ],
                files,
                shares: (!shares.is_empty()).then(shared).into_iter().collect(),
                folders: vec![upper.clone(), work.clone()],
                ..Prepare::default()
            },
            cgroup: CgroupPlan {
                path: host_group.path,
                resources: around,
                ..CgroupPlan::default()
            },
            dir: dir.join("cell"),
            uid: uid_of(&record.id),
            seccomp_cache: std::mem::take(&mut plan.seccomp_cache),
            shares,
            file_server,
        };
        plan.rootfs = RootFs::Overlay {
            lower: vec![inside(IMAGE)],
            upper,
            work,
            volatile: false,
        };
        // The agent is in the guest's own network, which is the container's.
        plan.namespaces = Namespaces {
            net: Namespace::Host,
            ..Namespaces::default()
        };
        plan.cgroup = CgroupPlan {
            path: format!("{CGROUP_PARENT}/container"),
            resources: within,
            devices: host_group.devices,
            ..CgroupPlan::default()
        };
        // Of the host's devices a guest has none.
        plan.devices = Devices::default_set(false).nodes;
        plan.init = plan.init.map(|_| PathBuf::from(AGENT_PATH));
        plan.mounts_go_late = false;
        plan.vm = Some(Box::new(vm));
        Ok(plan)
    }

    /// The archive with the agent, written anew by each daemon, since the agent may be new.
    fn initrd(&self) -> Result<PathBuf> {
        let fail = |what: &str, path: &Path, error| {
            Error::internal(format!("cannot {what} {}", path.display()), error)
        };
        let path = self.settings.run_dir.join("guest.cpio");
        if self.initrd_made.get().is_none() {
            let agent = self.settings.binary("hull-agent");
            let bytes = fs::read(&agent).map_err(|e| fail("read", &agent, e))?;
            let new = self
                .settings
                .run_dir
                .join(format!("guest.{}", crate::random::id()));
            fs::write(&new, initramfs(&bytes)).map_err(|e| fail("write", &new, e))?;
            fs::rename(&new, &path).map_err(|e| fail("make", &path, e))?;
            let _ = self.initrd_made.set(());
        }
        Ok(path)
    }
}

fn attached(serial: &str, path: PathBuf, read_only: bool) -> VmDisk {
    VmDisk {
        path,
        read_only,
        serial: serial.to_owned(),
    }
}

fn mounted(serial: &str, target: PathBuf, kind: &str, read_only: bool) -> Disk {
    Disk {
        name: DiskName::Serial(serial.to_owned()),
        target,
        kind: kind.to_owned(),
        options: Vec::new(),
        read_only,
    }
}

/// The share with all that is the host's.
fn shared() -> Share {
    Share {
        tag: SHARES_TAG.to_owned(),
        kind: ShareKind::VirtioFs,
        target: Path::new(MOUNTS_PATH).join(HOST),
        options: Vec::new(),
        read_only: false,
    }
}

/// What the plan binds from the host is bound from where the guest has it: the files that were
/// written for the container, below `dir`, are files that the agent writes; volumes and the user's
/// binds are shared.
fn bring(plan: &mut LaunchPlan, dir: &Path) -> Result<(Vec<GuestFile>, Vec<VmShare>)> {
    let (mut files, mut shares) = (Vec::new(), Vec::new());
    let inside = Path::new(MOUNTS_PATH);
    for mount in &mut plan.mounts {
        let MountKind::Bind { source, recursive } = &mut mount.kind else {
            continue;
        };
        if !source.starts_with(dir) {
            let name = shares.len().to_string();
            let path = inside.join(HOST).join(&name);
            shares.push(VmShare {
                source: std::mem::replace(source, path),
                name,
                read_only: mount.options.read_only,
                recursive: *recursive,
            });
            continue;
        }
        let fail = |e| Error::internal(format!("cannot read {}", source.display()), e);
        let content = fs::read_to_string(&*source).map_err(fail)?;
        let path = inside
            .join(FILES)
            .join(source.file_name().unwrap_or_default());
        files.push(GuestFile {
            path: path.clone(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            content,
        });
        *source = path;
    }
    Ok((files, shares))
}

/// The limits of the hypervisor, and those inside: time is the machine's to get, all else the
/// container's.
fn limits(wanted: &Resources) -> (Resources, Resources) {
    let (mut around, mut within) = (Resources::default(), wanted.clone());
    std::mem::swap(&mut around.nano_cpus, &mut within.nano_cpus);
    std::mem::swap(&mut around.cpu_period, &mut within.cpu_period);
    std::mem::swap(&mut around.cpu_quota, &mut within.cpu_quota);
    std::mem::swap(&mut around.cpu_shares, &mut within.cpu_shares);
    std::mem::swap(&mut around.cpuset_cpus, &mut within.cpuset_cpus);
    std::mem::swap(&mut around.cpuset_mems, &mut within.cpuset_mems);
    (around, within)
}

/// As many processors as may be used at once; one where nothing is said.
fn processors(wanted: &Resources) -> u32 {
    let whole = wanted
        .nano_cpus
        .map_or(1, |nano| nano.max(1).saturating_add(NANO - 1) / NANO);
    u32::try_from(whole).unwrap_or(1).max(1)
}

/// The hypervisor's user: by the container's id, so that no two machines need share one.
fn uid_of(id: &str) -> u32 {
    let digits = id.get(..8).unwrap_or("0");
    FIRST_UID + u32::from_str_radix(digits, 16).unwrap_or(0) % UIDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec {
            isolation: Isolation::Vm,
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn check_names_what_has_no_meaning() {
        check(&spec()).unwrap();
        let mut host = spec();
        host.network = NetworkMode::Host;
        let text = check(&host).unwrap_err().to_string();
        assert!(text.contains("--network host has no meaning"), "{text}");
        host.isolation = Isolation::Container;
        check(&host).unwrap();
        let mut pid = spec();
        pid.pid_mode = NamespaceMode::Host;
        assert!(check(&pid).is_err());
    }

    #[test]
    fn bring_shares_what_is_the_users_and_writes_what_is_ours() {
        let run = std::env::temp_dir().join(crate::random::id());
        fs::create_dir(&run).unwrap();
        fs::write(run.join("hosts"), "127.0.0.1\tx\n").unwrap();
        let bind = |source: &Path, target: &str, read_only| hull_proto::plan::PlanMount {
            target: target.into(),
            kind: MountKind::Bind {
                source: source.to_owned(),
                recursive: true,
            },
            options: hull_proto::plan::MountOptions {
                read_only,
                ..Default::default()
            },
        };
        let mut plan = LaunchPlan {
            mounts: vec![
                bind(&run.join("hosts"), "/etc/hosts", false),
                bind(Path::new("/srv/data"), "/data", true),
            ],
            ..LaunchPlan::default()
        };
        let (files, shares) = bring(&mut plan, &run).unwrap();
        fs::remove_dir_all(&run).unwrap();
        assert_eq!((files.len(), shares.len()), (1, 1));
        assert_eq!(files[0].path, Path::new("/hull/mnt/files/hosts"));
        assert_eq!(shares[0].source, Path::new("/srv/data"));
        assert!(shares[0].read_only && shares[0].recursive);
        let MountKind::Bind { source, .. } = &plan.mounts[1].kind else {
            panic!("no bind");
        };
        assert_eq!(source, Path::new("/hull/mnt/host/0"));
    }

    #[test]
    fn limits_of_time_are_the_hypervisors() {
        let wanted = Resources {
            nano_cpus: Some(1_500_000_000),
            memory: Some(1 << 30),
            pids_limit: Some(9),
            ..Resources::default()
        };
        let (around, within) = limits(&wanted);
        assert_eq!((around.nano_cpus, around.memory), (wanted.nano_cpus, None));
        assert_eq!((within.nano_cpus, within.pids_limit), (None, Some(9)));
        assert_eq!(processors(&wanted), 2);
        assert_eq!(processors(&Resources::default()), 1);
    }
}
