//! Assembles BPF from its end to its start.
//!
//! BPF jumps go forward only, so a program built backwards knows every target before the jump to
//! it. A node is the position of an instruction counted from the end. Conditional jumps reach 255
//! instructions; a target further off gets a stepping stone right behind the jump.

use std::collections::HashMap;

use crate::program::{
    ALU_AND_K, Instruction, JMP_JA, JMP_JEQ_K, JMP_JGE_K, JMP_JGT_K, LD_W_ABS, MAX_INSTRUCTIONS,
    RET_K,
};

/// A place in the program where control can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Node(usize);

/// The program outgrew [`MAX_INSTRUCTIONS`].
#[derive(Debug)]
pub(crate) struct TooLong;

/// The program so far, last instruction first.
#[derive(Default)]
pub(crate) struct Assembler {
    reversed: Vec<Instruction>,
    returns: HashMap<u32, Node>,
}

impl Assembler {
    /// Returns a value.
    pub(crate) fn ret(&mut self, value: u32) -> Result<Node, TooLong> {
        if let Some(&node) = self.returns.get(&value) {
            return Ok(node);
        }
        let node = self.push(RET_K, 0, 0, value)?;
        self.returns.insert(value, node);
        Ok(node)
    }

    /// Loads the word at `offset` of `seccomp_data`, then goes to `next`.
    pub(crate) fn load(&mut self, offset: u32, next: Node) -> Result<Node, TooLong> {
        self.adjoin(next)?;
        self.push(LD_W_ABS, 0, 0, offset)
    }

    /// Masks the accumulator, then goes to `next`.
    pub(crate) fn and(&mut self, mask: u32, next: Node) -> Result<Node, TooLong> {
        self.adjoin(next)?;
        self.push(ALU_AND_K, 0, 0, mask)
    }

    /// Goes to `yes` if the accumulator is `value`, else to `no`.
    pub(crate) fn equal(&mut self, value: u32, yes: Node, no: Node) -> Result<Node, TooLong> {
        self.branch(JMP_JEQ_K, value, yes, no)
    }

    /// Goes to `yes` if the accumulator is above `value`, else to `no`.
    pub(crate) fn greater(&mut self, value: u32, yes: Node, no: Node) -> Result<Node, TooLong> {
        self.branch(JMP_JGT_K, value, yes, no)
    }

    /// Goes to `yes` if the accumulator is `value` or above, else to `no`.
    pub(crate) fn at_least(&mut self, value: u32, yes: Node, no: Node) -> Result<Node, TooLong> {
        self.branch(JMP_JGE_K, value, yes, no)
    }

    /// The program that starts at `entry`.
    pub(crate) fn finish(mut self, entry: Node) -> Result<Vec<Instruction>, TooLong> {
        self.adjoin(entry)?;
        self.reversed.reverse();
        Ok(self.reversed)
    }

    fn branch(&mut self, code: u16, value: u32, yes: Node, no: Node) -> Result<Node, TooLong> {
        if yes == no {
            return Ok(yes);
        }
        // One step is spared for the stone the other side may need.
        let no = self.within_reach(no, 1)?;
        let yes = self.within_reach(yes, 0)?;
        let (jt, jf) = (self.skip(yes), self.skip(no));
        let (Ok(jt), Ok(jf)) = (u8::try_from(jt), u8::try_from(jf)) else {
            return Err(TooLong);
        };
        self.push(code, jt, jf, value)
    }

    /// Instructions between the one pushed next and `target`.
    fn skip(&self, target: Node) -> usize {
        self.reversed.len() - 1 - target.0
    }

    /// `target`, or something near that leads there.
    fn within_reach(&mut self, target: Node, spare: usize) -> Result<Node, TooLong> {
        if self.skip(target) + spare <= usize::from(u8::MAX) {
            return Ok(target);
        }
        match self.reversed.get(target.0).copied() {
            // A return is as short as a jump to it.
            Some(Instruction { code: RET_K, k, .. }) => {
                let node = self.push(RET_K, 0, 0, k)?;
                self.returns.insert(k, node);
                Ok(node)
            }
            _ => self.jump(target),
        }
    }

    /// Makes `target` what runs after the instruction pushed next.
    fn adjoin(&mut self, target: Node) -> Result<(), TooLong> {
        if self.skip(target) > 0 {
            self.jump(target)?;
        }
        Ok(())
    }

    fn jump(&mut self, target: Node) -> Result<Node, TooLong> {
        let skip = u32::try_from(self.skip(target)).map_err(|_| TooLong)?;
        self.push(JMP_JA, 0, 0, skip)
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Result<Node, TooLong> {
        if self.reversed.len() >= MAX_INSTRUCTIONS {
            return Err(TooLong);
        }
        self.reversed.push(Instruction { code, jt, jf, k });
        Ok(Node(self.reversed.len() - 1))
    }
}
