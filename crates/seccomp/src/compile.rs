//! From a filter to a BPF program.
//!
//! Layout: the architecture picks a part; in it a balanced tree over ranges of system call numbers
//! leads to an answer, or to the tests of the arguments, which lead to answers.

use std::collections::HashMap;

use crate::action::Action;
use crate::assemble::{Assembler, Node, TooLong};
use crate::filter::{Answer, Filter, Rule, SizedTest};
use crate::profile::Test;
use crate::program::{MAX_INSTRUCTIONS, Program, ProgramError};

/// Changes whenever the same filter would give another program, so that caches notice.
pub const COMPILER_VERSION: u32 = 1;

/// `offsetof(struct seccomp_data, nr)`.
const NUMBER_OFFSET: u32 = 0;
/// `offsetof(struct seccomp_data, arch)`.
const ARCH_OFFSET: u32 = 4;
/// `offsetof(struct seccomp_data, args)`.
const ARGS_OFFSET: u32 = 16;

/// Why a filter has no program.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// More instructions than the kernel takes.
    #[error(
        "seccomp profile: syscalls: the program needs more than {MAX_INSTRUCTIONS} instructions, use fewer rules with arguments"
    )]
    TooLong,
    /// The compiler wrote something the kernel would refuse.
    #[error(
        "the compiled seccomp program does not hold together; this is a defect of the compiler"
    )]
    Invalid(#[source] ProgramError),
}

impl From<TooLong> for CompileError {
    fn from(_: TooLong) -> Self {
        Self::TooLong
    }
}

impl Filter {
    /// Compiles the filter.
    ///
    /// # Errors
    /// A filter that needs more than [`MAX_INSTRUCTIONS`] instructions.
    pub fn compile(&self) -> Result<Program, CompileError> {
        let mut asm = Assembler::default();
        let mut parts = Vec::new();
        // Built backwards: the native part comes last and so lies next to the entry.
        for audit in self.audits().into_iter().rev() {
            parts.push((audit, self.part(&mut asm, audit)?));
        }
        let mut entry = asm.ret(self.foreign_action.to_return_value())?;
        for (audit, part) in parts {
            entry = asm.equal(audit, part, entry)?;
        }
        let entry = asm.load(ARCH_OFFSET, entry)?;
        Program::new(asm.finish(entry)?, self.flags).map_err(CompileError::Invalid)
    }

    /// All calls with one `seccomp_data.arch`.
    fn part(&self, asm: &mut Assembler, audit: u32) -> Result<Node, TooLong> {
        let mut known: HashMap<&[Rule], Node> = HashMap::new();
        let mut fixed: HashMap<Action, Node> = HashMap::new();
        let mut leaves: Vec<(u32, Node)> = Vec::new();
        for (start, answer) in self.ranges(audit) {
            let node = match answer {
                // One node for each answer, so that neighbours with the same one join.
                Answer::Fixed(action) => match fixed.get(&action) {
                    Some(&node) => node,
                    None => {
                        let node = asm.ret(action.to_return_value())?;
                        fixed.insert(action, node);
                        node
                    }
                },
                Answer::Tested(rules) => match known.get(rules) {
                    Some(&node) => node,
                    None => {
                        let node = tests(asm, rules, self.default_action)?;
                        known.insert(rules, node);
                        node
                    }
                },
            };
            if leaves.last().is_none_or(|&(_, last)| last != node) {
                leaves.push((start, node));
            }
        }
        let tree = tree(asm, &leaves)?;
        asm.load(NUMBER_OFFSET, tree)
    }
}

/// A search tree over ranges of numbers, each given by its start.
fn tree(asm: &mut Assembler, leaves: &[(u32, Node)]) -> Result<Node, TooLong> {
    match leaves {
        [] => Err(TooLong),
        [(_, only)] => Ok(*only),
        // A single number between two ranges with the same answer: one test in place of two.
        [(_, before), (number, own), (next, after)] if before == after && number + 1 == *next => {
            asm.equal(*number, *own, *before)
        }
        _ => {
            // An odd half keeps such triples whole.
            let middle = (leaves.len() / 2) | 1;
            let middle = middle.min(leaves.len() - 1);
            let (left, right) = leaves.split_at(middle);
            let Some(&(start, _)) = right.first() else {
                return Err(TooLong);
            };
            let right = tree(asm, right)?;
            let left = tree(asm, left)?;
            asm.at_least(start, right, left)
        }
    }
}

