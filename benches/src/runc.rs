//! Bare runc with a bundle of busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::measure::Case;

/// A bundle that runs `true`.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    state: PathBuf,
}

impl Bundle {
    /// Makes the bundle from the layer tar of busybox.
    ///
    /// # Errors
    /// If tar or runc are missing.
    pub fn make(dir: &Path, layer: &[u8]) -> Result<Self> {
        let (dir, state) = (dir.join("bundle"), dir.join("runc"));
        let root = dir.join("rootfs");
        fs::create_dir_all(&root)?;
        let tar = dir.join("layer.tar");
        fs::write(&tar, layer)?;
        run(Command::new("tar")
            .arg("-xf")
            .arg(&tar)
            .arg("-C")
            .arg(&root))?;
        let config = dir.join("config.json");
        let _ = fs::remove_file(&config);
        run(Command::new("runc").arg("spec").arg("-b").arg(&dir))?;
        let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
        spec["process"]["args"] = json!(["true"]);
        spec["process"]["terminal"] = json!(false);
        fs::write(&config, serde_json::to_vec_pretty(&spec)?)?;
        Ok(Self { dir, state })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `runc run` of the bundle, which deletes the container at its end.
    pub fn case(&self) -> Case {
        let (dir, state) = (
            self.dir.display().to_string(),
            self.state.display().to_string(),
        );
        Case::new(&["runc", "--root", &state, "run", "-b", &dir, "hull-bench"])
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}
