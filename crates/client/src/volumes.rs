//! Requests about volumes.

use bytes::Bytes;
use hull_api_types::volume::{Volume, VolumeCreateRequest, VolumeList, VolumesPruneResponse};
use hyper::Method;

use crate::query::segment;
use crate::{Client, ClientError, Filters, Query, RequestBody};

impl Client {
    /// `POST /volumes/create`.
    pub async fn volume_create(
        &self,
        request: &VolumeCreateRequest,
    ) -> Result<Volume, ClientError> {
        self.json(Method::POST, "/volumes/create", RequestBody::json(request))
            .await
    }

    /// `GET /volumes`.
    pub async fn volume_list(&self, filters: &Filters) -> Result<VolumeList, ClientError> {
        let query = Query::new().filters(filters);
        self.get(&format!("/volumes{}", query.as_str())).await
    }

    /// `GET /volumes/{name}` as it came.
    pub async fn volume_inspect_raw(&self, name: &str) -> Result<Bytes, ClientError> {
        self.bytes(
            Method::GET,
            &format!("/volumes/{}", segment(name)),
            RequestBody::Empty,
        )
        .await
    }

    /// `DELETE /volumes/{name}`.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<(), ClientError> {
        let query = Query::new().flag("force", force);
        self.bytes(
            Method::DELETE,
            &format!("/volumes/{}{}", segment(name), query.as_str()),
            RequestBody::Empty,
        )
        .await
        .map(drop)
    }

    /// `POST /volumes/prune`.
    pub async fn volumes_prune(
        &self,
        filters: &Filters,
    ) -> Result<VolumesPruneResponse, ClientError> {
        let query = Query::new().filters(filters);
        self.json(
            Method::POST,
            &format!("/volumes/prune{}", query.as_str()),
            RequestBody::Empty,
        )
        .await
    }
}
