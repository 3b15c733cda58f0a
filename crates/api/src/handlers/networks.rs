//! Networks: those that are always there.
use axum::extract::{Path, State};
use axum::http::Uri;
use hull_api_types::network::{
    Ipam, IpamConfig, NetworkContainer, NetworkResource, NetworksPruneResponse,
};
use hull_engine::Filters;
use hull_engine::networks::NetworkDescription;

use super::Eng;
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::params::Params;
use crate::translate::time;

const FILTERS: [&str; 8] = [
    "dangling", "driver", "id", "label", "label!", "name", "scope", "type",
];

/// `GET /networks`
pub(crate) async fn list(State(engine): Eng, uri: Uri) -> ApiResult {
    let filters = Params::of(&uri).filters()?;
    filters.allow_only(&FILTERS)?;
    let networks: Vec<NetworkResource> = engine
        .networks()
        .iter()
        .filter(|network| matches(network, &filters))
        // The containers are for inspect alone.
        .map(|network| NetworkResource {
            containers: Default::default(),
            ..resource(network)
        })
        .collect();
    body::reply(&networks)
}

fn matches(network: &NetworkDescription, filters: &Filters) -> bool {
    filters.matches("name", |v| network.name.contains(v))
        && filters.matches("id", |v| network.id.starts_with(v))
        && filters.matches("driver", |v| network.driver == v)
        && filters.matches("scope", |v| v == "local")
        && filters.matches("type", |v| v == "builtin")
        && filters.matches("dangling", |v| matches!(v, "false" | "0"))
        && filters.match_labels(&Default::default())
}

fn resource(network: &NetworkDescription) -> NetworkResource {
    let bridge = network.bridge.as_ref();
    let config = bridge.map(|bridge| IpamConfig {
        subnet: bridge.subnet.to_string(),
        gateway: bridge.gateway.to_string(),
        ..IpamConfig::default()
    });
    let containers = network.containers.iter().map(|record| {
        let endpoint = record.endpoint.as_ref();
        let container = NetworkContainer {
            name: record.name.clone(),
            endpoint_id: record.id.clone(),
            mac_address: endpoint.map(|e| e.mac.clone()).unwrap_or_default(),
            ipv4_address: endpoint
                .map(|e| format!("{}/{}", e.address, e.prefix))
                .unwrap_or_default(),
            ipv6_address: String::new(),
        };
        (record.id.clone(), container)
    });
    let options = bridge.map(|bridge| {
        [
            (
                "com.docker.network.bridge.default_bridge",
                "true".to_owned(),
            ),
            ("com.docker.network.bridge.enable_icc", "true".to_owned()),
            (
                "com.docker.network.bridge.enable_ip_masquerade",
                "true".to_owned(),
            ),
            (
                "com.docker.network.bridge.host_binding_ipv4",
                "0.0.0.0".to_owned(),
            ),
            ("com.docker.network.bridge.name", bridge.bridge.clone()),
            ("com.docker.network.driver.mtu", bridge.mtu.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    });
    NetworkResource {
        name: network.name.into(),
        id: network.id.clone(),
        created: time::NEVER.into(),
        scope: "local".into(),
        driver: network.driver.into(),
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".into(),
            options: None,
            config: config.into_iter().collect(),
        },
        containers: containers.collect(),
        options: options.unwrap_or_default(),
        ..NetworkResource::default()
    }
}

/// `GET /networks/{name}`
pub(crate) async fn inspect(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    body::reply(&resource(&engine.network(&name)?))
}

/// `POST /networks/create` and what changes networks.
pub(crate) async fn create() -> ApiError {
    ApiError::not_implemented(
        "networks of one's own are not built yet: this version of Hull has bridge, host, none and container:NAME",
    )
}

/// `DELETE /networks/{name}`
pub(crate) async fn remove(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    let network = engine.network(&name)?;
    Err(ApiError::new(
        axum::http::StatusCode::FORBIDDEN,
        format!(
            "{} is a pre-defined network and cannot be removed",
            network.name
        ),
    ))
}

/// `POST /networks/prune`: those that are always there are never unused.
pub(crate) async fn prune() -> ApiResult {
    body::reply(&NetworksPruneResponse::default())
}
