//! Requests about containers.

use bytes::Bytes;
use hull_api_types::container::{
    ContainerSummary, ContainersPruneResponse, CreateRequest, CreateResponse, TopResponse,
    UpdateRequest, UpdateResponse, WaitResponse,
};
use hull_api_types::inspect::ContainerInspect;
use hyper::Method;

use crate::query::segment;
use crate::{ByteStream, Client, ClientError, Filters, Hijacked, Query, RequestBody};

/// What a list of containers holds.
#[derive(Debug, Default, Clone)]
pub struct ContainerListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// With sizes.
    pub size: bool,
    /// At most so many, newest first.
    pub limit: Option<u64>,
    /// Which ones.
    pub filters: Filters,
}

/// What to attach to.
#[derive(Debug, Default, Clone)]
pub struct AttachOptions {
    /// Send input.
    pub stdin: bool,
    /// Receive output.
    pub stdout: bool,
    /// Receive errors.
    pub stderr: bool,
    /// Also what was written before.
    pub logs: bool,
    /// Keys that detach.
    pub detach_keys: Option<String>,
}

/// Which part of a log.
#[derive(Debug, Default, Clone)]
pub struct LogsOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on with what comes.
    pub follow: bool,
    /// With times.
    pub timestamps: bool,
    /// With attributes.
    pub details: bool,
    /// From then on, seconds with fraction or RFC 3339.
    pub since: Option<String>,
    /// Until then.
    pub until: Option<String>,
    /// Lines from the end, or `all`.
    pub tail: Option<String>,
}

/// How to remove a container.
#[derive(Debug, Default, Clone, Copy)]
pub struct RemoveOptions {
    /// Kill it first.
    pub force: bool,
    /// With its anonymous volumes.
    pub volumes: bool,
    /// Only the link of that name.
    pub link: bool,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    /// That it does not run; at once where it does not.
    NotRunning,
    /// Its next exit.
    NextExit,
    /// That it is gone.
    Removed,
}

impl WaitCondition {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not-running",
            Self::NextExit => "next-exit",
            Self::Removed => "removed",
        }
    }
}

impl Client {
    /// `GET /containers/json`.
    pub async fn container_list(
        &self,
        options: &ContainerListOptions,
    ) -> Result<Vec<ContainerSummary>, ClientError> {
        let limit = options.limit.map(|limit| limit.to_string());
        let query = Query::new()
            .flag("all", options.all)
            .flag("size", options.size)
            .set_opt("limit", limit.as_deref())
            .filters(&options.filters);
        self.get(&format!("/containers/json{}", query.as_str()))
            .await
    }

    /// `POST /containers/create`.
    pub async fn container_create(
        &self,
        request: &CreateRequest,
        name: Option<&str>,
        platform: Option<&str>,
    ) -> Result<CreateResponse, ClientError> {
        let query = Query::new()
            .set_opt("name", name)
            .set_opt("platform", platform);
        self.json(
            Method::POST,
            &format!("/containers/create{}", query.as_str()),
            RequestBody::json(request),
        )
        .await
    }

    /// `GET /containers/{id}/json`.
    pub async fn container_inspect(&self, id: &str) -> Result<ContainerInspect, ClientError> {
        self.get(&format!("/containers/{}/json", segment(id))).await
    }

