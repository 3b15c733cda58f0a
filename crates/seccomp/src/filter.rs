//! What a profile means for one container: numbers, arguments and answers, nothing conditional left.

use std::collections::BTreeMap;

use crate::action::Action;
use crate::arch::{Arch, X32_SYSCALL_BIT};
use crate::profile::{ArgTest, Test};

const ENOSYS: u16 = 38;

/// A resolved profile, ready to be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub(crate) default_action: Action,
    /// Answer to calls by a convention the profile does not speak of.
    pub(crate) foreign_action: Action,
    pub(crate) sections: Vec<Section>,
    pub(crate) flags: u32,
}

/// The rules of one calling convention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) arch: Arch,
    /// Numbers above this one are newer than the profile and do not exist for the container.
    pub(crate) newest: Option<u32>,
    pub(crate) calls: BTreeMap<u32, Vec<Rule>>,
}

/// One answer for one system call: given when all tests hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    pub(crate) tests: Vec<SizedTest>,
    pub(crate) action: Action,
}

/// A comparison together with how much of the register takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SizedTest {
    pub(crate) arg: ArgTest,
    /// The kernel reads a 32 bit number, so only the low half is compared.
    pub(crate) low_half: bool,
}

impl SizedTest {
    /// Fits the test to the width of the argument: a negative number written with 64 bits becomes
    /// the same number with 32.
    pub(crate) fn new(arg: ArgTest, low_half: bool) -> Self {
        if !low_half {
            return Self { arg, low_half };
        }
        let shorten = |value: u64| {
            let negative = value >> 31 == 0x1_ffff_ffff;
            if negative { value & 0xffff_ffff } else { value }
        };
        let test = match arg.test {
            Test::NotEqual(value) => Test::NotEqual(shorten(value)),
            Test::Less(value) => Test::Less(shorten(value)),
            Test::LessOrEqual(value) => Test::LessOrEqual(shorten(value)),
            Test::Equal(value) => Test::Equal(shorten(value)),
            Test::GreaterOrEqual(value) => Test::GreaterOrEqual(shorten(value)),
            Test::Greater(value) => Test::Greater(shorten(value)),
            Test::MaskedEqual { mask, value } => {
                // Bits wanted above the width are met by a negative number or not at all; left in
                // place outside the mask, they make the test fail for every argument.
                let high = value >> 32;
                let negative = high == mask >> 32 && value & 0x8000_0000 != 0;
                let reachable = value & !mask == 0 && (high == 0 || negative);
                Test::MaskedEqual {
                    mask: mask & 0xffff_ffff,
                    value: if reachable {
                        value & 0xffff_ffff
                    } else {
                        value
                    },
                }
            }
        };
        Self {
            arg: ArgTest {
                index: arg.index,
                test,
            },
            low_half,
        }
    }
}

/// How the system call numbers of one `seccomp_data.arch` fall into ranges.
pub(crate) enum Answer<'a> {
    /// The same for every argument.
    Fixed(Action),
    /// Depends on the arguments; the default when no rule holds.
    Tested(&'a [Rule]),
}

impl Filter {
    /// The distinct `seccomp_data.arch` values, the native one first.
    pub(crate) fn audits(&self) -> Vec<u32> {
        let mut audits = Vec::new();
        for section in &self.sections {
            if !audits.contains(&section.arch.audit()) {
                audits.push(section.arch.audit());
            }
        }
        audits
    }

    /// Ranges of numbers with their answers, ascending from 0 and without a gap: each holds from
    /// its start to the next start.
    pub(crate) fn ranges(&self, audit: u32) -> Vec<(u32, Answer<'_>)> {
        let section = |arch: Arch| self.sections.iter().find(|section| section.arch == arch);
        let mut ranges = Vec::new();
        if audit == Arch::X86_64.audit() {
            // x86_64 and x32 share the arch value and split the numbers. The kernel has no call
            // at 2^31 and above (a tracer skips a call by -1): those are unknown, not foreign.
            const BEYOND_X32: u32 = X32_SYSCALL_BIT << 1;
            let (wide, x32) = (section(Arch::X86_64), section(Arch::X32));
            self.push_ranges(&mut ranges, wide, 0, X32_SYSCALL_BIT);
            self.push_ranges(&mut ranges, x32, X32_SYSCALL_BIT, BEYOND_X32);
            let newest = wide.or(x32).and_then(|section| section.newest);
            ranges.push((BEYOND_X32, Answer::Fixed(self.unknown(newest))));
        } else {
            let section = self
                .sections
                .iter()
                .find(|section| section.arch.audit() == audit);
            self.push_ranges(&mut ranges, section, 0, u32::MAX);
        }
        ranges
    }

    fn unknown(&self, newest: Option<u32>) -> Action {
        if newest.is_some() {
            Action::Errno(ENOSYS)
        } else {
            self.default_action
        }
    }

    /// Appends the ranges of `section` for the numbers from `start` up to but without `end`.
    fn push_ranges<'a>(
        &self,
        ranges: &mut Vec<(u32, Answer<'a>)>,
        section: Option<&'a Section>,
        start: u32,
        end: u32,
    ) {
        let Some(section) = section else {
            ranges.push((start, Answer::Fixed(self.foreign_action)));
            return;
        };
        let mut next = start;
        for (&number, rules) in section.calls.range(start..end) {
            if number > next {
                ranges.push((next, Answer::Fixed(self.default_action)));
            }
            let answer = match rules.iter().find(|rule| rule.tests.is_empty()) {
                // libseccomp lets a rule without arguments win over those with: so it is in runc.
                Some(rule) => Answer::Fixed(rule.action),
                None => Answer::Tested(rules),
            };
            ranges.push((number, answer));
            next = number.saturating_add(1);
        }
        match section.newest {
            Some(newest) if newest < end - 1 => {
                if newest >= next {
                    ranges.push((next, Answer::Fixed(self.default_action)));
                }
                let above = newest.saturating_add(1).max(next);
                ranges.push((above, Answer::Fixed(self.unknown(section.newest))));
            }
            _ => ranges.push((next, Answer::Fixed(self.default_action))),
        }
    }
}
