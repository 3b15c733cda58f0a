//! Debian's dockerd in folders of the test's own, without a network.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_testkit::{Output, Run, eventually, wait_until};

/// How long it may take to end.
const STOP: Duration = Duration::from_secs(20);

/// A running dockerd; it ends with the value.
#[derive(Debug)]
pub struct Dockerd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Dockerd {
    /// Starts it.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("hd-")
            .tempdir_in("/tmp")
            .expect("folder");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let log = File::create(dir.path().join("log")).expect("log");
        let child = Command::new("dockerd")
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
                "--host",
                &format!("unix://{}", at("sock")),
                "--bridge",
                "none",
                "--iptables=false",
                "--ip6tables=false",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("start dockerd");
        let docker = Self { child, dir };
        eventually("dockerd answers", || docker.run(&["version"]).code == 0);
        docker
    }

    /// A command of Docker's client.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        Run::new("docker")
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.dir.path().join("sock").display()),
            )
            .env("DOCKER_API_VERSION", "1.41")
            .env("DOCKER_CONFIG", "/nonexistent")
            .args(args)
            .run()
    }

    /// The layers of an image, the topmost first.
    ///
    /// # Panics
    /// If there is no such image.
    #[must_use]
    pub fn layers(&self, image: &str) -> Vec<PathBuf> {
        let format = "{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}";
        let text = self.run(&["image", "inspect", "--format", format, image]);
        text.ok()
            .trim()
            .split(':')
            .filter(|part| !part.is_empty() && *part != "<no value>")
            .map(PathBuf::from)
            .collect()
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        wait_until(STOP, || !matches!(self.child.try_wait(), Ok(None)));
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.dir.path().join("data"));
    }
}
