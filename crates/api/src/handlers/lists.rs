//! Containers: list and inspect.
use axum::extract::{Path, State};
use axum::http::Uri;
use hull_engine::{Engine, ListOptions};
use hull_state::ContainerRecord;

use super::Eng;
use crate::body;
use crate::error::ApiResult;
use crate::params::Params;
use crate::translate::container::{self, Around};
use crate::translate::time;

/// `GET /containers/json`
pub(crate) async fn list(State(engine): Eng, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let limit: Option<i64> = params.number("limit")?;
    let mut filters = params.filters()?;
    // Old parameters of what are filters today.
    for name in ["since", "before"] {
        if !params.get(name).is_empty() {
            filters.add(name, params.get(name));
        }
    }
    let options = ListOptions {
        all: params.flag("all"),
        // Zero and less are no limit.
        limit: limit
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0),
        filters,
    };
    let records = engine.list(&options)?;
    let now = time::now_ns();
    let sized = params.flag("size");
    let summaries: Vec<_> = records
        .iter()
        .map(|record| {
            let sizes = sized.then(|| sizes(&engine, record));
            container::summary(record, network_id(&engine, record), sizes, now)
        })
        .collect();
    body::reply(&summaries)
}

/// `GET /containers/{name}/json`
pub(crate) async fn inspect(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let record = engine.container(&name)?;
    let sizes = Params::of(&uri)
        .flag("size")
        .then(|| sizes(&engine, &record));
    let settings = engine.settings();
    let around = Around {
        network_id: network_id(&engine, &record),
        files: settings.sandbox_dir(&record.id),
        log_path: settings.log_path(&record.id),
        storage: engine.storage_of(&record),
        exec_ids: engine.execs_of(&record.id),
        size_rw: sizes.map(|(rw, _)| rw),
        size_root_fs: sizes.map(|(_, root)| root),
    };
    body::reply(&container::inspect(&record, around))
}

fn network_id(engine: &Engine, record: &ContainerRecord) -> String {
    container::network_name(record)
        .map(|name| engine.network_id(name))
        .unwrap_or_default()
}

/// Bytes written, and bytes of the whole root file system.
fn sizes(engine: &Engine, record: &ContainerRecord) -> (i64, i64) {
    let written = i64::try_from(engine.writable_size(&record.id)).unwrap_or(i64::MAX);
    let image = record
        .image_id
        .and_then(|id| engine.image(&id.to_string()).ok());
    let below = image.map_or(0, |image| {
        i64::try_from(image.record.size).unwrap_or(i64::MAX)
    });
    (written, written.saturating_add(below))
}

/// `GET /containers/{name}/changes`
pub(crate) async fn changes(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    // Walks what was written: not for a thread that serves.
    let walked = tokio::task::spawn_blocking(move || engine.changes(&name)).await;
    let walked = walked.map_err(|e| hull_model::Error::internal("the comparison broke off", e))?;
    let changes: Vec<_> = walked?
        .into_iter()
        .map(|change| serde_json::json!({"Path": change.path, "Kind": change.kind}))
        .collect();
    body::reply(&changes)
}
