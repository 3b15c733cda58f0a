//! Named volumes.
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use hull_api_types::volume::{Volume, VolumeCreateRequest, VolumeList, VolumesPruneResponse};

use super::Eng;
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::params::Params;
use crate::translate::volume;
use crate::version::ApiVersion;

/// `GET /volumes`
pub(crate) async fn list(State(engine): Eng, uri: Uri) -> ApiResult {
    let volumes = engine.volumes(&Params::of(&uri).filters()?)?;
    let volumes: Vec<Volume> = volumes.iter().map(volume::of).collect();
    body::reply(&VolumeList {
        volumes,
        warnings: None,
    })
}

/// `POST /volumes/create`
pub(crate) async fn create(State(engine): Eng, headers: HeaderMap, body: Body) -> ApiResult {
    let wire: VolumeCreateRequest = body::json(&headers, body).await?;
    if !matches!(wire.driver.as_str(), "" | "local") {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            format!(
                "error looking up volume plugin {0}: plugin \"{0}\" not found: use local",
                wire.driver
            ),
        ));
    }
    let name = (!wire.name.is_empty()).then_some(wire.name);
    let made = engine.create_volume(name, wire.labels, wire.driver_opts)?;
    body::reply_with(StatusCode::CREATED, &volume::of(&made))
}

/// `GET /volumes/{name}`
pub(crate) async fn inspect(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    body::reply(&volume::of(&engine.volume(&name)?))
}

/// `DELETE /volumes/{name}`
pub(crate) async fn remove(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let force = Params::of(&uri).flag("force");
    tokio::task::spawn_blocking(move || engine.remove_volume(&name, force))
        .await
        .map_err(broke_off)??;
    body::no_content()
}

/// `POST /volumes/prune`: from version 1.42 on unnamed ones alone, unless `all` is asked for.
pub(crate) async fn prune(State(engine): Eng, request: axum::extract::Request) -> ApiResult {
    let mut filters = Params::of(request.uri()).filters()?;
    if ApiVersion::of(&request) < ApiVersion::PRUNES_ANONYMOUS {
        filters.add("all", "true");
    }
    let report = tokio::task::spawn_blocking(move || engine.prune_volumes(&filters))
        .await
        .map_err(broke_off)??;
    body::reply(&VolumesPruneResponse {
        volumes_deleted: report.deleted,
        space_reclaimed: report.reclaimed,
    })
}

fn broke_off(error: tokio::task::JoinError) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("an operation broke off: {error}"),
    )
}
