//! `linux` of config.json.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use hull_proto::LaunchPlan;
use hull_proto::plan::{Namespace, SeccompPlan};
use oci_spec::runtime::Linux;

use crate::{netdev, rdt};

use super::{device_rules, devices, namespaces, resources, schedule, unsupported};

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

/// The filter; its own compiler checks the fields.
pub(crate) fn seccomp(linux: &Linux) -> Result<SeccompPlan> {
    let Some(seccomp) = linux.seccomp() else {
        return Ok(SeccompPlan::Unconfined);
    };
    let notifies = seccomp
        .syscalls()
        .iter()
        .flatten()
        .any(|rule| rule.action() == oci_spec::runtime::LinuxSeccompAction::ScmpActNotify);
    unsupported("linux.seccomp.syscalls: SCMP_ACT_NOTIFY", notifies)?;
    unsupported(
        "linux.seccomp.listenerPath",
        seccomp.listener_path().is_some(),
    )?;
    let text = serde_json::to_string(seccomp).context("cannot write the seccomp profile")?;
    hull_seccomp::Profile::parse(text.as_bytes()).context("config.json: linux.seccomp")?;
    Ok(SeccompPlan::Profile(text))
}
