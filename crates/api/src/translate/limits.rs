//! Limits: the API's zeros become "leave it", the model's "none" becomes zero.
use hull_api_types::host_config as wire;
use hull_model::{Error, Resources, Result, Ulimit};

/// The smallest part of a CPU to be granted, 10⁻⁹ CPUs.
const MIN_NANO_CPUS: i64 = 10_000_000;
/// Resource limits of processes that the kernel knows.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads limits.
///
/// # Errors
/// If one is out of its range. Whether they fit each other and the host, the engine says.
pub(crate) fn resources(wire: &wire::Resources) -> Result<Resources> {
    let memory_swap = match wire.memory_swap {
        0 => None,
        swap if swap < -1 => return Err(Error::invalid(format!("invalid memory-swap: {swap}"))),
        swap => Some(swap),
    };
    let memory_swappiness = match wire.memory_swappiness {
        None | Some(-1) => None,
        Some(value @ 0..=100) => Some(value.unsigned_abs()),
        Some(value) => {
            return Err(Error::invalid(format!(
                "Invalid value: {value}, valid memory swappiness range is 0-100"
            )));
        }
    };
    let read = Resources {
        memory: positive("memory limit", wire.memory)?,
        memory_swap,
        memory_reservation: positive("memory reservation limit", wire.memory_reservation)?,
        memory_swappiness,
        oom_kill_disable: wire.oom_kill_disable.unwrap_or_default(),
        pids_limit: match wire.pids_limit {
            None | Some(0) => None,
            Some(n) if n < 0 => Some(-1),
            some => some,
        },
        blkio_weight: blkio_weight(wire.blkio_weight)?,
        ..cpu(wire)?
    };
    Ok(read)
}

fn cpu(wire: &wire::Resources) -> Result<Resources> {
    let nano_cpus = positive("number of CPUs", wire.nano_cpus)?;
    if nano_cpus.is_some_and(|nanos| nanos < MIN_NANO_CPUS) {
        return Err(Error::invalid(
            "the number of CPUs cannot be less than 0.01",
        ));
    }
    if wire.cpu_period != 0 && !(1_000..=1_000_000).contains(&wire.cpu_period) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if wire.cpu_quota > 0 && wire.cpu_quota < 1_000 {
        return Err(Error::invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    let shares = positive("number of CPU shares", wire.cpu_shares)?;
    if shares.is_some_and(|n| n < 2) {
        return Err(Error::invalid("The minimum allowed cpu-shares is 2"));
    }
    if shares.is_some_and(|n| n > 262_144) {
        return Err(Error::invalid("The maximum allowed cpu-shares is 262144"));
    }
    Ok(Resources {
        nano_cpus,
        cpu_period: positive("CPU period", wire.cpu_period)?.map(i64::unsigned_abs),
        cpu_quota: Some(wire.cpu_quota).filter(|quota| *quota != 0),
        cpu_shares: shares.map(i64::unsigned_abs),
        cpuset_cpus: cpuset("CPUs", &wire.cpuset_cpus)?,
        cpuset_mems: cpuset("memory nodes", &wire.cpuset_mems)?,
        ..Resources::default()
    })
}

fn positive(what: &str, value: i64) -> Result<Option<i64>> {
    match value {
        0 => Ok(None),
        1.. => Ok(Some(value)),
        _ => Err(Error::invalid(format!(
            "invalid {what}: {value} is negative"
        ))),
    }
}

fn blkio_weight(weight: u16) -> Result<Option<u16>> {
    match weight {
        0 => Ok(None),
        10..=1000 => Ok(Some(weight)),
        _ => Err(Error::invalid("Range of blkio weight is from 10 to 1000")),
    }
}

fn cpuset(what: &str, text: &str) -> Result<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(a), Ok(b)) if a <= b)
    };
    if text.split(',').all(part) {
        return Ok(Some(text.to_owned()));
    }
    Err(Error::invalid(format!(
        "Invalid value {text} for cpuset {what}"
    )))
}

