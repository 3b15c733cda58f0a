//! What takes how much disk.
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use hull_api_types::system::DiskUsage;
use hull_engine::Wanted;

use super::Eng;
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::params::Params;
use crate::translate::{container, image, time, volume};

const KINDS: [&str; 4] = ["container", "image", "volume", "build-cache"];

/// `GET /system/df?type=…`: it walks what was written, off the threads that serve.
pub(crate) async fn usage(State(engine): Eng, uri: Uri) -> ApiResult {
    let kinds = Params::of(&uri).all("type");
    if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        return Err(ApiError::bad_request(format!(
            "unknown object type: {unknown}"
        )));
    }
    let asked = |kind: &str| kinds.is_empty() || kinds.iter().any(|one| one == kind);
    let wanted = Wanted {
        images: asked("image"),
        containers: asked("container"),
        volumes: asked("volume"),
    };
    let usage = tokio::task::spawn_blocking({
        let engine = engine.clone();
        move || engine.disk_usage(wanted)
    })
    .await
    .map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("measuring broke off: {error}"),
        )
    })??;
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let now = time::now_ns();
    let mut reply = DiskUsage {
        layers_size: size(usage.layers_bytes),
        ..DiskUsage::default()
    };
    reply.images = usage
        .images
        .iter()
        .map(|(image, users, shared)| image::summary(image, Some(*users), Some(*shared)))
        .collect();
    reply.containers = usage
        .containers
        .iter()
        .map(|(record, written, whole)| {
            let network = container::network_name(record).map(|name| engine.network_id(name));
            let sizes = Some((size(*written), size(*whole)));
            container::summary(record, network.unwrap_or_default(), sizes, now)
        })
        .collect();
    reply.volumes = usage
        .volumes
        .iter()
        .map(|(one, bytes, users)| volume::with_usage(one, size(*bytes), size(*users as u64)))
        .collect();
    if asked("build-cache") {
        reply.build_cache = Some(Vec::new());
    }
    body::reply(&reply)
}
