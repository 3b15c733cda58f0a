//! Parts of a create request with a grammar of their own: log, security, health, devices.
use hull_api_types::container::HealthConfig;
use hull_api_types::host_config::{DeviceMapping, HostConfig, LogConfig};
use hull_model::spec::{self, Device, LogDriver, SeccompChoice};
use hull_model::{Error, ErrorKind, Result};

use super::limits;

/// Options of the json-file log that Docker knows and that change nothing here.
const LOG_OPTIONS_PASSED: [&str; 7] = [
    "compress",
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "mode",
    "tag",
];
/// Smallest log file, so that rotation does not eat the time it is to save.
const MIN_LOG_SIZE: u64 = 1 << 10;

/// Reads the log driver and its options.
///
/// # Errors
/// If one is unknown or malformed.
pub(super) fn log(wire: &LogConfig) -> Result<spec::LogConfig> {
    let mut log = spec::LogConfig {
        options: wire.config.clone(),
        ..spec::LogConfig::default()
    };
    log.driver = match wire.kind.as_str() {
        "" | "json-file" => LogDriver::JsonFile,
        "none" => LogDriver::None,
        other => {
            return Err(Error::invalid(format!(
                "logger: no log driver named '{other}' is registered: use json-file or none"
            )));
        }
    };
    for (name, value) in &wire.config {
        match name.as_str() {
            "max-size" if value == "-1" => log.max_size = u64::MAX,
            "max-size" => {
                log.max_size = limits::bytes(value)
                    .filter(|size| *size >= MIN_LOG_SIZE)
                    .ok_or_else(|| {
                        Error::invalid(format!("invalid size: '{value}' of log opt max-size"))
                    })?;
            }
            "max-file" => {
                log.max_file = value.parse().ok().filter(|n| *n >= 1).ok_or_else(|| {
                    Error::invalid(format!(
                        "max-file cannot be less than 1 or no number: '{value}'"
                    ))
                })?;
            }
            other if LOG_OPTIONS_PASSED.contains(&other) => {}
            other => {
                return Err(Error::invalid(format!(
                    "unknown log opt '{other}' for json-file log driver"
                )));
            }
        }
    }
    Ok(log)
}

/// What `--security-opt` asks for.
#[derive(Debug, Default)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: SeccompChoice,
}

/// Reads the security options.
///
/// # Errors
/// If one is unknown, or what it names is not there.
pub(super) fn security(host: &HostConfig) -> Result<Security> {
    let mut security = Security::default();
    for option in host.security_opt.iter().flatten() {
        let (name, value) = option
            .split_once('=')
            .or_else(|| option.split_once(':'))
            .unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = SeccompChoice::Unconfined,
            ("seccomp", "builtin") => security.seccomp = SeccompChoice::Default,
            ("seccomp", profile) if !profile.is_empty() => {
                serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(profile)
                    .map_err(|e| Error::invalid(format!("decoding seccomp profile failed: {e}")))?;
                security.seccomp = SeccompChoice::Profile(profile.to_owned());
            }
            // Nothing to turn off: Hull sets neither.
            ("label", "disable") | ("apparmor", "unconfined") => {}
            ("label" | "apparmor", _) => {
                let message =
                    format!("security option {option:?} is not supported by this version of Hull");
                return Err(Error::new(ErrorKind::NotImplemented, message));
            }
            _ => {
                return Err(Error::invalid(format!(
                    "invalid --security-opt 1: {option:?}"
                )));
            }
        }
    }
    Ok(security)
}

/// Reads a health check.
///
/// # Errors
/// If a time is too short or the kind unknown.
pub(super) fn health(wire: HealthConfig) -> Result<hull_model::image::HealthConfig> {
    /// The shortest time between checks, so that they cannot eat the machine.
    const MIN_NS: i64 = 1_000_000;
    for (what, ns) in [
        ("Interval", wire.interval),
        ("Timeout", wire.timeout),
        ("StartPeriod", wire.start_period),
        ("StartInterval", wire.start_interval),
    ] {
        if ns != 0 && ns < MIN_NS {
            return Err(Error::invalid(format!(
                "{what} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if wire.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    if let Some(kind) = wire.test.first()
        && !matches!(kind.as_str(), "NONE" | "CMD" | "CMD-SHELL" | "")
    {
        return Err(Error::invalid(format!(
            "unknown type {kind:?} of Healthcheck: use NONE, CMD or CMD-SHELL"
        )));
    }
    Ok(hull_model::image::HealthConfig {
        test: wire.test,
        interval: wire.interval,
        timeout: wire.timeout,
        start_period: wire.start_period,
        start_interval: wire.start_interval,
        retries: wire.retries,
    })
}

/// Reads a device.
///
/// # Errors
/// If its path is relative or its permissions are none.
pub(super) fn device(wire: &DeviceMapping) -> Result<Device> {
    if !wire.path_on_host.starts_with('/') {
        return Err(Error::invalid(format!(
            "{} is not an absolute path",
            wire.path_on_host
        )));
    }
    let inside = &wire.path_in_container;
    let permissions = &wire.cgroup_permissions;
    if !permissions.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(Error::invalid(format!(
            "invalid device mode: {permissions}"
        )));
    }
    Ok(Device {
        host_path: wire.path_on_host.clone(),
        container_path: if inside.is_empty() {
            wire.path_on_host.clone()
        } else {
            inside.clone()
        },
        permissions: if permissions.is_empty() {
            "rwm".into()
        } else {
            permissions.clone()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<spec::LogConfig> {
        let config = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        log(&LogConfig {
            kind: "json-file".into(),
            config: config.collect(),
        })
    }

    #[test]
    fn log_options_are_read_and_malformed_ones_refused() {
        let read_log = read(&[("max-size", "10m"), ("max-file", "3"), ("tag", "x")]).unwrap();
        assert_eq!((read_log.max_size, read_log.max_file), (10 << 20, 3));
        for bad in [
            ("max-size", "big"),
            ("max-size", "1"),
            ("max-file", "0"),
            ("colour", "red"),
        ] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn device_with_relative_path_or_odd_permissions_is_refused() {
        let wire = |path: &str, permissions: &str| DeviceMapping {
            path_on_host: path.into(),
            path_in_container: String::new(),
            cgroup_permissions: permissions.into(),
        };
        assert!(device(&wire("dev/null", "rwm")).is_err());
        assert!(device(&wire("/dev/null", "rx")).is_err());
        let read = device(&wire("/dev/null", "")).unwrap();
        assert_eq!(
            (read.container_path.as_str(), read.permissions.as_str()),
            ("/dev/null", "rwm")
        );
    }
}
