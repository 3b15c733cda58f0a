//! OCI runtimes as an engine drives them: one process for each command, one bundle for all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Name of the container that is made again and again.
const ID: &str = "hull-bench-oci";
/// Name of the container that `exec` goes into.
const SLEEPER: &str = "hull-bench-oci-sleeper";
/// A container that has not ended by then is a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds after which `timeout` ends a runtime that its own limit may have stopped for good.
const LIMITED: &str = "10";

/// A runtime and where it records its containers.
#[derive(Debug)]
pub struct Runtime {
    name: &'static str,
    program: PathBuf,
    globals: Vec<OsString>,
    dir: PathBuf,
}

impl Runtime {
    /// A program with options before the command. Its records go below `dir`.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn new(name: &'static str, program: PathBuf, dir: &Path, options: &[&str]) -> Result<Self> {
        let dir = dir.join(format!("state-{name}"));
        fs::create_dir_all(&dir)?;
        let mut globals = vec!["--root".into(), dir.join("root").into_os_string()];
        globals.extend(options.iter().map(OsString::from));
        Ok(Self {
            name,
            program,
            globals,
            dir,
        })
    }

    fn argv(&self, args: &[&str]) -> Vec<OsString> {
        let mut argv = vec![self.program.clone().into_os_string()];
        argv.extend(self.globals.iter().cloned());
        argv.extend(args.iter().map(OsString::from));
        argv
    }

    /// Runs a command line to its end. What it says goes to a file: a container lives on and would
    /// keep a pipe open.
    fn finish(&self, argv: &[OsString]) -> Result<Duration> {
        let (program, args) = argv.split_first().context("an empty command line")?;
        let said = self.dir.join("stderr");
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said)?);
        let begun = Instant::now();
        let status = command
            .status()
            .with_context(|| format!("cannot run {}", self.name))?;
        let took = begun.elapsed();
        if !status.success() {
            bail!(
                "{argv:?} failed: {}",
                fs::read_to_string(&said).unwrap_or_default().trim()
            );
        }
        Ok(took)
    }

    fn run_command(&self, args: &[&str]) -> Result<Duration> {
        self.finish(&self.argv(args))
    }

    /// The three commands of a container's life; their times together. Between start and delete the
    /// program is waited for, which is nobody's time.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn cycle(&self, bundle: &Path) -> Result<Duration> {
        let pid_file = self.dir.join("pid");
        let mut took = self.create(bundle, ID, &pid_file)?;
        took += self.run_command(&["start", ID])?;
        wait_for_end(&pid_file)?;
        Ok(took + self.run_command(&["delete", ID])?)
    }

    fn create(&self, bundle: &Path, id: &str, pid_file: &Path) -> Result<Duration> {
        let (bundle, pid_file) = (bundle.display().to_string(), pid_file.display().to_string());
        self.run_command(&["create", "--pid-file", &pid_file, "--bundle", &bundle, id])
    }

    /// `run` in the foreground.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, bundle: &Path) -> Result<Duration> {
        self.run_command(&["run", "--bundle", &bundle.display().to_string(), ID])
    }

    /// Starts the container that [`Self::exec`] goes into.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_sleeper(&self, bundle: &Path) -> Result<()> {
        self.create(bundle, SLEEPER, &self.dir.join("sleeper-pid"))?;
        self.run_command(&["start", SLEEPER])?;
        Ok(())
    }

    /// Ends it.
    pub fn stop_sleeper(&self) {
        self.remove(SLEEPER);
    }

    fn remove(&self, id: &str) {
        // It may be there in part, or not at all: this clears up after failures, too.
        let _ = self.run_command(&["delete", "--force", id]);
    }

    /// `/bin/true` in the sleeping container.
    ///
    /// # Errors
    /// If it fails.
    pub fn exec(&self) -> Result<Duration> {
        self.run_command(&["exec", SLEEPER, "/bin/true"])
    }

    /// Peak memory in KiB of `create`, the largest of the commands, or of `exec`; wait4's figure,
    /// which GNU time prints: its own few pages are the least it can be.
    ///
    /// # Errors
    /// If the command fails or time is missing.
    pub fn peak_kib(&self, bundle: &Path, command: Peak) -> Result<f64> {
        let figure = self.dir.join("peak");
        let pid_file = self.dir.join("pid");
        let (bundle, pid) = (bundle.display().to_string(), pid_file.display().to_string());
        let args = match command {
            Peak::Create => vec!["create", "--pid-file", &pid, "--bundle", &bundle, ID],
            Peak::Run => vec!["run", "--bundle", &bundle, ID],
            Peak::Exec => vec!["exec", SLEEPER, "/bin/true"],
        };
        let mut argv: Vec<OsString> = ["/usr/bin/time", "-f", "%M", "-o"].map(Into::into).into();
        argv.push(figure.clone().into_os_string());
        argv.extend(self.argv(&args));
        self.finish(&argv)?;
        if command == Peak::Create {
            self.run_command(&["start", ID])?;
            wait_for_end(&pid_file)?;
            self.run_command(&["delete", ID])?;
        }
        let text = fs::read_to_string(&figure)?;
        text.trim()
            .parse()
            .with_context(|| format!("time wrote {text:?}"))
    }

    /// Whether the bundle runs `tries` times out of as many, each after `before`.
    ///
    /// # Errors
    /// If `before` fails.
    pub fn starts(
        &self,
        bundle: &Path,
        tries: usize,
        before: &dyn Fn() -> Result<()>,
    ) -> Result<bool> {
        let mut argv: Vec<OsString> = ["timeout", "-s", "KILL", LIMITED].map(Into::into).into();
        argv.extend(self.argv(&["run", "--bundle", &bundle.display().to_string(), ID]));
        for _ in 0..tries {
            before()?;
            if self.finish(&argv).is_err() {
                self.remove(ID);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.remove(ID);
        self.remove(SLEEPER);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A command whose peak memory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peak {
    /// Of `create`.
    Create,
    /// Of `run`.
    Run,
    /// Of `exec`.
    Exec,
}

/// Waits until the process of this file has ended, reaped or not.
fn wait_for_end(pid_file: &Path) -> Result<()> {
    let pid = fs::read_to_string(pid_file)?;
    let stat = format!("/proc/{}/stat", pid.trim());
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match fs::read_to_string(&stat) {
            Ok(text) if !is_ended(&text) => std::thread::sleep(Duration::from_micros(200)),
            _ => return Ok(()),
        }
    }
    bail!("process {} does not end", pid.trim())
}

/// The state follows the name, which may hold parentheses of its own.
fn is_ended(stat: &str) -> bool {
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

/// A bundle beside `model` with the same root file system, other arguments and a memory limit.
///
/// # Errors
/// If the model cannot be read or the folder not written.
pub fn bundle_like(
    model: &Path,
    name: &str,
    args: &[&str],
    memory: Option<u64>,
) -> Result<PathBuf> {
    let mut spec: Value = serde_json::from_slice(&fs::read(model.join("config.json"))?)?;
    spec["root"]["path"] = json!(model.join("rootfs"));
    spec["process"]["args"] = json!(args);
    if let Some(limit) = memory {
        spec["linux"]["resources"]["memory"] = json!({ "limit": limit });
    }
    let dir = model.with_file_name(name);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&spec)?)?;
    Ok(dir)
}

/// Drops the page cache, names and inodes.
///
/// # Errors
/// If the machine forbids it.
pub fn drop_caches() -> Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the machine's caches")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ended_zombie_is() {
        assert!(is_ended("12 (a) b) Z 1 1"));
        assert!(!is_ended("12 (Z) S 1 1"));
    }

    #[test]
    fn wait_for_end_process_that_is_gone_returns() {
        let dir = std::env::temp_dir().join(format!("hull-bench-test-{}", std::process::id()));
        fs::write(&dir, "4194305\n").expect("write");
        assert!(wait_for_end(&dir).is_ok());
        fs::remove_file(&dir).expect("remove");
    }
}
