//! Creating a container: the wish is checked, merged with the image and recorded. Nothing runs.

use std::path::Path;
use std::sync::Arc;

use hull_model::image::{ImageConfig, RunConfig};
use hull_model::spec::{
    ContainerSpec, Mount, MountSource, NamespaceMode, NetworkMode, Port, Protocol,
};
use hull_model::{Error, ErrorKind, Result, name};
use hull_proto::plan::{Namespaces, RootFs};
use hull_state::{ContainerRecord, Health, MountPoint};

use super::entry::Container;
use super::{attributes, plan};
use crate::Engine;
use crate::clock::now_ns;
use crate::images::Image;
use crate::random;

/// Smallest memory limit accepted, bytes; below it nothing could start.
const MIN_MEMORY: i64 = 512 << 10;
/// Most mounts of one container.
const MAX_MOUNTS: usize = 1000;

/// A request to create a container.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    /// Name; made up if none.
    pub name: Option<String>,
    /// The wish, without the image's defaults.
    pub spec: ContainerSpec,
    /// Entrypoint; none takes the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Networks to join by name, with what is wished there; that of the mode may be among them.
    pub joins: Vec<hull_state::Join>,
}

/// A created container.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// What was accepted but has no full effect.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Creates a container.
    ///
    /// # Errors
    /// `NotFound` for the image, `Conflict` for a taken name, `InvalidArgument` for a wish that
    /// cannot be fulfilled; nothing is left behind.
    pub async fn create(self: &Arc<Self>, request: CreateRequest) -> Result<Created> {
        let CreateRequest {
            name,
            mut spec,
            entrypoint,
            joins,
        } = request;
        if let Some(name) = &name {
            name::validate("container", name)?;
        }
        check_platform(&spec.platform)?;
        crate::networks::egress::take_labels(&mut spec)?;
        // Held until the record says who needs it.
        let (image, _hold) = self.images.hold(&spec.image)?;
        merge(&mut spec, entrypoint, image.config());
        check(&spec)?;
        super::machine::check(&spec)?;
        self.check_storage(&spec, &image)?;
        self.check_modes(&spec)?;
        self.resolve_links(&mut spec)?;
        let joins = self.resolve_joins(&spec, joins)?;
        self.check_egress(&spec, joins.as_deref())?;
        let mounts = self.resolve_mounts(&spec, &image)?;
        let health = spec.healthcheck.as_ref().map(|_| Health {
            status: "starting".into(),
            ..Health::default()
        });
        let id = random::id();
        let mut record = ContainerRecord {
            image_id: Some(image.id),
            created_at_ns: now_ns(),
            spec,
            mounts,
            health,
            joins,
            id: id.clone(),
            ..ContainerRecord::default()
        };
        dry_run(&record)?;
        record.name = self.reserve_name(name, &id)?;
        if let Err(error) = self.record_new(&record, &image).await {
            self.containers.release(&record.name, &id);
            return Err(error);
        }
        self.events
            .emit("container", "create", &id, attributes(&record));
        Ok(Created {
            id,
            warnings: Vec::new(),
        })
    }

    fn reserve_name(&self, name: Option<String>, id: &str) -> Result<String> {
        if let Some(name) = name {
            self.containers.reserve(&name, id)?;
            return Ok(name);
        }
        let mut attempt = 0;
        loop {
            let name = name::generate(random::number(), attempt);
            if self.containers.reserve(&name, id).is_ok() {
                return Ok(name);
            }
            attempt += 1;
        }
    }

    /// Writes the record first, then makes its volumes: a kill in between leaves a container
    /// whose volumes are made at its start.
    async fn record_new(self: &Arc<Self>, record: &ContainerRecord, image: &Image) -> Result<()> {
        self.store(record)?;
        self.containers.insert(Container::new(record.clone()));
        let Err(error) = self.make_volumes(record, image).await else {
            return Ok(());
        };
        if let Ok(container) = self.containers.find(&record.id) {
            self.containers.remove(&container);
        }
        self.forget(record)?;
        self.remove_anonymous_volumes(record);
        Err(error)
    }

    /// Other containers that are named must exist, now and at each start.
    fn check_modes(&self, spec: &ContainerSpec) -> Result<()> {
        for mode in [&spec.pid_mode, &spec.ipc_mode] {
            if let NamespaceMode::Container(other) = mode {
                self.containers.find(other)?;
            }
        }
        for (what, mode) in [("uts", &spec.uts_mode), ("cgroupns", &spec.cgroupns_mode)] {
            if let NamespaceMode::Container(_) = mode {
                return Err(Error::invalid(format!(
                    "--{what} cannot join another container: use host or private"
                )));
            }
        }
        if let NetworkMode::Container(other) = &spec.network {
            self.containers.find(other)?;
            if !spec.published.is_empty() || spec.publish_all {
                return Err(Error::invalid(
                    "conflicting options: port publishing and the container type network mode",
                ));
            }
            if !spec.hostname.is_empty() {
                return Err(Error::invalid(
                    "conflicting options: hostname and the network mode",
                ));
            }
        }
        Ok(())
    }

    fn resolve_mounts(&self, spec: &ContainerSpec, image: &Image) -> Result<Vec<MountPoint>> {
        if spec.mounts.len() > MAX_MOUNTS {
            return Err(Error::invalid(format!("more than {MAX_MOUNTS} mounts")));
        }
        let mut points: Vec<MountPoint> = Vec::new();
        for mount in &spec.mounts {
            let point = self.mount_point(mount)?;
            if points.iter().any(|p| p.target == point.target) {
                return Err(Error::invalid(format!(
                    "Duplicate mount point: {}",
                    point.target
                )));
            }
            points.push(point);
        }
        for point in self.mounts_of_others(spec)? {
            if !points.iter().any(|p| p.target == point.target) {
                points.push(point);
            }
        }
        for target in image.config().config.volumes.keys() {
            let target = check_target(target)?;
            if !points.iter().any(|p| p.target == target) {
                points.push(self.volume_point(&random::id(), true, target, String::new(), true));
            }
        }
        Ok(points)
    }

    fn mount_point(&self, mount: &Mount) -> Result<MountPoint> {
        let target = check_target(&mount.target)?;
        let rw = !mount.read_only;
        Ok(match &mount.source {
            MountSource::Bind {
                path,
                non_recursive,
            } => {
                check_bind_source(path, mount.from_volume_flag)?;
                MountPoint {
                    kind: "bind".into(),
                    source: path.clone(),
                    target,
                    mode: mount.mode.clone(),
                    rw,
                    propagation: if mount.propagation.is_empty() {
                        "rprivate".into()
                    } else {
                        mount.propagation.clone()
                    },
                    non_recursive: *non_recursive,
                    ..MountPoint::default()
                }
            }
            MountSource::Volume { name, .. } => {
                let anonymous = name.is_empty();
                let name = if anonymous {
                    random::id()
                } else {
                    name.clone()
                };
                name::validate("volume", &name)?;
                self.volume_point(&name, anonymous, target, mount.mode.clone(), rw)
            }
            MountSource::Tmpfs {
                size,
                mode,
                options,
            } => {
                let mut data: Vec<String> = options.clone();
                data.extend(size.map(|s| format!("size={s}")));
                data.extend(mode.map(|m| format!("mode={m:o}")));
                MountPoint {
                    kind: "tmpfs".into(),
                    target,
                    mode: mount.mode.clone(),
                    rw,
                    data: data.join(","),
                    ..MountPoint::default()
                }
            }
        })
    }

    fn volume_point(
        &self,
        name: &str,
        anonymous: bool,
        target: String,
        mode: String,
        rw: bool,
    ) -> MountPoint {
        MountPoint {
            kind: "volume".into(),
            name: name.to_owned(),
            source: self.volume_path(name),
            target,
            mode,
            rw,
            anonymous,
            ..MountPoint::default()
        }
    }
}

