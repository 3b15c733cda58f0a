//! A classic BPF program and its shape as bytes.

/// Most instructions the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Bytes of one instruction.
pub const INSTRUCTION_BYTES: usize = 8;

pub(crate) const LD_W_ABS: u16 = 0x20;
pub(crate) const JMP_JA: u16 = 0x05;
pub(crate) const JMP_JEQ_K: u16 = 0x15;
pub(crate) const JMP_JGT_K: u16 = 0x25;
pub(crate) const JMP_JGE_K: u16 = 0x35;
pub(crate) const ALU_AND_K: u16 = 0x54;
pub(crate) const RET_K: u16 = 0x06;

/// Size of `struct seccomp_data`, which loads must stay within.
const SECCOMP_DATA_BYTES: u32 = 64;

const FLAG_NEW_LISTENER: u32 = 1 << 3;

/// One instruction, laid out as `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions skipped when a test holds.
    pub jt: u8,
    /// Instructions skipped when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A program ready for seccomp(2), with the flags to install it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
}

/// Why bytes are no program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The length does not fit.
    #[error(
        "a seccomp program of {bytes} bytes is not 1 to {MAX_INSTRUCTIONS} instructions of {INSTRUCTION_BYTES} bytes"
    )]
    Length {
        /// Bytes found.
        bytes: usize,
    },
    /// An instruction the compiler never writes, or a jump that leaves the program.
    #[error("instruction {index} of a seccomp program is not valid")]
    Instruction {
        /// Which one, from 0.
        index: usize,
    },
}

impl Program {
    /// Takes instructions after checking what the kernel checks: known operations, loads inside
    /// `seccomp_data`, forward jumps inside the program, a return at its end.
    ///
    /// # Errors
    /// The first instruction that is wrong, or a length the kernel refuses.
    pub fn new(instructions: Vec<Instruction>, flags: u32) -> Result<Self, ProgramError> {
        let count = instructions.len();
        if count == 0 || count > MAX_INSTRUCTIONS {
            return Err(ProgramError::Length {
                bytes: count.saturating_mul(INSTRUCTION_BYTES),
            });
        }
        for (index, instruction) in instructions.iter().enumerate() {
            let room = count - index - 1;
            let inside = |skip: u32| usize::try_from(skip).is_ok_and(|skip| skip < room);
            let valid = match instruction.code {
                LD_W_ABS => {
                    instruction.k % 4 == 0 && instruction.k < SECCOMP_DATA_BYTES && room > 0
                }
                ALU_AND_K => room > 0,
                JMP_JA => inside(instruction.k),
                JMP_JEQ_K | JMP_JGT_K | JMP_JGE_K => {
                    inside(instruction.jt.into()) && inside(instruction.jf.into())
                }
                RET_K => true,
                _ => false,
            };
            if !valid {
                return Err(ProgramError::Instruction { index });
            }
        }
        Ok(Self {
            instructions,
            flags,
        })
    }

    /// Reads what [`Program::to_bytes`] wrote.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn from_bytes(bytes: &[u8], flags: u32) -> Result<Self, ProgramError> {
        let (chunks, rest) = bytes.as_chunks::<INSTRUCTION_BYTES>();
        if !rest.is_empty() || chunks.is_empty() || chunks.len() > MAX_INSTRUCTIONS {
            return Err(ProgramError::Length { bytes: bytes.len() });
        }
        let instructions = chunks
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
                code: u16::from_ne_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Self::new(instructions, flags)
    }

    /// The instructions as an array of `struct sock_filter`, in the machine's byte order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.instructions.len() * INSTRUCTION_BYTES);
        for instruction in &self.instructions {
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.push(instruction.jt);
            bytes.push(instruction.jf);
            bytes.extend_from_slice(&instruction.k.to_ne_bytes());
        }
        bytes
    }

    /// The instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// `SECCOMP_FILTER_FLAG_…` to install it with.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether installing it hands out a descriptor that somebody must answer on.
    pub fn needs_listener(&self) -> bool {
        self.flags & FLAG_NEW_LISTENER != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RET: Instruction = Instruction {
        code: RET_K,
        jt: 0,
        jf: 0,
        k: 0,
    };

    #[test]
    fn new_jump_out_of_program_is_refused() {
        let jump = Instruction {
            code: JMP_JEQ_K,
            jt: 1,
            jf: 0,
            k: 0,
        };
        assert!(matches!(
            Program::new(vec![jump, RET], 0),
            Err(ProgramError::Instruction { index: 0 })
        ));
        assert!(Program::new(vec![jump, RET, RET], 0).is_ok());
        let far = Instruction {
            code: JMP_JA,
            jt: 0,
            jf: 0,
            k: u32::MAX,
        };
        assert!(Program::new(vec![far, RET], 0).is_err());
    }

    #[test]
    fn new_without_return_or_too_long_is_refused() {
        let load = Instruction {
            code: LD_W_ABS,
            jt: 0,
            jf: 0,
            k: 0,
        };
        assert!(Program::new(vec![load], 0).is_err());
        assert!(Program::new(vec![], 0).is_err());
        assert!(Program::new(vec![RET; MAX_INSTRUCTIONS + 1], 0).is_err());
        assert!(Program::new(vec![Instruction { k: 64, ..load }, RET], 0).is_err());
    }

    #[test]
    fn bytes_round_trip_gives_same_program() {
        let program = Program::new(vec![RET; 3], 2).expect("program");
        assert_eq!(
            Program::from_bytes(&program.to_bytes(), 2).expect("program"),
            program
        );
        assert!(Program::from_bytes(&[0; 7], 0).is_err());
    }
}