    /// `GET /containers/{id}/json` as it came.
    pub async fn container_inspect_raw(&self, id: &str, size: bool) -> Result<Bytes, ClientError> {
        let query = Query::new().flag("size", size);
        self.bytes(
            Method::GET,
            &format!("/containers/{}/json{}", segment(id), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /containers/{id}/start`.
    pub async fn container_start(
        &self,
        id: &str,
        detach_keys: Option<&str>,
    ) -> Result<(), ClientError> {
        let query = Query::new().set_opt("detachKeys", detach_keys);
        self.post_unit(
            &format!("/containers/{}/start{}", segment(id), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /containers/{id}/stop` or `/restart`: `verb`.
    pub async fn container_stop(
        &self,
        id: &str,
        verb: &str,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<(), ClientError> {
        let timeout = timeout.map(|timeout| timeout.to_string());
        let query = Query::new()
            .set_opt("t", timeout.as_deref())
            .set_opt("signal", signal);
        self.post_unit(
            &format!("/containers/{}/{verb}{}", segment(id), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /containers/{id}/kill`.
    pub async fn container_kill(&self, id: &str, signal: Option<&str>) -> Result<(), ClientError> {
        let query = Query::new().set_opt("signal", signal);
        self.post_unit(
            &format!("/containers/{}/kill{}", segment(id), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /containers/{id}/pause` or `/unpause`: `verb`.
    pub async fn container_pause(&self, id: &str, verb: &str) -> Result<(), ClientError> {
        self.post_unit(
            &format!("/containers/{}/{verb}", segment(id)),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /containers/{id}/rename`.
    pub async fn container_rename(&self, id: &str, name: &str) -> Result<(), ClientError> {
        let query = Query::new().set("name", name);
        self.post_unit(
            &format!("/containers/{}/rename{}", segment(id), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /containers/{id}/resize`.
    pub async fn container_resize(
        &self,
        id: &str,
        height: u16,
        width: u16,
    ) -> Result<(), ClientError> {
        self.post_unit(
            &format!("/containers/{}/resize?h={height}&w={width}", segment(id)),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /containers/{id}/update`.
    pub async fn container_update(
        &self,
        id: &str,
        request: &UpdateRequest,
    ) -> Result<UpdateResponse, ClientError> {
        self.json(
            Method::POST,
            &format!("/containers/{}/update", segment(id)),
            RequestBody::json(request),
        )
        .await
    }

    /// `DELETE /containers/{id}`.
    pub async fn container_remove(
        &self,
        id: &str,
        options: RemoveOptions,
    ) -> Result<(), ClientError> {
        let query = Query::new()
            .flag("force", options.force)
            .flag("v", options.volumes)
            .flag("link", options.link);
        self.bytes(
            Method::DELETE,
            &format!("/containers/{}{}", segment(id), query.as_str()),
            RequestBody::Empty,
        )
        .await
        .map(drop)
    }

    /// `POST /containers/{id}/wait`, as a stream: the head comes at once, the line at the exit.
    pub async fn container_wait_begin(
        &self,
        id: &str,
        condition: WaitCondition,
    ) -> Result<ByteStream, ClientError> {
        let path = format!(
            "/containers/{}/wait?condition={}",
            segment(id),
            condition.as_str()
        );
        self.stream(Method::POST, &path, RequestBody::Empty).await
    }

    /// `POST /containers/{id}/wait` until it replies.
    pub async fn container_wait(
        &self,
        id: &str,
        condition: WaitCondition,
    ) -> Result<WaitResponse, ClientError> {
        let path = format!(
            "/containers/{}/wait?condition={}",
            segment(id),
            condition.as_str()
        );
        self.json(Method::POST, &path, RequestBody::Empty).await
    }

    /// `POST /containers/{id}/attach`.
    pub async fn container_attach(
        &self,
        id: &str,
        options: &AttachOptions,
    ) -> Result<Hijacked, ClientError> {
        let query = Query::new()
            .set("stream", "1")
            .flag("stdin", options.stdin)
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .flag("logs", options.logs)
            .set_opt("detachKeys", options.detach_keys.as_deref());
        self.hijack(
            &format!("/containers/{}/attach{}", segment(id), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `GET /containers/{id}/logs`.
    pub async fn container_logs(
        &self,
        id: &str,
        options: &LogsOptions,
    ) -> Result<ByteStream, ClientError> {
        let query = Query::new()
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .flag("follow", options.follow)
            .flag("timestamps", options.timestamps)
            .flag("details", options.details)
            .set_opt("since", options.since.as_deref())
            .set_opt("until", options.until.as_deref())
            .set_opt("tail", options.tail.as_deref());
        self.stream(
            Method::GET,
            &format!("/containers/{}/logs{}", segment(id), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `GET /containers/{id}/top`.
    pub async fn container_top(
        &self,
        id: &str,
        arguments: Option<&str>,
    ) -> Result<TopResponse, ClientError> {
        let query = Query::new().set_opt("ps_args", arguments);
        self.get(&format!(
            "/containers/{}/top{}",
            segment(id),
            query.as_str()
        ))
        .await
    }

    /// `GET /containers/{id}/stats`.
    pub async fn container_stats(&self, id: &str, stream: bool) -> Result<ByteStream, ClientError> {
        let path = format!(
            "/containers/{}/stats?stream={}",
            segment(id),
            u8::from(stream)
        );
        self.stream(Method::GET, &path, RequestBody::Empty).await
    }

    /// `GET /containers/{id}/export`.
    pub async fn container_export(&self, id: &str) -> Result<ByteStream, ClientError> {
        self.stream(
            Method::GET,
            &format!("/containers/{}/export", segment(id)),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /containers/prune`.
    pub async fn containers_prune(
        &self,
        filters: &Filters,
    ) -> Result<ContainersPruneResponse, ClientError> {
        let query = Query::new().filters(filters);
        self.json(
            Method::POST,
            &format!("/containers/prune{}", query.as_str()),
            RequestBody::Empty,
        )
        .await
    }
}