/// Merges the image's defaults below the user's wish, as Docker does.
fn merge(spec: &mut ContainerSpec, entrypoint: Option<Vec<String>>, image: &ImageConfig) {
    let RunConfig {
        user,
        exposed_ports,
        env,
        entrypoint: image_entrypoint,
        cmd,
        working_dir,
        labels,
        stop_signal,
        healthcheck,
        ..
    } = &image.config;
    match entrypoint {
        // An entrypoint of the user's own takes the image's arguments away.
        Some(own) => spec.entrypoint = own.into_iter().filter(|part| !part.is_empty()).collect(),
        None => {
            spec.entrypoint.clone_from(image_entrypoint);
            if spec.cmd.is_empty() {
                spec.cmd.clone_from(cmd);
            }
        }
    }
    let mut merged = env.clone();
    for entry in &spec.env {
        plan::set_env(&mut merged, entry);
    }
    spec.env = merged;
    if spec.user.is_empty() {
        spec.user.clone_from(user);
    }
    if spec.working_dir.is_empty() {
        spec.working_dir.clone_from(working_dir);
    }
    for (key, value) in labels {
        spec.labels
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    if spec.stop_signal.is_empty() {
        spec.stop_signal = stop_signal.clone().unwrap_or_default();
    }
    for port in exposed_ports.keys().filter_map(|p| parse_port(p)) {
        if !spec.exposed_ports.contains(&port) {
            spec.exposed_ports.push(port);
        }
    }
    // A range is exposed by being published: it is not counted out here.
    for port in spec.published.iter().filter(|p| p.more == 0) {
        let port = port.container;
        if !spec.exposed_ports.contains(&port) {
            spec.exposed_ports.push(port);
        }
    }
    spec.healthcheck = match (spec.healthcheck.take(), healthcheck) {
        (Some(own), _) if own.test.first().is_some_and(|t| t == "NONE") => None,
        (Some(mut own), Some(base)) => {
            if own.test.is_empty() {
                own.test.clone_from(&base.test);
            }
            let inherit = |own: &mut i64, base: i64| {
                if *own == 0 {
                    *own = base;
                }
            };
            inherit(&mut own.interval, base.interval);
            inherit(&mut own.timeout, base.timeout);
            inherit(&mut own.start_period, base.start_period);
            inherit(&mut own.start_interval, base.start_interval);
            inherit(&mut own.retries, base.retries);
            Some(own)
        }
        (Some(own), None) => Some(own),
        (None, base) => base.clone(),
    }
    .filter(|h| h.test.first().is_some_and(|t| t != "NONE"));
}

/// Parses `80`, `80/tcp` or `53/udp`.
pub(crate) fn parse_port(text: &str) -> Option<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some(Port {
        number: number.parse().ok()?,
        protocol: Protocol::from_name(protocol)?,
    })
}

