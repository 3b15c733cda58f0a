//! Capabilities: the 41 names and bits, and setting a thread's sets.

use crate::{Errno, Result, check};

/// Names in the order of their bits (capabilities(7)).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containers have unless asked otherwise, as Docker grants it.
pub const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct CapSet(u64);

impl CapSet {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// All that have a name.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// From bits; unknown ones are kept.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// In both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// In either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every capability of `other` is in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The capability of this name: with or without `CAP_`, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES
            .iter()
            .position(|known| *known == short)
            .map(|bit| Self(1 << bit))
    }

    /// Names with `CAP_`, in the order of the bits.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        NAMES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| format!("CAP_{name}"))
            .collect()
    }
}

/// The sets of the calling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    /// Used for permission checks.
    pub effective: CapSet,
    /// What may be made effective.
    pub permitted: CapSet,
    /// What survives execve into files that allow it.
    pub inheritable: CapSet,
}

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Reads the calling thread's sets.
///
/// # Errors
/// None in practice.
pub fn get() -> Result<Sets> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: header and the two-element array have the layout of version 3.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| CapSet(u64::from(low) | u64::from(high) << 32);
    let [low, high] = data;
    Ok(Sets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// Sets the calling thread's sets.
///
/// # Errors
/// `EPERM` for what is not permitted.
pub fn set(sets: &Sets) -> Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| Data {
        effective: (sets.effective.0 >> shift) as u32,
        permitted: (sets.permitted.0 >> shift) as u32,
        inheritable: (sets.inheritable.0 >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: header and the two-element array have the layout of version 3.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Drops from the bounding set all that is not in `keep`.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn limit_bounding(keep: CapSet) -> Result<()> {
    for bit in 0..64u64 {
        if keep.0 & (1 << bit) != 0 {
            continue;
        }
        // SAFETY: prctl with integer arguments alone.
        match check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, bit, 0, 0, 0) })
        {
            Ok(_) => {}
            // The first number the kernel does not know ends the list.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Empties the ambient set.
///
/// # Errors
/// None on supported kernels.
pub fn clear_ambient() -> Result<()> {
    // SAFETY: prctl with integer arguments alone.
    check(unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    })
    .map(drop)
}

/// Adds capabilities, which must be permitted and inheritable, to the ambient set.
///
/// # Errors
/// `EPERM` if one is not.
pub fn raise_ambient(set: CapSet) -> Result<()> {
    for bit in (0..64u64).filter(|bit| set.0 & (1 << bit) != 0) {
        // SAFETY: prctl with integer arguments alone.
        check(unsafe {
            libc::syscall(
                libc::SYS_prctl,
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                bit,
                0,
                0,
            )
        })?;
    }
    Ok(())
}

/// Whether a change of the user id keeps the permitted set (until the next execve).
///
/// # Errors
/// None on supported kernels.
pub fn keep_on_setuid(keep: bool) -> Result<()> {
    // SAFETY: prctl with integer arguments alone.
    check(unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_SET_KEEPCAPS,
            u64::from(keep),
            0,
            0,
            0,
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_name_every_name_maps_to_its_own_bit_and_back() {
        for (bit, name) in NAMES.iter().enumerate() {
            let set = CapSet::from_name(&format!("cap_{}", name.to_lowercase())).expect("known");
            assert_eq!(set.bits(), 1 << bit);
            assert_eq!(set.names(), vec![format!("CAP_{name}")]);
        }
        assert_eq!(CapSet::from_name("CAP_NONSENSE"), None);
    }

    #[test]
    fn get_then_set_same_sets_is_allowed() {
        let sets = get().expect("capget");
        set(&sets).expect("capset");
        assert!(sets.permitted.contains(sets.effective));
    }
}
