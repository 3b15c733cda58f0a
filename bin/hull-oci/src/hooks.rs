//! Hooks: programs of config.json that are run at points of a container's life.
//!
//! ```text
//! create   all is mounted ─▶ prestart, createRuntime ─▶ createContainer ─▶ the root is changed
//! start    startContainer ─▶ the program ─▶ poststart
//! delete   all is gone ─▶ poststop
//! ```
//!
//! prestart, createRuntime, poststart and poststop run here, createContainer in the namespaces of
//! the container with the host's files, startContainer with the container's.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hull_container::{ExecTarget, Host, InnerHooks, Options, Outcome, Stdio};
use hull_proto::plan::ProcessPlan;
use hull_sys::pidfd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::log::Log;
use crate::spec::absolute;
use crate::state::{Record, Status};

/// Bytes of a hook's output that an error shows.
const MAX_OUTPUT: u64 = 4096;

/// All hooks of a container, in the order of its life.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hooks {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) prestart: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) create_runtime: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) create_container: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) start_container: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststart: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststop: Vec<Hook>,
}

/// One program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hook {
    path: PathBuf,
    args: Vec<String>,
    env: Vec<String>,
    /// Seconds.
    timeout: Option<u64>,
}

/// Translates `hooks` of config.json.
#[allow(deprecated)] // bundles still have prestart hooks
pub(crate) fn translate(hooks: &oci_spec::runtime::Hooks) -> Result<Hooks> {
    let list = |name: &str, list: &Option<Vec<oci_spec::runtime::Hook>>| {
        let list = list.iter().flatten().enumerate();
        list.map(|(index, hook)| translate_hook(hook, &format!("hooks.{name}[{index}]")))
            .collect::<Result<Vec<_>>>()
    };
    Ok(Hooks {
        prestart: list("prestart", hooks.prestart())?,
        create_runtime: list("createRuntime", hooks.create_runtime())?,
        create_container: list("createContainer", hooks.create_container())?,
        start_container: list("startContainer", hooks.start_container())?,
        poststart: list("poststart", hooks.poststart())?,
        poststop: list("poststop", hooks.poststop())?,
    })
}

fn translate_hook(hook: &oci_spec::runtime::Hook, field: &str) -> Result<Hook> {
    absolute(&format!("{field}.path"), hook.path())?;
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(seconds),
            _ => bail!("config.json: {field}.timeout {seconds} is not above zero"),
        },
    };
    let env = hook.env().clone().unwrap_or_default();
    if let Some(index) = env.iter().position(|item| !item.contains('=')) {
        bail!("config.json: {field}.env[{index}] has no '='");
    }
    Ok(Hook {
        path: hook.path().clone(),
        args: hook.args().clone().unwrap_or_default(),
        env,
        timeout,
    })
}

impl Hooks {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the parent is needed while the container is made.
    pub(crate) fn needs_stop(&self) -> bool {
        !(self.prestart.is_empty()
            && self.create_runtime.is_empty()
            && self.create_container.is_empty())
    }

    /// Those that the first process runs itself.
    pub(crate) fn inner(&self) -> Vec<hull_container::Hook> {
        as_inner(&self.create_container)
    }

    /// Those of the start, where only the first process itself can: a user other than root may not
    /// join it before it runs its program.
    pub(crate) fn inner_start(&self) -> Vec<hull_container::Hook> {
        if rustix::process::geteuid().is_root() {
            return Vec::new();
        }
        as_inner(&self.start_container)
    }
    /// Those of `create` in the namespaces of the runtime, and what the others of it will read.
    pub(crate) fn on_create(
        &self,
        record: &Record,
        pid: u32,
        inner: Option<&InnerHooks>,
        start: Option<&InnerHooks>,
    ) -> Result<()> {
        let state = state(record, Status::Creating, pid)?;
        run_all("prestart", &self.prestart, &state, &record.bundle)?;
        run_all(
            "createRuntime",
            &self.create_runtime,
            &state,
            &record.bundle,
        )?;
        if let Some(inner) = inner {
            let inside = self::state(record, Status::Creating, pid_inside(pid))?;
            inner
                .set_state(&inside)
                .context("cannot tell createContainer hooks the state")?;
        }
        if let Some(start) = start {
            let inside = self::state(record, Status::Created, pid_inside(pid))?;
            start
                .set_state(&inside)
                .context("cannot tell startContainer hooks the state")?;
        }
        Ok(())
    }

