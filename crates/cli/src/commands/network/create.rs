//! `hull network create`.

use clap::Args;
use hull_api_types::network::{Ipam, NetworkCreateRequest};

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::values::{environment, subnet};

/// Arguments of `hull network create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by network driver: NAME=ADDRESS, given to no container
    #[arg(long, value_name = "map")]
    aux_address: Vec<String>,
    /// Driver to manage the network: bridge, macvlan or ipvlan
    #[arg(short, long, value_name = "string", default_value = "bridge")]
    driver: String,
    /// IPv4 or IPv6 gateway for the subnet
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Allocate container ip from a sub-range
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// IP address management driver: default, or null to leave addresses to others
    #[arg(long, value_name = "string", default_value = "default")]
    ipam_driver: String,
    /// Set IPAM driver specific options
    #[arg(long, value_name = "map")]
    ipam_opt: Vec<String>,
    /// Enable or disable IPv4 address assignment
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// Enable or disable IPv6 address assignment
    #[arg(long, value_name = "bool", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// Set metadata on a network
    #[arg(long, value_name = "list")]
    label: Vec<String>,
    /// Set driver specific options: com.docker.network.bridge.name, .enable_icc, .enable_ip_masquerade, .host_binding_ipv4, com.docker.network.driver.mtu; parent, macvlan_mode, ipvlan_mode, ipvlan_flag
    #[arg(short, long, value_name = "map")]
    opt: Vec<String>,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    subnet: Vec<String>,
    /// A name
    args: Vec<String>,
}

command!(
    CreateArgs,
    run,
    names = ["network create"],
    usage = "[OPTIONS] NETWORK",
    about = "Create a network",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: CreateArgs) -> Result<u8, CliError> {
    let request = request(args).map_err(CliError::new)?;
    let reply = context.client().await?.network_create(&request).await?;
    if !reply.warning.is_empty() {
        output::error_line(&format!("WARNING: {}", reply.warning));
    }
    output::line(&reply.id)?;
    Ok(0)
}

fn request(args: CreateArgs) -> Result<NetworkCreateRequest, String> {
    let config = subnet::ranges(
        &args.subnet,
        &args.gateway,
        &args.ip_range,
        environment::pairs(&args.aux_address),
    )?;
    let options = environment::pairs(&args.ipam_opt);
    Ok(NetworkCreateRequest {
        name: args.args.into_iter().next().unwrap_or_default(),
        driver: args.driver,
        enable_ipv4: args.ipv4,
        enable_ipv6: args.ipv6,
        ipam: Ipam {
            driver: args.ipam_driver,
            options: (!options.is_empty()).then_some(options),
            config,
        },
        internal: args.internal,
        attachable: args.attachable,
        options: environment::pairs(&args.opt),
        labels: environment::labels(&[], &args.label)?,
        ..NetworkCreateRequest::default()
    })
}
