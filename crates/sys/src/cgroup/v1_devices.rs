//! Device rules as the v1 hierarchy takes them.
//!
//! The kernel keeps one default and exceptions from it. A rule that agrees with the default takes
//! back exceptions, but only those with the very same numbers: it passes over others without a
//! word. So what a rule covers is taken back one by one here, and a hole in a wider exception,
//! which cannot be had, is refused.

use super::{CgroupError, CgroupResult, DeviceKind, DeviceRule};

/// What is written, in order: a rule's line to `devices.allow` or to `devices.deny`.
pub(crate) fn writes(rules: &[DeviceRule]) -> CgroupResult<Vec<DeviceRule>> {
    let mut writes = Vec::with_capacity(rules.len());
    let mut exceptions: Vec<DeviceRule> = Vec::with_capacity(rules.len());
    // A new group has its parent's exceptions; what they are is only known after a rule about all.
    let mut default = None;
    for rule in rules.iter().flat_map(split) {
        if rule.kind == DeviceKind::All {
            default = Some(rule.allow);
            exceptions.clear();
            writes.push(rule);
            continue;
        }
        if default != Some(rule.allow) {
            exceptions.push(rule.clone());
            writes.push(rule);
            continue;
        }
        for exception in &exceptions {
            if !overlaps(&rule, exception) || same_numbers(&rule, exception) {
                continue;
            }
            if !covers(&rule, exception) {
                return Err(CgroupError::Limit {
                    limit: "devices",
                    value: line(&rule),
                    reason: format!(
                        "cgroup v1 makes no hole in the wider rule {} before it",
                        line(exception)
                    ),
                });
            }
            writes.push(DeviceRule {
                allow: rule.allow,
                read: rule.read,
                write: rule.write,
                mknod: rule.mknod,
                ..exception.clone()
            });
        }
        for exception in &mut exceptions {
            if covers(&rule, exception) {
                exception.read &= !rule.read;
                exception.write &= !rule.write;
                exception.mknod &= !rule.mknod;
            }
        }
        exceptions.retain(|exception| exception.access_bits() != 0);
        writes.push(rule);
    }
    Ok(writes)
}

/// `a` means every access to every device here: a rule about all that means less is two rules.
fn split(rule: &DeviceRule) -> impl Iterator<Item = DeviceRule> {
    let everything = DeviceRule::everything(rule.allow);
    let kinds = if rule.kind == DeviceKind::All && *rule != everything {
        [Some(DeviceKind::Char), Some(DeviceKind::Block)]
    } else {
        [Some(rule.kind), None]
    };
    let rule = rule.clone();
    kinds.into_iter().flatten().map(move |kind| DeviceRule {
        kind,
        ..rule.clone()
    })
}

fn same_numbers(left: &DeviceRule, right: &DeviceRule) -> bool {
    (left.kind, left.major, left.minor) == (right.kind, right.major, right.minor)
}

/// Whether some access to some device is in both.
fn overlaps(left: &DeviceRule, right: &DeviceRule) -> bool {
    let meet = |left: Option<u32>, right: Option<u32>| {
        left.zip(right).is_none_or(|(left, right)| left == right)
    };
    left.kind == right.kind
        && meet(left.major, right.major)
        && meet(left.minor, right.minor)
        && left.access_bits() & right.access_bits() != 0
}

/// Whether all devices of the second are among those of the first.
fn covers(wide: &DeviceRule, narrow: &DeviceRule) -> bool {
    let holds = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
    wide.kind == narrow.kind && holds(wide.major, narrow.major) && holds(wide.minor, narrow.minor)
}

fn line(rule: &DeviceRule) -> String {
    let word = if rule.allow { "allow" } else { "deny" };
    format!("{word} {}", rule.v1_line())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> DeviceRule {
        let words: Vec<&str> = text.split([' ', ':']).collect();
        let [word, kind, major, minor, access] = words.as_slice() else {
            panic!("{text}")
        };
        DeviceRule {
            allow: *word == "allow",
            kind: match *kind {
                "a" => DeviceKind::All,
                "b" => DeviceKind::Block,
                _ => DeviceKind::Char,
            },
            major: major.parse().ok(),
            minor: minor.parse().ok(),
            read: access.contains('r'),
            write: access.contains('w'),
            mknod: access.contains('m'),
        }
    }

    fn written(rules: &[&str]) -> CgroupResult<Vec<String>> {
        let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
        Ok(writes(&rules)?.iter().map(line).collect())
    }

    #[test]
    fn writes_usual_rules_are_as_they_are() {
        let rules = crate::cgroup::default_devices();
        assert_eq!(writes(&rules).expect("writes"), rules);
    }

    #[test]
    fn writes_all_devices_with_less_than_all_is_two_rules() {
        let lines = written(&["deny a *:* rwm", "allow a *:* m"]).expect("writes");
        assert_eq!(lines, ["deny a", "allow c *:* m", "allow b *:* m"]);
    }

    #[test]
    fn writes_wider_rule_takes_back_what_it_covers() {
        let lines = written(&[
            "deny a *:* rwm",
            "allow c 1:3 rwm",
            "allow c 5:0 rw",
            "deny c 1:* w",
            "allow c 1:3 w",
        ])
        .expect("writes");
        assert_eq!(
            lines,
            [
                "deny a",
                "allow c 1:3 rwm",
                "allow c 5:0 rw",
                "deny c 1:3 w",
                "deny c 1:* w",
                "allow c 1:3 w"
            ]
        );
    }

    #[test]
    fn writes_hole_in_a_wider_rule_is_refused() {
        for rules in [
            ["deny a *:* rwm", "allow c 1:* rwm", "deny c 1:5 r"],
            ["allow a *:* rwm", "deny c *:* rw", "allow c 1:3 r"],
        ] {
            let error = written(&rules).expect_err("hole").to_string();
            assert!(error.contains("no hole in the wider rule"), "{error}");
        }
        // What they do is apart.
        written(&["deny a *:* rwm", "allow c *:* m", "deny c 1:5 r"]).expect("apart");
    }
}
