//! Networks: those that are always there, and those that users make.
use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse as _;
use hull_api_types::network::{
    Ipam, IpamConfig, NetworkConnectRequest, NetworkContainer, NetworkCreateRequest,
    NetworkCreateResponse, NetworkDisconnectRequest, NetworkResource, NetworksPruneResponse,
};
use hull_engine::Filters;
use hull_engine::networks::{NetworkDescription, NewNetwork, is_number};

use super::{Eng, network_check};
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::params::Params;
use crate::translate::create::join;
use crate::translate::{six, time};

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
    let labels = network.own.as_ref().map(|own| own.labels.clone());
    let kind = if network.own.is_some() {
        "custom"
    } else {
        "builtin"
    };
    // Those that are always there are never in anybody's way.
    let dangling = network.own.is_some() && network.containers.is_empty();
    filters.matches("name", |v| network.name.contains(v))
        && filters.matches("id", |v| network.id.starts_with(v))
        && filters.matches("driver", |v| network.driver == v)
        && filters.matches("scope", |v| v == "local")
        && filters.matches("type", |v| v == kind)
        && filters.matches("dangling", |v| matches!(v, "true" | "1") == dangling)
        && filters.match_labels(&labels.unwrap_or_default())
}

fn resource(network: &NetworkDescription) -> NetworkResource {
    let bridge = network.bridge.as_ref();
    let own = network.own.as_ref();
    let config = bridge.map(|bridge| IpamConfig {
        subnet: bridge.subnet.to_string(),
        gateway: bridge.gateway.to_string(),
        ip_range: own.map(|own| own.ip_range.clone()).unwrap_or_default(),
        auxiliary_addresses: own
            .iter()
            .flat_map(|own| &own.aux_addresses)
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    });
    let config = config.filter(|_| own.is_none_or(|own| !own.without_ipv4));
    let config = config.or_else(|| own.and_then(direct_config));
    let config6 = own.and_then(six::config);
    let containers = network.containers.iter().map(|record| {
        let place = record.places.iter().find(|p| p.network == network.id);
        let place = place.map(|place| &place.endpoint);
        let endpoint = place.or(record.endpoint.as_ref());
        let container = NetworkContainer {
            name: record.name.clone(),
            endpoint_id: record.id.clone(),
            mac_address: endpoint.map(|e| e.mac.clone()).unwrap_or_default(),
            ipv4_address: endpoint
                .filter(|e| !is_number(e.address))
                .map(|e| format!("{}/{}", e.address, e.prefix))
                .unwrap_or_default(),
            ipv6_address: endpoint.map(six::with_prefix).unwrap_or_default(),
        };
        (record.id.clone(), container)
    });
    let options = match (own, bridge) {
        (Some(own), _) => own.options.clone(),
        (None, Some(bridge)) => default_options(bridge),
        (None, None) => Default::default(),
    };
    NetworkResource {
        name: network.name.clone(),
        id: network.id.clone(),
        created: own.map_or_else(
            || time::NEVER.into(),
            |own| time::rfc3339(own.created_at_ns),
        ),
        scope: "local".into(),
        driver: network.driver.into(),
        enable_ipv4: own.is_none_or(|own| !own.without_ipv4),
        enable_ipv6: config6.is_some(),
        ipam: Ipam {
            driver: match own {
                Some(own) if !own.ipam.is_empty() => own.ipam.clone(),
                _ => "default".into(),
            },
            options: None,
            config: config.into_iter().chain(config6).collect(),
        },
        internal: own.is_some_and(|own| own.internal),
        attachable: own.is_some_and(|own| own.attachable),
        labels: own.map(|own| own.labels.clone()).unwrap_or_default(),
        containers: containers.collect(),
        options,
        ..NetworkResource::default()
    }
}

/// The addresses of a network whose wire is not Hull's.
fn direct_config(own: &hull_engine::NetworkRecord) -> Option<IpamConfig> {
    if !matches!(own.driver.as_str(), "macvlan" | "ipvlan") || own.subnet.is_empty() {
        return None;
    }
    let aux = own.aux_addresses.iter();
    Some(IpamConfig {
        subnet: own.subnet.clone(),
        gateway: own.gateway.map(|a| a.to_string()).unwrap_or_default(),
        ip_range: own.ip_range.clone(),
        auxiliary_addresses: aux
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    })
}

fn default_options(bridge: &hull_engine::networks::NetworkInfo) -> BTreeMap<String, String> {
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
}

/// `GET /networks/{name}`
pub(crate) async fn inspect(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let network = engine.network(&name)?;
    let mut reply = resource(&network);
    if Params::of(&uri).flag("verbose") {
        reply.hull = network_check::detail(&engine, &network)?;
    }
    body::reply(&reply)
}

/// `POST /networks/create`
pub(crate) async fn create(State(engine): Eng, headers: HeaderMap, body: Body) -> ApiResult {
    let wire: NetworkCreateRequest = body::json(&headers, body).await?;
    let made = engine.create_network(wanted(wire)?).await?;
    let reply = NetworkCreateResponse {
        id: made.id,
        warning: made.warning,
    };
    body::reply_with(StatusCode::CREATED, &reply)
}

fn wanted(wire: NetworkCreateRequest) -> Result<NewNetwork, ApiError> {
    if wire.ingress || wire.config_only || !matches!(wire.scope.as_str(), "" | "local") {
        return Err(ApiError::not_implemented(
            "networks of a swarm and networks that are configuration alone are not supported",
        ));
    }
    if !matches!(wire.ipam.driver.as_str(), "" | "default" | "null" | "none") {
        return Err(ApiError::not_implemented(
            "address management is by default or null, which leaves addresses to others",
        ));
    }
    let (range, v6) = six::split(wire.ipam.config)?;
    Ok(NewNetwork {
        name: wire.name,
        driver: wire.driver,
        // Podman's word for it.
        ipam: match wire.ipam.driver.as_str() {
            "null" | "none" => "null".to_owned(),
            _ => String::new(),
        },
        subnet: range.subnet,
        gateway: range.gateway,
        ip_range: range.ip_range,
        aux_addresses: range.auxiliary_addresses,
        ipv6: wire.enable_ipv6,
        v6,
        without_ipv4: wire.enable_ipv4 == Some(false),
        internal: wire.internal,
        attachable: wire.attachable,
        options: wire.options,
        labels: wire.labels,
    })
}

/// `POST /networks/{name}/connect`
pub(crate) async fn connect(
    State(engine): Eng,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let wire: NetworkConnectRequest = body::json(&headers, body).await?;
    let join = join(name.clone(), wire.endpoint_config.unwrap_or_default())?;
    engine.connect(&name, &wire.container, join).await?;
    Ok(StatusCode::OK.into_response())
}

/// `POST /networks/{name}/disconnect`
pub(crate) async fn disconnect(
    State(engine): Eng,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let wire: NetworkDisconnectRequest = body::json(&headers, body).await?;
    engine.disconnect(&name, &wire.container).await?;
    Ok(StatusCode::OK.into_response())
}

/// `DELETE /networks/{name}`
pub(crate) async fn remove(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    engine.remove_network(&name).await?;
    body::no_content()
}

/// `POST /networks/prune`
pub(crate) async fn prune(State(engine): Eng, uri: Uri) -> ApiResult {
    let filters = Params::of(&uri).filters()?;
    let networks_deleted = engine.prune_networks(&filters).await?;
    body::reply(&NetworksPruneResponse { networks_deleted })
}
