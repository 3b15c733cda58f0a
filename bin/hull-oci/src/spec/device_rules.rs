//! `linux.resources.devices` of config.json.

use anyhow::{Result, bail};
use hull_proto::plan::DeviceRule;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

/// The rules of the specification, then those every container needs.
pub(crate) fn device_rules(resources: Option<&LinuxResources>) -> Result<Vec<DeviceRule>> {
    let given = resources.and_then(|resources| resources.devices().as_ref());
    let mut rules = Vec::new();
    for (index, rule) in given.into_iter().flatten().enumerate() {
        rules.push(device_rule(rule, index)?);
    }
    let defaults = hull_sys::cgroup::default_devices();
    // The first of the defaults refuses everything, which holds unless the first rule given says
    // otherwise, as in runc.
    let decides = |rule: &DeviceRule| {
        let numbers = rule.major.or(rule.minor);
        rule.kind == 'a' && numbers.is_none() && matches!(rule.access.len(), 0 | 3..)
    };
    if !rules.first().is_some_and(decides) {
        rules.splice(..0, defaults.first().map(from_default));
    }
    // The console is a terminal of the container's own; that of the host is nobody's, as in runc.
    let usual = defaults.iter().skip(1);
    let usual = usual.filter(|rule| (rule.major, rule.minor) != (Some(5), Some(1)));
    rules.extend(usual.map(from_default));
    Ok(rules)
}

fn device_rule(rule: &LinuxDeviceCgroup, index: usize) -> Result<DeviceRule> {
    let field = format!("linux.resources.devices[{index}]");
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => 'a',
        Some(LinuxDeviceType::B) => 'b',
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => 'c',
        Some(LinuxDeviceType::P) => bail!("config.json: {field}.type: a pipe is not a device"),
    };
    let number = |name: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => bail!("config.json: {field}.{name} {value} is not a device number"),
        },
    };
    let access = rule.access().clone().unwrap_or_default();
    if let Some(letter) = access.chars().find(|letter| !"rwm".contains(*letter)) {
        bail!("config.json: {field}.access: {letter:?} is none of r, w, m");
    }
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major: number("major", rule.major())?,
        minor: number("minor", rule.minor())?,
        access,
    })
}

fn from_default(rule: &hull_sys::cgroup::DeviceRule) -> DeviceRule {
    use hull_sys::cgroup::DeviceKind;
    let access = [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')];
    DeviceRule {
        allow: rule.allow,
        kind: match rule.kind {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        },
        major: rule.major,
        minor: rule.minor,
        access: access
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, letter)| letter)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &str) -> Result<Vec<DeviceRule>> {
        let resources: LinuxResources = serde_json::from_str(text).expect("JSON");
        device_rules(Some(&resources))
    }

    #[test]
    fn device_rules_none_given_refuse_all_but_the_usual() {
        let rules = device_rules(None).expect("rules");
        let first = rules.first().expect("first");
        assert!(!first.allow && first.kind == 'a' && rules.len() == 11);
        assert!(rules.iter().skip(1).all(|rule| rule.allow));
    }

    #[test]
    fn device_rules_given_come_first_in_their_order_with_wildcards() {
        let rules = translated(
            r#"{"devices":[{"allow":true,"access":"rwm"},
                {"allow":false,"type":"c","major":10,"minor":-1,"access":"w"},
                {"allow":true,"type":"b","minor":3,"access":"r"}]}"#,
        )
        .expect("rules");
        assert_eq!(rules.len(), 13);
        let shown: Vec<_> = rules
            .iter()
            .take(3)
            .map(|rule| (rule.allow, rule.kind, rule.major, rule.minor))
            .collect();
        assert_eq!(
            shown,
            [
                (true, 'a', None, None),
                (false, 'c', Some(10), None),
                (true, 'b', None, Some(3))
            ]
        );
    }

    #[test]
    fn device_rules_bad_numbers_and_letters_are_refused() {
        for (text, field) in [
            (
                r#"{"devices":[{"allow":true,"type":"c","major":-2}]}"#,
                "devices[0].major",
            ),
            (
                r#"{"devices":[{"allow":true,"access":"x"}]}"#,
                "devices[0].access",
            ),
            (
                r#"{"devices":[{"allow":true,"type":"p"}]}"#,
                "devices[0].type",
            ),
        ] {
            let error = translated(text).expect_err(text).to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
