//! Docker's default profile: facts that must hold, and every call against the naive reading.

use super::interpreter::run;
use super::{Call, DEFAULT_CAPS, env, naive, program};
use crate::{Action, Arch, Env, KernelVersion, Profile};

const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

fn answer_with(env: &Env, call: &Call) -> u32 {
    run(
        &program(&Profile::docker_default().expect("default"), env),
        call,
    )
}

fn answer(name: &str, args: &[u64]) -> u32 {
    answer_with(
        &env(Arch::X86_64, DEFAULT_CAPS),
        &Call::new(Arch::X86_64, name, args),
    )
}

fn answer_caps(caps: &[&str], name: &str, args: &[u64]) -> u32 {
    answer_with(
        &env(Arch::X86_64, caps),
        &Call::new(Arch::X86_64, name, args),
    )
}

#[test]
fn default_ordinary_calls_are_allowed() {
    for name in [
        "read",
        "write",
        "execve",
        "openat",
        "mmap",
        "futex",
        "exit_group",
        "chroot",
    ] {
        assert_eq!(answer(name, &[]), ALLOW, "{name}");
    }
}

#[test]
fn default_dangerous_calls_are_refused() {
    for name in [
        "mount",
        "umount2",
        "setns",
        "bpf",
        "perf_event_open",
        "keyctl",
        "add_key",
        "kexec_load",
        "reboot",
        "init_module",
        "open_by_handle_at",
        "userfaultfd",
        "io_uring_setup",
        "syslog",
        "acct",
        "iopl",
    ] {
        assert_eq!(answer(name, &[]), EPERM, "{name}");
    }
}

#[test]
fn default_clone3_is_not_implemented_unless_admin() {
    assert_eq!(answer("clone3", &[0, 0]), ENOSYS);
    assert_eq!(answer_caps(&["CAP_SYS_ADMIN"], "clone3", &[0, 0]), ALLOW);
}

#[test]
fn default_namespace_flags_need_admin() {
    const SIGCHLD: u64 = 17;
    let namespaces: [u64; 7] = [
        0x0002_0000,
        0x0200_0000,
        0x0400_0000,
        0x0800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ];
    assert_eq!(answer("clone", &[SIGCHLD]), ALLOW);
    assert_eq!(answer("clone", &[0x003d_0f00]), ALLOW, "a thread");
    for flag in namespaces {
        assert_eq!(answer("clone", &[flag | SIGCHLD]), EPERM, "clone {flag:#x}");
        assert_eq!(answer("unshare", &[flag]), EPERM, "unshare {flag:#x}");
        assert_eq!(
            answer_caps(&["CAP_SYS_ADMIN"], "clone", &[flag | SIGCHLD]),
            ALLOW
        );
        assert_eq!(answer_caps(&["CAP_SYS_ADMIN"], "unshare", &[flag]), ALLOW);
    }
}

#[test]
fn default_socket_families_alg_and_vsock_are_blocked() {
    for family in 0..60 {
        let wanted = if family == AF_ALG || family == AF_VSOCK {
            EPERM
        } else {
            ALLOW
        };
        for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
            let call = Call::new(arch, "socket", &[family, 1, 0]);
            assert_eq!(
                answer_with(&env(Arch::X86_64, DEFAULT_CAPS), &call),
                wanted,
                "{arch:?} {family}"
            );
        }
        let call = Call::new(Arch::Aarch64, "socket", &[family, 1, 0]);
        assert_eq!(
            answer_with(&env(Arch::Aarch64, DEFAULT_CAPS), &call),
            wanted,
            "aarch64 {family}"
        );
    }
}

#[test]
fn default_socket_family_with_junk_above_32_bits_is_still_blocked() {
    for junk in [1 << 32, 1 << 63, 0xffff_ffff_0000_0000] {
        assert_eq!(answer("socket", &[junk | AF_ALG]), EPERM);
        assert_eq!(answer("socket", &[junk | AF_VSOCK]), EPERM);
        assert_eq!(answer("socket", &[junk | 2]), ALLOW);
    }
}

#[test]
fn default_personality_allows_five_values() {
    for value in [0, 8, 0x20000, 0x20008, 0xffff_ffff] {
        assert_eq!(answer("personality", &[value]), ALLOW, "{value:#x}");
    }
    for value in [1, 9, 0x0040_0000, 0x20001, 0xffff_fffe] {
        assert_eq!(answer("personality", &[value]), EPERM, "{value:#x}");
    }
}

