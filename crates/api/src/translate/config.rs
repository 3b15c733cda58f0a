//! The configuration of an image as the API shows it.
use std::collections::BTreeMap;

use hull_api_types::Empty;
use hull_api_types::container::{ContainerConfig, HealthConfig};
use hull_model::image;

/// Writes what an image runs by default.
pub(crate) fn of_image(config: &image::RunConfig) -> ContainerConfig {
    let set = |keys: &BTreeMap<String, image::Empty>| -> BTreeMap<String, Empty> {
        keys.keys().map(|key| (key.clone(), Empty {})).collect()
    };
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    ContainerConfig {
        user: config.user.clone(),
        exposed_ports: set(&config.exposed_ports),
        env: config.env.clone(),
        cmd: list(&config.cmd).map(Into::into),
        entrypoint: list(&config.entrypoint).map(Into::into),
        healthcheck: config.healthcheck.as_ref().map(health),
        volumes: (!config.volumes.is_empty()).then(|| set(&config.volumes)),
        working_dir: config.working_dir.clone(),
        on_build: list(&config.on_build),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
        shell: config.shell.clone(),
        ..ContainerConfig::default()
    }
}

/// Writes a health check.
pub(crate) fn health(check: &image::HealthConfig) -> HealthConfig {
    HealthConfig {
        test: check.test.clone(),
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}
