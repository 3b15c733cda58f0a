//! `process` of config.json, and the process.json of `exec -p`.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use hull_model::Ulimit;
use hull_proto::plan::{PlanUser, ProcessPlan};
use oci_spec::runtime::{Capabilities, PosixRlimit, PosixRlimitType, Process};

use super::{absolute, schedule, unsupported};
use crate::log::Said;

/// `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

/// Translates; `field` is the path of the process in its file.
pub(crate) fn translate(process: &Process, field: &str, said: &mut Said) -> Result<ProcessPlan> {
    let at = |name: &str| format!("{field}.{name}");
    unsupported(&at("commandLine"), process.command_line().is_some())?;

    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        bail!("config.json: {} names no program", at("args"));
    }
    let env = process.env().clone().unwrap_or_default();
    if let Some(index) = env.iter().position(|item| !item.contains('=')) {
        bail!("config.json: {}[{index}] has no '='", at("env"));
    }
    let user = process.user();
    let (capabilities, ambient, inheritable) = capabilities(process, field, said)?;
    let console_size = match process.console_size() {
        Some(size) => match (u16::try_from(size.height()), u16::try_from(size.width())) {
            (Ok(rows), Ok(columns)) => Some((rows, columns)),
            _ => bail!("config.json: {} is above 65535", at("consoleSize")),
        },
        None => None,
    };
    Ok(ProcessPlan {
        args,
        env,
        cwd: absolute(&at("cwd"), process.cwd())?,
        user: PlanUser::Ids {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
        },
        capabilities,
        ambient,
        inheritable,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: rlimits(process, &at("rlimits"))?,
        oom_score_adj: process.oom_score_adj(),
        tty: process.terminal().unwrap_or(false),
        console_size,
        umask: user.umask(),
        apparmor_profile: process.apparmor_profile().clone().unwrap_or_default(),
        selinux_label: process.selinux_label().clone().unwrap_or_default(),
        scheduler: schedule::scheduler(process, field)?,
        io_priority: schedule::io_priority(process, field)?,
        cpu_affinity: schedule::cpu_affinity(process, field)?,
        ..ProcessPlan::default()
    })
}

/// The bounding set decides what execve leaves to root; what ambient capabilities leave to others.
/// The permitted and effective sets are computed anew by execve from those two, so naming them
/// narrower has no effect in any runtime.
fn capabilities(
    process: &Process,
    field: &str,
    said: &mut Said,
) -> Result<(Vec<String>, Vec<String>, Vec<String>)> {
    let Some(sets) = process.capabilities() else {
        return Ok((Vec::new(), Vec::new(), Vec::new()));
    };
    let bounding = names(sets.bounding().as_ref());
    let inheritable = names(sets.inheritable().as_ref());
    let wanted = names(sets.ambient().as_ref());
    for (name, set) in [
        ("effective", sets.effective()),
        ("permitted", sets.permitted()),
    ] {
        let extra = names(set.as_ref());
        if let Some(cap) = extra.difference(&bounding).next() {
            bail!("config.json: {field}.capabilities.{name}: CAP_{cap} is not in the bounding set");
        }
    }
    // The kernel refuses an ambient capability that is not inheritable, too.
    let ambient: BTreeSet<String> = wanted.intersection(&inheritable).cloned().collect();
    if ambient != wanted {
        said.details.push(format!(
            "{field}.capabilities.ambient: those that are not inheritable, too, have no effect"
        ));
    }
    // More than the ambient ones lets programs gain capabilities by their files: as the bundle
    // wishes, but exec never adds any (CVE-2022-29162).
    let more = inheritable.difference(&ambient).cloned().collect();
    Ok((
        bounding.into_iter().collect(),
        ambient.into_iter().collect(),
        more,
    ))
}

fn names(set: Option<&Capabilities>) -> BTreeSet<String> {
    set.into_iter().flatten().map(ToString::to_string).collect()
}

/// The specification forbids two of a type.
fn rlimits(process: &Process, field: &str) -> Result<Vec<Ulimit>> {
    let mut limits: Vec<Ulimit> = Vec::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let limit = rlimit(limit, field)?;
        if limits.iter().any(|known| known.name == limit.name) {
            bail!(
                "config.json: {field}[{index}]: RLIMIT_{} is there twice",
                limit.name.to_ascii_uppercase()
            );
        }
        limits.push(limit);
    }
    Ok(limits)
}

fn rlimit(limit: &PosixRlimit, field: &str) -> Result<Ulimit> {
    let name = match limit.typ() {
        PosixRlimitType::RlimitCpu => "cpu",
        PosixRlimitType::RlimitFsize => "fsize",
        PosixRlimitType::RlimitData => "data",
        PosixRlimitType::RlimitStack => "stack",
        PosixRlimitType::RlimitCore => "core",
        PosixRlimitType::RlimitRss => "rss",
        PosixRlimitType::RlimitNproc => "nproc",
        PosixRlimitType::RlimitNofile => "nofile",
        PosixRlimitType::RlimitMemlock => "memlock",
        PosixRlimitType::RlimitAs => "as",
        PosixRlimitType::RlimitLocks => "locks",
        PosixRlimitType::RlimitSigpending => "sigpending",
        PosixRlimitType::RlimitMsgqueue => "msgqueue",
        PosixRlimitType::RlimitNice => "nice",
        PosixRlimitType::RlimitRtprio => "rtprio",
        PosixRlimitType::RlimitRttime => "rttime",
    };
    let number = |value: u64| match value {
        UNLIMITED => Ok(-1),
        value => match i64::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => bail!("config.json: {field}: {name}: {value} is too large"),
        },
    };
    Ok(Ulimit {
        name: name.to_owned(),
        soft: number(limit.soft())?,
        hard: number(limit.hard())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rlimits_two_of_a_type_are_refused() {
        let process = |rlimits: &str| -> Process {
            let text = format!(
                r#"{{"user":{{"uid":0,"gid":0}},"args":["x"],"cwd":"/","rlimits":[{rlimits}]}}"#
            );
            serde_json::from_str(&text).expect("process")
        };
        let one = r#"{"type":"RLIMIT_NOFILE","soft":1,"hard":2}"#;
        let other = r#"{"type":"RLIMIT_CORE","soft":0,"hard":0}"#;
        let limits = rlimits(&process(&format!("{one},{other}")), "process.rlimits").expect("two");
        assert_eq!(limits.len(), 2);
        let twice = rlimits(&process(&format!("{one},{other},{one}")), "process.rlimits");
        let text = twice.expect_err("twice").to_string();
        assert!(text.contains("process.rlimits[2]: RLIMIT_NOFILE"), "{text}");
    }
}
