//! A daemon of the test's own: folders, socket, bridge and cgroup that no other one uses.
//!
//! Dropping it stops every container and fails the test if anything is left behind.
//!
//! With `HULL_COMPAT=SOCKET` the suites run against the Docker daemon that listens there, by
//! Docker's own command line: what fails then is a test that expects what Docker does not do.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::command::{Output, Run};
use crate::fixtures;
use crate::http::{self, Answer};
use crate::paths;
use crate::residue::Territory;
use crate::terminal::Terminal;
use crate::wait::wait_until;

/// Folder all test daemons live under; short, for a socket's path has 108 bytes.
const BASE: &str = "/tmp";
/// How long a daemon may take to answer for the first time: a busy machine, not a target.
const START: Duration = Duration::from_secs(20);
/// How long what was stopped may take to vanish.
const VANISH: Duration = Duration::from_secs(8);

/// Docker's daemon is one for all tests: they take turns.
static PEER: Mutex<()> = Mutex::new(());
static COUNTER: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// Options of a test daemon.
#[derive(Debug, Default)]
pub struct DaemonBuilder {
    data: Option<PathBuf>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    images: bool,
    small: Option<u32>,
    /// The named network namespace it runs in.
    netns: Option<String>,
}

/// A running daemon and everything it owns.
#[derive(Debug)]
pub struct Daemon {
    territory: Territory,
    data: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    small: Option<u32>,
    /// The named network namespace it runs in.
    netns: Option<String>,
    child: Option<Child>,
    forgiving: bool,
    /// The daemon to compare with, when the tests run against Docker.
    peer: Option<Peer>,
}

/// Where Docker Hub is for the tests: nowhere. An image that is missing is asked for on loopback,
/// where nobody listens, and never outside.
fn no_hub(certs: &Path) {
    let dir = certs.join("docker.io");
    fs::create_dir_all(&dir).expect("make the registries' folder");
    fs::write(dir.join("hosts.toml"), "server = \"http://127.0.0.1:1\"\n")
        .expect("write the registry's place");
}

/// Docker's daemon, taken for one test.
#[derive(Debug)]
struct Peer {
    socket: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Peer {
    fn of_environment() -> Option<Self> {
        let socket = PathBuf::from(std::env::var_os("HULL_COMPAT")?);
        let turn = PEER.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self {
            socket,
            _turn: turn,
        })
    }
}

impl DaemonBuilder {
    /// Puts the data folder elsewhere, as on a small file system.
    #[must_use]
    pub fn data(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data = Some(dir.into());
        self
    }

    /// Adds an argument of `hull daemon`.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets a variable for the daemon and its command lines.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it a data folder of so many mebibytes, which is in no mount table but its own and goes
    /// with it: see [`Daemon::data_seen`].
    #[must_use]
    pub fn small(mut self, mebibytes: u32) -> Self {
        self.small = Some(mebibytes);
        self
    }

    /// Runs it in the network namespace of this name, see ip-netns(8).
    #[must_use]
    pub fn netns(mut self, name: &str) -> Self {
        self.netns = Some(name.to_owned());
        self
    }

    /// Leaves out the busybox image.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.images = false;
        self
    }

    /// Starts the daemon and waits for its first answer.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(self) -> Daemon {
        need_root();
        SWEEP.call_once(sweep);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:x}x{number:x}", std::process::id());
        let base = Path::new(BASE).join(format!("ht-{id}"));
        let run = base.join("run");
        fs::create_dir_all(&run).expect("make the run folder");
        let data = self.data.unwrap_or_else(|| base.join("data"));
        let territory = Territory {
            bridge: format!("ht{id}"),
            cgroup: format!("ht-{id}"),
            table: format!("hull-ht{id}"),
            base,
        };
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let certs = run.with_file_name("certs.d");
        no_hub(&certs);
        let socket = run.join("hull.sock");
        let mut env = vec![
            ("HULL_CERTS_DIR".to_owned(), text(&certs)),
            ("HULL_RUN_DIR".to_owned(), text(&run)),
            ("HULL_DATA_DIR".to_owned(), text(&data)),
            ("HULL_SOCKET".to_owned(), text(&socket)),
            (
                "HULL_HOST".to_owned(),
                format!("unix://{}", socket.display()),
            ),
            ("HULL_BRIDGE".to_owned(), territory.bridge.clone()),
            (
                "HULL_CGROUP_PARENT".to_owned(),
                format!("/{}", territory.cgroup),
            ),
            ("HULL_LOG_LEVEL".to_owned(), "info".to_owned()),
        ];
        env.extend(self.env);
        let mut daemon = Daemon {
            territory,
            data,
            args: self.args,
            env,
            small: self.small,
            netns: self.netns,
            child: None,
            forgiving: false,
            peer: Peer::of_environment(),
        };
        if let Some(peer) = &daemon.peer {
            daemon.env = vec![(
                "DOCKER_HOST".to_owned(),
                format!("unix://{}", peer.socket.display()),
            )];
        }
        daemon.start();
        if self.images {
            daemon.load(&fixtures::busybox());
        }
        daemon
    }
}

