//! Resource limits: names, and setting them as far as the host allows.

use crate::{Errno, Result, check};

/// Names as `--ulimit` and the OCI spec (with `RLIMIT_`) use them, with their numbers.
const NAMES: [(&str, u32); 16] = [
    ("cpu", libc::RLIMIT_CPU),
    ("fsize", libc::RLIMIT_FSIZE),
    ("data", libc::RLIMIT_DATA),
    ("stack", libc::RLIMIT_STACK),
    ("core", libc::RLIMIT_CORE),
    ("rss", libc::RLIMIT_RSS),
    ("nproc", libc::RLIMIT_NPROC),
    ("nofile", libc::RLIMIT_NOFILE),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("as", libc::RLIMIT_AS),
    ("locks", libc::RLIMIT_LOCKS),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
];

/// Number of the resource of this name: `nofile` or `RLIMIT_NOFILE`.
#[must_use]
pub fn from_name(name: &str) -> Option<u32> {
    let lower = name.to_ascii_lowercase();
    let short = lower.strip_prefix("rlimit_").unwrap_or(&lower);
    NAMES
        .iter()
        .find(|(known, _)| *known == short)
        .map(|(_, number)| *number)
}

/// Name of a resource.
#[must_use]
pub fn name(resource: u32) -> Option<&'static str> {
    NAMES
        .iter()
        .find(|(_, number)| *number == resource)
        .map(|(name, _)| *name)
}

/// A limit; `u64::MAX` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What counts now.
    pub soft: u64,
    /// To where the process may raise it.
    pub hard: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// As asked.
    Full,
    /// The host forbids raising the hard limit: this is the highest it allows.
    Capped(Limit),
}

/// The calling process's limit.
///
/// # Errors
/// `EINVAL` for an unknown resource.
pub fn get(resource: u32) -> Result<Limit> {
    prlimit(resource, None)
}

/// Sets the calling process's limit, or the nearest one that the host allows.
///
/// # Errors
/// `EINVAL` for an unknown resource or a soft limit above the hard one.
pub fn set(resource: u32, limit: Limit) -> Result<Applied> {
    match prlimit(resource, Some(limit)) {
        Ok(_) => Ok(Applied::Full),
        Err(Errno::PERM) => {
            let capped = capped(limit, get(resource)?);
            prlimit(resource, Some(capped))?;
            Ok(Applied::Capped(capped))
        }
        Err(error) => Err(error),
    }
}

/// What remains of a wish where the hard limit cannot be raised.
#[must_use]
pub fn capped(wanted: Limit, now: Limit) -> Limit {
    Limit {
        soft: wanted.soft.min(now.hard),
        hard: wanted.hard.min(now.hard),
    }
}

fn prlimit(resource: u32, new: Option<Limit>) -> Result<Limit> {
    let new = new.map(|limit| libc::rlimit64 {
        rlim_cur: limit.soft,
        rlim_max: limit.hard,
    });
    let pointer = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `pointer` is null or points to `new`, `old` is valid for writes.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, pointer, &raw mut old) })?;
    Ok(Limit {
        soft: old.rlim_cur,
        hard: old.rlim_max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capped_wish_above_hard_is_cut() {
        let now = Limit {
            soft: 10,
            hard: 100,
        };
        assert_eq!(
            capped(
                Limit {
                    soft: 500,
                    hard: 900
                },
                now
            ),
            now_cut()
        );
        assert_eq!(
            capped(Limit { soft: 50, hard: 60 }, now),
            Limit { soft: 50, hard: 60 }
        );
        fn now_cut() -> Limit {
            Limit {
                soft: 100,
                hard: 100,
            }
        }
    }

    #[test]
    fn from_name_both_spellings_agree() {
        assert_eq!(from_name("nofile"), from_name("RLIMIT_NOFILE"));
        assert_eq!(from_name("nofile").and_then(name), Some("nofile"));
        assert_eq!(from_name("bogus"), None);
    }

    #[test]
    fn set_same_limit_is_full() {
        let now = get(libc::RLIMIT_CORE).expect("get");
        assert_eq!(set(libc::RLIMIT_CORE, now), Ok(Applied::Full));
    }
}
