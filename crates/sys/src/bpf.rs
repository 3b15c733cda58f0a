//! eBPF device programs of cgroup v2: built from rules, loaded, attached.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::cgroup::{DeviceKind, DeviceRule};
use crate::{Result, check};

/// One eBPF instruction (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// Destination register in the low half, source in the high.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn op(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: dst | src << 4,
        offset,
        immediate,
    }
}

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const AND_IMM: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RSH_IMM: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const MOV_REG: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const MOV_IMM: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const JNE_IMM: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95;

/// Builds the program: the last rule that matches decides; without a match, `default_allow`.
///
/// The context is `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }` with the
/// device type in the low and the access bits in the high half of `access_type`.
#[must_use]
pub fn device_program(rules: &[DeviceRule], default_allow: bool) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(AND_IMM, 2, 0, 0, 0xffff),
        op(LOAD_WORD, 3, 1, 0, 0),
        op(RSH_IMM, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in merged(rules).iter().rev() {
        let mut tests = Vec::new();
        let kind = match rule.kind {
            DeviceKind::All => None,
            DeviceKind::Block => Some(1),
            DeviceKind::Char => Some(2),
        };
        if let Some(kind) = kind {
            tests.push(op(JNE_IMM, 2, 0, 0, kind));
        }
        let access = rule.access_bits();
        if access != ALL_ACCESS {
            // Allowing: all that is asked for must be in the rule. Denying: any of it.
            tests.push(op(MOV_REG, 0, 3, 0, 0));
            if rule.allow {
                tests.push(op(AND_IMM, 0, 0, 0, !access & ALL_ACCESS));
                tests.push(op(JNE_IMM, 0, 0, 0, 0));
            } else {
                tests.push(op(AND_IMM, 0, 0, 0, access));
                const JEQ_IMM: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
                tests.push(op(JEQ_IMM, 0, 0, 0, 0));
            }
        }
        if let Some(major) = rule.major {
            tests.push(op(JNE_IMM, 4, 0, 0, major as i32));
        }
        if let Some(minor) = rule.minor {
            tests.push(op(JNE_IMM, 5, 0, 0, minor as i32));
        }
        let length = tests.len();
        for (index, mut test) in tests.into_iter().enumerate() {
            if test.code & 0x07 == 0x06 {
                // A test that fails jumps over the rest of the tests and the two that answer.
                test.offset = (length - index - 1 + 2) as i16;
            }
            program.push(test);
        }
        program.push(op(MOV_IMM, 0, 0, 0, i32::from(rule.allow)));
        program.push(op(EXIT, 0, 0, 0, 0));
        if length == 0 {
            // It decides everything; the verifier refuses code that cannot be reached.
            return program;
        }
    }
    program.push(op(MOV_IMM, 0, 0, 0, i32::from(default_allow)));
    program.push(op(EXIT, 0, 0, 0, 0));
    program
}

/// Rules about the same devices that say the same, with nothing opposite between them, as one:
/// what is asked for must lie in one rule, and one may allow to read, the next to write.
fn merged(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let mut kept: Vec<DeviceRule> = Vec::with_capacity(rules.len());
    for rule in rules {
        let same = kept
            .iter_mut()
            .rev()
            .take_while(|other| other.allow == rule.allow)
            .find(|other| {
                (other.kind, other.major, other.minor) == (rule.kind, rule.major, rule.minor)
            });
        match same {
            Some(other) => {
                other.read |= rule.read;
                other.write |= rule.write;
                other.mknod |= rule.mknod;
            }
            None => kept.push(rule.clone()),
        }
    }
    kept
}

/// mknod, read and write.
const ALL_ACCESS: i32 = 7;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Loads a device program.
///
/// # Errors
/// `EPERM`, `EINVAL` or `EACCES` if the verifier refuses it.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    let attr = Attr {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        ..Attr::default()
    };
    // SAFETY: the attribute has the layout of its command and points to live memory.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            std::mem::size_of::<Attr>(),
        )
    })?;
    // SAFETY: the kernel just made this descriptor for us; BPF descriptors are close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a device program to a v2 cgroup; it stays until the cgroup is removed.
///
/// # Errors
/// `EPERM`, `EBADF` if `cgroup` is no v2 cgroup directory.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    #[repr(C)]
    struct Attr {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
        replace: u32,
    }
    let attr = Attr {
        target: cgroup.as_fd().as_raw_fd() as u32,
        program: program.as_fd().as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replace: 0,
    };
    // SAFETY: the attribute has the layout of its command.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attr,
            std::mem::size_of::<Attr>(),
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_program_no_rules_is_the_default_alone() {
        let program = device_program(&[], false);
        assert_eq!(program.len(), 8);
        assert_eq!(program.get(6).map(|last| last.immediate), Some(0));
    }

    #[test]
    fn merged_reading_and_writing_become_one_rule_unless_denied_between() {
        let rule = |allow, read, write| DeviceRule {
            kind: DeviceKind::Char,
            major: Some(1),
            minor: Some(3),
            read,
            write,
            mknod: false,
            ..DeviceRule::everything(allow)
        };
        let [read, write, none] = [
            rule(true, true, false),
            rule(true, false, true),
            rule(false, true, true),
        ];
        let both = merged(&[read.clone(), DeviceRule::everything(true), write.clone()]);
        assert_eq!(both, [rule(true, true, true), DeviceRule::everything(true)]);
        assert_eq!(merged(&[read, none, write]).len(), 3);
    }

    #[test]
    fn load_device_program_default_rules_pass_the_verifier() {
        let rules = crate::cgroup::default_devices();
        load_device_program(&device_program(&rules, false)).expect("verifier accepts");
    }
}
