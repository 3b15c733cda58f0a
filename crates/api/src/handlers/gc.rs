//! Garbage collection, which is Hull's own.
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::Uri;
use hull_api_types::gc::{GcImage, GcReport};
use hull_engine::images::gc::GcRequest;
use hull_model::amount::{Bytes, Span};

use super::Eng;
use crate::body;
use crate::error::ApiResult;
use crate::params::Params;
use crate::translate::time;

/// `POST /hull/gc?unused-for=720h&older-than=…&keep-size=10G&dry-run=1`: without limits the
/// daemon's policy.
pub(crate) async fn gc(State(engine): Eng, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let span = |name: &str| -> Result<Option<Duration>, hull_model::Error> {
        match params.get(name) {
            "" => Ok(None),
            text => Ok(Some(text.parse::<Span>()?.0)),
        }
    };
    let request = GcRequest {
        unused_for: span("unused-for")?,
        older_than: span("older-than")?,
        keep_size: match params.get("keep-size") {
            "" => None,
            text => Some(text.parse::<Bytes>()?.0),
        },
        dry_run: params.flag("dry-run"),
    };
    let dry_run = request.dry_run;
    let report = engine.gc(request).await?;
    let images = report.images.into_iter().map(|image| GcImage {
        id: image.id.to_string(),
        names: image.names,
        reason: image.reason.as_str().into(),
        last_used: time::rfc3339(nanos(image.last_used)),
        size: image.bytes,
    });
    body::reply(&GcReport {
        images: images.collect(),
        layers_deleted: report.layers as u64,
        documents_deleted: report.documents as u64,
        space_reclaimed: report.reclaimed_bytes,
        space_kept: report.kept_bytes,
        dry_run,
    })
}

pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