fn check_platform(platform: &str) -> Result<()> {
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut parts = platform.split('/');
    let (os, arch) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or(host),
    );
    if platform.is_empty() || (["linux", host].contains(&os) && [host, ""].contains(&arch)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "platform \"{platform}\" does not match this host's linux/{host}"
    )))
}

/// Cleans a mount target and refuses those that would undo the sandbox.
fn check_target(target: &str) -> Result<String> {
    if !target.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    if target.contains('\0') {
        return Err(Error::invalid("invalid mount path: it contains a NUL byte"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    match parts.first().copied() {
        None => Err(Error::invalid(
            "invalid specification: destination can't be '/'",
        )),
        Some("proc") => Err(Error::invalid(format!(
            "cannot mount over \"{target}\": /proc and what is in it belong to the sandbox"
        ))),
        Some("sys") if parts.len() == 1 => Err(Error::invalid(format!(
            "cannot mount over \"{target}\": /sys belongs to the sandbox"
        ))),
        _ => Ok(format!("/{}", parts.join("/"))),
    }
}

fn check_bind_source(path: &str, may_make: bool) -> Result<()> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let path = Path::new(path);
    if path.exists() {
        return Ok(());
    }
    if !may_make {
        return Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            path.display()
        )));
    }
    std::fs::create_dir_all(path).map_err(|e| {
        Error::with_source(
            ErrorKind::InvalidArgument,
            format!(
                "error while creating mount source path '{}'",
                path.display()
            ),
            e,
        )
    })
}

