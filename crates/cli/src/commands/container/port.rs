//! `hull port`: the published ports of a container.

use clap::Args;
use hull_api_types::host_config::PortBinding;

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};

/// Arguments of `hull port`.
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Container and one of its ports
    args: Vec<String>,
}

command!(
    PortArgs,
    run,
    names = ["port", "container port"],
    usage = "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about = "List port mappings or a specific mapping for the container",
    arity = Arity::Between(1, 2),
);

async fn run(context: &Context, args: PortArgs) -> Result<u8, CliError> {
    let name = args.args.first().map_or("", String::as_str);
    let container = context.client().await?.container_inspect(name).await?;
    let ports = &container.network_settings.ports;
    let mut lines: Vec<(u16, String)> = Vec::new();
    match args.args.get(1) {
        Some(wanted) => {
            let (port, proto) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
            if port.parse::<u16>().is_err() {
                return Err(CliError::new(format!(
                    "Error: invalid port ({port}): strconv.ParseUint: parsing {port:?}: invalid syntax"
                )));
            }
            let key = format!("{port}/{proto}");
            match ports.get(&key) {
                Some(Some(bindings)) if !bindings.is_empty() => {
                    lines.extend(bindings.iter().map(|binding| (0, address(binding))))
                }
                _ => {
                    return Err(CliError::new(format!(
                        "Error: No public port '{wanted}' published for {name}"
                    )));
                }
            }
        }
        None => {
            for (port, bindings) in ports {
                for binding in bindings.iter().flatten() {
                    lines.push((
                        port.split('/')
                            .next()
                            .and_then(|port| port.parse().ok())
                            .unwrap_or(0),
                        format!("{port} -> {}", address(binding)),
                    ));
                }
            }
            lines.sort();
        }
    }
    for (_, line) in lines {
        output::line(&line)?;
    }
    Ok(0)
}

/// `0.0.0.0:8080`, `[::]:8080`.
fn address(binding: &PortBinding) -> String {
    if binding.host_ip.contains(':') {
        format!("[{}]:{}", binding.host_ip, binding.host_port)
    } else {
        format!("{}:{}", binding.host_ip, binding.host_port)
    }
}
