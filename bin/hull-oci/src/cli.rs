//! The command line, with runc's names.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Newest version of the specification that is followed.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

/// In lines that engines take apart as those of runc.
const VERSION: &str = concat!(
    "version ",
    env!("CARGO_PKG_VERSION"),
    "\nspec: 1.3.0\nseccomp: built in"
);

/// OCI runtime: containers out of bundles.
#[derive(Debug, Parser)]
#[command(
    name = "hull-oci",
    about,
    version = VERSION,
    disable_version_flag = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    /// Print the version, and that of the specification
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    pub(crate) fn new(globals: Globals, command: Command) -> Self {
        Self {
            globals,
            version: None,
            command,
        }
    }
}

/// Options before the command.
#[derive(Debug, Args)]
pub(crate) struct Globals {
    /// Folder in which containers are recorded; in memory, best [default: /run/hull-oci, and for
    /// users other than root hull-oci in $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Do without a control group where none may be made and no limit is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) rootless: Rootless,
    /// File to which errors and warnings go, too
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Form of its lines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Let systemd make control groups; linux.cgroupsPath is then slice:prefix:name
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Tell each command, too
    #[arg(long)]
    pub(crate) debug: bool,
    /// Program that checkpoint and restore use
    #[arg(long, value_name = "FILE", default_value = "criu", hide = true)]
    pub(crate) criu: PathBuf,
}

/// Whether a control group can be done without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rootless {
    /// For whoever is not root of the host
    #[default]
    Auto,
    /// For everybody
    True,
    /// For nobody
    False,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// `time="…" level=error msg="…"`
    Text,
    /// One object a line
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container that waits to be started
    Create(Create),
    /// Start a container that was created
    Start(Id),
    /// Make a container, start it and wait for its end
    Run(Run),
    /// Print the state of a container
    State(Id),
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Remove what a stopped container left
    Delete(Delete),
    /// Run one more process in a container
    Exec(Exec),
    /// List the containers
    List(List),
    /// List the processes of a container
    Ps(Ps),
    /// Freeze all processes of a container
    Pause(Id),
    /// Let them go on
    Resume(Id),
    /// Change the limits of a container
    Update(Update),
    /// Tell what a container uses, and when its memory runs out
    Events(Events),
    /// Write a config.json to begin with
    Spec(Spec),
    /// Print what this runtime supports
    Features,
    /// Write a running container to files, by CRIU
    Checkpoint(Checkpoint),
    /// Make a container of such files
    Restore(Restore),
}

/// A container.
#[derive(Debug, Args)]
pub(crate) struct Id {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
}

/// `create`, and what it shares with `run`.
#[derive(Debug, Default, Args)]
pub(crate) struct Create {
    /// Folder of the bundle [default: the current one]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// Unix socket that gets the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// File that gets the process id
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Use no pivot_root (not supported)
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the session keyring of the caller
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass so many descriptors from 3 on to the program
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Unix socket that gets a handle on the first process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Return once it runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the record of the container after its end
    #[arg(long)]
    pub(crate) keep: bool,
    /// Leave processes that lose their parents to others
    #[arg(long)]
    pub(crate) no_subreaper: bool,
}

/// What `checkpoint` and `restore` share.
#[derive(Debug, Default, Args)]
pub(crate) struct CriuOptions {
    /// Folder of the files [default: checkpoint]
    #[arg(long, value_name = "DIR")]
    pub(crate) image_path: Option<PathBuf>,
    /// Folder of CRIU's log and other files of its own [default: that of --image-path]
    #[arg(long, value_name = "DIR")]
    pub(crate) work_path: Option<PathBuf>,
    /// Allow open TCP connections
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// Allow Unix sockets connected to the outside
    #[arg(long)]
    pub(crate) ext_unix_sk: bool,
    /// Allow a session that began outside
    #[arg(long)]
    pub(crate) shell_job: bool,
    /// Handle file locks
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// Leave memory where it is until it is asked for
    #[arg(long)]
    pub(crate) lazy_pages: bool,
    /// What becomes of control groups: soft, full, strict or ignore
    #[arg(long, value_name = "MODE")]
    pub(crate) manage_cgroups_mode: Option<String>,
    /// Make this namespace empty: network
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) empty_ns: Option<String>,
    /// Drop what is twice in the files
    #[arg(long)]
    pub(crate) auto_dedup: bool,
}