/// The rules of one call, tried in order.
fn tests(asm: &mut Assembler, rules: &[Rule], default_action: Action) -> Result<Node, TooLong> {
    let mut otherwise = asm.ret(default_action.to_return_value())?;
    for rule in rules.iter().rev() {
        let mut holds = asm.ret(rule.action.to_return_value())?;
        for test in rule.tests.iter().rev() {
            holds = compare(asm, test, holds, otherwise)?;
        }
        otherwise = holds;
    }
    Ok(otherwise)
}

/// One comparison of one argument. BPF has 32 bit words, so the halves are compared in turn.
fn compare(asm: &mut Assembler, test: &SizedTest, yes: Node, no: Node) -> Result<Node, TooLong> {
    let offset = ARGS_OFFSET + 8 * u32::from(test.arg.index);
    let halves = Halves {
        low: offset,
        high: (!test.low_half).then_some(offset + 4),
    };
    match test.arg.test {
        Test::Equal(value) => halves.masked_equal(asm, u64::MAX, value, yes, no),
        Test::NotEqual(value) => halves.masked_equal(asm, u64::MAX, value, no, yes),
        Test::MaskedEqual { mask, value } => halves.masked_equal(asm, mask, value, yes, no),
        Test::Greater(value) => halves.ordered(asm, value, false, yes, no),
        Test::GreaterOrEqual(value) => halves.ordered(asm, value, true, yes, no),
        Test::Less(value) => halves.ordered(asm, value, true, no, yes),
        Test::LessOrEqual(value) => halves.ordered(asm, value, false, no, yes),
    }
}

/// Where the halves of an argument lie (little endian); no high half means it counts as zero.
struct Halves {
    low: u32,
    high: Option<u32>,
}

impl Halves {
    fn masked_equal(
        &self,
        asm: &mut Assembler,
        mask: u64,
        value: u64,
        yes: Node,
        no: Node,
    ) -> Result<Node, TooLong> {
        if value & !mask != 0 {
            return Ok(no);
        }
        let ((mask_low, mask_high), (low, high)) = (split(mask), split(value));
        let low_node = masked_half(asm, self.low, mask_low, low, yes, no)?;
        match self.high {
            Some(offset) => masked_half(asm, offset, mask_high, high, low_node, no),
            None if high == 0 => Ok(low_node),
            None => Ok(no),
        }
    }

    /// Whether the argument is above `value`, or the same where `or_equal`.
    fn ordered(
        &self,
        asm: &mut Assembler,
        value: u64,
        or_equal: bool,
        yes: Node,
        no: Node,
    ) -> Result<Node, TooLong> {
        let (low, high) = split(value);
        if self.high.is_none() && high != 0 {
            return Ok(no);
        }
        let low_node = if or_equal {
            asm.at_least(low, yes, no)?
        } else {
            asm.greater(low, yes, no)?
        };
        let low_node = asm.load(self.low, low_node)?;
        let Some(offset) = self.high else {
            return Ok(low_node);
        };
        let same = asm.equal(high, low_node, no)?;
        let above = asm.greater(high, yes, same)?;
        asm.load(offset, above)
    }
}

fn masked_half(
    asm: &mut Assembler,
    offset: u32,
    mask: u32,
    value: u32,
    yes: Node,
    no: Node,
) -> Result<Node, TooLong> {
    if mask == 0 {
        return Ok(yes);
    }
    let mut node = asm.equal(value, yes, no)?;
    if mask != u32::MAX {
        node = asm.and(mask, node)?;
    }
    asm.load(offset, node)
}

/// Low and high 32 bits.
fn split(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}
