//! PID 1 of a guest, the init of containers run with `--init`, and the hull/hello program.

mod guest;
mod hello;
mod init;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use rustix::time::{ClockId, clock_gettime};

const USAGE: &str = "\
usage: hull-agent [hello]               say what this program sees around it
       hull-agent init -- COMMAND…      run COMMAND as its init: forward signals, reap children
       hull-agent guest FD              serve the channel of a guest at an open descriptor
       hull-agent --version

As process 1 called init it rules a guest: it mounts, opens the channel and serves it.
Called as docker-init it takes [--] COMMAND… alone.";

/// What a command line that makes no sense ends with, as Docker's clients expect of any usage error.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // Before all else: hello reports how long it took to get here.
    let started = clock_gettime(ClockId::Realtime);

    let mut args = std::env::args_os();
    let called_as = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    // The kernel hands on words of its command line: they are not for us.
    if called_as == "/init" && rustix::process::getpid().is_init() {
        return guest::run();
    }
    let is_init = Path::new(&called_as)
        .file_name()
        .is_some_and(|name| name == "docker-init");
    if is_init {
        return run_init(&args);
    }
    match args.split_first() {
        None => hello::run(started),
        Some((first, rest)) => match first.as_bytes() {
            b"hello" if rest.is_empty() => hello::run(started),
            b"init" => run_init(rest),
            b"guest" => match rest {
                [number] => match number.to_str().and_then(|text| text.parse().ok()) {
                    Some(number) => guest::serve_inherited(number),
                    None => usage_error(&format!("hull-agent: {number:?} is no descriptor")),
                },
                _ => usage_error("hull-agent: guest takes one descriptor"),
            },
            b"--version" | b"-V" => {
                say(&format!("hull-agent {}\n", env!("CARGO_PKG_VERSION")));
                ExitCode::SUCCESS
            }
            b"--help" | b"-h" => {
                say(&format!("{USAGE}\n"));
                ExitCode::SUCCESS
            }
            _ => usage_error(&format!("hull-agent: unknown command {first:?}")),
        },
    }
}

fn run_init(args: &[OsString]) -> ExitCode {
    let command = match args.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => args,
    };
    if command.is_empty() {
        return usage_error("docker-init: no command given");
    }
    init::run(command)
}

fn usage_error(problem: &str) -> ExitCode {
    complain(&format!("{problem}\n\n{USAGE}\n"));
    ExitCode::from(EXIT_USAGE)
}

/// Writes to standard output; a reader that went away is no error worth a word.
fn say(text: &str) {
    let _ = write_all(rustix::stdio::stdout(), text.as_bytes());
}

/// Writes to standard error.
fn complain(text: &str) {
    let _ = write_all(rustix::stdio::stderr(), text.as_bytes());
}

fn write_all(fd: impl std::os::fd::AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
