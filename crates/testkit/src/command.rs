//! Running a program with input, a time limit and captured output.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a program may take unless the test says otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// A program about to be run.
#[derive(Debug)]
pub struct Run {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<OsString>,
    input: Option<Vec<u8>>,
    limit: Duration,
}

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code, or 128 + n after signal n.
    pub code: i32,
    /// Standard output as it came.
    pub bytes: Vec<u8>,
    /// Standard output as text.
    pub stdout: String,
    /// Standard error as text.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
}

/// A program that runs while the test does other things; killed when dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    limit: Duration,
    started: Instant,
}

impl Run {
    /// A program with no arguments yet, no input, and a limit of one minute.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            input: None,
            limit: LIMIT,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working folder.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().as_os_str().to_owned());
        self
    }

    /// Gives standard input; without it the program reads an empty one.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Changes the time limit.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts the program and returns at once.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(self) -> Running {
        let shown = self.shown();
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(if self.input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let started = Instant::now();
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), self.input) {
            // A program may end without reading: a broken pipe is its own matter.
            std::thread::spawn(move || pipe.write_all(&bytes));
        }
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        Running {
            command: shown,
            child,
            stdout,
            stderr,
            limit: self.limit,
            started,
        }
    }

    /// Runs the program to its end.
    ///
    /// # Panics
    /// If it cannot be started or does not end in time.
    #[must_use]
    pub fn run(self) -> Output {
        self.spawn().finish()
    }

    /// Runs the program, demands exit code 0 and returns its output without the last newline.
    ///
    /// # Panics
    /// If it fails.
    pub fn ok(self) -> String {
        self.run().ok()
    }

    fn shown(&self) -> String {
        let mut text = Path::new(&self.program)
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        for arg in &self.args {
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        text
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

impl Running {
    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name without SIG, as `kill -NAME`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end within the limit.
    #[must_use]
    pub fn finish(mut self) -> Output {
        let Some(status) = self.wait_within(self.limit) else {
            let _ = self.child.kill();
            let _ = self.child.wait();
            panic!("{} did not end within {:?}", self.command, self.limit);
        };
        let elapsed = self.started.elapsed();
        let bytes = collect(self.stdout.take());
        let stderr = collect(self.stderr.take());
        Output {
            command: std::mem::take(&mut self.command),
            code: code_of(status),
            stdout: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            elapsed,
        }
    }

    fn wait_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = self.started + limit;
        let mut pause = Duration::from_micros(200);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn collect(reader: Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    reader
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default()
}

fn code_of(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

impl Output {
    /// Demands exit code 0; returns standard output without the last newline.
    ///
    /// # Panics
    /// If the code is another.
    pub fn ok(&self) -> String {
        assert_eq!(
            self.code, 0,
            "{} failed:\n{}{}",
            self.command, self.stdout, self.stderr
        );
        self.stdout
            .strip_suffix('\n')
            .unwrap_or(&self.stdout)
            .to_owned()
    }

    /// Demands an exit code and returns standard error.
    ///
    /// # Panics
    /// If the code is another.
    pub fn fails(&self, code: i32) -> &str {
        assert_eq!(
            self.code, code,
            "{} ended with {}, not {code}:\n{}{}",
            self.command, self.code, self.stdout, self.stderr
        );
        &self.stderr
    }

    /// Demands an exit code and a part of the message, without regard to case.
    ///
    /// # Panics
    /// If either is missing.
    pub fn fails_saying(&self, code: i32, part: &str) {
        let text = format!("{}{}", self.stdout, self.stderr).to_lowercase();
        self.fails(code);
        assert!(
            text.contains(&part.to_lowercase()),
            "{} does not say {part:?}:\n{}{}",
            self.command,
            self.stdout,
            self.stderr
        );
    }
}
