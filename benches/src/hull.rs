//! A Hull daemon of the bench's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hull_testkit::{http, paths};

use crate::measure::Case;

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Names of what it makes on the host.
const BRIDGE: &str = "hullbench0";
const CGROUP: &str = "hull-bench";

/// The running daemon.
#[derive(Debug)]
pub struct Hull {
    child: Child,
    env: Vec<(String, String)>,
    run_dir: PathBuf,
    data_dir: PathBuf,
}

impl Hull {
    /// Starts it with its data below `dir`; also tells how long it took to answer.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(dir: &Path) -> Result<(Self, Duration)> {
        let run_dir = run_dir();
        let data_dir = dir.join("hull");
        let text = |p: &Path| p.display().to_string();
        let env = vec![
            ("HULL_RUN_DIR".to_owned(), text(&run_dir)),
            ("HULL_DATA_DIR".to_owned(), text(&data_dir)),
            ("HULL_BRIDGE".to_owned(), BRIDGE.to_owned()),
            ("HULL_CGROUP_PARENT".to_owned(), format!("/{CGROUP}")),
        ];
        let begun = Instant::now();
        let child = Command::new(paths::hull())
            .arg("daemon")
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start hull daemon")?;
        let hull = Self {
            child,
            env,
            run_dir,
            data_dir,
        };
        let socket = hull.run_dir.join("hull.sock");
        loop {
            let up = std::os::unix::net::UnixStream::connect(&socket).is_ok()
                && http::request(&socket, "GET", "/_ping", None).status == 200;
            if up {
                return Ok((hull, begun.elapsed()));
            }
            if begun.elapsed() > PATIENCE {
                bail!("hull daemon does not answer");
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// A command line of Hull's client.
    pub fn case(&self, args: &[&str]) -> Case {
        let program = paths::hull().display().to_string();
        let mut argv = vec![program.as_str()];
        argv.extend_from_slice(args);
        Case::new(&argv).env(&self.env)
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its run folder.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it cannot be told to.
    pub fn stop(mut self) -> Result<()> {
        Command::new("kill")
            .arg(self.child.id().to_string())
            .status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Hull {
    fn drop(&mut self) {
        // Harmless if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Short, since it holds sockets.
fn run_dir() -> PathBuf {
    PathBuf::from(format!("/tmp/hull-bench-run-{}", std::process::id()))
}

/// Removes what the daemons of the bench made on the host, and their data below `dir`.
///
/// # Errors
/// If the host's tools are missing.
pub fn clean(dir: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(dir.join("hull"));
    let _ = std::fs::remove_dir_all(run_dir());
    let table = format!("hull-{BRIDGE}");
    let commands: [&[&str]; 2] = [
        &["ip", "link", "del", BRIDGE],
        &["nft", "delete", "table", "inet", &table],
    ];
    for args in commands {
        if let Some((program, args)) = args.split_first() {
            Command::new(program)
                .args(args)
                .stderr(Stdio::null())
                .status()?;
        }
    }
    for entry in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let _ = std::fs::remove_dir(entry.path().join(CGROUP));
    }
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(CGROUP));
    Ok(())
}