/// Checks what can be checked without the image or the host.
fn check(spec: &ContainerSpec) -> Result<()> {
    let r = &spec.resources;
    if let Some(memory) = r.memory.filter(|m| *m > 0) {
        if memory < MIN_MEMORY {
            return Err(Error::invalid("Minimum memory limit allowed is 512KB"));
        }
        if r.memory_swap.is_some_and(|s| s > 0 && s < memory) {
            return Err(Error::invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ));
        }
        if r.memory_reservation.is_some_and(|s| s > memory) {
            return Err(Error::invalid(
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ));
        }
    } else if r.memory_swap.is_some_and(|s| s > 0) {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as i64;
    if r.nano_cpus
        .is_some_and(|n| n < 0 || n > cpus * 1_000_000_000)
    {
        return Err(Error::invalid(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if r.nano_cpus.is_some_and(|n| n > 0)
        && (r.cpu_quota.unwrap_or(0) > 0 || r.cpu_period.unwrap_or(0) > 0)
    {
        return Err(Error::invalid(
            "Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set",
        ));
    }
    hull_network::files::check_extra_hosts(&spec.extra_hosts)
        .map_err(|e| Error::invalid(e.to_string()))?;
    if spec.shm_size.is_some_and(|s| s < 0) {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if !spec.stop_signal.is_empty() && signal_number(&spec.stop_signal).is_none() {
        return Err(Error::invalid(format!(
            "invalid signal: {}",
            spec.stop_signal
        )));
    }
    if spec.hostname.len() > 63 || spec.hostname.contains(['/', '\0', ' ']) {
        return Err(Error::invalid(format!(
            "invalid hostname format: {}",
            spec.hostname
        )));
    }
    if spec.auto_remove && spec.restart != hull_model::spec::RestartPolicy::No {
        return Err(Error::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    if spec
        .oom_score_adj
        .is_some_and(|n| !(-1000..=1000).contains(&n))
    {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            spec.oom_score_adj.unwrap_or_default()
        )));
    }
    for text in spec
        .env
        .iter()
        .chain(&spec.cmd)
        .chain(&spec.entrypoint)
        .chain([&spec.user, &spec.working_dir])
    {
        if text.contains('\0') {
            return Err(Error::invalid(
                "a NUL byte is in the command, environment, user or working directory",
            ));
        }
    }
    if !spec.working_dir.is_empty() && !spec.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            spec.working_dir
        )));
    }
    if spec.network == NetworkMode::Host
        && spec.uts_mode != NamespaceMode::Private
        && !spec.hostname.is_empty()
    {
        return Err(Error::invalid(
            "conflicting options: hostname and the UTS mode",
        ));
    }
    Ok(())
}

/// A signal by name (`TERM`, `SIGTERM`) or number.
pub(crate) fn signal_number(text: &str) -> Option<i32> {
    match text.parse::<i32>() {
        Ok(number) => (1..=64).contains(&number).then_some(number),
        Err(_) => hull_sys::signal::from_name(&text.to_ascii_uppercase()),
    }
}

/// Plans once without effect, so that what cannot be planned is refused now, not at the start.
fn dry_run(record: &ContainerRecord) -> Result<()> {
    plan::launch(
        record,
        plan::Surroundings {
            rootfs: RootFs::default(),
            namespaces: Namespaces::default(),
            files: None,
            foreign_shm: None,
            cgroup_parent: "/",
            init: "/".into(),
            seccomp_cache: "/".into(),
        },
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_entrypoint_of_user_drops_image_arguments() {
        let mut image = ImageConfig::default();
        image.config.entrypoint = vec!["/entry".into()];
        image.config.cmd = vec!["a".into()];
        let mut spec = ContainerSpec::default();
        merge(&mut spec, None, &image);
        assert_eq!(
            (spec.entrypoint.join(" "), spec.cmd.join(" ")),
            ("/entry".into(), "a".into())
        );
        let mut spec = ContainerSpec::default();
        merge(&mut spec, Some(vec!["/own".into()]), &image);
        assert_eq!(
            (spec.entrypoint.join(" "), spec.cmd.join(" ")),
            ("/own".into(), String::new())
        );
        let mut spec = ContainerSpec {
            cmd: vec!["b".into()],
            ..ContainerSpec::default()
        };
        merge(&mut spec, Some(vec![String::new()]), &image);
        assert_eq!((spec.entrypoint.len(), spec.cmd.join(" ")), (0, "b".into()));
    }

    #[test]
    fn target_over_proc_or_root_or_relative_is_refused() {
        for bad in ["/", "/proc", "/proc/1", "/a/../proc/x", "rel", "/sys", ""] {
            assert!(check_target(bad).is_err(), "{bad}");
        }
        assert_eq!(check_target("/a//b/./c/").unwrap(), "/a/b/c");
    }

    #[test]
    fn bind_source_missing_is_refused_for_mount_flag() {
        assert!(check_bind_source("/does/not/exist", false).is_err());
        assert!(check_bind_source("relative", true).is_err());
    }

    #[test]
    fn memory_below_minimum_is_refused() {
        let mut spec = ContainerSpec::default();
        spec.resources.memory = Some(1000);
        assert!(check(&spec).is_err());
    }
}
