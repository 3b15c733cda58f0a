//! Images: list, inspect, names, archives in and out.
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use http_body_util::BodyExt;
use hull_api_types::image::ImagesPruneResponse;
use hull_api_types::progress::{JsonError, JsonMessage, ProgressDetail};
use hull_engine::images::stream::{self as chunks, Chunk};
use hull_engine::images::{LoadEvent, Loaded};
use hull_image::store::LayerProgress;
use tokio::sync::mpsc;

use super::{Eng, artifacts, pull, push};
use crate::body::{self, StreamSender};
use crate::error::{ApiError, ApiResult};
use crate::params::Params;
use crate::translate::image;

/// The built-in images, which no registry has.
pub(super) const BUILT_IN: [&str; 2] = ["hull/hello", "host"];
/// What is left of a refused archive is read away for so long, so that its sender gets the answer.
const DRAIN: Duration = Duration::from_secs(10);
/// Progress messages under way.
pub(super) const PROGRESS_DEPTH: usize = 64;
pub(super) const TAR: &str = "application/x-tar";

/// `GET /images/{name}/json`, `…/history`, `…/get`
pub(crate) async fn named_get(State(engine): Eng, Path(rest): Path<String>) -> ApiResult {
    if let Some(name) = rest.strip_suffix("/json") {
        return artifacts::inspect(&engine, name);
    }
    if let Some(name) = rest.strip_suffix("/history") {
        let lines: Vec<_> = engine
            .image_history(name)?
            .into_iter()
            .map(image::history)
            .collect();
        return body::reply(&lines);
    }
    if let Some(name) = rest.strip_suffix("/get") {
        return Ok(body::streamed(
            TAR,
            chunked(engine.save(&[name.to_owned()], BTreeSet::new())?),
        ));
    }
    Err(ApiError::page_not_found())
}

/// `POST /images/{name}/tag`, `…/push`
pub(crate) async fn named_post(
    State(engine): Eng,
    Path(rest): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult {
    let params = Params::of(&uri);
    if let Some(name) = rest.strip_suffix("/tag") {
        engine
            .tag(name, params.get("repo"), params.get("tag"))
            .await?;
        return Ok(axum::response::IntoResponse::into_response(
            StatusCode::CREATED,
        ));
    }
    if let Some(name) = rest.strip_suffix("/push") {
        return push::push(engine, name, &params, &headers).await;
    }
    Err(ApiError::page_not_found())
}

/// `DELETE /images/{name}`
pub(crate) async fn remove(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let removed = engine
        .remove_image(&name, params.flag("force"), params.flag("noprune"))
        .await?;
    body::reply(&image::removed(removed))
}

/// `POST /images/prune`
pub(crate) async fn prune(State(engine): Eng, uri: Uri) -> ApiResult {
    let (removed, reclaimed) = engine.prune_images(&Params::of(&uri).filters()?).await?;
    body::reply(&ImagesPruneResponse {
        images_deleted: image::removed(removed),
        space_reclaimed: reclaimed,
    })
}

/// `GET /images/get?names=…`
pub(crate) async fn save(State(engine): Eng, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    // Hull's own: layers that the reader has, for a copy between hosts.
    let mut without = BTreeSet::new();
    for layer in params.all("without") {
        without.insert(layer.parse()?);
    }
    Ok(body::streamed(
        TAR,
        chunked(engine.save(&params.all("names"), without)?),
    ))
}

/// `GET /containers/{name}/export`
pub(crate) async fn export(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    Ok(body::streamed(TAR, chunked(engine.export(&name)?)))
}

/// A body of chunks; an error among them cuts the connection, which the client notices.
pub(super) fn chunked(receiver: mpsc::Receiver<Chunk>) -> Body {
    Body::from_stream(futures_util::stream::unfold(
        receiver,
        |mut receiver| async {
            let chunk = receiver.recv().await?;
            Some((chunk, receiver))
        },
    ))
}

/// Hands a request's body to the engine, chunk by chunk.
pub(super) fn feed(mut body: Body) -> mpsc::Receiver<Chunk> {
    let (sender, receiver) = chunks::channel();
    tokio::spawn(async move {
        let mut refused: Option<Instant> = None;
        while let Some(frame) = body.frame().await {
            let chunk = match frame.map(|frame| frame.into_data()) {
                Ok(Ok(data)) => Ok(Vec::from(data)),
                // Trailers.
                Ok(Err(_)) => continue,
                Err(error) => Err(std::io::Error::other(error)),
            };
            let failed = chunk.is_err();
            if refused.is_none() && sender.send(chunk).await.is_err() {
                refused = Some(Instant::now());
            }
            if failed || refused.is_some_and(|since| since.elapsed() > DRAIN) {
                return;
            }
        }
    });
    receiver
}

/// `POST /images/create`: import, or pull.
pub(crate) async fn create(
    State(engine): Eng,
    uri: Uri,
    headers: HeaderMap,
    request_body: Body,
) -> ApiResult {
    let params = Params::of(&uri);
    let (source, wanted) = (params.get("fromSrc"), params.get("fromImage"));
    if !wanted.is_empty() {
        let platform = platform(params.get("platform"))?;
        return pull::pull(engine, wanted, &params, platform, &headers).await;
    }
    if source.is_empty() {
        return Err(ApiError::bad_request(
            "neither fromSrc nor fromImage was given",
        ));
    }
    let (repository, tag) = (params.get("repo"), params.get("tag"));
    let name = match (repository, tag) {
        ("", _) => None,
        (repository, "") => Some(repository.to_owned()),
        (repository, tag) => Some(format!("{repository}:{tag}")),
    };
    let message = match params.get("message") {
        "" => format!("Imported from {source}"),
        text => text.to_owned(),
    };
    let content = match source {
        "-" => feed(request_body),
        address => engine.download(&with_scheme(address)).await?,
    };
    let (platform, changes) = (platform(params.get("platform"))?, params.all("changes"));
    let (image, warnings) = engine
        .import(content, name, message, changes, platform)
        .await?;
    // The reply is the id alone, which scripts read.
    for warning in warnings {
        tracing::warn!(image = %image.id(), "import: {warning}");
    }
    lines(&[JsonMessage {
        status: image.id().to_string(),
        ..JsonMessage::default()
    }])
}

/// An address without a scheme is one of plain HTTP, as for Docker.
fn with_scheme(address: &str) -> String {
    if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    }
}

