//! Docker as Debian packages it, started by hand in folders of its own and stopped again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::measure::Case;

/// How long it may take to start and to stop.
const PATIENCE: Duration = Duration::from_secs(40);

/// A Docker daemon.
#[derive(Debug)]
pub struct Docker {
    child: Child,
    dir: PathBuf,
    socket: String,
}

impl Docker {
    /// Starts it with its data below `dir`.
    ///
    /// # Errors
    /// If it is not installed or does not come up.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &[])
    }

    /// As [`Docker::start`], with further flags of the daemon.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_with(dir: &Path, flags: &[&str]) -> Result<Self> {
        let dir = dir.join("docker");
        fs::create_dir_all(&dir)?;
        let at = |name: &str| dir.join(name).display().to_string();
        // Short, since it holds sockets.
        let exec = format!("/tmp/hull-bench-{}", std::process::id());
        let socket = format!("unix://{exec}.sock");
        let log = File::create(dir.join("log"))?;
        let child = Command::new("dockerd")
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &exec,
                "-p",
                &at("pid"),
                "-H",
                &socket,
            ])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd: is docker.io installed?")?;
        let docker = Self { child, dir, socket };
        let begun = Instant::now();
        while docker.case(&["version"]).once().is_err() {
            if begun.elapsed() > PATIENCE {
                bail!(
                    "dockerd does not answer; see {}",
                    docker.dir.join("log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(docker)
    }

    /// A command line of Docker's client.
    pub fn case(&self, args: &[&str]) -> Case {
        let mut argv = vec!["docker", "-H", &self.socket];
        argv.extend_from_slice(args);
        Case::new(&argv)
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.dir.join("data"));
    }
}
