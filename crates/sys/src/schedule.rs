//! How the kernel schedules the calling thread: policy, processors, I/O priority, memory policy,
//! and its execution domain.

use crate::{Errno, Result, check};

/// `struct sched_attr` of sched_setattr(2), first version (48 bytes).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedAttr {
    /// Filled in by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// −20 to 19, for the ordinary policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// Deadline policy, ns.
    pub runtime: u64,
    /// Deadline policy, ns.
    pub deadline: u64,
    /// Deadline policy, ns.
    pub period: u64,
}

/// Sets policy and priority (sched_setattr(2)).
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` for what needs it, `EINVAL` for values that do not fit the policy.
pub fn set_scheduler(attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr {
        size: std::mem::size_of::<SchedAttr>() as u32,
        ..*attr
    };
    // SAFETY: `attr` has the layout and size that it says; 0 is the calling thread.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// Sets the I/O priority (ioprio_set(2)): class 1 to 3, level 0 to 7.
///
/// # Errors
/// `EPERM` for the real-time class without privilege, `EINVAL`.
pub fn set_io_priority(class: u8, level: u8) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = u32::from(class) << IOPRIO_CLASS_SHIFT | u32::from(level);
    // SAFETY: integers alone; 0 is the calling thread.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets the execution domain (personality(2)).
///
/// # Errors
/// `EINVAL` for an unknown one.
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: an integer alone.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

/// Processors as a mask for sched_setaffinity(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuMask(Vec<u64>);

/// Processors known to a mask.
const MAX_CPUS: usize = 4096;

impl CpuMask {
    /// Reads a list such as `0-2,4`.
    ///
    /// # Errors
    /// `EINVAL` for what is no list of processors.
    pub fn parse(list: &str) -> Result<Self> {
        let mut words = vec![0u64; MAX_CPUS / 64];
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<usize>().map_err(|_| Errno::INVAL);
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last >= MAX_CPUS {
                return Err(Errno::INVAL);
            }
            for cpu in first..=last {
                if let Some(word) = words.get_mut(cpu / 64) {
                    *word |= 1 << (cpu % 64);
                }
            }
        }
        Ok(Self(words))
    }

    /// Lets the calling thread run on these processors alone.
    ///
    /// # Errors
    /// `EINVAL` if none of them may be used.
    pub fn apply(&self) -> Result<()> {
        // SAFETY: the pointer and the length are those of the mask; 0 is the calling thread.
        check(unsafe {
            libc::syscall(
                libc::SYS_sched_setaffinity,
                0,
                std::mem::size_of_val(self.0.as_slice()),
                self.0.as_ptr(),
            )
        })
        .map(drop)
    }
}

/// Sets the NUMA policy (set_mempolicy(2)): mode with flags, nodes as a bit mask.
///
/// # Errors
/// `EINVAL` for a mode that does not fit the nodes, `ENOSYS` without NUMA.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    let bits = nodes.len() * 64;
    // One more than there are: the kernel takes the greatest node's number plus one.
    let count = if bits == 0 { 0 } else { bits + 1 };
    // SAFETY: the kernel reads `count` bits at most, rounded up to the words that are there.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), count) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_lists_of_processors() {
        let mask = CpuMask::parse("0-2,65").expect("mask");
        assert_eq!(mask.0.first(), Some(&0b111));
        assert_eq!(mask.0.get(1), Some(&0b10));
        for bad in ["", "x", "3-1", "4096", "1,,2"] {
            assert_eq!(CpuMask::parse(bad), Err(Errno::INVAL), "{bad}");
        }
    }

    #[test]
    fn set_scheduler_of_a_thread_of_its_own() {
        std::thread::spawn(|| {
            let batch = SchedAttr {
                policy: libc::SCHED_BATCH as u32,
                nice: 5,
                ..SchedAttr::default()
            };
            set_scheduler(&batch).expect("batch");
            set_io_priority(2, 6).expect("best effort");
            CpuMask::parse("0")
                .expect("mask")
                .apply()
                .expect("affinity");
            assert!(
                set_scheduler(&SchedAttr {
                    policy: 99,
                    ..batch
                })
                .is_err()
            );
        })
        .join()
        .expect("thread");
    }
}