    /// Those in the container, right before its program.
    pub(crate) fn on_start(&self, record: &Record, host: &Host, cache: &Path) -> Result<()> {
        if self.start_container.is_empty() {
            return Ok(());
        }
        let state = state(record, Status::Created, pid_inside(record.pid))?;
        let process = record
            .process()
            .context("the container ended before it was started")?;
        let group = record
            .open_cgroup(host)?
            .context("the container's control group is gone")?;
        let target = ExecTarget {
            pid: record.pid,
            pidfd: process.as_fd(),
            cgroup: group.as_ref(),
            also: record.own_namespaces(),
            chroot: record.root_mount.is_some(),
        };
        for (index, hook) in self.start_container.iter().enumerate() {
            hook.run_inside(record, host, &target, cache, &state)
                .with_context(|| hook.failure("startContainer", index))?;
        }
        Ok(())
    }

    /// Waits for those that the first process runs itself.
    pub(crate) fn await_start(&self, record: &Record, pipe: &OwnedFd) -> Result<()> {
        let process = record.process();
        loop {
            // Looked at once more after the end: the answer comes before it.
            let is_over = process.as_ref().is_none_or(|process| {
                let mut fds = [
                    PollFd::new(process, PollFlags::IN),
                    PollFd::new(pipe, PollFlags::IN),
                ];
                // Interrupted: looked at again.
                let _ = poll(&mut fds, None);
                !fds[0].revents().is_empty()
            });
            let Some(outcome) = Outcome::read(pipe) else {
                if is_over {
                    bail!("the container ended before startContainer hooks did");
                }
                continue;
            };
            let what = match outcome.status {
                0 => return Ok(()),
                status if status > 0 => format!("exit status {status}"),
                errno => {
                    let errno = rustix::io::Errno::from_raw_os_error(errno.saturating_neg());
                    format!("{errno}")
                }
            };
            let index = usize::try_from(outcome.index).unwrap_or(0);
            let hook = self.start_container.get(index);
            let hook = hook.context("a startContainer hook failed")?;
            bail!("{}: {what}", hook.failure("startContainer", index));
        }
    }

    /// Those after the program was started: a failure is a warning.
    pub(crate) fn after_start(&self, record: &Record, log: &Log) {
        self.warn("poststart", &self.poststart, record, Status::Running, log);
    }

    /// Those after all is gone: a failure is a warning.
    pub(crate) fn after_delete(&self, record: &Record, log: &Log) {
        self.warn("poststop", &self.poststop, record, Status::Stopped, log);
    }

    fn warn(&self, name: &str, list: &[Hook], record: &Record, status: Status, log: &Log) {
        if list.is_empty() {
            return;
        }
        let pid = if status == Status::Stopped {
            0
        } else {
            record.pid
        };
        for (index, hook) in list.iter().enumerate() {
            let done = state(record, status, pid)
                .and_then(|state| hook.run(&state, &record.bundle))
                .with_context(|| hook.failure(name, index));
            if let Err(error) = done {
                log.warn(&format!("{error:#}"));
            }
        }
    }
}

fn as_inner(list: &[Hook]) -> Vec<hull_container::Hook> {
    list.iter()
        .map(|hook| hull_container::Hook {
            path: hook.path.clone(),
            args: hook.args.clone(),
            env: hook.env.clone(),
            timeout: hook.timeout.map(Duration::from_secs),
        })
        .collect()
}

fn run_all(name: &str, list: &[Hook], state: &[u8], bundle: &Path) -> Result<()> {
    for (index, hook) in list.iter().enumerate() {
        hook.run(state, bundle)
            .with_context(|| hook.failure(name, index))?;
    }
    Ok(())
}

impl Hook {
    fn failure(&self, name: &str, index: usize) -> String {
        format!("error running {name} hook #{index} {}", self.path.display())
    }

    /// Runs it here.
    fn run(&self, state: &[u8], bundle: &Path) -> Result<()> {
        let output = in_memory("hook-output", &[])?;
        let mut command = Command::new(&self.path);
        if let Some((name, args)) = self.args.split_first() {
            command.arg0(name).args(args);
        }
        let variables = self.env.iter().filter_map(|item| item.split_once('='));
        command.env_clear().envs(variables);
        if bundle.is_dir() {
            command.current_dir(bundle);
        }
        let mut child = command
            .process_group(0)
            .stdin(in_memory("hook-state", state)?)
            .stdout(output.try_clone().context("cannot pass the output on")?)
            .stderr(output.try_clone().context("cannot pass the output on")?)
            .spawn()
            .context("cannot execute it")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("it has no process id")?;
        let handle = pidfd::open(pid).context("cannot watch it")?;
        let on_time = wait(&handle, self.timeout)?;
        if !on_time {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = child.wait().context("cannot wait for it")?;
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        self.judge(on_time, code, output)
    }

    /// Runs it in the container, as its first process would be.
    fn run_inside(
        &self,
        record: &Record,
        host: &Host,
        target: &ExecTarget<'_>,
        cache: &Path,
        state: &[u8],
    ) -> Result<()> {
        let program = self.path.to_string_lossy().into_owned();
        let plan = ProcessPlan {
            args: if self.args.is_empty() {
                vec![program.clone()]
            } else {
                self.args.clone()
            },
            env: self.env.clone(),
            program,
            tty: false,
            console_size: None,
            ..record.process.clone()
        };
        let state = in_memory("hook-state", state)?;
        let output = in_memory("hook-output", &[])?;
        let stdio = Stdio {
            stdin: state.as_fd(),
            stdout: output.as_fd(),
            stderr: output.as_fd(),
        };
        let started =
            hull_container::exec(host, target, &plan, cache, &stdio, &Options::default())?;
        let on_time = wait(&started.pidfd, self.timeout)?;
        if !on_time {
            // It leads a session of its own.
            let pid = i32::try_from(started.pid).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process_group(pid, Signal::KILL));
        }
        let ended = pidfd::wait(&started.pidfd, true).context("cannot wait for it")?;
        let code = ended.map_or(0, |ended| ended.exit.status());
        self.judge(on_time, code, output)
    }

