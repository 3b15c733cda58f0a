//! Tests over whole profiles: compiled programs run by an interpreter, held against rules read
//! naively.

mod caches;
mod defaults;
mod profiles;
mod robustness;

use std::collections::BTreeSet;

pub(crate) use crate::reference::{Call, interpreter, naive};
use crate::{Arch, Env, KernelVersion, Profile, Program};

/// The capabilities containers get by default.
pub(crate) const DEFAULT_CAPS: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

pub(crate) fn env(arch: Arch, caps: &[&str]) -> Env {
    Env {
        caps: caps
            .iter()
            .map(|cap| (*cap).to_owned())
            .collect::<BTreeSet<_>>(),
        arch,
        kernel: KernelVersion { major: 6, minor: 1 },
    }
}

pub(crate) fn program(profile: &Profile, env: &Env) -> Program {
    profile
        .resolve(env)
        .expect("resolved")
        .compile()
        .expect("compiled")
}

/// A small generator of numbers, the same in every run (xorshift64*).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
