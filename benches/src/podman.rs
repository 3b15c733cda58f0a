//! Podman with storage of the bench's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::measure::Case;

/// Podman's command line and where it keeps things.
#[derive(Debug)]
pub struct Podman {
    dir: PathBuf,
}

impl Podman {
    /// Keeps all below `dir`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        let dir = dir.join("podman");
        fs::create_dir_all(&dir)?;
        fs::write(
            dir.join("policy.json"),
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )?;
        Ok(Self { dir })
    }

    fn case(&self, args: &[&str]) -> Case {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut argv = vec!["podman".to_owned(), "--root".to_owned(), at("root")];
        argv.extend(["--runroot".to_owned(), at("run")]);
        argv.extend(["--storage-driver".to_owned(), "overlay".to_owned()]);
        argv.extend(args.iter().map(|&a| a.to_owned()));
        Case {
            argv,
            env: Vec::new(),
        }
    }

    /// A pull from a registry without TLS.
    pub fn pull(&self, name: &str) -> Case {
        let policy = self.dir.join("policy.json").display().to_string();
        self.case(&[
            "pull",
            "-q",
            "--tls-verify=false",
            "--signature-policy",
            &policy,
            name,
        ])
    }

    /// Removes every image.
    pub fn remove_all(&self) -> Case {
        self.case(&["rmi", "-a", "-f"])
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.remove_all().once();
        // Podman leaves its storage mounted upon itself.
        let _ = std::process::Command::new("umount")
            .arg(self.dir.join("root/overlay"))
            .stderr(std::process::Stdio::null())
            .status();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
