//! `GET /distribution/{name}/json`, and Hull's own routes for documents of registries.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_api_types::image::{
    Descriptor, DistributionInspect, ListPush as WireList, ListPushed, ManifestDocument, Platform,
};
use hull_engine::images::{ListEntry, ListPush};
use hull_model::Reference;

use super::Eng;
use super::pull::credentials;
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::params::Params;

/// A descriptor as clients read it.
pub(super) fn wire(descriptor: &hull_engine::images::Descriptor) -> Descriptor {
    Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        platform: descriptor.platform.as_ref().map(platform),
        artifact_type: descriptor.artifact_type.clone().unwrap_or_default(),
        annotations: descriptor.annotations.clone(),
    }
}

fn platform(own: &hull_engine::images::PlatformOf) -> Platform {
    Platform {
        architecture: own.architecture.clone(),
        os: own.os.clone(),
        os_version: own.os_version.clone().unwrap_or_default(),
        os_features: own.os_features.clone(),
        variant: own.variant.clone().unwrap_or_default(),
    }
}

/// `GET /distribution/{name}/json`
pub(crate) async fn inspect(
    State(engine): Eng,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let Some(name) = rest.strip_suffix("/json") else {
        return Err(ApiError::page_not_found());
    };
    let name: Reference = name.parse()?;
    let found = engine
        .distribution(&name, false, credentials(&headers)?)
        .await?;
    body::reply(&DistributionInspect {
        descriptor: Descriptor {
            platform: None,
            ..wire(&found.descriptor)
        },
        platforms: found.platforms.iter().map(platform).collect(),
    })
}

/// `GET /hull/manifests/{name}?insecure=`: a registry's document, byte for byte.
pub(crate) async fn manifest(
    State(engine): Eng,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult {
    let name: Reference = name.parse()?;
    let insecure = Params::of(&uri).flag("insecure");
    let found = engine
        .distribution(&name, insecure, credentials(&headers)?)
        .await?;
    body::reply(&ManifestDocument {
        descriptor: wire(&found.descriptor),
        raw: STANDARD.encode(&found.raw),
    })
}

/// `POST /hull/manifests`: sends a list that the user put together.
pub(crate) async fn push_list(
    State(engine): Eng,
    headers: HeaderMap,
    request_body: Body,
) -> ApiResult {
    let wanted: WireList = body::json(&headers, request_body).await?;
    let raw = STANDARD
        .decode(&wanted.raw)
        .map_err(|_| ApiError::bad_request("Raw is not base64"))?;
    let mut entries = Vec::new();
    for text in &wanted.entries {
        let name: Reference = text.parse()?;
        let Some(digest) = name.digest else {
            return Err(ApiError::bad_request(format!("{text} names no digest")));
        };
        entries.push(ListEntry { name, digest });
    }
    let push = ListPush {
        target: wanted.target.parse()?,
        media_type: wanted.media_type,
        raw,
        entries,
        insecure: wanted.insecure,
    };
    let digest = engine.push_list(&push, credentials(&headers)?).await?;
    body::reply(&ListPushed {
        digest: digest.to_string(),
    })
}
