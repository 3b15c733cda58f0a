//! Requests about networks.

use bytes::Bytes;
use hull_api_types::network::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest,
    NetworkResource, NetworksPruneResponse,
};
use hull_api_types::network_check::NetworkCheck;
use hyper::Method;

use crate::query::segment;
use crate::{Client, ClientError, Filters, Query, RequestBody};

impl Client {
    /// `GET /networks`.
    pub async fn network_list(
        &self,
        filters: &Filters,
    ) -> Result<Vec<NetworkResource>, ClientError> {
        let query = Query::new().filters(filters);
        self.get(&format!("/networks{}", query.as_str())).await
    }

    /// `GET /networks/{id}` as it came.
    pub async fn network_inspect_raw(&self, id: &str, verbose: bool) -> Result<Bytes, ClientError> {
        let query = Query::new().flag("verbose", verbose);
        self.bytes(
            Method::GET,
            &format!("/networks/{}{}", segment(id), query.as_str()),
            RequestBody::Empty,
        )
        .await
    }

    /// `POST /hull/networks/check`: one network or all.
    pub async fn network_check(
        &self,
        network: Option<&str>,
        repair: bool,
    ) -> Result<NetworkCheck, ClientError> {
        let query = Query::new()
            .set_opt("network", network)
            .flag("repair", repair);
        let path = format!("/hull/networks/check{}", query.as_str());
        self.json(Method::POST, &path, RequestBody::Empty).await
    }

    /// `POST /networks/create`.
    pub async fn network_create(
        &self,
        request: &NetworkCreateRequest,
    ) -> Result<NetworkCreateResponse, ClientError> {
        self.json(Method::POST, "/networks/create", RequestBody::json(request))
            .await
    }

    /// `DELETE /networks/{id}`.
    pub async fn network_remove(&self, id: &str) -> Result<(), ClientError> {
        self.bytes(
            Method::DELETE,
            &format!("/networks/{}", segment(id)),
            RequestBody::Empty,
        )
        .await
        .map(drop)
    }

    /// `POST /networks/{id}/connect`.
    pub async fn network_connect(
        &self,
        id: &str,
        request: &NetworkConnectRequest,
    ) -> Result<(), ClientError> {
        self.bytes(
            Method::POST,
            &format!("/networks/{}/connect", segment(id)),
            RequestBody::json(request),
        )
        .await
        .map(drop)
    }

    /// `POST /networks/{id}/disconnect`.
    pub async fn network_disconnect(
        &self,
        id: &str,
        request: &NetworkDisconnectRequest,
    ) -> Result<(), ClientError> {
        self.bytes(
            Method::POST,
            &format!("/networks/{}/disconnect", segment(id)),
            RequestBody::json(request),
        )
        .await
        .map(drop)
    }

    /// `POST /networks/prune`.
    pub async fn networks_prune(
        &self,
        filters: &Filters,
    ) -> Result<NetworksPruneResponse, ClientError> {
        let query = Query::new().filters(filters);
        self.json(
            Method::POST,
            &format!("/networks/prune{}", query.as_str()),
            RequestBody::Empty,
        )
        .await
    }
}
