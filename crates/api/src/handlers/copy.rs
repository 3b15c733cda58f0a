//! `POST /hull/layers/missing`: what another engine need not send.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use hull_api_types::image::Layers;
use hull_model::Digest;

use super::Eng;
use crate::body;
use crate::error::ApiResult;

/// Gives back those of the layers named that are not here.
pub(crate) async fn missing(
    State(engine): Eng,
    headers: HeaderMap,
    request_body: Body,
) -> ApiResult {
    let asked: Layers = body::json(&headers, request_body).await?;
    let mut missing = Vec::new();
    for text in asked.layers {
        let digest: Digest = text.parse()?;
        if !engine.has_layer(&digest) {
            missing.push(text);
        }
    }
    body::reply(&Layers { layers: missing })
}