    fn judge(&self, on_time: bool, code: i32, output: std::fs::File) -> Result<()> {
        if on_time && code == 0 {
            return Ok(());
        }
        let what = match self.timeout {
            Some(seconds) if !on_time => format!("hook ran past specified timeout of {seconds}s"),
            _ => format!("exit status {code}"),
        };
        match said(output) {
            said if said.is_empty() => bail!("{what}"),
            said => bail!("{what}: {said}"),
        }
    }
}

/// Waits for the end; false if the time was over before.
fn wait(process: &OwnedFd, seconds: Option<u64>) -> Result<bool> {
    let deadline = seconds.map(|seconds| std::time::Instant::now() + Duration::from_secs(seconds));
    loop {
        let left = deadline.map(|end| end.saturating_duration_since(std::time::Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut [PollFd::new(process, PollFlags::IN)], left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for it"),
        }
    }
}

/// A file without a name, to be read from its beginning; what is written goes to its end.
fn in_memory(name: &str, content: &[u8]) -> Result<std::fs::File> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC).context("cannot make a file in memory")?;
    let mut file = std::fs::File::from(file);
    file.write_all(content)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .context("cannot fill a file in memory")?;
    if content.is_empty() {
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND).context("cannot open a file to append")?;
    }
    Ok(file)
}

fn said(mut output: std::fs::File) -> String {
    let mut bytes = Vec::new();
    // An addition to an error: none is as good as one that cannot be read.
    let _ = output
        .seek(SeekFrom::Start(0))
        .and_then(|_| output.take(MAX_OUTPUT).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// The state as hooks read it.
pub(crate) fn state(record: &Record, status: Status, pid: u32) -> Result<Vec<u8>> {
    let mut state = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": status.name(),
        "bundle": record.bundle,
    });
    if let Some(fields) = state.as_object_mut() {
        if pid != 0 {
            fields.insert("pid".to_owned(), json!(pid));
        }
        if !record.annotations.is_empty() {
            fields.insert("annotations".to_owned(), json!(record.annotations));
        }
    }
    serde_json::to_vec(&state).context("cannot write the state for hooks")
}

/// The process id as the container sees it.
fn pid_inside(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|ids| ids.split_whitespace().last())
        .and_then(|id| id.parse().ok())
        .unwrap_or(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["A=b".to_owned()],
            timeout,
        }
    }

    #[test]
    fn run_state_is_on_stdin_and_failure_shows_output_and_status() {
        let failed = hook("cat; echo $A $0; exit 4", None)
            .run(b"{\"id\":1}", Path::new("/"))
            .expect_err("failed");
        assert_eq!(failed.to_string(), "exit status 4: {\"id\":1}b sh");
    }

    #[test]
    fn run_too_slow_is_killed_with_its_children() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("late");
        let script = format!("(sleep 2; touch {}) & sleep 30", file.display());
        let failed = hook(&script, Some(1))
            .run(b"", Path::new("/"))
            .expect_err("too slow");
        assert!(failed.to_string().contains("timeout of 1s"), "{failed}");
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!file.exists());
    }

    #[test]
    fn translate_relative_path_and_timeout_zero_are_refused_by_name() {
        let parse = |text: &str| {
            let hooks: oci_spec::runtime::Hooks = serde_json::from_str(text).expect("json");
            translate(&hooks)
        };
        let refused = |text: &str| parse(text).expect_err("refused").to_string();
        let text = refused(r#"{"poststop":[{"path":"/a"},{"path":"b"}]}"#);
        assert!(text.contains("hooks.poststop[1].path"), "{text}");
        let text = refused(r#"{"createRuntime":[{"path":"/a","timeout":0}]}"#);
        assert!(text.contains("hooks.createRuntime[0].timeout"), "{text}");
        assert!(parse("{}").expect("none").is_empty());
    }
}
