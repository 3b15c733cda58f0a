//! Requests about images.

use bytes::Bytes;
use hull_api_types::image::{HistoryItem, ImageDeleteItem, ImageSummary, ImagesPruneResponse};
use hyper::Method;

use crate::query::image_path;
use crate::{ByteStream, Client, ClientError, Filters, Query, RequestBody};

/// How a root file system becomes an image.
#[derive(Debug, Default, Clone)]
pub struct ImportOptions {
    /// `-` for the request's body, or a URL.
    pub source: String,
    /// Repository to name it.
    pub repository: Option<String>,
    /// Tag to name it.
    pub tag: Option<String>,
    /// Message of its history.
    pub message: Option<String>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// `os/arch`.
    pub platform: Option<String>,
}

impl Client {
    /// `GET /images/json`.
    pub async fn image_list(
        &self,
        all: bool,
        filters: &Filters,
    ) -> Result<Vec<ImageSummary>, ClientError> {
        let query = Query::new().flag("all", all).filters(filters);
        self.get(&format!("/images/json{}", query.as_str())).await
    }

    /// `GET /images/json` with the manifests behind each image.
    pub async fn image_list_with_manifests(
        &self,
        all: bool,
        filters: &Filters,
    ) -> Result<Vec<ImageSummary>, ClientError> {
        let query = Query::new()
            .flag("all", all)
            .flag("manifests", true)
            .filters(filters);
        self.get(&format!("/images/json{}", query.as_str())).await
    }

    /// `GET /images/{name}/json` as it came.
    pub async fn image_inspect_raw(&self, name: &str) -> Result<Bytes, ClientError> {
        self.bytes(
            Method::GET,
            &format!("/images/{}/json", image_path(name)),
            RequestBody::Empty,
        )
        .await
    }

    /// `GET /images/{name}/history`.
    pub async fn image_history(&self, name: &str) -> Result<Vec<HistoryItem>, ClientError> {
        self.get(&format!("/images/{}/history", image_path(name)))
            .await
    }

    /// `POST /images/{name}/tag`.
    pub async fn image_tag(
        &self,
        name: &str,
        repository: &str,
        tag: &str,
    ) -> Result<(), ClientError> {
        let query = Query::new()
            .set("repo", repository)
            .set_opt("tag", Some(tag));
        self.post_unit(
            &format!("/images/{}/tag{}", image_path(name), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `DELETE /images/{name}`.
    pub async fn image_remove(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<ImageDeleteItem>, ClientError> {
        let query = Query::new().flag("force", force).flag("noprune", no_prune);
        self.json(
            Method::DELETE,
            &format!("/images/{}{}", image_path(name), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /images/prune`.
    pub async fn images_prune(
        &self,
        filters: &Filters,
    ) -> Result<ImagesPruneResponse, ClientError> {
        let query = Query::new().filters(filters);
        self.json(
            Method::POST,
            &format!("/images/prune{}", query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /images/load`; the reply is progress, one JSON object a line.
    pub async fn image_load(
        &self,
        archive: RequestBody,
        quiet: bool,
    ) -> Result<ByteStream, ClientError> {
        let quiet = u8::from(quiet);
        self.stream(
            Method::POST,
            &format!("/images/load?quiet={quiet}"),
            archive,
        )
        .await
    }

    /// `GET /images/get`: an archive of images.
    pub async fn image_save(&self, names: &[String]) -> Result<ByteStream, ClientError> {
        let mut query = Query::new();
        for name in names {
            query = query.set("names", name);
        }
        self.stream(
            Method::GET,
            &format!("/images/get{}", query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /images/create` with a root file system; the reply is progress.
    pub async fn image_import(
        &self,
        options: &ImportOptions,
        archive: RequestBody,
    ) -> Result<ByteStream, ClientError> {
        let mut query = Query::new()
            .set("fromSrc", &options.source)
            .set_opt("repo", options.repository.as_deref())
            .set_opt("tag", options.tag.as_deref())
            .set_opt("message", options.message.as_deref())
            .set_opt("platform", options.platform.as_deref());
        for change in &options.changes {
            query = query.set("changes", change);
        }
        self.stream(
            Method::POST,
            &format!("/images/create{}", query.as_str()),
            archive,
        )
        .await
    }
}