/// `checkpoint`.
#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    pub(crate) criu: CriuOptions,
    /// Folder of earlier files of --pre-dump, relative to --image-path
    #[arg(long, value_name = "DIR")]
    pub(crate) parent_path: Option<PathBuf>,
    /// Let it run on
    #[arg(long)]
    pub(crate) leave_running: bool,
    /// Descriptor that gets a zero byte once lazy pages are ready
    #[arg(long, value_name = "FD", allow_hyphen_values = true)]
    pub(crate) status_fd: Option<i32>,
    /// Server that gets the memory
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) page_server: Option<String>,
    /// Write the memory alone, and let it run on
    #[arg(long)]
    pub(crate) pre_dump: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
}

/// `restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) criu: CriuOptions,
    /// Folder of the bundle [default: the current one]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// Return once it runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File that gets the process id
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Unix socket that gets the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Leave processes that lose their parents to others
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    /// Accepted for callers that pass it: the root is changed by CRIU
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Security profile, TYPE:NAME
    #[arg(long, value_name = "PROFILE")]
    pub(crate) lsm_profile: Option<String>,
    /// Security context of mounts
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) lsm_mount_context: Option<String>,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
}

/// `kill`.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Send it to all processes of the container
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM", allow_hyphen_values = true)]
    pub(crate) signal: String,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Kill it first if it still runs; no error if there is none
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Unix socket that gets the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Further environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// With a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// User, as numbers
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Additional groups
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// File with a process as in config.json
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Return once it runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File that gets the process id
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Forbid to gain privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// One more capability
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// Pass so many descriptors from 3 on to the program
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Control group below the container's to run in, which is there already; a CONTROLLER, or
    /// several with commas between, is for cgroup v1
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Unix socket that gets a handle on the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Also in a paused container: it runs once that is resumed
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
    /// Program and arguments
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
}

/// Form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// `list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Form of the list
    #[arg(short, long, default_value = "table")]
    pub(crate) format: Format,
    /// Names alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Form of the list
    #[arg(short, long, default_value = "table")]
    pub(crate) format: Format,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
    /// Options of ps(1) [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

/// `update`. What is not given stays as it is.
#[derive(Debug, Default, Args)]
pub(crate) struct Update {
    /// File with limits as in config.json's linux.resources, or - for standard input; then no
    /// other option counts
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Memory, bytes with a unit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Soft limit of memory
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    /// Ignored: the kernel has no such limit any more
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) kernel_memory: Option<String>,
    /// Memory of TCP buffers (cgroup v1)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// CPU period, µs
    #[arg(long, value_name = "US")]
    pub(crate) cpu_period: Option<String>,
    /// CPU time in a period, µs; -1 for no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<String>,
    /// CPU time that can be saved up, µs
    #[arg(long, value_name = "US")]
    pub(crate) cpu_burst: Option<String>,
    /// Share of CPU time
    #[arg(long, value_name = "SHARES")]
    pub(crate) cpu_share: Option<String>,
    /// Real-time period, µs (cgroup v1)
    #[arg(long, value_name = "US")]
    pub(crate) cpu_rt_period: Option<String>,
    /// Real-time CPU time in a period, µs (cgroup v1)
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<String>,
    /// CPUs, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Run when nothing else does: 1 or 0
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    pub(crate) cpu_idle: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u16>,
    /// Line of Intel's cache allocation
    #[arg(long, value_name = "LINE")]
    pub(crate) l3_cache_schema: Option<String>,
    /// Line of Intel's memory bandwidth allocation
    #[arg(long, value_name = "LINE")]
    pub(crate) mem_bw_schema: Option<String>,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
}

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Tell what it uses every so often
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub(crate) interval: String,
    /// Tell what it uses once
    #[arg(long)]
    pub(crate) stats: bool,
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(crate) id: String,
}

/// `spec`.
#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// Folder of the bundle [default: the current one]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// For a user without the rights of root
    #[arg(long)]
    pub(crate) rootless: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exec_command_keeps_its_own_flags() {
        let cli =
            Cli::try_parse_from(["hull-oci", "exec", "-d", "c1", "ls", "-l", "-d"]).expect("parse");
        let Command::Exec(exec) = cli.command else {
            panic!("not exec")
        };
        assert_eq!(exec.command, ["ls", "-l", "-d"]);
        assert!(exec.detach);
    }
}
