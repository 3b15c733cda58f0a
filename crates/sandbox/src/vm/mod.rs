//! Virtual machines: the back end whose guests have a kernel of their own.
//!
//! ```text
//! plan.vm ─▶ boot ─▶ hull_hypervisor in a cell ─▶ guest ─▶ agent
//!                       ▲ cell: a container of ours          ▲
//! plan, exec, signal ───┴──────── link: frames with credit ──┘
//! ```
//!
//! The server sees pipes and numbers of processes as with a container. The number of the first
//! process is the hypervisor's id on the host; those of others are made up, and above every id
//! that the kernel gives out.

mod boot;
mod cell;
mod console;
mod link;
mod live;
mod shares;
mod streams;
mod taps;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_container::Host;
use hull_hypervisor::Size;
use hull_model::{ErrorKind, Resources, Stats};
use hull_proto::guest::{
    FIRST_SESSION, GuestExec, GuestLaunch, GuestReply, GuestRequest, GuestStdio, Processes,
};
use hull_proto::vm::VmPlan;
use hull_proto::{ExecLaunch, Failure, LaunchPlan};

use self::boot::failed;
use self::cell::HostCell;
use self::live::{CALL_LIMIT, Live, nonsense};
use crate::contract::{Process, Sandbox, Stdio};

/// How long a guest may take to boot and run its first process: under emulation, on a busy host.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// Numbers of processes are counted from here; the kernel's end at 2²².
const FIRST_NUMBER: u32 = 1 << 30;
/// Bytes of a seed for the guest's random numbers.
const SEED: usize = 64;
/// What a guest's kernel and agent need beside the container, bytes.
const OWN_MEMORY: u64 = 64 << 20;
const SIGKILL: i32 = 9;

/// A virtual machine, once it is launched.
#[derive(Default)]
pub struct Vm {
    live: Option<Live>,
    next_number: u32,
    warnings: Vec<String>,
    oom_kills: u64,
}

impl Vm {
    /// A machine that is not launched yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn live(&mut self) -> Result<&mut Live, Failure> {
        self.live.as_mut().ok_or_else(|| Failure {
            kind: ErrorKind::Conflict,
            message: "the virtual machine is not running".into(),
        })
    }

    fn awake(&mut self) -> Result<&mut Live, Failure> {
        let live = self.live()?;
        if live.paused {
            return Err(Failure {
                kind: ErrorKind::Conflict,
                message: "the virtual machine is paused".into(),
            });
        }
        Ok(live)
    }

    fn try_launch(
        &mut self,
        vm: &VmPlan,
        plan: &LaunchPlan,
        fds: Vec<OwnedFd>,
        stdio: Stdio,
    ) -> Result<Process, Failure> {
        let host = Host::detect().map_err(|error| crate::container::failed(&error))?;
        let cell = HostCell::new(&host, vm, &plan.id);
        let (server, files) = shares::start(&host, vm, &plan.id)?.unzip();
        let mut booted = boot::boot(vm, fds, files, &cell)?;
        let interfaces = std::mem::take(&mut booted.interfaces);
        let group = cell
            .into_group()
            .ok_or_else(|| failed("the hypervisor has no control group"))?;
        let mut live = Live::new(booted, group, vm.dir.clone(), vm.memory)?;
        if let Some(server) = server {
            live.serve_files(server)?;
        }
        let live = self.live.insert(live);
        let mut prepare = vm.prepare.clone();
        prepare.clock_ns = now_ns();
        prepare.entropy = seed();
        prepare.interfaces.extend(interfaces);
        let prepared = live.queue(GuestRequest::Prepare(Box::new(prepare)))?;
        let launch = GuestLaunch {
            plan: LaunchPlan {
                vm: None,
                ..plan.clone()
            },
            stdio: wish(stdio),
        };
        let pid = live.pid();
        let started = live.start(
            FIRST_SESSION,
            pid,
            stdio,
            plan.process.tty,
            GuestRequest::Launch(Box::new(launch)),
            BOOT_LIMIT,
        );
        // If the guest could not be made ready, that is why the launch failed, too.
        let readied = match live.wait(prepared, Duration::from_millis(1)) {
            Ok(GuestReply::Done { warnings }) => warnings,
            Ok(_) => return Err(nonsense()),
            Err(failure) if started.is_ok() || failure.kind != ErrorKind::Internal => {
                return Err(failure);
            }
            Err(failure) => return started.and(Err(failure)),
        };
        let mut started = started?;
        started.warnings.extend(readied);
        Ok(started)
    }

    /// What happened that the user ought to know.
    fn collect(&mut self) {
        if let Some(live) = &mut self.live {
            self.warnings.append(&mut live.news);
            self.oom_kills = self.oom_kills.max(live.oom_kills);
        }
    }
}

