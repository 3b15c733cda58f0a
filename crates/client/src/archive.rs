//! Requests that move files: of a container, copied, compared, committed; of an archive, loaded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_api_types::container::{FilesystemChange, PathStat};
use hull_api_types::exec::IdResponse;
use hyper::Method;
use hyper::header::HeaderMap;

use crate::query::segment;
use crate::{ByteStream, Client, ClientError, Query, RequestBody};

/// The header that describes a file.
const STAT: &str = "x-docker-container-path-stat";

/// How a container becomes an image.
#[derive(Debug, Default, Clone)]
pub struct CommitOptions {
    /// Repository to name it.
    pub repository: Option<String>,
    /// Tag to name it.
    pub tag: Option<String>,
    /// Who commits.
    pub author: Option<String>,
    /// Free text for the history.
    pub message: Option<String>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
}

impl Client {
    /// `HEAD /containers/{name}/archive`.
    pub async fn container_path_stat(
        &self,
        name: &str,
        path: &str,
    ) -> Result<PathStat, ClientError> {
        described(
            &self
                .headers(&archive(name, Query::new().set("path", path)))
                .await?,
        )
    }

    /// `GET /containers/{name}/archive`: what is there, and its archive.
    pub async fn container_archive(
        &self,
        name: &str,
        path: &str,
    ) -> Result<(PathStat, ByteStream), ClientError> {
        let path = archive(name, Query::new().set("path", path));
        let (headers, stream) = self.stream_with_headers(&path).await?;
        Ok((described(&headers)?, stream))
    }

    /// `PUT /containers/{name}/archive`; a folder is not replaced by something else.
    pub async fn container_unpack(
        &self,
        name: &str,
        path: &str,
        copy_ids: bool,
        content: RequestBody,
    ) -> Result<(), ClientError> {
        let query = Query::new()
            .set("path", path)
            .set("noOverwriteDirNonDir", "true")
            .flag("copyUIDGID", copy_ids);
        self.bytes(Method::PUT, &archive(name, query), content)
            .await
            .map(drop)
    }

    /// `POST /images/load` of the images for one platform; the reply is progress, one JSON object
    /// a line.
    pub async fn image_load_of(
        &self,
        archive: RequestBody,
        quiet: bool,
        platform: Option<&str>,
    ) -> Result<ByteStream, ClientError> {
        let query = Query::new()
            .set("quiet", if quiet { "1" } else { "0" })
            .set_opt("platform", platform);
        let path = format!("/images/load{}", query.as_str());
        self.stream(Method::POST, &path, archive).await
    }

    /// `GET /containers/{name}/changes`.
    pub async fn container_changes(
        &self,
        name: &str,
    ) -> Result<Vec<FilesystemChange>, ClientError> {
        let changes: Option<Vec<FilesystemChange>> = self
            .get(&format!("/containers/{}/changes", segment(name)))
            .await?;
        Ok(changes.unwrap_or_default())
    }

    /// `POST /commit`; the id of the new image.
    pub async fn container_commit(
        &self,
        name: &str,
        options: &CommitOptions,
    ) -> Result<String, ClientError> {
        let mut query = Query::new()
            .set("container", name)
            .set_opt("repo", options.repository.as_deref())
            .set_opt("tag", options.tag.as_deref())
            .set_opt("author", options.author.as_deref())
            .set_opt("comment", options.message.as_deref());
        for change in &options.changes {
            query = query.set("changes", change);
        }
        if !options.pause {
            query = query.set("pause", "0");
        }
        let reply: IdResponse = self
            .json(
                Method::POST,
                &format!("/commit{}", query.as_str()),
                RequestBody::Empty,
            )
            .await?;
        Ok(reply.id)
    }
}

fn archive(name: &str, query: Query) -> String {
    format!("/containers/{}/archive{}", segment(name), query.as_str())
}

fn described(headers: &HeaderMap) -> Result<PathStat, ClientError> {
    let wrong = || ClientError::Stream("the reply does not describe the file");
    let value = headers.get(STAT).ok_or_else(wrong)?;
    let json = STANDARD.decode(value).map_err(|_| wrong())?;
    serde_json::from_slice(&json).map_err(|_| wrong())
}
