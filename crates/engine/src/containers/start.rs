//! Starting a container: root file system, network, files and namespaces are gathered, the plan
//! is made and handed to a fresh shim.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_model::spec::{Isolation, LogDriver, NamespaceMode, NetworkMode};
use hull_model::{Error, ErrorKind, Result};
use hull_network::{Endpoint as Link, files};
use hull_proto::message::{Attach, Launch, LogFile};
use hull_proto::plan::{MountKind, Namespace, Namespaces, RootFs};
use hull_proto::{Reply, Request};
use hull_state::{ContainerRecord, ContainerState, Endpoint, Place};

use super::entry::{Container, lock};
use super::{attributes, exit, health, plan};
use crate::Engine;
use crate::clock::now_ns;
use crate::networks::names::with_ndots;
use crate::networks::{publish6, six};
use crate::shim::Shim;

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// `NotModified` if it runs already; `CommandNotFound` and `CommandNotExecutable` for its
    /// command. A failed start leaves nothing but the reason in the record.
    pub async fn start(self: &Arc<Self>, key: &str) -> Result<()> {
        let container = self.containers.find(key)?;
        let _op = container.op.lock().await;
        if let Some(timer) = lock(&container.restart).take() {
            timer.abort();
        }
        let mut record = container.record();
        match record.state {
            ContainerState::Running { .. } => {
                return Err(Error::new(
                    ErrorKind::NotModified,
                    "container is already running",
                ));
            }
            ContainerState::Paused { .. } => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            ContainerState::Removing | ContainerState::Dead => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            ContainerState::Created | ContainerState::Restarting | ContainerState::Exited => {}
        }
        record.stopped_by_user = false;
        record.restart_count = 0;
        self.run(&container, record).await
    }

    /// The start itself, for users and for restart policies. The caller holds `op`.
    pub(crate) async fn run(
        self: &Arc<Self>,
        container: &Arc<Container>,
        mut record: ContainerRecord,
    ) -> Result<()> {
        container.runs.send_modify(|r| {
            r.running = true;
            r.error.clear();
        });
        let started = self.launch(container, &record).await;
        match started {
            Ok((pid, endpoint, places, warnings)) => {
                for warning in warnings {
                    tracing::warn!(container = %container.id, "{warning}");
                }
                record.state = ContainerState::Running { pid };
                record.started_at_ns = now_ns();
                record.endpoint = endpoint;
                record.places = places;
                Self::settle_joins(&mut record);
                self.announce(&record);
                record.error.clear();
                record.exit_code = 0;
                record.oom_killed = false;
                if let Some(health) = &mut record.health {
                    *health = hull_state::Health {
                        status: "starting".into(),
                        ..hull_state::Health::default()
                    };
                }
                container.set(record.clone());
                self.store_soon(&record)?;
                self.tell_arrived(&record);
                self.events
                    .emit("container", "start", &container.id, attributes(&record));
                health::begin(self, container, &record);
                Ok(())
            }
            Err(error) => {
                record.error = error.chain();
                record.state = if record.started_at_ns == 0 {
                    ContainerState::Created
                } else {
                    ContainerState::Exited
                };
                record.exit_code = match error.kind() {
                    ErrorKind::CommandNotFound => 127,
                    ErrorKind::CommandNotExecutable => 126,
                    _ => 128,
                };
                record.endpoint = None;
                record.places.clear();
                container.set(record.clone());
                if let Err(error) = self.store_soon(&record) {
                    tracing::error!(error = %error.chain(), container = %container.id, "cannot record a failed start");
                }
                lock(&container.waiting).clear();
                container.runs.send_modify(|r| {
                    r.running = false;
                    r.ended += 1;
                    r.code = record.exit_code;
                    r.error.clone_from(&record.error);
                });
                if record.spec.auto_remove {
                    self.remove_locked(container, false).await?;
                }
                Err(error)
            }
        }
    }

    async fn launch(
        self: &Arc<Self>,
        container: &Arc<Container>,
        record: &ContainerRecord,
    ) -> Result<(u32, Option<Endpoint>, Vec<Place>, Vec<String>)> {
        let dir = self.settings.sandbox_dir(&record.id);
        make_sandbox_dir(&dir)?;
        let mut parts = Parts {
            engine: Arc::clone(self),
            dir: Some(dir.clone()),
            endpoint: None,
            places: Vec::new(),
        };
        let image = match record.image_id {
            Some(id) => {
                self.images.store.used(&id);
                self.images.by_id(id)?
            }
            None => {
                return Err(Error::internal(
                    "container has no image",
                    std::io::Error::other("record is incomplete"),
                ));
            }
        };
        self.make_volumes(record, &image).await?;
        let rootfs = match record.spec.isolation {
            Isolation::Container => self.rootfs(record, &image)?,
            // The machine brings its own.
            Isolation::Vm => RootFs::default(),
        };
        let mut fds: Vec<OwnedFd> = Vec::new();
        let (namespaces, foreign_shm) = self.namespaces(record, &mut fds, &mut parts)?;
        let egress = self
            .enforce_egress(record, parts.endpoint.as_ref(), &parts.places)
            .await?;
        let files = match record.spec.network {
            NetworkMode::Container(_) => self.files_of_joined(record),
            _ => {
                self.write_files(record, &parts.places, parts.endpoint.as_ref(), &dir)?;
                Some(dir.clone())
            }
        };
        let mut plan = plan::launch(
            record,
            plan::Surroundings {
                rootfs,
                namespaces,
                files: files.as_deref(),
                foreign_shm,
                cgroup_parent: &self.settings.cgroup_parent,
                init: self.settings.binary("hull-agent"),
                seccomp_cache: self.settings.run_dir.join("seccomp"),
            },
        )?;
        self.add_link_environment(record, &mut plan.process.env)?;
        crate::system::descriptors::inherit(&mut plan.process.rlimits, self.nofile.as_ref());
        if record.spec.isolation == Isolation::Vm {
            plan = self.machine(record, &image, plan).await?;
        }
        let mut launch = Launch {
            plan,
            open_stdin: record.spec.open_stdin,
            stdin_once: record.spec.stdin_once,
            log: self.log_file(record)?,
            attach: Vec::new(),
        };
        for pending in lock(&container.waiting).drain(..) {
            launch.attach.push(Attach {
                fd: fds.len(),
                stdin: pending.streams.stdin,
                stdout: pending.streams.stdout,
                stderr: pending.streams.stderr,
            });
            fds.push(pending.socket);
        }
        let (shim, notices) = Shim::spawn(&self.shims, &dir).await?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let reply = shim
            .call(Request::Launch(Box::new(launch)), &borrowed)
            .await?;
        let Reply::Started { pid, warnings } = reply else {
            return Err(Error::internal(
                "the shim answered something else than started",
                std::io::Error::other("protocol error"),
            ));
        };
        container.set_shim(Some(Arc::clone(&shim)));
        if let Some(egress) = egress {
            egress.keep();
        }
        let (endpoint, places) = parts.keep();
        tokio::spawn(exit::monitor(
            Arc::clone(self),
            Arc::clone(container),
            notices,
        ));
        Ok((pid, endpoint, places, warnings))
    }

    fn namespaces(
        &self,
        record: &ContainerRecord,
        fds: &mut Vec<OwnedFd>,
        parts: &mut Parts,
    ) -> Result<(Namespaces, Option<MountKind>)> {
        let spec = &record.spec;
        let mut keep = |fd: OwnedFd| {
            fds.push(fd);
            Namespace::Fd(fds.len() - 1)
        };
        let net = match &spec.network {
            NetworkMode::None => keep(
                self.isolated
                    .take()
                    .map_err(crate::internal("cannot make a network namespace"))?,
            ),
            NetworkMode::Host => Namespace::Host,
            NetworkMode::Container(other) => keep(self.namespace_of(other, "net")?),
            NetworkMode::Bridge | NetworkMode::Network(_) if record.joins.is_some() => {
                let netns = self.isolated.take();
                let netns = netns.map_err(crate::internal("cannot make a network namespace"))?;
                self.plug_all(record, netns.as_fd(), &mut parts.places)?;
                keep(netns)
            }
            NetworkMode::Bridge | NetworkMode::Network(_) => {
                publish6::check_without_ipv6(spec)?;
                let link = self
                    .bridge()?
                    .attach()
                    .map_err(crate::internal("cannot set up the container's network"))?;
                let Link {
                    netns,
                    address,
                    prefix,
                    gateway,
                    mac,
                    host_veth: veth,
                    ..
                } = link;
                let mut endpoint = Endpoint {
                    address,
                    prefix,
                    gateway,
                    mac: mac.to_string(),
                    veth,
                    ports: Vec::new(),
                    v6: None,
                };
                let wanted = super::ports_wanted(spec);
                parts.endpoint = Some(endpoint.clone());
                if !wanted.is_empty() {
                    endpoint.ports = self
                        .bridge()?
                        .publish(address, &wanted)
                        .map_err(publish_error)?;
                    parts.endpoint = Some(endpoint);
                }
                keep(netns)
            }
        };
        let mut pick = |mode: &NamespaceMode, name: &str| -> Result<Namespace> {
            Ok(match mode {
                NamespaceMode::Private | NamespaceMode::Shareable => Namespace::New,
                NamespaceMode::Host => Namespace::Host,
                NamespaceMode::Container(other) => {
                    fds.push(self.namespace_of(other, name)?);
                    Namespace::Fd(fds.len() - 1)
                }
            })
        };
        let pid = pick(&spec.pid_mode, "pid")?;
        let ipc = pick(&spec.ipc_mode, "ipc")?;
        let uts = if spec.network == NetworkMode::Host
            && spec.hostname.is_empty()
            && spec.uts_mode == NamespaceMode::Private
        {
            // As Docker: the host's network shows the host's name, in a namespace of its own.
            Namespace::New
        } else {
            pick(&spec.uts_mode, "uts")?
        };
        let cgroup = pick(&spec.cgroupns_mode, "cgroup")?;
        let foreign_shm = match &spec.ipc_mode {
            NamespaceMode::Host => Some(MountKind::Bind {
                source: "/dev/shm".into(),
                recursive: false,
            }),
            NamespaceMode::Container(other) => {
                fds.push(self.shared_memory_of(other)?);
                Some(MountKind::Descriptor { fd: fds.len() - 1 })
            }
            _ => None,
        };
        Ok((
            Namespaces {
                pid,
                ipc,
                uts,
                net,
                cgroup,
                ..Namespaces::default()
            },
            foreign_shm,
        ))
    }

    fn running_pid(&self, key: &str) -> Result<u32> {
        let other = self.containers.find(key)?;
        if other.with(|r| r.spec.isolation == Isolation::Vm) {
            // Its process on the host is the hypervisor, which nobody shall get near.
            return Err(Error::invalid(format!(
                "cannot join the namespaces of {key}: it is a virtual machine, whose own are not on this host"
            )));
        }
        other.with(|r| r.state.pid()).ok_or_else(|| {
            Error::conflict(format!(
                "cannot join namespace of a non running container: {key}"
            ))
        })
    }

    /// The /dev/shm of another container, whose mounts no path of ours leads to.
    fn shared_memory_of(&self, key: &str) -> Result<OwnedFd> {
        let fail = |e: rustix::io::Errno| {
            Error::internal(format!("cannot share /dev/shm of container {key}"), e)
        };
        let pid = i32::try_from(self.running_pid(key)?)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| fail(rustix::io::Errno::SRCH))?;
        let process = hull_sys::pidfd::open(pid).map_err(fail)?;
        hull_sys::ns::clone_mount_of(process, c"/dev/shm".into()).map_err(fail)
    }

    pub(crate) fn namespace_of(&self, key: &str, name: &str) -> Result<OwnedFd> {
        let pid = self.running_pid(key)?;
        let path = format!("/proc/{pid}/ns/{name}");
        let file =
            fs::File::open(&path).map_err(|e| Error::internal(format!("cannot open {path}"), e))?;
        Ok(file.into())
    }

    fn files_of_joined(&self, record: &ContainerRecord) -> Option<PathBuf> {
        let NetworkMode::Container(other) = &record.spec.network else {
            return None;
        };
        let other = self.containers.find(other).ok()?;
        let dir = self.settings.sandbox_dir(&other.id);
        dir.join("hosts").exists().then_some(dir)
    }

    pub(crate) fn write_files(
        &self,
        record: &ContainerRecord,
        places: &[Place],
        endpoint: Option<&Endpoint>,
        dir: &Path,
    ) -> Result<()> {
        let spec = &record.spec;
        let host_network = spec.network == NetworkMode::Host;
        let hostname = plan::hostname(record);
        let name = full_name(&hostname, &spec.domainname);
        let mut addresses = endpoint
            .into_iter()
            .chain(places.iter().map(|p| &p.endpoint))
            .flat_map(six::addresses);
        let own = addresses.next().map(|address| files::OwnHost {
            address,
            hostname: &name,
        });
        let name_server = self.name_server(places).or_else(|| {
            let server = self.egress_name_server(record, endpoint, places);
            server.map(std::net::IpAddr::from)
        });
        let mut host_resolver = read_host("/etc/resolv.conf");
        if files::is_loopback_only(&host_resolver) && !host_network {
            let real = read_host(files::RESOLVED_RESOLV_CONF);
            if !real.is_empty() {
                host_resolver = real;
            }
        }
        let resolver = files::ResolverOptions {
            servers: &spec.dns,
            search: &spec.dns_search,
            options: &spec.dns_options,
        };
        let wrong = |e: files::FileError| Error::invalid(e.to_string());
        let own_resolver =
            !spec.dns.is_empty() || !spec.dns_search.is_empty() || !spec.dns_options.is_empty();
        let resolv_conf = if let Some(server) = name_server {
            let servers = [server.to_string()];
            let resolver = files::ResolverOptions {
                servers: &servers,
                ..resolver
            };
            with_ndots(&files::resolv_conf(&host_resolver, &resolver).map_err(wrong)?)
        } else if host_network && !own_resolver {
            // Whatever the host can reach, its network namespace can.
            host_resolver
        } else {
            files::resolv_conf(&host_resolver, &resolver).map_err(wrong)?
        };
        let mut hosts = if host_network && spec.extra_hosts.is_empty() {
            read_host("/etc/hosts")
        } else {
            let gateway = self.host_gateway(name_server);
            let mut hosts = files::hosts(own, &spec.extra_hosts, gateway).map_err(wrong)?;
            if !spec.links.is_empty() {
                hosts.push_str(&self.link_hosts(record));
            }
            hosts.push_str(&self.neighbours(record, places));
            hosts
        };
        for other in addresses {
            hosts.push_str(&format!("{other}\t{name}\n"));
        }
        let texts = [
            ("hosts", hosts),
            ("hostname", files::hostname(&hostname)),
            ("resolv.conf", resolv_conf),
        ];
        for (name, text) in texts {
            let path = dir.join(name);
            write_in_place(&path, &text)
                .map_err(|e| Error::internal(format!("cannot write {}", path.display()), e))?;
        }
        Ok(())
    }

    fn log_file(&self, record: &ContainerRecord) -> Result<Option<LogFile>> {
        if record.spec.log.driver == LogDriver::None {
            return Ok(None);
        }
        let dir = self.settings.container_dir(&record.id);
        fs::create_dir_all(&dir)
            .map_err(|e| Error::internal(format!("cannot make {}", dir.display()), e))?;
        Ok(Some(LogFile {
            path: self.settings.log_path(&record.id),
            config: record.spec.log.clone(),
        }))
    }
}

