//! From a profile to a filter: the conditions of Docker's format meet the container they are for.

use std::collections::{BTreeMap, BTreeSet};

use crate::action::Action;
use crate::arch::Arch;
use crate::filter::{Filter, Rule, Section, SizedTest};
use crate::kernel::KernelVersion;
use crate::multiplex;
use crate::profile::{Architectures, ArgTest, Condition, FilterFlag, Profile, ProfileRule};
use crate::width;

const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_NEW_LISTENER: u32 = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

const ENOSYS: u16 = 38;

/// What the conditions of a profile are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    /// The container's capabilities (its bounding set), as `CAP_…`.
    pub caps: BTreeSet<String>,
    /// The machine's own calling convention.
    pub arch: Arch,
    /// The running kernel.
    pub kernel: KernelVersion,
}

/// Why a profile has no meaning here.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The profile asks for `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` without any notification.
    #[error(
        "seccomp profile: flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY"
    )]
    WaitKillableWithoutNotify,
}

impl Profile {
    /// Settles the profile for one container, as Docker does: `includes` and `excludes` are
    /// decided, names become numbers of every convention the machine speaks (a name that one
    /// lacks is passed over), and, unless the default lets calls pass, numbers newer than
    /// everything the profile names are answered `ENOSYS`, so that programs fall back.
    ///
    /// # Errors
    /// A combination the kernel would refuse.
    pub fn resolve(&self, env: &Env) -> Result<Filter, ResolveError> {
        let rules: Vec<&ProfileRule> = self
            .rules
            .iter()
            .filter(|rule| applies(rule, env))
            .collect();
        let hides_new =
            !self.default_action.lets_pass() && self.default_action != Action::Errno(ENOSYS);
        let sections = self
            .conventions(env.arch)
            .into_iter()
            .map(|arch| self.section(arch, &rules, hides_new))
            .collect();
        Ok(Filter {
            default_action: self.default_action,
            foreign_action: Action::KillProcess,
            sections,
            flags: self.filter_flags(&rules)?,
        })
    }

    /// The conventions to filter, the native one first.
    fn conventions(&self, native: Arch) -> Vec<Arch> {
        let others: &[Arch] = match &self.architectures {
            Architectures::Listed(listed) => listed,
            Architectures::Mapped(map) => map
                .iter()
                .find(|(arch, _)| *arch == native)
                .map_or(&[], |(_, relatives)| relatives),
        };
        let mut all = vec![native];
        for &arch in others {
            if !all.contains(&arch) {
                all.push(arch);
            }
        }
        all
    }

    fn section(&self, arch: Arch, rules: &[&ProfileRule], hides_new: bool) -> Section {
        let mut calls: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
        let mut newest = None;
        for rule in rules {
            for name in &rule.names {
                if let Some(number) = arch.syscall_number(name) {
                    newest = newest.max(Some(number));
                    self.add(&mut calls, arch, number, name, rule);
                }
                if arch == Arch::X86 && rule.args.is_empty() {
                    newest = newest.max(self.add_multiplexed(&mut calls, name, rule));
                }
            }
        }
        Section {
            arch,
            newest: newest.filter(|_| hides_new),
            calls,
        }
    }

    fn add(
        &self,
        calls: &mut BTreeMap<u32, Vec<Rule>>,
        arch: Arch,
        number: u32,
        name: &str,
        rule: &ProfileRule,
    ) {
        if rule.action == self.default_action {
            // runc passes such rules over, so they do not shadow later ones.
            return;
        }
        let entry = calls.entry(number).or_default();
        let sized = |arg: &ArgTest| {
            SizedTest::new(*arg, arch.is_32_bit() || width::is_narrow(name, arg.index))
        };
        if has_repeated_index(&rule.args) {
            // Docker's older profiles list alternatives for one argument in one rule; runc still
            // reads two tests of the same argument as "or".
            entry.extend(rule.args.iter().map(|arg| Rule {
                tests: vec![sized(arg)],
                action: rule.action,
            }));
        } else {
            entry.push(Rule {
                tests: rule.args.iter().map(sized).collect(),
                action: rule.action,
            });
        }
    }

    /// On i386 sockets and System V IPC also go through one call each, with the operation as its
    /// first argument: a rule for `bind` is one for `socketcall(SYS_BIND)` too. A rule that looks
    /// at arguments is not carried over: they lie in memory the filter cannot read.
    /// Returns the number of the carrying call.
    fn add_multiplexed(
        &self,
        calls: &mut BTreeMap<u32, Vec<Rule>>,
        name: &str,
        rule: &ProfileRule,
    ) -> Option<u32> {
        let (carrier, operation) = multiplex::carrier(name)?;
        let number = Arch::X86.syscall_number(carrier)?;
        if rule.action != self.default_action {
            calls.entry(number).or_default().push(Rule {
                tests: vec![SizedTest::new(operation, true)],
                action: rule.action,
            });
        }
        Some(number)
    }

    fn filter_flags(&self, rules: &[&ProfileRule]) -> Result<u32, ResolveError> {
        let notifies = rules.iter().any(|rule| rule.action == Action::Notify);
        let mut flags = if notifies { FLAG_NEW_LISTENER } else { 0 };
        for flag in &self.flags {
            flags |= match flag {
                FilterFlag::Tsync => 0,
                FilterFlag::Log => FLAG_LOG,
                FilterFlag::SpecAllow => FLAG_SPEC_ALLOW,
                FilterFlag::WaitKillableRecv if notifies => FLAG_WAIT_KILLABLE_RECV,
                FilterFlag::WaitKillableRecv => {
                    return Err(ResolveError::WaitKillableWithoutNotify);
                }
            };
        }
        Ok(flags)
    }
}

fn has_repeated_index(args: &[ArgTest]) -> bool {
    args.iter().enumerate().any(|(at, arg)| {
        args.iter()
            .skip(at + 1)
            .any(|other| other.index == arg.index)
    })
}

fn applies(rule: &ProfileRule, env: &Env) -> bool {
    let Condition {
        caps,
        arches,
        min_kernel,
    } = &rule.includes;
    let included = caps.iter().all(|cap| env.caps.contains(cap))
        && (arches.is_empty() || arches.iter().any(|arch| arch == env.arch.docker_name()))
        && min_kernel.is_none_or(|min| env.kernel >= min);
    let Condition {
        caps,
        arches,
        min_kernel,
    } = &rule.excludes;
    let excluded = caps.iter().any(|cap| env.caps.contains(cap))
        || arches.iter().any(|arch| arch == env.arch.docker_name())
        || min_kernel.is_some_and(|min| env.kernel >= min);
    included && !excluded
}