/// Answers with messages that are all there already.
pub(super) fn lines(messages: &[JsonMessage]) -> ApiResult {
    let mut text = Vec::new();
    for message in messages {
        // A struct of strings always serialises.
        text.extend(serde_json::to_vec(message).unwrap_or_default());
        text.extend_from_slice(b"\r\n");
    }
    Ok(body::streamed("application/json", Body::from(text)))
}

/// `POST /images/load`: a status where it fails before the first progress, else a message.
pub(crate) async fn load(State(engine): Eng, uri: Uri, request_body: Body) -> ApiResult {
    let params = Params::of(&uri);
    let quiet = params.flag("quiet");
    // Hull's own: layers that are here may be missing from the archive.
    let partial = params.flag("partial");
    let platform = platform(params.get("platform"))?;
    let (events, mut progress) = mpsc::channel(PROGRESS_DEPTH);
    let chunks = feed(request_body);
    let loading = tokio::spawn(async move { engine.load(chunks, platform, partial, events).await });
    // What is read is no news yet: only a layer is.
    let mut first = None;
    while let Some(event) = progress.recv().await {
        if let (false, Some(message)) = (quiet, layer_message(&event)) {
            first = Some(message);
            break;
        }
    }
    let Some(first) = first else {
        let loaded = loading.await.map_err(broke_off)??;
        return lines(&results(&loaded));
    };
    let (sender, stream) = body::stream();
    tokio::spawn(async move {
        tell(&sender, first, progress).await;
        let outcome = match loading.await {
            Ok(outcome) => outcome.map_err(ApiError::from),
            Err(error) => Err(broke_off(error)),
        };
        let messages = match outcome {
            Ok(loaded) => results(&loaded),
            Err(error) => vec![failure(&error)],
        };
        for message in messages {
            sender.send_json(&message).await;
        }
    });
    Ok(body::streamed("application/json", stream))
}

