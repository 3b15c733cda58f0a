//! Containers: create, change, end.
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use hull_api_types::container::{
    ContainersPruneResponse, CreateRequest, CreateResponse, TopResponse, UpdateRequest,
    UpdateResponse,
};
use hull_engine::RemoveOptions;

use super::Eng;
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::params::Params;
use crate::translate::{create, egress, limits, ports};

/// `POST /containers/create`
pub(crate) async fn create(
    State(engine): Eng,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let params = Params::of(&uri);
    let wire: Option<CreateRequest> = body::json(&headers, body).await?;
    let wire = wire.ok_or_else(|| {
        ApiError::bad_request("config cannot be empty in order to create a container")
    })?;
    let name = params.get("name");
    let name = name.strip_prefix('/').unwrap_or(name);
    let name = (!name.is_empty()).then(|| name.to_owned());
    let request = create::request(name, wire, params.get("platform"))?;
    let created = engine.create(request).await?;
    let reply = CreateResponse {
        id: created.id,
        warnings: created.warnings,
    };
    body::reply_with(StatusCode::CREATED, &reply)
}

/// `POST /containers/{name}/start`
pub(crate) async fn start(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    engine.start(&name).await?;
    body::no_content()
}

/// `POST /containers/{name}/stop`
pub(crate) async fn stop(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    engine
        .stop(&name, params.number("t")?, signal(&params))
        .await?;
    body::no_content()
}

/// `POST /containers/{name}/restart`
pub(crate) async fn restart(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    engine
        .restart(&name, params.number("t")?, signal(&params))
        .await?;
    body::no_content()
}

fn signal(params: &Params) -> Option<&str> {
    Some(params.get("signal")).filter(|signal| !signal.is_empty())
}

/// `POST /containers/{name}/kill`
pub(crate) async fn kill(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    engine
        .kill(&name, signal(&params).unwrap_or("SIGKILL"))
        .await?;
    body::no_content()
}

/// `POST /containers/{name}/pause`
pub(crate) async fn pause(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    engine.pause(&name).await?;
    body::no_content()
}

/// `POST /containers/{name}/unpause`
pub(crate) async fn unpause(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    engine.unpause(&name).await?;
    body::no_content()
}

/// `POST /containers/{name}/rename`
pub(crate) async fn rename(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let wanted = params.get("name");
    engine
        .rename(&name, wanted.strip_prefix('/').unwrap_or(wanted))
        .await?;
    body::no_content()
}

/// `POST /containers/{name}/resize`
pub(crate) async fn resize(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let (rows, cols) = size(&Params::of(&uri))?;
    engine.resize(&name, rows, cols).await?;
    Ok(axum::response::Response::new(Body::empty()))
}

/// Reads a terminal's size.
pub(crate) fn size(params: &Params) -> ApiResult<(u16, u16)> {
    let read = |name: &str| -> ApiResult<u16> {
        params
            .number(name)?
            .ok_or_else(|| ApiError::bad_request(format!("invalid resize: {name} is missing")))
    };
    Ok((read("h")?, read("w")?))
}

/// `POST /containers/{name}/update`
pub(crate) async fn update(
    State(engine): Eng,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let wire: UpdateRequest = body::json(&headers, body).await?;
    let resources = limits::resources(&wire.resources)?;
    let policy = match wire.restart_policy.name.as_str() {
        "" => None,
        _ => Some(create::restart_policy(&wire.restart_policy)?),
    };
    let ports = ports::change(&wire.publish_add, &wire.publish_rm)?;
    let egress = wire.egress.as_ref().map(egress::policy).transpose()?;
    let warnings = engine.update(&name, resources, policy, ports).await?;
    if let Some(policy) = egress {
        engine.update_egress(&name, policy).await?;
    }
    body::reply(&UpdateResponse { warnings })
}

/// `GET /containers/{name}/top`
pub(crate) async fn top(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let top = engine.top(&name, params.get("ps_args")).await?;
    body::reply(&TopResponse {
        titles: top.titles,
        processes: top.processes,
    })
}

/// `DELETE /containers/{name}`
pub(crate) async fn remove(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    if params.flag("link") {
        engine.remove_link(&name).await?;
        return body::no_content();
    }
    let options = RemoveOptions {
        force: params.flag("force"),
        volumes: params.flag("v"),
    };
    engine.remove(&name, options).await?;
    body::no_content()
}

/// `POST /containers/prune`
pub(crate) async fn prune(State(engine): Eng, uri: Uri) -> ApiResult {
    let report = engine
        .prune_containers(&Params::of(&uri).filters()?)
        .await?;
    body::reply(&ContainersPruneResponse {
        containers_deleted: report.deleted,
        space_reclaimed: report.reclaimed,
    })
}
