//! `GET /images/search`.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use hull_api_types::image::SearchResult;
use hull_engine::images::SearchFilters;

use super::Eng;
use super::pull::credentials;
use crate::body;
use crate::error::ApiResult;
use crate::params::Params;

/// `GET /images/search?term=&limit=&filters=`
pub(crate) async fn search(State(engine): Eng, uri: Uri, headers: HeaderMap) -> ApiResult {
    let params = Params::of(&uri);
    let filters = SearchFilters::read(&params.filters()?)?;
    let limit = params.number("limit")?;
    let found = engine
        .search(params.get("term"), limit, &filters, credentials(&headers)?)
        .await?;
    let lines: Vec<SearchResult> = found
        .into_iter()
        .map(|hit| SearchResult {
            star_count: i64::try_from(hit.stars).unwrap_or(i64::MAX),
            is_official: hit.official,
            name: hit.name,
            is_automated: hit.automated,
            description: hit.description,
        })
        .collect();
    body::reply(&lines)
}
