//! Scheduling in config.json: `process.{scheduler,ioPriority,execCPUAffinity}`,
//! `linux.{personality,memoryPolicy}`.

use anyhow::{Result, bail};
use hull_proto::oci::{CpuAffinity, IoPriority, MemoryPolicy, Scheduler};
use hull_sys::schedule::CpuMask;
use oci_spec::runtime::{
    IOPriorityClass, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process,
};

const SCHED_OTHER: u32 = 0;
const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
const SCHED_BATCH: u32 = 3;
const SCHED_ISO: u32 = 4;
const SCHED_IDLE: u32 = 5;
const SCHED_DEADLINE: u32 = 6;

/// `PER_LINUX32`.
const PER_LINUX32: u32 = 8;
/// Greatest node of a memory policy.
const MAX_NODES: usize = 1024;

/// `process.scheduler`; what does not belong together is refused here.
pub(crate) fn scheduler(process: &Process, field: &str) -> Result<Option<Scheduler>> {
    let Some(wanted) = process.scheduler() else {
        return Ok(None);
    };
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIso => SCHED_ISO,
        LinuxSchedulerPolicy::SchedIdle => SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => SCHED_DEADLINE,
    };
    let real_time = matches!(policy, SCHED_FIFO | SCHED_RR);
    let priority = wanted.priority().unwrap_or(0);
    if priority != 0 && !real_time {
        bail!("config.json: {field}.scheduler.priority is for SCHED_FIFO and SCHED_RR alone");
    }
    if real_time && !(1..=99).contains(&priority) {
        bail!("config.json: {field}.scheduler.priority {priority} is not between 1 and 99");
    }
    let nice = wanted.nice().unwrap_or(0);
    if nice != 0 && !matches!(policy, SCHED_OTHER | SCHED_BATCH) {
        bail!("config.json: {field}.scheduler.nice is for SCHED_OTHER and SCHED_BATCH alone");
    }
    if !(-20..=19).contains(&nice) {
        bail!("config.json: {field}.scheduler.nice {nice} is not between -20 and 19");
    }
    let times =
        [wanted.runtime(), wanted.deadline(), wanted.period()].map(|time| time.unwrap_or(0));
    if times != [0; 3] && policy != SCHED_DEADLINE {
        bail!(
            "config.json: {field}.scheduler.runtime, deadline and period are for SCHED_DEADLINE alone"
        );
    }
    let [runtime, deadline, period] = times;
    Ok(Some(Scheduler {
        policy,
        flags: wanted
            .flags()
            .iter()
            .flatten()
            .fold(0, |all, flag| all | scheduler_flag(*flag)),
        nice,
        priority: priority.unsigned_abs(),
        runtime,
        deadline,
        period,
    }))
}

fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// `process.ioPriority`.
pub(crate) fn io_priority(process: &Process, field: &str) -> Result<Option<IoPriority>> {
    let Some(wanted) = process.io_priority() else {
        return Ok(None);
    };
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u8::try_from(wanted.priority()) {
        Ok(level @ 0..=7) => Ok(Some(IoPriority { class, level })),
        _ => bail!(
            "config.json: {field}.ioPriority.priority {} is not between 0 and 7",
            wanted.priority()
        ),
    }
}

/// `process.execCPUAffinity`.
pub(crate) fn cpu_affinity(process: &Process, field: &str) -> Result<Option<CpuAffinity>> {
    let Some(wanted) = process.exec_cpu_affinity() else {
        return Ok(None);
    };
    let list = |name: &str, list: &Option<String>| -> Result<String> {
        let list = list.clone().unwrap_or_default();
        if !list.is_empty() && CpuMask::parse(&list).is_err() {
            bail!(
                "config.json: {field}.execCPUAffinity.{name} {list:?} is no list of processors such as 0-2,4"
            );
        }
        Ok(list)
    };
    Ok(Some(CpuAffinity {
        initial: list("initial", wanted.initial())?,
        last: list("final", wanted.cpu_affinity_final())?,
    }))
}

/// `linux.personality`.
pub(crate) fn personality(wanted: &LinuxPersonality) -> Result<u32> {
    if let Some(flag) = wanted.flags().iter().flatten().next() {
        // The specification reserves flags and defines none.
        bail!("config.json: linux.personality.flags: {flag:?} is unknown");
    }
    Ok(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    })
}

/// `linux.memoryPolicy`.
pub(crate) fn memory_policy(wanted: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let mode = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        }
    });
    let list = wanted.nodes().clone().unwrap_or_default();
    let nodes = nodes(&list)?;
    if nodes.is_empty() && matches!(mode, 2 | 3 | 5 | 6) {
        bail!("config.json: linux.memoryPolicy.nodes is missing, which this mode needs");
    }
    if !nodes.is_empty() && matches!(mode, 0 | 4) {
        bail!("config.json: linux.memoryPolicy.nodes has no meaning in this mode");
    }
    Ok(MemoryPolicy { mode, flags, nodes })
}

fn nodes(list: &str) -> Result<Vec<u64>> {
    let wrong = || {
        anyhow::anyhow!("config.json: linux.memoryPolicy.nodes {list:?} is no list such as 0-2,4")
    };
    let mut words = Vec::new();
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= MAX_NODES {
            return Err(wrong());
        }
        if words.len() <= last / 64 {
            words.resize(last / 64 + 1, 0u64);
        }
        for node in first..=last {
            if let Some(word) = words.get_mut(node / 64) {
                *word |= 1 << (node % 64);
            }
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(more: &str) -> Process {
        let text = format!(r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},{more}}}"#);
        serde_json::from_str(&text).expect("json")
    }

    #[test]
    fn scheduler_what_does_not_belong_together_is_refused() {
        for (json, part) in [
            (r#"{"policy":"SCHED_OTHER","priority":3}"#, "priority"),
            (r#"{"policy":"SCHED_FIFO"}"#, "between 1 and 99"),
            (r#"{"policy":"SCHED_FIFO","priority":1,"nice":2}"#, "nice"),
            (
                r#"{"policy":"SCHED_BATCH","nice":20}"#,
                "between -20 and 19",
            ),
            (
                r#"{"policy":"SCHED_BATCH","runtime":1}"#,
                "SCHED_DEADLINE alone",
            ),
        ] {
            let process = process(&format!(r#""scheduler":{json}"#));
            let error = scheduler(&process, "process").expect_err(json).to_string();
            assert!(error.contains(part), "{error}");
        }
        let good = process(
            r#""scheduler":{"policy":"SCHED_BATCH","nice":5,"flags":["SCHED_RESET_ON_FORK"]}"#,
        );
        let got = scheduler(&good, "process").expect("good").expect("some");
        assert_eq!((got.policy, got.nice, got.flags), (3, 5, 1));
    }

    #[test]
    fn io_priority_beyond_seven_is_refused() {
        let good = process(r#""ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":7}"#);
        let got = io_priority(&good, "process").expect("good").expect("some");
        assert_eq!((got.class, got.level), (3, 7));
        let bad = process(r#""ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}"#);
        assert!(io_priority(&bad, "process").is_err());
    }

    #[test]
    fn nodes_become_a_mask() {
        assert_eq!(nodes("").expect("none"), Vec::<u64>::new());
        assert_eq!(nodes("0-1,64").expect("mask"), [3, 1]);
        assert!(nodes("2-1").is_err() && nodes("1024").is_err() && nodes("x").is_err());
    }
}
