//! Requests about commands in running containers.

use hull_api_types::exec::{ExecCreateRequest, ExecInspect, ExecStartRequest, IdResponse};
use hyper::Method;

use crate::query::segment;
use crate::{Client, ClientError, Hijacked, RequestBody};

impl Client {
    /// `POST /containers/{id}/exec`; gives the exec's id.
    pub async fn exec_create(
        &self,
        container: &str,
        request: &ExecCreateRequest,
    ) -> Result<String, ClientError> {
        let reply: IdResponse = self
            .json(
                Method::POST,
                &format!("/containers/{}/exec", segment(container)),
                RequestBody::json(request),
            )
            .await?;
        Ok(reply.id)
    }

    /// `POST /exec/{id}/start`, attached.
    pub async fn exec_attach(
        &self,
        id: &str,
        request: &ExecStartRequest,
    ) -> Result<Hijacked, ClientError> {
        self.hijack(
            &format!("/exec/{}/start", segment(id)),
            RequestBody::json(request),
        )
        .await
    }

    /// `POST /exec/{id}/start`, detached.
    pub async fn exec_start(
        &self,
        id: &str,
        request: &ExecStartRequest,
    ) -> Result<(), ClientError> {
        self.post_unit(
            &format!("/exec/{}/start", segment(id)),
            RequestBody::json(request),
        )
        .await
    }

    /// `GET /exec/{id}/json`.
    pub async fn exec_inspect(&self, id: &str) -> Result<ExecInspect, ClientError> {
        self.get(&format!("/exec/{}/json", segment(id))).await
    }

    /// `POST /exec/{id}/resize`.
    pub async fn exec_resize(&self, id: &str, height: u16, width: u16) -> Result<(), ClientError> {
        self.post_unit(
            &format!("/exec/{}/resize?h={height}&w={width}", segment(id)),
            RequestBody::Empty,
        )
        .await
    }
}
