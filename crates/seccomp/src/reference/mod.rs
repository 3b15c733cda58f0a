//! What compiled filters are held against: rules read naively, and a kernel's way through a program.

pub mod calls;
pub mod interpreter;
pub mod naive;

use crate::Arch;

/// What a filter is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The calling convention, as AUDIT_ARCH_*.
    pub arch: u32,
    /// The number of the system call.
    pub number: u32,
    /// Its arguments as the registers hold them.
    pub args: [u64; 6],
}

impl Call {
    /// A call by name.
    ///
    /// # Panics
    /// If the convention has no such call.
    #[must_use]
    pub fn new(arch: Arch, name: &str, args: &[u64]) -> Self {
        let number = arch
            .syscall_number(name)
            .unwrap_or_else(|| panic!("{arch:?} has no {name}"));
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        Self {
            arch: arch.audit(),
            number,
            args: all,
        }
    }
}
