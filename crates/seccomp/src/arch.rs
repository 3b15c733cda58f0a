//! Architectures: their names in profiles, their kernel constants and their system call numbers.

use crate::table;

/// Bit in the system call number that marks a call made by the x32 convention.
pub const X32_SYSCALL_BIT: u32 = 0x4000_0000;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// A system call convention filters can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// x86_64, 64 bit.
    X86_64,
    /// i386, by `int 0x80` and 32 bit programs.
    X86,
    /// x32: 32 bit pointers on x86_64.
    X32,
    /// aarch64, 64 bit.
    Aarch64,
    /// arm, EABI.
    Arm,
}

impl Arch {
    /// The convention of the machine this was built for.
    pub const NATIVE: Self = {
        #[cfg(target_arch = "x86_64")]
        let native = Self::X86_64;
        #[cfg(target_arch = "aarch64")]
        let native = Self::Aarch64;
        native
    };

    /// The architecture a profile calls `SCMP_ARCH_…`; none for those without a table here.
    pub fn from_scmp_name(name: &str) -> Option<Self> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_X32" => Self::X32,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            "SCMP_ARCH_ARM" => Self::Arm,
            _ => return None,
        })
    }

    /// The name in the OCI runtime specification.
    pub fn scmp_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// The name in the `arches` conditions of Docker's profiles.
    pub fn docker_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// The value of `seccomp_data.arch` for calls made this way; x32 shares that of x86_64.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => AUDIT_ARCH_X86_64,
            Self::X86 => AUDIT_ARCH_I386,
            Self::Aarch64 => AUDIT_ARCH_AARCH64,
            Self::Arm => AUDIT_ARCH_ARM,
        }
    }

    /// Whether the kernel looks at the low 32 bits of every argument only.
    pub(crate) fn is_32_bit(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }

    /// The number the kernel sees for a system call, or none where this architecture lacks it.
    pub fn syscall_number(self, name: &str) -> Option<u32> {
        let table = self.table();
        let at = table
            .binary_search_by(|(known, _)| (*known).cmp(name))
            .ok()?;
        let number = table.get(at)?.1;
        Some(match self {
            Self::X32 => number | X32_SYSCALL_BIT,
            _ => number,
        })
    }

    /// The names of all system calls known for this architecture, sorted.
    pub fn syscall_names(self) -> impl Iterator<Item = &'static str> {
        self.table().iter().map(|(name, _)| *name)
    }

    fn table(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::X86_64 => table::x86_64::TABLE,
            Self::X86 => table::x86::TABLE,
            Self::X32 => table::x32::TABLE,
            Self::Aarch64 => table::aarch64::TABLE,
            Self::Arm => table::arm::TABLE,
        }
    }
}

/// Names of the architectures profiles may use here.
pub const ARCH_NAMES: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// Names libseccomp knows for which there is no table here: accepted in a profile's `archMap`,
/// where they can never be native.
pub(crate) fn is_known_elsewhere(name: &str) -> bool {
    matches!(
        name,
        "SCMP_ARCH_MIPS"
            | "SCMP_ARCH_MIPS64"
            | "SCMP_ARCH_MIPS64N32"
            | "SCMP_ARCH_MIPSEL"
            | "SCMP_ARCH_MIPSEL64"
            | "SCMP_ARCH_MIPSEL64N32"
            | "SCMP_ARCH_PPC"
            | "SCMP_ARCH_PPC64"
            | "SCMP_ARCH_PPC64LE"
            | "SCMP_ARCH_RISCV64"
            | "SCMP_ARCH_S390"
            | "SCMP_ARCH_S390X"
            | "SCMP_ARCH_LOONGARCH64"
            | "SCMP_ARCH_PARISC"
            | "SCMP_ARCH_PARISC64"
            | "SCMP_ARCH_M68K"
            | "SCMP_ARCH_SH"
            | "SCMP_ARCH_SHEB"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_every_architecture_sorted_and_known() {
        for arch in [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm] {
            let names: Vec<_> = arch.syscall_names().collect();
            assert!(names.len() > 300, "{arch:?}");
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{arch:?}");
            assert_eq!(Arch::from_scmp_name(arch.scmp_name()), Some(arch));
            assert!(ARCH_NAMES.contains(&arch.scmp_name()));
        }
    }

    #[test]
    fn numbers_well_known_calls_match_the_kernel() {
        assert_eq!(Arch::X86_64.syscall_number("read"), Some(0));
        assert_eq!(Arch::X86_64.syscall_number("socket"), Some(41));
        assert_eq!(Arch::X86_64.syscall_number("clone3"), Some(435));
        assert_eq!(Arch::X86.syscall_number("socketcall"), Some(102));
        assert_eq!(Arch::X86.syscall_number("socket"), Some(359));
        assert_eq!(Arch::X32.syscall_number("execve"), Some(0x4000_0000 + 520));
        assert_eq!(Arch::X32.syscall_number("read"), Some(0x4000_0000));
        assert_eq!(Arch::Aarch64.syscall_number("openat"), Some(56));
        assert_eq!(Arch::Arm.syscall_number("set_tls"), Some(0xf0005));
        assert_eq!(Arch::X86_64.syscall_number("no_such_call"), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn numbers_native_table_agrees_with_libc() {
        for (name, number) in [
            ("openat2", libc::SYS_openat2),
            ("execveat", libc::SYS_execveat),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("close_range", libc::SYS_close_range),
            ("bpf", libc::SYS_bpf),
            ("ptrace", libc::SYS_ptrace),
        ] {
            assert_eq!(
                Arch::X86_64.syscall_number(name).map(i64::from),
                Some(number)
            );
        }
    }
}