#[test]
fn default_ptrace_needs_kernel_4_8_or_capability() {
    let old = |caps| Env {
        kernel: KernelVersion { major: 4, minor: 7 },
        ..env(Arch::X86_64, caps)
    };
    for name in ["ptrace", "process_vm_readv", "process_vm_writev"] {
        let call = Call::new(Arch::X86_64, name, &[]);
        assert_eq!(answer_with(&old(DEFAULT_CAPS), &call), EPERM, "{name}");
        assert_eq!(
            answer_with(&old(&["CAP_SYS_PTRACE"]), &call),
            ALLOW,
            "{name}"
        );
        assert_eq!(answer(name, &[]), ALLOW, "{name}");
    }
}

#[test]
fn default_capabilities_open_their_calls() {
    for (cap, name) in [
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_MODULE", "finit_module"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_SYS_NICE", "mbind"),
        ("CAP_SYS_RAWIO", "iopl"),
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "setns"),
    ] {
        assert_eq!(answer(name, &[]), EPERM, "{name}");
        assert_eq!(answer_caps(&[cap], name, &[]), ALLOW, "{name} with {cap}");
    }
    assert_eq!(answer_caps(&[], "chroot", &[]), EPERM);
}

#[test]
fn default_unknown_numbers_and_conventions_are_answered() {
    let env = env(Arch::X86_64, DEFAULT_CAPS);
    let ask = |arch, number| {
        answer_with(
            &env,
            &Call {
                arch,
                number,
                args: [0; 6],
            },
        )
    };
    let native = Arch::X86_64.audit();
    assert_eq!(ask(native, 400), EPERM, "a hole below the newest call");
    assert_eq!(ask(native, 467), ENOSYS, "newer than the profile");
    assert_eq!(ask(native, 100_000), ENOSYS);
    assert_eq!(ask(native, u32::MAX), ENOSYS, "a call skipped by a tracer");
    assert_eq!(ask(Arch::X86.audit(), 100_000), ENOSYS);
    assert_eq!(ask(native, 0x4000_0000), ALLOW, "x32 read");
    assert_eq!(
        ask(Arch::Aarch64.audit(), 0),
        KILL_PROCESS,
        "a convention not filtered"
    );
}

#[test]
fn default_every_call_matches_naive_reading() {
    let profile = Profile::docker_default().expect("default");
    let cap_sets: [&[&str]; 5] = [
        DEFAULT_CAPS,
        &[],
        &["CAP_SYS_ADMIN"],
        &["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_SYS_NICE"],
        &[
            "CAP_SYS_ADMIN",
            "CAP_SYS_CHROOT",
            "CAP_SYS_TIME",
            "CAP_DAC_READ_SEARCH",
            "CAP_SYS_RAWIO",
        ],
    ];
    let values = [
        0,
        1,
        2,
        8,
        9,
        37,
        38,
        39,
        40,
        41,
        0x20000,
        0x20008,
        0xffff_ffff,
        0x7e02_0000,
        0x1000_0011,
        0x003d_0f00,
        1 << 32,
        (1 << 32) | 38,
        (1 << 32) | 40,
        u64::MAX,
        u64::MAX - 1,
        1 << 63,
    ];
    for caps in cap_sets {
        for native in [Arch::X86_64, Arch::Aarch64] {
            let env = env(native, caps);
            let program = program(&profile, &env);
            let known = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];
            for arch in known {
                let base = if arch == Arch::X32 { 0x4000_0000 } else { 0 };
                let special = [0xf0001, 0xf0002, 0xf0005, 0x8000_0000, u32::MAX];
                for number in (base..base + 600).chain(special) {
                    let tested = matches!(
                        number & 0xffff,
                        41 | 56 | 97 | 102 | 117 | 120 | 135 | 136 | 198 | 220
                    ) || matches!(number & 0xffff, 272 | 281 | 310 | 359 | 92 | 435);
                    let values = if tested { &values[..] } else { &values[..1] };
                    for &first in values {
                        for second in [0, first] {
                            let call = Call {
                                arch: arch.audit(),
                                number,
                                args: [first, second, 0, 0, 0, 0],
                            };
                            let wanted = naive::evaluate(&profile, &env, &call).to_return_value();
                            assert_eq!(run(&program, &call), wanted, "{call:x?} with {caps:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn default_program_is_small_and_shallow() {
    let profile = Profile::docker_default().expect("default");
    let program = program(&profile, &env(Arch::X86_64, DEFAULT_CAPS));
    assert!(
        program.instructions().len() < 1500,
        "{}",
        program.instructions().len()
    );
    assert!(!program.needs_listener());
}

#[test]
fn default_action_of_unlisted_calls_is_eperm() {
    let profile = Profile::docker_default().expect("default");
    assert_eq!(profile.default_action, Action::Errno(1));
}
