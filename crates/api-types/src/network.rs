//! Networks and a container's ends on them.
use std::collections::BTreeMap;

use crate::network_check::NetworkDetail;

wire! {
    /// Networks a container is to join when it is created.
    pub struct NetworkingConfig {
        endpoints_config: BTreeMap<String, EndpointSettings>,
    }
}

wire! {
    /// A container's end on one network.
    pub struct EndpointSettings {
        #[serde(rename = "IPAMConfig")]
        ipam_config: Option<EndpointIpamConfig>,
        links: Option<Vec<String>>,
        aliases: Option<Vec<String>>,
        mac_address: String,
        driver_opts: Option<BTreeMap<String, String>>,
        gw_priority: i64,
        #[serde(rename = "NetworkID")]
        network_id: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        gateway: String,
        #[serde(rename = "IPAddress")]
        ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: i64,
        #[serde(rename = "DNSNames")]
        dns_names: Option<Vec<String>>,
    }
}

wire! {
    /// Addresses asked for an end.
    #[derive(Eq)]
    pub struct EndpointIpamConfig {
        #[serde(rename = "IPv4Address")]
        ipv4_address!: String,
        #[serde(rename = "IPv6Address")]
        ipv6_address!: String,
        #[serde(rename = "LinkLocalIPs")]
        link_local_ips!: Vec<String>,
    }
}

wire! {
    /// A network, listed or inspected.
    pub struct NetworkResource {
        name: String,
        id: String,
        created: String,
        /// local, global, swarm.
        scope: String,
        driver: String,
        #[serde(rename = "EnableIPv4")]
        enable_ipv4: bool,
        #[serde(rename = "EnableIPv6")]
        enable_ipv6: bool,
        #[serde(rename = "IPAM")]
        ipam: Ipam,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_from: ConfigReference,
        config_only: bool,
        /// By container id.
        containers: BTreeMap<String, NetworkContainer>,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
        /// Hull's own, for whoever asks with `verbose`.
        hull?: NetworkDetail,
    }
}

wire! {
    /// How a network's addresses are managed.
    #[derive(Eq)]
    pub struct Ipam {
        driver: String,
        options: Option<BTreeMap<String, String>>,
        config: Vec<IpamConfig>,
    }
}

wire! {
    /// One address range of a network.
    #[derive(Eq)]
    pub struct IpamConfig {
        subnet!: String,
        #[serde(rename = "IPRange")]
        ip_range!: String,
        gateway!: String,
        #[serde(rename = "AuxiliaryAddresses")]
        auxiliary_addresses!: BTreeMap<String, String>,
    }
}

wire! {
    /// The network another takes its configuration from.
    #[derive(Eq)]
    pub struct ConfigReference {
        network: String,
    }
}

wire! {
    /// A container on an inspected network.
    #[derive(Eq)]
    pub struct NetworkContainer {
        name: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        mac_address: String,
        #[serde(rename = "IPv4Address")]
        ipv4_address: String,
        #[serde(rename = "IPv6Address")]
        ipv6_address: String,
    }
}

wire! {
    /// Body of `POST /networks/create`.
    pub struct NetworkCreateRequest {
        name: String,
        driver: String,
        scope!: String,
        #[serde(rename = "EnableIPv4")]
        enable_ipv4?: bool,
        #[serde(rename = "EnableIPv6")]
        enable_ipv6?: bool,
        #[serde(rename = "IPAM")]
        ipam: Ipam,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_only: bool,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    }
}

wire! {
    /// Body of `POST /networks/{id}/connect`.
    pub struct NetworkConnectRequest {
        container: String,
        endpoint_config: Option<EndpointSettings>,
    }
}

wire! {
    /// Body of `POST /networks/{id}/disconnect`.
    pub struct NetworkDisconnectRequest {
        container: String,
        force: bool,
    }
}

wire! {
    /// Reply of `POST /networks/create`.
    #[derive(Eq)]
    pub struct NetworkCreateResponse {
        id: String,
        warning: String,
    }
}

wire! {
    /// Reply of `POST /networks/prune`.
    #[derive(Eq)]
    pub struct NetworksPruneResponse {
        networks_deleted: Vec<String>,
    }
}
