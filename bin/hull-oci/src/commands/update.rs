//! `update`: other limits for a container that runs.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use hull_container::Host;
use hull_proto::plan::CgroupPlan;
use hull_sys::cgroup::CgroupError;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use crate::cli::Update;
use crate::log::Log;
use crate::spec;
use crate::state::{Record, Status, Store};
use crate::systemd;

/// Largest file of resources read from standard input.
const MAX_INPUT_BYTES: u64 = 16 << 20;
/// Where Intel's resource director technology is controlled.
const RESCTRL: &str = "/sys/fs/resctrl";

pub(crate) fn update(args: &Update, store: &Store, log: &Log) -> Result<()> {
    let (entry, record) = store.open(&args.id)?;
    let host = Host::detect()?;
    if matches!(
        record.status(&entry, &host)?,
        Status::Stopped | Status::Creating
    ) {
        bail!("container with id {} is not running", args.id);
    }
    let resources = match args.resources.as_deref() {
        Some(file) => read(file)?,
        None => from_flags(args)?,
    };
    let mut plan = CgroupPlan::default();
    let mut warnings = Vec::new();
    spec::translate_resources(&resources, &mut plan, &mut warnings)?;
    if record.cgroup.is_empty() {
        return Err(CgroupError::NotAllowed)
            .context("cannot set limits: the container has no control group");
    }
    let group = record
        .hierarchies(&host)
        .open_for(&record.cgroup, &plan.resources, &plan.extra, host.features)
        .map_err(spec::name_limit)?
        .context("the container's control group is gone")?;
    for (schema, what, file) in [
        (&args.l3_cache_schema, "CAT: l3 cache", "info/L3"),
        (&args.mem_bw_schema, "MBA: memory bandwidth", "info/MB"),
    ] {
        if let Some(schema) = schema.as_ref().filter(|schema| !schema.is_empty()) {
            resource_director(&record, schema, what, file)?;
        }
    }
    if let Some(unit) = &record.systemd {
        if plan.extra.memory_check_before_update {
            // systemd sets what does not fit, and the kernel kills: the group itself is asked first.
            group
                .apply_with(&plan.resources, &plan.extra)
                .map_err(spec::name_limit)?;
        }
        systemd::update(unit, &plan, &host)?;
    }
    warnings.extend(
        group
            .apply_with(&plan.resources, &plan.extra)
            .map_err(spec::name_limit)?,
    );
    for warning in &warnings {
        log.warn(warning);
    }
    Ok(())
}

fn read(file: &Path) -> Result<LinuxResources> {
    if file != Path::new("-") {
        return spec::read_json(file);
    }
    let input = std::io::Read::take(std::io::stdin().lock(), MAX_INPUT_BYTES);
    let mut reader = serde_json::Deserializer::from_reader(input);
    serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| anyhow::anyhow!("standard input: {}: {}", error.path(), error.inner()))
}

/// The flags as the object that `--resources` would name.
fn from_flags(args: &Update) -> Result<LinuxResources> {
    let mut memory = Map::new();
    for (key, flag, value) in [
        ("limit", "--memory", &args.memory),
        ("swap", "--memory-swap", &args.memory_swap),
        (
            "reservation",
            "--memory-reservation",
            &args.memory_reservation,
        ),
        ("kernel", "--kernel-memory", &args.kernel_memory),
        ("kernelTCP", "--kernel-memory-tcp", &args.kernel_memory_tcp),
    ] {
        if let Some(text) = given(value) {
            let bytes = bytes(text).with_context(|| {
                format!("invalid value for {flag}: {text:?} is no size such as 64M, or -1")
            })?;
            memory.insert(key.to_owned(), json!(bytes));
        }
    }
    let mut cpu = Map::new();
    for (key, flag, value, signed) in [
        ("period", "--cpu-period", &args.cpu_period, false),
        ("quota", "--cpu-quota", &args.cpu_quota, true),
        ("burst", "--cpu-burst", &args.cpu_burst, false),
        ("shares", "--cpu-share", &args.cpu_share, false),
        (
            "realtimePeriod",
            "--cpu-rt-period",
            &args.cpu_rt_period,
            false,
        ),
        (
            "realtimeRuntime",
            "--cpu-rt-runtime",
            &args.cpu_rt_runtime,
            true,
        ),
        ("idle", "--cpu-idle", &args.cpu_idle, true),
    ] {
        if let Some(text) = given(value) {
            let number: i64 = text
                .parse()
                .ok()
                .filter(|number| signed || *number >= 0)
                .with_context(|| format!("invalid value for {flag}: {text:?} is no number"))?;
            cpu.insert(key.to_owned(), json!(number));
        }
    }
    for (key, value) in [("cpus", &args.cpuset_cpus), ("mems", &args.cpuset_mems)] {
        if let Some(text) = given(value) {
            cpu.insert(key.to_owned(), json!(text));
        }
    }
    let mut all = json!({ "memory": memory, "cpu": cpu });
    let mut put = |key: &str, value: Value| {
        if let Some(object) = all.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
    };
    if let Some(limit) = args.pids_limit {
        put("pids", json!({ "limit": limit }));
    }
    if let Some(weight) = args.blkio_weight {
        put("blockIO", json!({ "weight": weight }));
    }
    serde_json::from_value(all).context("the flags make no valid resources")
}

fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|text| !text.is_empty())
}

/// A number of bytes with a binary unit, as Docker and runc take it.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift);
    }
    let value = number.parse::<f64>().ok()? * (1u64 << shift) as f64;
    (value < i64::MAX as f64).then_some(value as i64)
}

/// Writes a line of the container's class of service.
fn resource_director(record: &Record, schema: &str, what: &str, file: &str) -> Result<()> {
    if !Path::new(RESCTRL).join(file).is_dir() {
        bail!(
            "Intel RDT/{what} schema is not enabled: mount resctrl at {RESCTRL} on a processor that has it"
        );
    }
    let schemata = Path::new(RESCTRL).join(&record.id).join("schemata");
    std::fs::write(&schemata, format!("{schema}\n"))
        .with_context(|| format!("cannot set {schema:?} in {}", schemata.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_units_are_binary() {
        assert_eq!(bytes("64"), Some(64));
        assert_eq!(bytes("64m"), Some(64 << 20));
        assert_eq!(bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(bytes("2 kb"), Some(2048));
        assert_eq!(bytes("-1"), Some(-1));
        for bad in ["", "m", "-2", "1x", "99999999999p"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
