//! Files of a container: looked at, taken out and put in as tar streams.
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_api_types::container::PathStat as WireStat;
use hull_engine::{PathStat, UnpackOptions};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Eng;
use super::images::{TAR, chunked, feed};
use crate::error::{ApiError, ApiResult};
use crate::params::Params;

/// The header that describes the file.
const STAT: &str = "x-docker-container-path-stat";

/// `HEAD /containers/{name}/archive`
pub(crate) async fn stat(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let stat = engine
        .stat_path(&name, Params::of(&uri).get("path"))
        .await?;
    described(&stat, Body::empty(), "application/json")
}

/// `GET /containers/{name}/archive`
pub(crate) async fn get(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let (stat, chunks) = engine
        .read_archive(&name, Params::of(&uri).get("path"))
        .await?;
    described(&stat, chunked(chunks), TAR)
}

/// `PUT /containers/{name}/archive`
pub(crate) async fn put(
    State(engine): Eng,
    Path(name): Path<String>,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let params = Params::of(&uri);
    let options = UnpackOptions {
        keep_kinds: params.flag("noOverwriteDirNonDir"),
        owned_by_user: params.flag("copyUIDGID"),
    };
    engine
        .write_archive(&name, params.get("path"), options, feed(body))
        .await?;
    Ok(Response::new(Body::empty()))
}

fn described(stat: &PathStat, body: Body, content_type: &'static str) -> ApiResult {
    let fail = |e: &dyn std::fmt::Display| {
        ApiError::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot describe the file: {e}"),
        )
    };
    let wire = WireStat {
        name: stat.name.clone(),
        size: stat.size,
        mode: stat.mode,
        mtime: time_of(stat.mtime),
        link_target: stat.link_target.clone(),
    };
    let json = serde_json::to_vec(&wire).map_err(|e| fail(&e))?;
    let value = HeaderValue::from_str(&STANDARD.encode(json)).map_err(|e| fail(&e))?;
    let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
    response.headers_mut().insert(STAT, value);
    Ok(response)
}

/// A time that RFC 3339 cannot write becomes its beginning.
fn time_of((seconds, nanos): (i64, u32)) -> String {
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(&Rfc3339)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn described_is_base64_of_dockers_members() {
        let stat = PathStat {
            name: "x".into(),
            size: 5,
            mode: 0o644,
            mtime: (1, 500_000_000),
            link_target: String::new(),
        };
        let response = described(&stat, Body::empty(), TAR).unwrap();
        let text = STANDARD
            .decode(response.headers().get(STAT).unwrap())
            .unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"{"name":"x","size":5,"mode":420,"mtime":"1970-01-01T00:00:01.5Z","linkTarget":""}"#
        );
    }
}
