//! Requests about guest kernels.

use hull_api_types::kernel::Kernel;
use hyper::Method;

use crate::query::segment;
use crate::{Client, ClientError, Query, RequestBody};

impl Client {
    /// `GET /hull/kernels`.
    pub async fn kernel_list(&self) -> Result<Vec<Kernel>, ClientError> {
        self.get("/hull/kernels").await
    }

    /// `POST /hull/kernels`; empty texts are not asked for.
    pub async fn kernel_install(
        &self,
        name: &str,
        digest: &str,
        force: bool,
        kernel: RequestBody,
    ) -> Result<Kernel, ClientError> {
        let query = Query::new()
            .set_opt("name", Some(name))
            .set_opt("digest", Some(digest))
            .flag("force", force);
        let path = format!("/hull/kernels{}", query.as_str());
        self.json(Method::POST, &path, kernel).await
    }

    /// `POST /hull/kernels/{name}/use`.
    pub async fn kernel_use(&self, name: &str) -> Result<Kernel, ClientError> {
        let path = format!("/hull/kernels/{}/use", segment(name));
        self.json(Method::POST, &path, RequestBody::Empty).await
    }

    /// `DELETE /hull/kernels/{name}`.
    pub async fn kernel_remove(&self, name: &str, force: bool) -> Result<(), ClientError> {
        let query = Query::new().flag("force", force);
        let path = format!("/hull/kernels/{}{}", segment(name), query.as_str());
        self.bytes(Method::DELETE, &path, RequestBody::Empty)
            .await
            .map(drop)
    }
}
