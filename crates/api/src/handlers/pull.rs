//! `POST /images/create?fromImage=…`: a pull, told as Docker tells it.

use std::sync::Arc;

use axum::http::HeaderMap;
use hull_api_types::progress::{JsonMessage, ProgressDetail};
use hull_engine::images::{PullEvent, PullOptions};
use hull_engine::{Credentials, Engine};
use hull_image::store::LayerProgress;
use hull_model::Reference;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::bar::bar;
use super::images::{BUILT_IN, PROGRESS_DEPTH, broke_off, failure, lines};
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::params::Params;

/// Header with the credentials for the registry.
const AUTH: &str = "x-registry-auth";

/// Who the client says its user is.
pub(super) fn credentials(headers: &HeaderMap) -> ApiResult<Credentials> {
    let Some(value) = headers.get(AUTH) else {
        return Ok(Credentials::Anonymous);
    };
    let text = value
        .to_str()
        .map_err(|_| ApiError::bad_request("X-Registry-Auth is not text"))?;
    Credentials::from_header(text).map_err(ApiError::bad_request)
}

/// Pulls; what fails before the first layer is a status, what fails later a message. A name
/// without a tag means all tags, as in Docker's API.
pub(super) async fn pull(
    engine: Arc<Engine>,
    name: &str,
    params: &Params,
    platform: Option<String>,
    headers: &HeaderMap,
) -> ApiResult {
    let tag = params.get("tag");
    let separator = if tag.contains(':') { "@" } else { ":" };
    let text = if tag.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{separator}{tag}")
    };
    let reference: Reference = text.parse()?;
    if BUILT_IN.contains(&reference.familiar_name().as_str()) {
        return lines(&[status(format!(
            "Status: Image is up to date for {}",
            reference.familiar()
        ))]);
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    let options = PullOptions {
        platform,
        all_tags: tag.is_empty() && !last.contains([':', '@']),
        all_platforms: params.flag("allPlatforms"),
        referrers: params.flag("referrers"),
    };
    let credentials = credentials(headers)?;
    let (sender, events) = mpsc::channel(PROGRESS_DEPTH);
    let pulling = tokio::spawn(async move {
        engine
            .pull_with(&reference, &options, credentials, sender)
            .await
    });
    relay(pulling, events, message).await
}

/// Answers with the messages of work that goes on. What fails before there is more to tell than
/// that it began is a status. A client that goes away closes the channel of events, by which a pull
/// knows that nobody wants it any more.
pub(super) async fn relay<E: Send + Sync + 'static>(
    mut work: JoinHandle<hull_model::Result<()>>,
    mut events: mpsc::Receiver<E>,
    message: fn(&E) -> JsonMessage,
) -> ApiResult {
    let first = events.recv().await;
    let second = events.recv().await;
    let Some(second) = second else {
        (&mut work).await.map_err(broke_off)??;
        return lines(&first.iter().map(message).collect::<Vec<_>>());
    };
    let (sender, stream) = body::stream();
    tokio::spawn(async move {
        for event in first.iter().chain([&second]) {
            sender.send_json(&message(event)).await;
        }
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = sender.closed() => return,
            };
            match event {
                Some(event) => sender.send_json(&message(&event)).await,
                None => break,
            };
        }
        let failed = match work.await {
            Ok(outcome) => outcome.map_err(ApiError::from).err(),
            Err(error) => Some(broke_off(error)),
        };
        if let Some(error) = failed {
            sender.send_json(&failure(&error)).await;
        }
    });
    Ok(body::streamed("application/json", stream))
}

pub(super) fn status(text: String) -> JsonMessage {
    JsonMessage {
        status: text,
        ..JsonMessage::default()
    }
}

pub(super) fn about(id: &str, text: &str, detail: ProgressDetail) -> JsonMessage {
    JsonMessage {
        id: id.to_owned(),
        progress: bar(&detail),
        progress_detail: Some(detail),
        ..status(text.to_owned())
    }
}

fn message(event: &PullEvent) -> JsonMessage {
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    match event {
        PullEvent::From(name, tag) => JsonMessage {
            id: tag.clone(),
            ..status(format!("Pulling from {name}"))
        },
        PullEvent::Wanted(id) => about(id, "Pulling fs layer", ProgressDetail::default()),
        PullEvent::Layer(LayerProgress::Exists { name }) => {
            about(name, "Already exists", ProgressDetail::default())
        }
        PullEvent::Layer(LayerProgress::Waiting { name }) => {
            about(name, "Waiting", ProgressDetail::default())
        }
        PullEvent::Layer(LayerProgress::Fetched { name }) => {
            about(name, "Download complete", ProgressDetail::default())
        }
        // Fetching and unpacking are one.
        PullEvent::Layer(LayerProgress::Unpacking { name, done, total }) => about(
            name,
            "Downloading",
            ProgressDetail {
                current: size(*done),
                total: size(*total),
                ..ProgressDetail::default()
            },
        ),
        PullEvent::Layer(LayerProgress::Complete { name, .. }) => {
            about(name, "Pull complete", ProgressDetail::default())
        }
        PullEvent::Digest(digest) => status(format!("Digest: {digest}")),
        PullEvent::Done { name, newer: false } => {
            status(format!("Status: Image is up to date for {name}"))
        }
        PullEvent::Done { name, .. } => {
            status(format!("Status: Downloaded newer image for {name}"))
        }
    }
}
