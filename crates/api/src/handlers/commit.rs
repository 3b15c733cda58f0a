//! `POST /commit`: an image of a container.
use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use hull_api_types::container::ContainerConfig;
use hull_engine::CommitRequest;
use hull_model::image::{Empty, HealthConfig, RunConfig};

use super::Eng;
use crate::body;
use crate::error::ApiResult;
use crate::params::Params;

/// `POST /commit?container=…`
pub(crate) async fn commit(
    State(engine): Eng,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let params = Params::of(&uri);
    // Clients send nothing, `null` or a configuration.
    let wire: Option<ContainerConfig> = body::optional_json(&headers, body).await?;
    let no_entrypoint = wire
        .as_ref()
        .and_then(|wire| wire.entrypoint.as_ref())
        .is_some_and(|list| list.iter().all(String::is_empty));
    let request = CommitRequest {
        repository: params.get("repo").to_owned(),
        tag: params.get("tag").to_owned(),
        author: params.get("author").to_owned(),
        message: params.get("comment").to_owned(),
        changes: params.all("changes"),
        pause: params.flag_or("pause", true),
        config: wire.map(of_wire),
        no_entrypoint,
    };
    let id = engine.commit(params.get("container"), request).await?;
    let reply = hull_api_types::exec::IdResponse { id: id.to_string() };
    body::reply_with(StatusCode::CREATED, &reply)
}

fn of_wire(wire: ContainerConfig) -> RunConfig {
    let set = |keys: BTreeMap<String, hull_api_types::Empty>| -> BTreeMap<String, Empty> {
        keys.into_keys().map(|key| (key, Empty {})).collect()
    };
    let mut entrypoint: Vec<String> = wire.entrypoint.map(Into::into).unwrap_or_default();
    if entrypoint.iter().all(String::is_empty) {
        entrypoint.clear();
    }
    RunConfig {
        user: wire.user,
        exposed_ports: set(wire.exposed_ports),
        env: wire.env,
        entrypoint,
        cmd: wire.cmd.map(Into::into).unwrap_or_default(),
        volumes: set(wire.volumes.unwrap_or_default()),
        working_dir: wire.working_dir,
        labels: wire.labels,
        stop_signal: (!wire.stop_signal.is_empty()).then_some(wire.stop_signal),
        healthcheck: wire.healthcheck.map(|check| HealthConfig {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        on_build: wire.on_build.unwrap_or_default(),
        shell: wire.shell,
    }
}
