//! Debian's docker-registry on loopback, plain HTTP.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::measure::Case;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running registry; its data goes with it.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    dir: PathBuf,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl Registry {
    /// Starts an empty one that keeps all in `dir`.
    ///
    /// # Errors
    /// If it is not installed or does not come up.
    pub fn start(dir: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let host = format!("127.0.0.1:{port}");
        let data = dir.join("data");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            data.display()
        );
        let file = dir.join("config.yml");
        fs::write(&file, config)?;
        let log = File::create(dir.join("log"))?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start docker-registry: is it installed?")?;
        let registry = Self {
            child,
            dir: dir.to_owned(),
            host,
        };
        let begun = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            if begun.elapsed() > PATIENCE {
                bail!("docker-registry does not listen; see {}", dir.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// Has skopeo copy one image of an OCI layout.
    ///
    /// # Errors
    /// If skopeo fails.
    pub fn put(&self, layout: &Path, tag: &str, name: &str) -> Result<()> {
        Case::new(&[
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &format!("oci:{}:{tag}", layout.display()),
            &format!("docker://{}/{name}", self.host),
        ])
        .once()?;
        Ok(())
    }

    /// The address of a blob.
    pub fn blob_url(&self, repository: &str, hex: &str) -> String {
        format!("http://{}/v2/{repository}/blobs/sha256:{hex}", self.host)
    }

    /// Reads all blobs, so that they come from memory: the registry stands for a network.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn warm(&self) -> Result<()> {
        let blobs = self.dir.join("data/docker/registry/v2/blobs/sha256");
        for group in fs::read_dir(blobs)?.flatten() {
            for blob in fs::read_dir(group.path())?.flatten() {
                let mut file = File::open(blob.path().join("data"))?;
                std::io::copy(&mut file, &mut std::io::sink())?;
            }
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