/// Passes progress on until there is no more. A client that has gone does not stop the load.
async fn tell(sender: &StreamSender, first: JsonMessage, mut progress: mpsc::Receiver<LoadEvent>) {
    sender.send_json(&first).await;
    while let Some(event) = progress.recv().await {
        if let Some(message) = layer_message(&event) {
            sender.send_json(&message).await;
        }
    }
}

pub(super) fn broke_off(error: tokio::task::JoinError) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the load broke off: {error}"),
    )
}

pub(super) fn failure(error: &ApiError) -> JsonMessage {
    let message = error.message().to_owned();
    JsonMessage {
        error: message.clone(),
        error_detail: Some(JsonError { code: 0, message }),
        ..JsonMessage::default()
    }
}

fn warning(text: &str) -> JsonMessage {
    JsonMessage {
        stream: format!("Warning: {text}\n"),
        ..JsonMessage::default()
    }
}

fn results(loaded: &Loaded) -> Vec<JsonMessage> {
    let say = |text: String| JsonMessage {
        stream: text,
        ..JsonMessage::default()
    };
    let mut messages: Vec<_> = loaded.warnings.iter().map(|text| warning(text)).collect();
    for (image, names) in &loaded.images {
        if names.is_empty() {
            messages.push(say(format!("Loaded image ID: {}\n", image.id())));
        }
        for name in names {
            messages.push(say(format!("Loaded image: {}\n", name.familiar())));
        }
    }
    for name in &loaded.kept {
        messages.push(say(format!("Loaded image: {}\n", name.familiar())));
    }
    messages
}

/// What a client shows of a layer on its way.
fn layer_message(event: &LoadEvent) -> Option<JsonMessage> {
    let LoadEvent::Layer(layer) = event else {
        return None;
    };
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let (name, status, detail) = match layer {
        LayerProgress::Exists { name } => (name, "Layer already exists", None),
        LayerProgress::Waiting { .. } | LayerProgress::Fetched { .. } => return None,
        LayerProgress::Unpacking { name, done, total } => {
            let detail = ProgressDetail {
                current: size(*done),
                total: size(*total),
                ..ProgressDetail::default()
            };
            (name, "Loading layer", Some(detail))
        }
        LayerProgress::Complete { name, .. } => (name, "Load complete", None),
    };
    let detail = detail.unwrap_or_default();
    Some(JsonMessage {
        status: status.into(),
        id: short(name).to_owned(),
        progress: super::bar::bar(&detail),
        progress_detail: Some(detail),
        ..JsonMessage::default()
    })
}

/// A layer's name in its archive (`blobs/sha256/…`, `…/layer.tar`) as a short id.
fn short(name: &str) -> &str {
    let name = name.strip_suffix("/layer.tar").unwrap_or(name);
    let name = name.rsplit(['/', ':']).next().unwrap_or(name);
    let name = name.strip_suffix(".tar").unwrap_or(name);
    name.get(..12).unwrap_or(name)
}

/// Reads `linux/amd64` or the JSON object that newer clients send.
pub(super) fn platform(text: &str) -> ApiResult<Option<String>> {
    if text.is_empty() || !text.starts_with('{') {
        return Ok(Some(text.to_owned()).filter(|text| !text.is_empty()));
    }
    let wrong = |error| ApiError::bad_request(format!("failed to parse platform: {error}"));
    let map: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_str(text).map_err(wrong)?;
    let part = |name: &str| {
        map.get(name)
            .and_then(|v| v.as_str())
            .filter(|v| !v.is_empty())
    };
    let parts: Vec<_> = ["os", "architecture", "variant"]
        .into_iter()
        .filter_map(part)
        .collect();
    Ok(Some(parts.join("/")).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_name_is_shortened() {
        assert_eq!(short("blobs/sha256/0123456789abcdef"), "0123456789ab");
        assert_eq!(short("0123456789abcdef/layer.tar"), "0123456789ab");
        assert_eq!(short("a.tar"), "a");
    }

    #[test]
    fn platform_is_read_in_both_forms() {
        assert_eq!(platform("").unwrap(), None);
        assert_eq!(
            platform("linux/arm64").unwrap().as_deref(),
            Some("linux/arm64")
        );
        let json = r#"{"os":"linux","architecture":"arm","variant":"v7"}"#;
        assert_eq!(platform(json).unwrap().as_deref(), Some("linux/arm/v7"));
        assert!(platform("{").is_err());
    }
}
