//! Scheduling of a process: what bundles alone ask for, so that no other launch has a call more.

use hull_proto::oci::{IoPriority, MemoryPolicy, Scheduler};
use hull_proto::plan::ProcessPlan;
use hull_sys::schedule::{self, CpuMask, SchedAttr};

use crate::LaunchError;
use crate::report::{At, Failed, Step};

/// What is set, prepared.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    scheduler: Option<SchedAttr>,
    io_priority: Option<IoPriority>,
    personality: Option<u32>,
    memory_policy: Option<MemoryPolicy>,
    /// Until it is in the container's control group, for a process that joins.
    first: Option<CpuMask>,
    /// From then on.
    last: Option<CpuMask>,
}

impl Schedule {
    pub(crate) fn prepare(plan: &ProcessPlan) -> Result<Self, LaunchError> {
        let mask = |list: &str| {
            if list.is_empty() {
                return Ok(None);
            }
            CpuMask::parse(list).map(Some).map_err(|_| {
                LaunchError::Plan(format!("{list:?} is no list of processors such as 0-2,4"))
            })
        };
        let affinity = plan.cpu_affinity.clone().unwrap_or_default();
        Ok(Self {
            scheduler: plan.scheduler.map(attr),
            io_priority: plan.io_priority,
            personality: plan.personality,
            memory_policy: plan.memory_policy.clone(),
            first: mask(&affinity.initial)?,
            last: mask(&affinity.last)?,
        })
    }

    /// Before the control group is joined. Runs in the child.
    pub(crate) fn before_cgroup(&self) -> Result<(), Failed> {
        match &self.first {
            Some(mask) => mask.apply().at(Step::CpuAffinity),
            None => Ok(()),
        }
    }

    /// Once it is in the group, which may have set the processors anew. Runs in the child.
    pub(crate) fn after_cgroup(&self) -> Result<(), Failed> {
        match &self.last {
            Some(mask) => mask.apply().at(Step::CpuAffinity),
            None => Ok(()),
        }
    }

    /// While the process still has its capabilities. Runs in the child.
    pub(crate) fn apply(&self) -> Result<(), Failed> {
        if let Some(attr) = &self.scheduler {
            schedule::set_scheduler(attr).at(Step::Scheduler)?;
        }
        if let Some(priority) = self.io_priority {
            schedule::set_io_priority(priority.class, priority.level).at(Step::IoPriority)?;
        }
        if let Some(domain) = self.personality {
            schedule::set_personality(domain).at(Step::Personality)?;
        }
        if let Some(policy) = &self.memory_policy {
            schedule::set_memory_policy(policy.mode | policy.flags, &policy.nodes)
                .at(Step::MemoryPolicy)?;
        }
        Ok(())
    }
}

fn attr(wanted: Scheduler) -> SchedAttr {
    SchedAttr {
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
        ..SchedAttr::default()
    }
}
