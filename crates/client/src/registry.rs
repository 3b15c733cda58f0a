//! Requests that lead to a registry, and those of a copy between engines.

use hull_api_types::image::{Layers, ListPush, ListPushed, ManifestDocument, SearchResult};
use hyper::Method;

use crate::query::image_path;
use crate::{ByteStream, Client, ClientError, Filters, Query, RequestBody};

/// What is pulled.
#[derive(Debug, Default, Clone)]
pub struct PullOptions {
    /// Name without a tag.
    pub repository: String,
    /// Tag or digest; none for all tags.
    pub tag: Option<String>,
    /// `os/arch[/variant]`.
    pub platform: Option<String>,
    /// Everything that an index leads to.
    pub all_platforms: bool,
    /// What refers to it, too.
    pub referrers: bool,
}

/// What is pushed.
#[derive(Debug, Default, Clone)]
pub struct PushOptions {
    /// Name without a tag.
    pub repository: String,
    /// Tag; none for all tags.
    pub tag: Option<String>,
    /// One platform's image alone.
    pub platform: Option<String>,
    /// What refers to it, too.
    pub referrers: bool,
}

impl Client {
    /// `POST /images/create` from a registry; the reply is progress.
    pub async fn image_pull_with(
        &self,
        options: &PullOptions,
        auth: &str,
    ) -> Result<ByteStream, ClientError> {
        let query = Query::new()
            .set("fromImage", &options.repository)
            .set_opt("tag", options.tag.as_deref())
            .set_opt("platform", options.platform.as_deref())
            .flag("allPlatforms", options.all_platforms)
            .flag("referrers", options.referrers);
        self.stream(
            Method::POST,
            &format!("/images/create{}", query.as_str()),
            RequestBody::Authorized(auth.to_owned()),
        )
        .await
    }

    /// `POST /images/{name}/push`; the reply is progress.
    pub async fn image_push_with(
        &self,
        options: &PushOptions,
        auth: &str,
    ) -> Result<ByteStream, ClientError> {
        let query = Query::new()
            .set_opt("tag", options.tag.as_deref())
            .set_opt("platform", options.platform.as_deref())
            .flag("referrers", options.referrers);
        let name = image_path(&options.repository);
        self.stream(
            Method::POST,
            &format!("/images/{name}/push{}", query.as_str()),
            RequestBody::Authorized(auth.to_owned()),
        )
        .await
    }

    /// `GET /images/search`.
    pub async fn image_search(
        &self,
        term: &str,
        limit: Option<i64>,
        filters: &Filters,
        auth: &str,
    ) -> Result<Vec<SearchResult>, ClientError> {
        let limit = limit.map(|limit| limit.to_string());
        let query = Query::new()
            .set("term", term)
            .set_opt("limit", limit.as_deref())
            .filters(filters);
        self.json(
            Method::GET,
            &format!("/images/search{}", query.as_str()),
            RequestBody::Authorized(auth.to_owned()),
        )
        .await
    }

    /// `GET /hull/manifests/{name}`: a document of a registry.
    pub async fn registry_manifest(
        &self,
        name: &str,
        insecure: bool,
        auth: &str,
    ) -> Result<ManifestDocument, ClientError> {
        let query = Query::new().flag("insecure", insecure);
        self.json(
            Method::GET,
            &format!("/hull/manifests/{}{}", image_path(name), query.as_str()),
            RequestBody::Authorized(auth.to_owned()),
        )
        .await
    }

    /// `POST /hull/manifests`: sends a manifest list; gives its digest.
    pub async fn registry_push_list(
        &self,
        list: &ListPush,
        auth: &str,
    ) -> Result<ListPushed, ClientError> {
        // The wire types are plain data, whose serialisation cannot fail.
        let json = serde_json::to_vec(list).unwrap_or_default();
        self.json(
            Method::POST,
            "/hull/manifests",
            RequestBody::AuthorizedJson(auth.to_owned(), json.into()),
        )
        .await
    }

    /// `POST /hull/layers/missing`: those of the layers that the engine lacks.
    pub async fn layers_missing(&self, layers: Vec<String>) -> Result<Vec<String>, ClientError> {
        let body = RequestBody::json(&Layers { layers });
        let reply: Layers = self
            .json(Method::POST, "/hull/layers/missing", body)
            .await?;
        Ok(reply.layers)
    }

    /// `GET /images/get`: an archive of images without these layers.
    pub async fn image_save_without(
        &self,
        names: &[String],
        without: &[String],
    ) -> Result<ByteStream, ClientError> {
        let mut query = Query::new();
        for name in names {
            query = query.set("names", name);
        }
        for layer in without {
            query = query.set("without", layer);
        }
        self.stream(
            Method::GET,
            &format!("/images/get{}", query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /images/load` of an archive that may lack layers which the engine has.
    pub async fn image_load_partial(
        &self,
        archive: RequestBody,
    ) -> Result<ByteStream, ClientError> {
        self.stream(Method::POST, "/images/load?quiet=0&partial=1", archive)
            .await
    }
}