impl Daemon {
    /// A daemon with defaults and the busybox image loaded.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().start()
    }

    /// Options for a daemon; the busybox image is loaded unless `bare` is called.
    #[must_use]
    pub fn builder() -> DaemonBuilder {
        DaemonBuilder {
            images: true,
            ..DaemonBuilder::default()
        }
    }

    /// Starts the process again after `kill` or `stop`.
    ///
    /// # Panics
    /// If it does not answer in time.
    pub fn start(&mut self) {
        if self.peer.is_some() {
            return;
        }
        assert!(self.child.is_none(), "the daemon already runs");
        // Two daemons that start at the same moment could pick the same free addresses.
        let lock =
            File::create(Path::new(BASE).join("hull-testkit.lock")).expect("make a lock file");
        flock(&lock, FlockOperation::LockExclusive).expect("lock");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("open the daemon's log");
        let child = self
            .command()
            .arg("daemon")
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("copy a descriptor"))
            .stderr(log)
            .spawn()
            .expect("start hull daemon");
        self.child = Some(child);
        let begun = Instant::now();
        let ready = wait_until(START, || {
            let ended = self
                .child
                .as_mut()
                .is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            ended || self.ping()
        });
        assert!(
            ready && self.ping(),
            "the daemon did not answer within {:?}:\n{}",
            begun.elapsed(),
            self.log_tail()
        );
    }

    /// The program, in a mount namespace of its own if its data folder is to be small.
    fn command(&self) -> Command {
        if let Some(netns) = &self.netns {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{netns}"));
            command.arg(paths::hull());
            return command;
        }
        let Some(mebibytes) = self.small else {
            return Command::new(paths::hull());
        };
        fs::create_dir_all(&self.data).expect("make the data folder");
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs -o size=\"$0\"m hull-test \"$1\" && shift && exec \"$@\"";
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(mebibytes.to_string())
            .arg(&self.data)
            .arg(paths::hull());
        command
    }

    /// The data folder as it is seen from here, wherever it is mounted.
    ///
    /// # Panics
    /// If the daemon does not run.
    #[must_use]
    pub fn data_seen(&self) -> PathBuf {
        if self.small.is_none() {
            return self.data.clone();
        }
        let root = Path::new("/proc").join(self.pid().to_string()).join("root");
        root.join(self.data.strip_prefix("/").unwrap_or(&self.data))
    }

    fn ping(&self) -> bool {
        let socket = self.socket();
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
            && http::request(&socket, "GET", "/_ping", None).status == 200
    }

    /// Kills the process without warning; containers run on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the process to stop by SIGTERM; containers run on.
    ///
    /// # Panics
    /// If it does not stop within ten seconds.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let ended = wait_until(Duration::from_secs(10), || {
                !matches!(child.try_wait(), Ok(None))
            });
            if !ended {
                let _ = child.kill();
                let _ = child.wait();
            }
            assert!(
                ended,
                "the daemon did not stop on SIGTERM:\n{}",
                self.log_tail()
            );
        }
    }

    /// The daemon's process id.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// The API's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        if let Some(peer) = &self.peer {
            return peer.socket.clone();
        }
        self.run_dir().join("hull.sock")
    }

    /// The run folder.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.territory.base.join("run")
    }

    /// The data folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// A folder for the test's own files, removed with the daemon.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        let dir = self.territory.base.join("scratch");
        fs::create_dir_all(&dir).expect("make a scratch folder");
        dir
    }

    /// The names that belong to this daemon.
    #[must_use]
    pub fn territory(&self) -> &Territory {
        &self.territory
    }

    /// Variables that point a command line at this daemon.
    #[must_use]
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// A `hull` command line pointed at this daemon, not yet run.
    #[must_use]
    pub fn cli<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        let mut run = Run::new(self.program()).args(args);
        for (name, value) in &self.env {
            run = run.env(name, value);
        }
        run
    }

    fn program(&self) -> PathBuf {
        if self.peer.is_some() {
            PathBuf::from("docker")
        } else {
            paths::hull()
        }
    }

    /// Whether the tests run against Docker.
    #[must_use]
    pub fn is_docker(&self) -> bool {
        self.peer.is_some()
    }

    /// Runs `hull` with arguments.
    pub fn hull<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.cli(args).run()
    }

    /// Runs `hull`, demands exit code 0, returns its output without the last newline.
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        self.cli(args).ok()
    }

    /// Runs `hull` on a terminal.
    pub fn terminal<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Terminal {
        Terminal::spawn(self.program(), args, &self.env)
    }

    /// One field of `hull inspect`, by a Go template.
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(["inspect", "--format", template, name])
    }

    /// The whole of `hull inspect` of one object.
    ///
    /// # Panics
    /// If it is no JSON list of one.
    pub fn inspect_json(&self, name: &str) -> serde_json::Value {
        let text = self.ok(["inspect", name]);
        let list: serde_json::Value = serde_json::from_str(&text).expect("inspect prints JSON");
        list.get(0).cloned().expect("inspect prints a list of one")
    }

    /// Loads an image archive.
    pub fn load(&self, archive: &Path) -> String {
        self.ok([OsStr::new("load"), OsStr::new("-i"), archive.as_os_str()])
    }

    /// A request to the API as it is.
    #[must_use]
    pub fn api(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        http::request(&self.socket(), method, path, body)
    }

    /// Waits until a container's state is the one named.
    ///
    /// # Panics
    /// If it is not within fifteen seconds.
    pub fn wait_state(&self, name: &str, state: &str) {
        let mut last = String::new();
        let reached = wait_until(Duration::from_secs(15), || {
            last = self
                .hull(["inspect", "--format", "{{.State.Status}}", name])
                .stdout;
            last.trim() == state
        });
        assert!(reached, "{name} is {} and not {state}", last.trim());
    }

    /// Waits until a container's log holds a text, and returns the log.
    ///
    /// # Panics
    /// If it does not within fifteen seconds.
    pub fn wait_log(&self, name: &str, text: &str) -> String {
        let mut log = String::new();
        let found = wait_until(Duration::from_secs(15), || {
            let out = self.hull(["logs", name]);
            log = format!("{}{}", out.stdout, out.stderr);
            log.contains(text)
        });
        assert!(found, "the log of {name} has no {text:?}:\n{log}");
        log
    }

    /// Does not fail the test for what is left: it broke something on purpose.
    pub fn forgive(&mut self) {
        self.forgiving = true;
    }

    fn log_path(&self) -> PathBuf {
        self.territory.base.join("daemon.log")
    }

    /// The last lines the daemon logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(30)..)
            .unwrap_or_default()
            .join("\n")
    }

    fn clean(&mut self) -> Vec<String> {
        if self.peer.is_some() {
            let ids = self.hull(["ps", "-aq"]).stdout;
            self.hull(["rm", "-fv"].into_iter().chain(ids.lines()));
            let volumes = self.hull(["volume", "ls", "-q"]).stdout;
            self.hull(["volume", "rm"].into_iter().chain(volumes.lines()));
            return Vec::new();
        }
        if self.child.is_none()
            && (!self.territory.processes().is_empty() || !self.territory.mounts().is_empty())
        {
            // The test killed it: a new one finds what runs and can stop it.
            self.start();
        }
        let mut problems = Vec::new();
        if let Some(mut child) = self.child.take() {
            // By force: most test containers are deaf to SIGTERM, and a stop would wait for each.
            let ids = self.hull(["ps", "-aq"]).stdout;
            if !ids.trim().is_empty() {
                self.hull(["rm", "-f", "-v"].into_iter().chain(ids.lines()));
            }
            // A network outlives its daemon: what is left after this was leaked.
            if !self.territory.bridges().is_empty() {
                self.hull(["network", "prune", "-f"]);
            }
            let out = self.hull(["daemon", "stop", "--all"]);
            if out.code != 0 {
                problems.push(format!(
                    "daemon stop --all failed: {}{}",
                    out.stdout, out.stderr
                ));
            }
            if !wait_until(Duration::from_secs(15), || {
                !matches!(child.try_wait(), Ok(None))
            }) {
                problems.push("the daemon did not stop".to_owned());
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        problems.extend(self.territory.residue_after(VANISH));
        problems
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            eprintln!("--- daemon log ---\n{}\n---", self.log_tail());
        }
        // A second panic while unwinding would abort the whole suite.
        let problems = if panicking {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.clean()))
                .unwrap_or_default()
        } else {
            self.clean()
        };
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log_tail();
        self.territory.raze();
        if !panicking && !self.forgiving && !problems.is_empty() {
            panic!(
                "left behind:\n{}\n--- daemon log ---\n{log}",
                problems.join("\n")
            );
        }
    }
}

/// Says what is missing when the tests do not run as root.
///
/// # Panics
/// If the user is not root.
pub fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests make namespaces, mounts and cgroups: run them as root"
    );
}

/// Removes what test programs that are no more left behind.
fn sweep() {
    let Ok(list) = fs::read_dir(BASE) else { return };
    for entry in list.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix("ht-") else {
            continue;
        };
        let Some((pid, _)) = id.split_once('x') else {
            continue;
        };
        let Ok(pid) = u32::from_str_radix(pid, 16) else {
            continue;
        };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            let territory = Territory {
                base: entry.path(),
                bridge: format!("ht{id}"),
                cgroup: format!("ht-{id}"),
                table: format!("hull-ht{id}"),
            };
            territory.raze();
        }
    }
}
