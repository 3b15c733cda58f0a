//! Virtual machines: what they are, and the programs that run them.
//!
//! ```text
//! Machine (plain data) ──boot──▶ Hypervisor (trait) ──▶ Guest: pause · resume · resize · stop
//!                                   └─ qemu: a program in a Cell, which the caller provides
//! probe() ──▶ KVM or emulation, and why
//! ```
//!
//! Nothing here waits for long, makes threads of its own (but for the probe), or knows what runs
//! inside a guest: that is between the caller and the far end of the machine's channel.

mod initramfs;
mod machine;
mod probe;
#[cfg(target_arch = "x86_64")]
mod probe_guest;
pub mod qemu;

pub use initramfs::{Archive, initramfs};
pub use machine::{
    Ability, BootError, Cell, CellFile, Disk, GivenBack, Guest, GuestEnd, GuestError, Hypervisor,
    Machine, Nic, Program, Running, Share, Size,
};
pub use probe::{Accelerator, Probe, Unusable, probe};