/// Removes the group of a machine of which a part was started.
fn remove_group(path: &str) {
    let Ok(host) = Host::detect() else { return };
    if let Ok(Some(group)) = host.hierarchies.open(path, host.features) {
        let _ = group.kill_all();
        let _ = group.remove();
    }
}

fn wish(stdio: Stdio) -> GuestStdio {
    match stdio {
        Stdio::Null => GuestStdio::Null,
        Stdio::Connected { stdin } => GuestStdio::Connected { stdin },
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or_default()
}

fn seed() -> Vec<u8> {
    let mut seed = vec![0; SEED];
    let filled = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
    seed.truncate(filled.unwrap_or(0));
    seed
}

impl Sandbox for Vm {
    fn launch(
        &mut self,
        plan: &LaunchPlan,
        fds: Vec<OwnedFd>,
        stdio: Stdio,
    ) -> Result<Process, Failure> {
        let Some(vm) = plan.vm.as_deref() else {
            return Err(failed("the plan has no virtual machine"));
        };
        let launched = self.try_launch(vm, plan, fds, stdio);
        if launched.is_err() {
            // Its own failures tell more than what is left over.
            let _ = self.delete();
            let _ = cell::remove(&vm.dir);
            remove_group(&vm.cgroup.path);
        }
        launched
    }

    fn exec(&mut self, exec: &ExecLaunch, stdio: Stdio) -> Result<Process, Failure> {
        self.next_number = (self.next_number + 1) % FIRST_NUMBER;
        let pid = FIRST_NUMBER + self.next_number;
        let live = self.awake()?;
        let session = live.free_session()?;
        let request = GuestExec {
            session,
            process: exec.process.clone(),
            stdio: wish(stdio),
            privileged: exec.privileged,
            seccomp_cache: std::path::PathBuf::new(),
        };
        live.start(
            session,
            pid,
            stdio,
            exec.process.tty,
            GuestRequest::Exec(Box::new(request)),
            CALL_LIMIT,
        )
    }

    fn ended(&mut self) -> Option<(u32, i32)> {
        let live = self.live.as_mut()?;
        if live.ended.is_empty() {
            live.turn();
        }
        let ended = (!live.ended.is_empty()).then(|| live.ended.remove(0));
        self.collect();
        ended
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.live.as_ref().map(Live::watch)
    }

    fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn signal(&mut self, pid: u32, signal: i32) -> Result<(), Failure> {
        let live = self.live()?;
        let Some(session) = live.session_of(pid) else {
            // The first process ended and the guest is writing to its disks.
            if pid == live.pid() {
                return Ok(());
            }
            return Err(Failure {
                kind: ErrorKind::NotFound,
                message: "the process has ended".into(),
            });
        };
        let request = GuestRequest::Signal { session, signal };
        if signal == SIGKILL && session == FIRST_SESSION {
            // It ends in any case: by the agent, or with the machine if that does not answer.
            live.tell(request);
            live.arm(CALL_LIMIT);
            return Ok(());
        }
        if live.paused {
            // It gets it when it goes on, as a frozen container does.
            live.tell(request);
            return Ok(());
        }
        live.ask(request).map(drop)
    }

    fn resize(
        &mut self,
        pid: u32,
        _terminal: BorrowedFd<'_>,
        rows: u16,
        cols: u16,
    ) -> Result<(), Failure> {
        let live = self.live()?;
        if let Some(session) = live.session_of(pid) {
            live.tell(GuestRequest::Resize {
                session,
                rows,
                cols,
            });
        }
        Ok(())
    }

    fn kill_all(&mut self) -> Result<(), Failure> {
        let live = self.live()?;
        live.tell(GuestRequest::KillAll);
        live.arm(CALL_LIMIT);
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Failure> {
        let live = self.live()?;
        live.guest()
            .pause()
            .map_err(|error| failed(error.to_string()))?;
        live.paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Failure> {
        let live = self.live()?;
        live.guest()
            .resume()
            .map_err(|error| failed(error.to_string()))?;
        live.paused = false;
        // Its clock stood still.
        live.tell(GuestRequest::Clock(now_ns()));
        Ok(())
    }

    fn update(&mut self, resources: &Resources) -> Result<Vec<String>, Failure> {
        let live = self.awake()?;
        let mut inside = resources.clone();
        let mut around = Resources::default();
        // Time is the hypervisor's to get; the guest divides what it gets.
        std::mem::swap(&mut around.nano_cpus, &mut inside.nano_cpus);
        std::mem::swap(&mut around.cpu_period, &mut inside.cpu_period);
        std::mem::swap(&mut around.cpu_quota, &mut inside.cpu_quota);
        std::mem::swap(&mut around.cpu_shares, &mut inside.cpu_shares);
        std::mem::swap(&mut around.cpuset_cpus, &mut inside.cpuset_cpus);
        std::mem::swap(&mut around.cpuset_mems, &mut inside.cpuset_mems);
        let wanted = inside.memory.and_then(|bytes| u64::try_from(bytes).ok());
        if let Some(memory) = wanted.filter(|memory| *memory > live.memory) {
            // Says in words what the machine can have.
            let size = Size {
                memory: Some(memory),
                processors: None,
            };
            live.guest().resize(size).map_err(|error| Failure {
                kind: ErrorKind::InvalidArgument,
                message: error.to_string(),
            })?;
        }
        let mut warnings = match live.ask(GuestRequest::Update(Box::new(inside)))? {
            GuestReply::Done { warnings } => warnings,
            _ => return Err(nonsense()),
        };
        let applied = live
            .group
            .apply(&around)
            .map_err(|error| crate::container::failed(&error.into()))?;
        warnings.extend(applied);
        if let Some(memory) = wanted {
            let size = Size {
                memory: Some(memory.saturating_add(OWN_MEMORY).min(live.memory)),
                processors: None,
            };
            if let Err(error) = live.guest().resize(size) {
                warnings.push(format!("the host gets no memory back: {error}"));
            }
        }
        Ok(warnings)
    }

    fn stats(&mut self) -> Result<Stats, Failure> {
        let live = self.live()?;
        let around = live
            .group
            .stats()
            .map_err(|error| crate::container::failed(&error.into()))?;
        if live.paused {
            return Ok(around);
        }
        match live.ask(GuestRequest::Stats)? {
            // The processor's time is what the host spends; all else is the container's own.
            GuestReply::Stats(inside) => Ok(Stats {
                cpu_total_ns: around.cpu_total_ns,
                cpu_user_ns: around.cpu_user_ns,
                cpu_system_ns: around.cpu_system_ns,
                cpu_periods: around.cpu_periods,
                cpu_throttled_periods: around.cpu_throttled_periods,
                cpu_throttled_ns: around.cpu_throttled_ns,
                // Without a limit of its own it has what the machine has.
                memory_limit: inside.memory_limit.min(live.memory),
                ..*inside
            }),
            _ => Err(nonsense()),
        }
    }

    fn pids(&mut self) -> Result<Vec<u32>, Failure> {
        // The guest's own ids mean other processes on the host.
        self.live().map(|live| vec![live.pid()])
    }

    fn processes(&mut self) -> Result<Processes, Failure> {
        match self.awake()?.ask(GuestRequest::Processes)? {
            GuestReply::Processes(processes) => Ok(processes),
            _ => Err(nonsense()),
        }
    }

    fn oom_kills(&mut self) -> u64 {
        self.collect();
        self.oom_kills
    }

    fn oom_notice(&mut self) -> Option<OwnedFd> {
        None
    }

    fn outlives_first(&self) -> bool {
        false
    }

    fn delete(&mut self) -> Result<(), Failure> {
        self.collect();
        let Some(mut live) = self.live.take() else {
            return Ok(());
        };
        live.stop();
        let (group, dir) = live.into_remains();
        let removed = group
            .remove()
            .or_else(|_| group.kill_all().and_then(|()| group.remove()))
            .map_err(|error| crate::container::failed(&error.into()));
        let folder = cell::remove(&dir)
            .map_err(|error| failed(format!("cannot remove {}: {error}", dir.display())));
        removed.and(folder)
    }
}
