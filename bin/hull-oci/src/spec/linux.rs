//! `linux` of config.json.

use std::os::fd::OwnedFd;

use anyhow::Result;
use hull_proto::LaunchPlan;
use hull_proto::plan::Namespace;
use oci_spec::runtime::Linux;

use crate::{netdev, rdt};

use super::{device_rules, devices, namespaces, resources, schedule};

/// Adds what `linux` says to the plan.
pub(crate) fn translate(
    linux: &Linux,
    plan: &mut LaunchPlan,
    fds: &mut Vec<OwnedFd>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    plan.process.personality = linux
        .personality()
        .as_ref()
        .map(schedule::personality)
        .transpose()?;
    plan.process.memory_policy = linux
        .memory_policy()
        .as_ref()
        .map(schedule::memory_policy)
        .transpose()?;
    namespaces::translate(linux, plan, fds)?;
    if let Some(devices) = linux.net_devices() {
        let own_network = plan.namespaces.net != Namespace::Host;
        plan.net_devices = netdev::translate(devices, own_network)?;
    }
    plan.intel_rdt = linux.intel_rdt().as_ref().map(rdt::translate).transpose()?;
    plan.sysctls = linux
        .sysctl()
        .iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    devices::translate(linux, plan)?;
    if let Some(limits) = linux.resources() {
        resources::translate(limits, &mut plan.cgroup, warnings)?;
    }
    plan.cgroup.devices = device_rules::device_rules(linux.resources().as_ref())?;
    Ok(())
}
