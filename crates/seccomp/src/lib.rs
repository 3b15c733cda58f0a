//! OCI and Docker seccomp profiles compiled to classic BPF programs.
//!
//! ```text
//! JSON ──parse──▶ Profile ──resolve(caps, arch, kernel)──▶ Filter ──compile──▶ Program
//!                 └───────────── cache::load_or_compile ─────────────────────┘
//! ```
//!
//! The meaning is that of Docker and runc; where theirs lets a program around a rule, ours does
//! not: arguments the kernel reads as 32 bit numbers are compared as such (see `width.rs`).

mod action;
mod arch;
mod assemble;
pub mod cache;
mod compile;
mod filter;
mod json;
mod kernel;
mod multiplex;
mod profile;
mod program;
#[doc(hidden)] // for tests, those of other packages too
pub mod reference;
mod resolve;
mod table;
#[cfg(test)]
mod tests;
mod width;

pub use action::{ACTION_NAMES, Action, MAX_ERRNO};
pub use arch::{ARCH_NAMES, Arch, X32_SYSCALL_BIT};
pub use compile::{COMPILER_VERSION, CompileError};
pub use filter::Filter;
pub use kernel::KernelVersion;
pub use profile::{
    ArgTest, FLAG_NAMES, MAX_PROFILE_BYTES, OPERATOR_NAMES, ParseError, Profile, Test,
};
pub use program::{INSTRUCTION_BYTES, Instruction, MAX_INSTRUCTIONS, Program, ProgramError};
pub use resolve::{Env, ResolveError};
