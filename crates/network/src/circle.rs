//! Numbers given in a circle, so that one just freed is not given at once to somebody else while its
//! peers still talk to it: the pools of addresses of both versions of IP.

use std::collections::HashSet;

/// Which numbers are given.
#[derive(Debug)]
pub(crate) struct Circle {
    /// Given to nobody: the bridge's address, and those the user keeps for himself.
    reserved: HashSet<u128>,
    used: HashSet<u128>,
    /// First and last number that is given without being asked for.
    range: (u128, u128),
    next: u128,
}

impl Circle {
    /// Gives the numbers from the first to the last of `range` but those in `reserved`.
    pub(crate) fn new(range: (u128, u128), reserved: impl Iterator<Item = u128>) -> Self {
        Self {
            reserved: reserved.collect(),
            used: HashSet::new(),
            range,
            next: range.0,
        }
    }

    /// The next free number.
    pub(crate) fn allocate(&mut self) -> Option<u128> {
        let (first, last) = self.range;
        // At most as many steps as there are numbers in the way.
        let steps = self.used.len() + self.reserved.len() + 1;
        for _ in 0..steps {
            let number = self.next;
            self.next = if number >= last { first } else { number + 1 };
            if first <= last && !self.is_reserved(number) && self.used.insert(number) {
                return Some(number);
            }
        }
        None
    }

    /// Whether nobody is given this number.
    pub(crate) fn is_reserved(&self, number: u128) -> bool {
        self.reserved.contains(&number)
    }

    /// Takes a number; false if it is taken.
    pub(crate) fn take(&mut self, number: u128) -> bool {
        self.used.insert(number)
    }

    /// Gives a number back; that it was free is no error.
    pub(crate) fn release(&mut self, number: u128) {
        self.used.remove(&number);
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.used.len()
    }
}
