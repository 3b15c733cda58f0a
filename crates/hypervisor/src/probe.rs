//! Which acceleration works on this host, and why not a better one.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use hull_sys::Errno;

use crate::qemu;

/// How a guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor, through the kernel.
    Kvm,
    /// By translation: an order of magnitude slower, and works everywhere.
    Emulation,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Emulation => "emulation",
        })
    }
}

/// Why KVM is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No device.
    #[error(
        "/dev/kvm is missing: the kvm module is not loaded, or virtualisation is off in the firmware or not given to this machine"
    )]
    Missing,
    /// Not for us.
    #[error("/dev/kvm may not be opened by this user: add it to the group kvm")]
    NoPermission,
    /// Another hypervisor uses it.
    #[error("another hypervisor on this host holds the processor's virtualisation")]
    Held,
    /// Something else was opened, or KVM said no.
    #[error("/dev/kvm does not work: cannot {step}: {errno}")]
    Failed {
        /// Which step.
        step: &'static str,
        /// The system's reason.
        errno: Errno,
    },
    /// A KVM that gets through real mode at best.
    #[error(
        "the KVM of this host cannot run an ordinary kernel (nested without hardware support?): a probe guest {what} at {at}"
    )]
    Incapable {
        /// What it did.
        what: String,
        /// Which instruction it was about to execute.
        at: &'static str,
    },
}

/// What this host offers for virtual machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is used.
    pub accelerator: Accelerator,
    /// Why it is not KVM.
    pub unusable: Option<Unusable>,
    /// The program that runs machines; none if none is installed.
    pub program: Option<PathBuf>,
}

impl Probe {
    /// What runs machines, and how.
    #[must_use]
    pub fn program_and_accelerator(&self) -> String {
        match &self.program {
            Some(program) => format!("{} with {}", program.display(), self.accelerator),
            None => format!("none: {} is not installed", qemu::PROGRAM),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program_and_accelerator())?;
        match &self.unusable {
            Some(reason) => write!(f, "; {reason}"),
            None => Ok(()),
        }
    }
}

/// Asks the host once; later calls get the same answer. Takes some milliseconds, and at most a
/// second where KVM hangs.
pub fn probe() -> &'static Probe {
    static PROBE: OnceLock<Probe> = OnceLock::new();
    PROBE.get_or_init(|| {
        let unusable = check_kvm().err();
        Probe {
            accelerator: match &unusable {
                None => Accelerator::Kvm,
                Some(_) => Accelerator::Emulation,
            },
            unusable,
            program: qemu::find(),
        }
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn check_kvm() -> Result<(), Unusable> {
    Err(Unusable::Missing)
}

#[cfg(target_arch = "x86_64")]
fn check_kvm() -> Result<(), Unusable> {
    crate::probe_guest::check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_of_this_host_says_why_or_has_kvm() {
        let probe = probe();
        match &probe.unusable {
            None => assert_eq!(probe.accelerator, Accelerator::Kvm),
            Some(reason) => {
                assert_eq!(probe.accelerator, Accelerator::Emulation);
                let text = reason.to_string();
                assert!(
                    text.contains("kvm") || text.contains("KVM") || text.contains("hypervisor")
                );
                assert!(probe.to_string().contains(&text), "{probe}");
            }
        }
        if !std::path::Path::new("/dev/kvm").exists() {
            assert_eq!(probe.unusable, Some(Unusable::Missing));
        }
    }

    #[test]
    fn probe_without_program_says_which_is_missing() {
        let probe = Probe {
            accelerator: Accelerator::Kvm,
            unusable: None,
            program: None,
        };
        assert!(probe.to_string().contains("qemu-system-"));
    }
}
