//! Seccomp profiles: what is compiled answers as the rules read one by one do, and is a program
//! the kernel takes.

use std::collections::BTreeSet;

use hull_seccomp::reference::{calls, interpreter, naive};
use hull_seccomp::{Arch, Env, KernelVersion, MAX_INSTRUCTIONS, Profile};

/// Sets of capabilities that decide over rules.
const CAPS: [&[&str]; 2] = [
    &["CAP_CHOWN", "CAP_SYS_CHROOT"],
    &["CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_PTRACE"],
];

pub(crate) fn check(data: &[u8]) {
    let Ok(profile) = Profile::parse(data) else {
        return;
    };
    // The environment comes from the input's length, so that a seed stays plain JSON.
    let arch = [Arch::X86_64, Arch::Aarch64][data.len() & 1];
    let caps: BTreeSet<String> = CAPS[(data.len() >> 1) & 1]
        .iter()
        .map(|cap| (*cap).to_owned())
        .collect();
    let kernel = KernelVersion { major: 6, minor: 1 };
    let env = Env { caps, arch, kernel };
    let Ok(filter) = profile.resolve(&env) else {
        return;
    };
    let Ok(program) = filter.compile() else {
        return;
    };
    assert!(program.instructions().len() <= MAX_INSTRUCTIONS);
    for call in calls::interesting(&profile) {
        let wanted = naive::evaluate(&profile, &env, &call).to_return_value();
        let got = interpreter::run(&program, &call);
        assert_eq!(got, wanted, "{call:x?} on {arch:?} with {profile:?}");
    }
}
