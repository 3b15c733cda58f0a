//! The kernel takes the compiled default profile and answers as it says.

use hull_seccomp::{Arch, Env, KernelVersion, Profile, Program};
use hull_sys::clone3::{Clone3, Namespaces, clone3};
use hull_sys::pidfd::{Exit, wait};
use hull_sys::seccomp::{Instruction, install, no_new_privs};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

fn program() -> Program {
    let env = Env {
        caps: ["CAP_CHOWN", "CAP_SYS_CHROOT"]
            .into_iter()
            .map(str::to_owned)
            .collect(),
        arch: Arch::NATIVE,
        kernel: KernelVersion { major: 6, minor: 1 },
    };
    let profile = Profile::docker_default().expect("default profile");
    profile
        .resolve(&env)
        .expect("resolved")
        .compile()
        .expect("compiled")
}

/// Runs `check` in a child under the default profile; its result is the child's exit code.
fn under_default(check: impl FnOnce() -> i32) -> Exit {
    let program = program();
    let code: Vec<Instruction> = program
        .instructions()
        .iter()
        .map(|i| Instruction {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        })
        .collect();
    let args = Clone3 {
        namespaces: Namespaces::NONE,
        cgroup: None,
        sibling: false,
    };
    let child = clone3(&args, || {
        if no_new_privs().is_err() || install(&code, program.flags()).is_err() {
            return 100;
        }
        check()
    })
    .expect("clone3");
    wait(&child.pidfd, true).expect("wait").expect("ended").exit
}

#[test]
fn install_default_profile_ordinary_calls_work() {
    let exit = under_default(
        || match socket(AddressFamily::INET, SocketType::STREAM, None) {
            Ok(_) => 0,
            Err(_) => 1,
        },
    );
    assert_eq!(exit, Exit::Code(0));
}

#[test]
fn install_default_profile_alg_and_vsock_sockets_are_refused() {
    let exit = under_default(|| {
        for (family, code) in [(38, 1), (40, 2)] {
            match socket(AddressFamily::from_raw(family), SocketType::SEQPACKET, None) {
                Err(Errno::PERM) => {}
                _ => return code,
            }
        }
        0
    });
    assert_eq!(exit, Exit::Code(0));
}

#[test]
fn install_default_profile_mount_calls_are_refused() {
    let exit = under_default(|| {
        match rustix::mount::fsopen(c"tmpfs", rustix::mount::FsOpenFlags::empty()) {
            Err(Errno::PERM) => 0,
            _ => 1,
        }
    });
    assert_eq!(exit, Exit::Code(0));
}
