//! The engine as a whole: ping, version, info, events, disk usage.
use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use hull_api_types::system::{
    AuthReply, Commit, Event, EventActor, Info, Plugins, RegistryConfig, Runtime, Swarm, Version,
    VersionComponent, VersionPlatform,
};
use hull_api_types::{API_VERSION, MIN_API_VERSION};
use hull_engine::Credentials;
use hull_engine::system::host;

use super::Eng;
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::params::Params;
use crate::translate::{container, time};

/// Largest body with credentials read.
const MAX_AUTH_BYTES: usize = 1 << 20;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /_ping`; axum answers `HEAD` by it too.
pub(crate) async fn ping() -> Response {
    let headers = [
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("content-type", "text/plain; charset=utf-8"),
    ];
    (headers, "OK").into_response()
}

/// Go's name of the architecture.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `GET /version`
pub(crate) async fn version() -> ApiResult {
    let kernel = host::kernel();
    let details: BTreeMap<String, String> = [
        ("ApiVersion", API_VERSION),
        ("MinAPIVersion", MIN_API_VERSION),
        ("Arch", arch()),
        ("Os", "linux"),
        ("KernelVersion", kernel.as_str()),
        ("Experimental", "false"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    body::reply(&Version {
        platform: VersionPlatform {
            name: "Hull".into(),
        },
        components: vec![VersionComponent {
            name: "Engine".into(),
            version: VERSION.into(),
            details,
        }],
        version: VERSION.into(),
        api_version: API_VERSION.into(),
        min_api_version: MIN_API_VERSION.into(),
        os: "linux".into(),
        arch: arch().into(),
        kernel_version: kernel,
        ..Version::default()
    })
}

/// `GET /info`
pub(crate) async fn info(State(engine): Eng) -> ApiResult {
    let info = engine.info();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let list =
        |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    body::reply(&Info {
        id: info.id,
        containers: count(info.containers),
        containers_running: count(info.running),
        containers_paused: count(info.paused),
        containers_stopped: count(info.stopped),
        images: count(info.images),
        driver: container::DRIVER.into(),
        driver_status: vec![
            ["Supports d_type".into(), "true".into()],
            ["Native Overlay Diff".into(), "true".into()],
        ],
        plugins: Plugins {
            volume: list(&["local"]),
            network: list(&["bridge", "host", "null"]),
            authorization: None,
            log: list(&["json-file", "none"]),
        },
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: true,
        n_fd: count(info.descriptors),
        oom_kill_disable: info.cgroup_version == "1",
        system_time: time::rfc3339(u64::try_from(time::now_ns()).unwrap_or_default()),
        logging_driver: "json-file".into(),
        cgroup_driver: "cgroupfs".into(),
        cgroup_version: info.cgroup_version.into(),
        kernel_version: info.kernel,
        operating_system: info.operating_system,
        os_type: "linux".into(),
        architecture: std::env::consts::ARCH.into(),
        index_server_address: match hull_model::reference::default_registry() {
            hull_model::reference::DEFAULT_DOMAIN => "https://index.docker.io/v1/".into(),
            other => other.into(),
        },
        registry_config: Some(RegistryConfig::default()),
        ncpu: count(info.cpus),
        mem_total: i64::try_from(info.memory).unwrap_or(i64::MAX),
        docker_root_dir: info.data_dir,
        name: info.name,
        server_version: VERSION.into(),
        runtimes: BTreeMap::from([(
            "hull".to_owned(),
            Runtime {
                path: "hull-shim".into(),
                ..Runtime::default()
            },
        )]),
        default_runtime: "hull".into(),
        swarm: Swarm {
            local_node_state: "inactive".into(),
            ..Swarm::default()
        },
        live_restore_enabled: true,
        isolation: "container".into(),
        init_binary: "hull-agent".into(),
        containerd_commit: Commit::default(),
        security_options: list(&["name=seccomp,profile=builtin", "name=cgroupns"]),
        hypervisor: info.hypervisor,
        hypervisor_reason: info.hypervisor_reason,
        warnings: info.warnings,
        ..Info::default()
    })
}

/// `GET /events`
pub(crate) async fn events(State(engine): Eng, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let since = time::timestamp("since", params.get("since"))?;
    let until = time::timestamp("until", params.get("until"))?;
    let mut events = engine.listen(since, until, params.filters()?)?;
    let (sender, stream) = body::stream();
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = sender.closed() => return,
            };
            let Some(event) = event else { return };
            if !sender.send_json(&wire_event(event)).await {
                return;
            }
        }
    });
    Ok(body::streamed("application/json", stream))
}

fn wire_event(event: hull_engine::Event) -> Event {
    let nanos = i64::try_from(event.time_ns).unwrap_or(i64::MAX);
    // The old names, which containers and images still carry.
    let (status, id) = match event.kind {
        "container" | "image" => (event.action.clone(), event.id.clone()),
        _ => Default::default(),
    };
    let from = match event.kind {
        "container" => event.attributes.get("image").cloned().unwrap_or_default(),
        _ => String::new(),
    };
    Event {
        status,
        id,
        from,
        kind: event.kind.into(),
        action: event.action,
        actor: EventActor {
            id: event.id,
            attributes: event.attributes,
        },
        scope: "local".into(),
        time: nanos / 1_000_000_000,
        time_nano: nanos,
    }
}

/// `POST /auth`
pub(crate) async fn auth(State(engine): Eng, request: Request) -> ApiResult {
    let bytes = axum::body::to_bytes(request.into_body(), MAX_AUTH_BYTES)
        .await
        .map_err(|error| ApiError::bad_request(format!("cannot read the credentials: {error}")))?;
    let server = serde_json::from_slice::<serde_json::Value>(&bytes)
        .ok()
        .and_then(|auth| Some(auth.get("serveraddress")?.as_str()?.to_owned()))
        .unwrap_or_default();
    let credentials = Credentials::from_json(&bytes).map_err(ApiError::bad_request)?;
    engine.login(&server, credentials).await?;
    body::reply(&AuthReply {
        status: "Login Succeeded".to_owned(),
        identity_token: String::new(),
    })
}

/// `POST /build` and what belongs to it.
pub(crate) async fn build(_request: Request) -> ApiError {
    ApiError::not_implemented("building images comes with a later version of Hull")
}

/// `POST /build/prune`: there is no cache yet, so nothing is in the way of `system prune`.
pub(crate) async fn build_prune() -> ApiResult {
    body::reply(&serde_json::json!({"CachesDeleted": [], "SpaceReclaimed": 0}))
}