/// A port that is taken is the user's affair, in Docker's words; the rest is ours.
pub(crate) fn publish_error(error: hull_network::PublishError) -> Error {
    let text = "driver failed programming external connectivity on endpoint";
    match error {
        hull_network::PublishError::Port(_) => {
            Error::with_source(ErrorKind::Unavailable, text, error)
        }
        _ => Error::internal(text, error),
    }
}

fn full_name(hostname: &str, domainname: &str) -> String {
    if domainname.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{domainname}")
    }
}

/// A file of the host that may be missing.
fn read_host(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn make_sandbox_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    // What an earlier run left is of no more use: the caller holds the container's lock.
    match fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Error::internal(
                format!("cannot clear {}", dir.display()),
                error,
            ));
        }
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(dir)
        .map_err(|e| Error::internal(format!("cannot make {}", dir.display()), e))
}

/// What a failed start gives back.
struct Parts {
    engine: Arc<Engine>,
    dir: Option<PathBuf>,
    endpoint: Option<Endpoint>,
    places: Vec<Place>,
}

impl Parts {
    fn keep(mut self) -> (Option<Endpoint>, Vec<Place>) {
        self.dir = None;
        (self.endpoint.take(), std::mem::take(&mut self.places))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            self.engine.free_endpoint(endpoint);
        }
        self.engine.free_places(&self.places);
        if let Some(dir) = &self.dir {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// Writes a file that a container may have mounted. It is never empty in between: a daemon killed
/// there would leave the container without a name server.
fn write_in_place(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
}