/// Reads the limits of each process.
///
/// # Errors
/// If one is unknown or its soft value above the hard one.
pub(crate) fn ulimits(wire: &wire::Resources) -> Result<Vec<Ulimit>> {
    let read = |limit: &wire::Ulimit| {
        let wire::Ulimit { name, soft, hard } = limit.clone();
        if !ULIMITS.contains(&name.as_str()) {
            return Err(Error::invalid(format!("invalid ulimit type: {name}")));
        }
        if hard != -1 && (soft > hard || soft == -1) {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        Ok(Ulimit { name, soft, hard })
    };
    wire.ulimits.iter().map(read).collect()
}

/// Writes limits.
pub(crate) fn to_wire(limits: &Resources, ulimits: &[Ulimit]) -> wire::Resources {
    let signed = |value: Option<u64>| {
        value
            .and_then(|v| i64::try_from(v).ok())
            .unwrap_or_default()
    };
    wire::Resources {
        cpu_shares: signed(limits.cpu_shares),
        memory: limits.memory.unwrap_or_default(),
        nano_cpus: limits.nano_cpus.unwrap_or_default(),
        blkio_weight: limits.blkio_weight.unwrap_or_default(),
        cpu_period: signed(limits.cpu_period),
        cpu_quota: limits.cpu_quota.unwrap_or_default(),
        cpuset_cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: limits.cpuset_mems.clone().unwrap_or_default(),
        memory_reservation: limits.memory_reservation.unwrap_or_default(),
        memory_swap: limits.memory_swap.unwrap_or_default(),
        memory_swappiness: limits.memory_swappiness.and_then(|v| v.try_into().ok()),
        oom_kill_disable: limits.oom_kill_disable.then_some(true),
        pids_limit: limits.pids_limit,
        ulimits: ulimits
            .iter()
            .map(|u| wire::Ulimit {
                name: u.name.clone(),
                hard: u.hard,
                soft: u.soft,
            })
            .collect(),
        ..wire::Resources::default()
    }
}

/// Reads a size such as `64m` or `1.5GB`: powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let size = number * 1024_f64.powi(power);
    (size >= 0.0 && size < i64::MAX as f64).then_some(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        for (text, want) in [
            ("10m", 10 << 20),
            ("1.5g", 3 << 29),
            ("64KiB", 64 << 10),
            ("7", 7),
            ("2 MB", 2 << 20),
        ] {
            assert_eq!(bytes(text), Some(want), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1e9g", "999999999999p"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn zeros_and_minus_one_leave_the_default() {
        let wire = wire::Resources {
            memory_swappiness: Some(-1),
            pids_limit: Some(0),
            ..Default::default()
        };
        assert_eq!(resources(&wire).unwrap(), Resources::default());
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        let refuse = |change: fn(&mut wire::Resources), words: &str| {
            let mut wire = wire::Resources::default();
            change(&mut wire);
            let error = resources(&wire).expect_err(words).to_string();
            assert!(error.contains(words), "{error} lacks {words}");
        };
        refuse(|w| w.memory = -5, "negative");
        refuse(|w| w.memory_swap = -2, "memory-swap");
        refuse(|w| w.nano_cpus = 1000, "0.01");
        refuse(|w| w.cpuset_cpus = "1-".into(), "cpuset");
        refuse(|w| w.cpuset_cpus = "../..".into(), "cpuset");
        refuse(|w| w.blkio_weight = 5, "blkio");
        refuse(|w| w.cpu_shares = 1, "minimum");
    }

    #[test]
    fn limits_round_trip() {
        let model = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(-1),
            pids_limit: Some(100),
            cpu_shares: Some(512),
            cpuset_cpus: Some("0".into()),
            ..Resources::default()
        };
        assert_eq!(resources(&to_wire(&model, &[])).unwrap(), model);
    }
}
