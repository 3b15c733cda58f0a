//! Runs a program as the kernel would, refusing whatever it would refuse.

use super::Call;
use crate::Program;
use crate::program::{ALU_AND_K, JMP_JA, JMP_JEQ_K, JMP_JGE_K, JMP_JGT_K, LD_W_ABS, RET_K};

/// The value the program returns for a call.
///
/// # Panics
/// If the kernel would refuse the program.
#[must_use]
pub fn run(program: &Program, call: &Call) -> u32 {
    let mut data = Vec::with_capacity(64);
    data.extend_from_slice(&call.number.to_le_bytes());
    data.extend_from_slice(&call.arch.to_le_bytes());
    data.extend_from_slice(&0x1234_5678_9abc_u64.to_le_bytes());
    for arg in call.args {
        data.extend_from_slice(&arg.to_le_bytes());
    }
    let code = program.instructions();
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let instruction = code[at];
        at += 1;
        let k = instruction.k;
        let mut branch = |holds: bool| {
            at += usize::from(if holds {
                instruction.jt
            } else {
                instruction.jf
            })
        };
        match instruction.code {
            LD_W_ABS => {
                let offset = k as usize;
                accumulator =
                    u32::from_le_bytes(data[offset..offset + 4].try_into().expect("a word"));
            }
            ALU_AND_K => accumulator &= k,
            JMP_JA => at += k as usize,
            JMP_JEQ_K => branch(accumulator == k),
            JMP_JGT_K => branch(accumulator > k),
            JMP_JGE_K => branch(accumulator >= k),
            RET_K => return k,
            other => panic!("operation {other:#x} at {at}"),
        }
    }
}
