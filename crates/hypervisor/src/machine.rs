//! A machine as plain data, and what every back end can be asked for.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// A machine to be booted.
#[derive(Debug)]
pub struct Machine {
    /// Kernel, an ELF file with an entry for virtual machines (PVH).
    pub kernel: PathBuf,
    /// First file system of the kernel.
    pub initrd: Option<PathBuf>,
    /// Words for the kernel; those that describe the machine itself are added.
    pub command_line: String,
    /// Processors.
    pub processors: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Disks in the order in which the guest sees them.
    pub disks: Vec<Disk>,
    /// Network interfaces, likewise.
    pub nics: Vec<Nic>,
    /// Folders that others serve.
    pub shares: Vec<Share>,
    /// What the guest's kernel writes to its console goes here: a stream socket whose other end
    /// somebody reads.
    pub console: OwnedFd,
    /// A stream socket to the guest's agent.
    pub channel: OwnedFd,
    /// Name of the channel in the guest.
    pub channel_name: String,
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    /// Its content as it is, opened for reading, and for writing unless `read_only`.
    pub file: OwnedFd,
    /// Cannot be written.
    pub read_only: bool,
    /// Serial number by which the guest finds it, at most 20 bytes; empty is none.
    pub serial: String,
}

/// A network interface.
#[derive(Debug)]
pub struct Nic {
    /// A tap of the host.
    pub tap: OwnedFd,
    /// Hardware address, `02:42:…`.
    pub mac: String,
    /// Largest packet.
    pub mtu: Option<u32>,
}

/// A folder that a file server of its own serves.
#[derive(Debug)]
pub struct Share {
    /// A socket connected to the server (vhost-user).
    pub server: OwnedFd,
    /// Name by which the guest mounts it.
    pub tag: String,
}

/// What some back ends can do and others cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Less memory, and more up to what it was booted with.
    MemoryWithinBoot,
    /// More memory than it was booted with.
    MemoryBeyondBoot,
    /// More or fewer processors.
    Processors,
    /// Free memory of the guest goes back to the host by itself.
    FreeMemoryReturns,
}

/// A program or library that runs machines.
pub trait Hypervisor {
    /// Whether its guests can be asked for it.
    fn can(&self, ability: Ability) -> bool;

    /// Boots a machine in the cell.
    ///
    /// # Errors
    /// If it could not be started; nothing is left then. What goes wrong later shows as its end.
    fn boot(&self, machine: Machine, cell: &dyn Cell) -> Result<Box<dyn Guest>, BootError>;
}

/// A machine that was booted. It is killed with its value.
pub trait Guest: std::fmt::Debug {
    /// Id on the host of the process that runs it.
    fn pid(&self) -> u32;

    /// Becomes readable when the machine has ended.
    fn process(&self) -> BorrowedFd<'_>;

    /// How it ended, once it did. Never waits.
    fn ended(&mut self) -> Option<GuestEnd>;

    /// Stops its processors.
    ///
    /// # Errors
    /// If it does not answer in time.
    fn pause(&mut self) -> Result<(), GuestError>;

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`Self::pause`].
    fn resume(&mut self) -> Result<(), GuestError>;

    /// Changes what it has.
    ///
    /// # Errors
    /// [`GuestError::Unable`] with the reason, if the back end cannot do that; nothing was changed.
    fn resize(&mut self, size: Size) -> Result<(), GuestError>;

    /// What the host has back of the machine's memory.
    ///
    /// # Errors
    /// As [`Self::pause`].
    fn memory_given_back(&mut self) -> Result<GivenBack, GuestError>;

    /// Ends it at once, as if the power was cut.
    fn stop(&mut self);

    /// The last of what its program complained of.
    fn complaints(&mut self) -> String;
}

/// A new size; what is none stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processors.
    pub processors: Option<u32>,
}

/// Memory that went back to the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenBack {
    /// Bytes that were asked for ([`Guest::resize`]) and given.
    pub asked: u64,
    /// What the guest does not need goes back by itself, too.
    pub by_itself: bool,
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestEnd {
    /// The guest powered off.
    PoweredOff,
    /// The program that ran it ended with this status, 128+n by signal n.
    Died(i32),
}

/// Why a machine was not booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Some value cannot be.
    #[error("invalid machine: {0}")]
    Invalid(String),
    /// A step before the start.
    #[error("cannot {action}: {errno}")]
    Prepare {
        /// What was to be done.
        action: &'static str,
        /// The system's reason.
        errno: hull_sys::Errno,
    },
    /// The cell did not run the program.
    #[error("cannot run {}: {reason}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// The cell's words.
        reason: String,
    },
}

/// Why a machine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// This back end cannot.
    #[error("{0}")]
    Unable(String),
    /// It gave no answer, or none that makes sense.
    #[error("the hypervisor does not answer ({0})")]
    Silent(&'static str),
    /// It refused.
    #[error("the hypervisor refuses to {action}: {reason}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// Its words.
        reason: String,
    },
    /// It has ended.
    #[error("the virtual machine has ended")]
    Ended,
}

/// Where the program of a hypervisor runs: confined, with nothing but what it is given.
pub trait Cell {
    /// Starts a program.
    ///
    /// # Errors
    /// The reason in words; nothing is left then.
    fn run(&self, program: Program) -> Result<Running, String>;
}

/// A program for a cell.
#[derive(Debug)]
pub struct Program {
    /// Its file on the host.
    pub path: PathBuf,
    /// Arguments after its name.
    pub args: Vec<String>,
    /// Standard output and error.
    pub output: OwnedFd,
    /// Stay open in the program under the very numbers they have here, which `args` name.
    pub descriptors: Vec<OwnedFd>,
    /// Files that it sees.
    pub files: Vec<CellFile>,
    /// It uses `/dev/kvm`.
    pub kvm: bool,
    /// Bytes of memory it needs at most.
    pub memory: u64,
}

/// A file in a cell, to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellFile {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the cell.
    pub inside: String,
}

/// A program that runs in a cell: a child of the caller.
#[derive(Debug)]
pub struct Running {
    /// Its id on the host.
    pub pid: u32,
    /// Handle of it.
    pub pidfd: OwnedFd,
}
