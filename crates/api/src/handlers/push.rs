//! `POST /images/{name}/push`: told as Docker tells it.

use std::sync::Arc;

use axum::http::HeaderMap;
use hull_api_types::progress::{JsonMessage, ProgressDetail};
use hull_engine::Engine;
use hull_engine::images::{PushEvent, PushOptions};
use hull_model::Reference;
use tokio::sync::mpsc;

use super::images::{PROGRESS_DEPTH, platform};
use super::pull::{about, credentials, relay, status};
use crate::error::ApiResult;
use crate::params::Params;

/// Pushes one tag, or all where none is named, as in Docker's API.
pub(super) async fn push(
    engine: Arc<Engine>,
    name: &str,
    params: &Params,
    headers: &HeaderMap,
) -> ApiResult {
    let tag = params.get("tag");
    let text = if tag.is_empty() {
        name.to_owned()
    } else {
        format!("{name}:{tag}")
    };
    let reference: Reference = text.parse()?;
    let last = name.rsplit('/').next().unwrap_or(name);
    let options = PushOptions {
        platform: platform(params.get("platform"))?,
        all_tags: tag.is_empty() && !last.contains([':', '@']),
        referrers: params.flag("referrers"),
    };
    let credentials = credentials(headers)?;
    let (sender, events) = mpsc::channel(PROGRESS_DEPTH);
    let pushing = tokio::spawn(async move {
        engine
            .push_with(&reference, &options, credentials, sender)
            .await
    });
    relay(pushing, events, message).await
}

fn message(event: &PushEvent) -> JsonMessage {
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let none = ProgressDetail::default;
    match event {
        PushEvent::To(name) => status(format!("The push refers to repository [{name}]")),
        PushEvent::Preparing(id) => about(id, "Preparing", none()),
        PushEvent::Pushing(id, done, total) => about(
            id,
            "Pushing",
            ProgressDetail {
                current: size(*done),
                total: size(*total),
                ..none()
            },
        ),
        PushEvent::Exists(id) => about(id, "Layer already exists", none()),
        PushEvent::Mounted(id, from) => about(id, &format!("Mounted from {from}"), none()),
        PushEvent::Pushed(id) => about(id, "Pushed", none()),
        PushEvent::Done(tag, digest, bytes) => JsonMessage {
            aux: Some(serde_json::json!({
                "Tag": tag,
                "Digest": digest.to_string(),
                "Size": bytes,
            })),
            ..status(format!("{tag}: digest: {digest} size: {bytes}"))
        },
    }
}
