//! Reads a profile's rules one after the other, straight from the profile, without the filter and
//! the compiler.

use super::Call;
use crate::arch::X32_SYSCALL_BIT;
use crate::profile::{Architectures, Profile, ProfileRule, Test};
use crate::{Action, Arch, Env, multiplex, width};

const ENOSYS: u16 = 38;

/// The answer the profile demands for a call.
#[must_use]
pub fn evaluate(profile: &Profile, env: &Env, call: &Call) -> Action {
    let Some(arch) = convention(profile, env, call) else {
        return Action::KillProcess;
    };
    let beyond = call.arch == Arch::X86_64.audit() && call.number >= 0x8000_0000;
    let rules: Vec<_> = profile
        .rules
        .iter()
        .filter(|rule| included(rule, env))
        .collect();

    let mut newest = None;
    let mut matches: Vec<(bool, Action)> = Vec::new();
    for rule in &rules {
        for name in &rule.names {
            let direct = arch.syscall_number(name);
            newest = newest.max(direct);
            if direct == Some(call.number) && rule.action != profile.default_action {
                for holds in alternatives(rule, arch, name, call) {
                    matches.push((rule.args.is_empty(), rule.action));
                    if !holds {
                        matches.pop();
                    }
                }
            }
            if arch == Arch::X86
                && rule.args.is_empty()
                && let Some((carrier, operation)) = multiplex::carrier(name)
            {
                let number = arch.syscall_number(carrier);
                newest = newest.max(number);
                let picked = operation.test == Test::Equal(call.args[0] & 0xffff_ffff);
                if number == Some(call.number) && picked && rule.action != profile.default_action {
                    matches.push((false, rule.action));
                }
            }
        }
    }
    let whole = matches.iter().find(|(whole, _)| *whole);
    if let Some((_, action)) = whole.or(matches.first()) {
        return *action;
    }
    let lets_pass = matches!(
        profile.default_action,
        Action::Allow | Action::Log | Action::Trace(_)
    );
    let hides_new = !lets_pass && profile.default_action != Action::Errno(ENOSYS);
    if hides_new && newest.is_some_and(|newest| call.number > newest || beyond) {
        return Action::Errno(ENOSYS);
    }
    profile.default_action
}

fn convention(profile: &Profile, env: &Env, call: &Call) -> Option<Arch> {
    let listed: Vec<Arch> = match &profile.architectures {
        Architectures::Listed(listed) => listed.clone(),
        Architectures::Mapped(map) => map
            .iter()
            .find(|(native, _)| *native == env.arch)
            .map(|(_, relatives)| relatives.clone())
            .unwrap_or_default(),
    };
    let marked = call.number & 0xc000_0000 == X32_SYSCALL_BIT;
    [env.arch]
        .into_iter()
        .chain(listed)
        .filter(|arch| arch.audit() == call.arch)
        .find(|arch| match arch {
            Arch::X32 => marked,
            Arch::X86_64 => !marked,
            _ => true,
        })
}

fn included(rule: &ProfileRule, env: &Env) -> bool {
    let arch = env.arch.docker_name().to_owned();
    let (includes, excludes) = (&rule.includes, &rule.excludes);
    if includes.caps.iter().any(|cap| !env.caps.contains(cap)) {
        return false;
    }
    if !includes.arches.is_empty() && !includes.arches.contains(&arch) {
        return false;
    }
    if includes.min_kernel.is_some_and(|min| min > env.kernel) {
        return false;
    }
    !(excludes.caps.iter().any(|cap| env.caps.contains(cap))
        || excludes.arches.contains(&arch)
        || excludes.min_kernel.is_some_and(|min| min <= env.kernel))
}

/// Whether each of the rule's alternatives holds: one, unless it tests an argument twice.
fn alternatives(rule: &ProfileRule, arch: Arch, name: &str, call: &Call) -> Vec<bool> {
    let results: Vec<bool> = rule
        .args
        .iter()
        .map(|arg| {
            let narrow = arch.is_32_bit() || width::is_narrow(name, arg.index);
            holds(arg.test, call.args[usize::from(arg.index)], narrow)
        })
        .collect();
    let mut indices: Vec<u8> = rule.args.iter().map(|arg| arg.index).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() < rule.args.len() {
        results
    } else {
        vec![results.iter().all(|result| *result)]
    }
}

/// A comparison with the numbers the kernel may see: a narrow argument is its low half, and a
/// wanted value may be written as that half or as its sign extension.
fn holds(test: Test, arg: u64, narrow: bool) -> bool {
    let low = arg & 0xffff_ffff;
    let extended = (low as u32).cast_signed() as i64 as u64;
    let arg = if narrow { low } else { arg };
    let number = |value: u64| {
        let negative = narrow && value >> 31 == 0x1_ffff_ffff;
        if negative { value & 0xffff_ffff } else { value }
    };
    match test {
        Test::NotEqual(value) => arg != number(value),
        Test::Less(value) => arg < number(value),
        Test::LessOrEqual(value) => arg <= number(value),
        Test::Equal(value) => arg == number(value),
        Test::GreaterOrEqual(value) => arg >= number(value),
        Test::Greater(value) => arg > number(value),
        Test::MaskedEqual { mask, value }
            if narrow && value >> 32 != 0 && value & 0x8000_0000 != 0 =>
        {
            extended & mask == value
        }
        Test::MaskedEqual { mask, value } => arg & mask == value,
    }
}
