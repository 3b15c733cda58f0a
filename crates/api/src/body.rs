//! Request and reply bodies: bounded JSON in, JSON or a stream out.
use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::error::{ApiError, ApiResult};

/// Largest JSON body accepted, bytes.
pub(crate) const MAX_JSON: usize = 4 << 20;
/// Chunks that wait in a streamed reply before its producer must.
const STREAM_DEPTH: usize = 16;

/// Reads a JSON body. An empty one is an error, as Docker says.
pub(crate) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> ApiResult<T> {
    json_or(headers, body, None).await
}

/// Reads a JSON body; an empty one is the zero value.
pub(crate) async fn optional_json<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
) -> ApiResult<T> {
    json_or(headers, body, Some(T::default())).await
}

async fn json_or<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    empty: Option<T>,
) -> ApiResult<T> {
    let bytes = bounded(body).await?;
    if bytes.is_empty() {
        return empty.ok_or_else(|| {
            ApiError::bad_request("invalid JSON: got EOF while reading request body")
        });
    }
    check_json(headers)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let text = if error.is_eof() {
            "invalid JSON: unexpected EOF while reading request body".to_owned()
        } else {
            format!("invalid JSON: {error}")
        };
        ApiError::bad_request(text)
    })
}

async fn bounded(body: Body) -> ApiResult<Bytes> {
    match Limited::new(body, MAX_JSON).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::bad_request(format!(
            "http: request body too large: at most {MAX_JSON} bytes are read"
        ))),
        Err(error) => Err(ApiError::bad_request(format!(
            "error reading request body: {error}"
        ))),
    }
}

fn check_json(headers: &HeaderMap) -> ApiResult<()> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map_or("", |value| value.to_str().unwrap_or("?"));
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "unsupported Content-Type header ({content_type}): must be 'application/json'"
    )))
}

/// Answers with JSON and a status.
pub(crate) fn reply_with<T: Serialize>(status: StatusCode, value: &T) -> ApiResult {
    let mut text = serde_json::to_vec(value).map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot write the reply as JSON: {error}"),
        )
    })?;
    // Docker's encoder ends each document with a line feed.
    text.push(b'\n');
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((status, json, Body::from(text)).into_response())
}

/// Answers with JSON.
pub(crate) fn reply<T: Serialize>(value: &T) -> ApiResult {
    reply_with(StatusCode::OK, value)
}

/// Answers that it is done and there is nothing to say.
pub(crate) fn no_content() -> ApiResult {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The writing end of a streamed reply. Sending fails once the client has gone.
#[derive(Debug, Clone)]
pub(crate) struct StreamSender(mpsc::Sender<Bytes>);

impl StreamSender {
    /// Sends a chunk; false when the client has gone.
    pub(crate) async fn send(&self, chunk: impl Into<Bytes>) -> bool {
        self.0.send(chunk.into()).await.is_ok()
    }

    /// Sends a JSON document as one line; false when the client has gone.
    pub(crate) async fn send_json<T: Serialize>(&self, value: &T) -> bool {
        match serde_json::to_vec(value) {
            Ok(mut text) => {
                text.extend_from_slice(b"\r\n");
                self.send(text).await
            }
            Err(_) => false,
        }
    }

    /// Waits until the client has gone.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A body that is written while it is sent.
pub(crate) fn stream() -> (StreamSender, Body) {
    let (sender, receiver) = mpsc::channel(STREAM_DEPTH);
    let chunks = futures_util::stream::unfold(receiver, |mut receiver| async {
        let chunk: Bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(chunk), receiver))
    });
    (StreamSender(sender), Body::from_stream(chunks))
}

/// Answers 200 with a body of this type.
pub(crate) fn streamed(content_type: &'static str, body: Body) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}
