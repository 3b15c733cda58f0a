//! `hull network connect`.

use clap::Args;
use hull_api_types::network::{EndpointIpamConfig, EndpointSettings, NetworkConnectRequest};

use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};
use crate::values::environment;

/// Arguments of `hull network connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Add network-scoped alias for the container
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    alias: Vec<String>,
    /// Driver options for the network
    #[arg(long, value_name = "strings")]
    driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway. Accepts positive and negative values.
    #[arg(
        long,
        value_name = "int",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    gw_priority: i64,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, value_name = "ip")]
    ip: Option<String>,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, value_name = "ip")]
    ip6: Option<String>,
    /// Add link to another container
    #[arg(long, value_name = "list")]
    link: Vec<String>,
    /// Add a link-local address for the container
    #[arg(long, value_name = "strings")]
    link_local_ip: Vec<String>,
    /// Container MAC address (e.g., "92:d0:c6:0a:29:33")
    #[arg(long, value_name = "string")]
    mac_address: Option<String>,
    /// Network and container
    args: Vec<String>,
}

command!(
    ConnectArgs,
    run,
    names = ["network connect"],
    usage = "[OPTIONS] NETWORK CONTAINER",
    about = "Connect a container to a network",
    arity = Arity::Exactly(2),
);

async fn run(context: &Context, args: ConnectArgs) -> Result<u8, CliError> {
    let mut names = args.args.into_iter();
    let network = names.next().unwrap_or_default();
    let container = names.next().unwrap_or_default();
    let ipam = EndpointIpamConfig {
        ipv4_address: args.ip.unwrap_or_default(),
        ipv6_address: args.ip6.unwrap_or_default(),
        link_local_ips: args.link_local_ip,
    };
    let options = environment::pairs(&args.driver_opt);
    let settings = EndpointSettings {
        ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
        links: (!args.link.is_empty()).then_some(args.link),
        aliases: (!args.alias.is_empty()).then_some(args.alias),
        mac_address: args.mac_address.unwrap_or_default(),
        driver_opts: (!options.is_empty()).then_some(options),
        gw_priority: args.gw_priority,
        ..EndpointSettings::default()
    };
    let request = NetworkConnectRequest {
        container,
        endpoint_config: Some(settings),
    };
    let client = context.client().await?;
    client.network_connect(&network, &request).await?;
    Ok(0)
}
