//! Guest kernels: files that virtual machines boot, installed under names.
//!
//! ```text
//! DIR/NAME/vmlinux        an ELF file that is entered by its PVH note
//! DIR/NAME/config         what it was configured with, if that is known
//! DIR/NAME/manifest.json  version, size, digests
//! DIR/.default            a link to the NAME that is used where none is asked for
//! ```
//!
//! A kernel appears whole by rename. There is no state but the folder, so that any process may look.

mod elf;
mod error;
mod install;
mod manifest;
mod store;

pub use elf::check;
pub use error::KernelError;
pub use install::Install;
pub use manifest::Manifest;
pub use store::{Kernel, Kernels};
