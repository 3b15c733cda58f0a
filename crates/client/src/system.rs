//! Requests about the engine itself.

use bytes::Bytes;
use hull_api_types::gc::GcReport;
use hull_api_types::system::{AuthReply, DiskUsage, Info, Version};
use hyper::Method;

use crate::{ByteStream, Client, ClientError, Filters, Query, RequestBody};

/// What to collect; the daemon's policy where no limit is named.
#[derive(Debug, Default, Clone)]
pub struct GcOptions {
    /// Images that no container has used for so long, such as `30d`.
    pub unused_for: Option<String>,
    /// Unused images that came so long ago.
    pub older_than: Option<String>,
    /// Bytes that all images may take.
    pub keep_size: Option<i64>,
    /// Only tell what would go.
    pub dry_run: bool,
}

impl Client {
    /// `POST /hull/gc`.
    pub async fn gc(&self, options: &GcOptions) -> Result<GcReport, ClientError> {
        let keep_size = options.keep_size.map(|bytes| bytes.to_string());
        let query = Query::new()
            .set_opt("unused-for", options.unused_for.as_deref())
            .set_opt("older-than", options.older_than.as_deref())
            .set_opt("keep-size", keep_size.as_deref())
            .flag("dry-run", options.dry_run);
        let path = format!("/hull/gc{}", query.as_str());
        self.json(Method::POST, &path, RequestBody::Empty).await
    }

    /// `GET /_ping`.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.bytes(Method::GET, "/_ping", RequestBody::Empty)
            .await
            .map(drop)
    }

    /// `POST /auth`: whether credentials (Docker's `AuthConfig`) are good.
    pub async fn login(&self, auth: &impl serde::Serialize) -> Result<AuthReply, ClientError> {
        self.json(Method::POST, "/auth", RequestBody::json(auth))
            .await
    }

    /// `GET /version`.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/version").await
    }

    /// `GET /info`.
    pub async fn info(&self) -> Result<Info, ClientError> {
        self.get("/info").await
    }

    /// `GET /info` as it came.
    pub async fn info_raw(&self) -> Result<Bytes, ClientError> {
        self.bytes(Method::GET, "/info", RequestBody::Empty).await
    }

    /// `GET /events`.
    pub async fn events(
        &self,
        since: Option<&str>,
        until: Option<&str>,
        filters: &Filters,
    ) -> Result<ByteStream, ClientError> {
        let query = Query::new()
            .set_opt("since", since)
            .set_opt("until", until)
            .filters(filters);
        self.stream(
            Method::GET,
            &format!("/events{}", query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `GET /system/df`.
    pub async fn disk_usage(&self) -> Result<DiskUsage, ClientError> {
        self.get("/system/df").await
    }
}
