//! `hull update`: changes the limits of containers while they run.

use clap::Args;
use hull_api_types::container::UpdateRequest;
use hull_api_types::host_config::{PortMap, Resources};

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::values::scalar::{cpus, go_int, size, size_or_unlimited};
use crate::values::{egress, port, restart};

/// Arguments of `hull update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)
    #[arg(long, value_name = "uint16", value_parser = go_int)]
    blkio_weight: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "int", value_parser = go_int)]
    cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "int", value_parser = go_int)]
    cpu_quota: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long, value_name = "int", value_parser = go_int)]
    cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "decimal", value_parser = cpus)]
    cpus: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_mems: Option<String>,
    /// Where the container may connect to, in place of what was said before: "deny" or "allow"
    #[arg(long, value_name = "string")]
    egress: Option<String>,
    /// Let it connect there; see hull run
    #[arg(long, value_name = "list")]
    egress_allow: Vec<String>,
    /// Do not let it connect there
    #[arg(long, value_name = "list")]
    egress_deny: Vec<String>,
    /// Memory limit
    #[arg(short = 'm', long, value_name = "bytes", value_parser = size)]
    memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "bytes", value_parser = size)]
    memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_name = "bytes", value_parser = size_or_unlimited)]
    memory_swap: Option<i64>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "int", value_parser = go_int)]
    pids_limit: Option<i64>,
    /// Publish a port of the container, running or not: [[IP:]HOST:]CONTAINER[/PROTOCOL]
    #[arg(long, value_name = "list")]
    publish_add: Vec<String>,
    /// Publish a port no more and cut its connections; a host's side left out is any
    #[arg(long, value_name = "list")]
    publish_rm: Vec<String>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "string")]
    restart: Option<String>,
    /// Containers
    args: Vec<String>,
}

command!(
    UpdateArgs,
    run,
    names = ["update", "container update"],
    usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    about = "Update configuration of one or more containers",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: UpdateArgs) -> Result<u8, CliError> {
    let blkio_weight = u16::try_from(args.blkio_weight.unwrap_or(0))
        .map_err(|_| CliError::new("range of blkio weight is from 10 to 1000"))?;
    let resources = Resources {
        blkio_weight,
        cpu_period: args.cpu_period.unwrap_or(0),
        cpu_quota: args.cpu_quota.unwrap_or(0),
        cpu_shares: args.cpu_shares.unwrap_or(0),
        nano_cpus: args.cpus.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.unwrap_or_default(),
        memory: args.memory.unwrap_or(0),
        memory_reservation: args.memory_reservation.unwrap_or(0),
        memory_swap: args.memory_swap.unwrap_or(0),
        pids_limit: args.pids_limit,
        ..Resources::default()
    };
    let restart_policy = match &args.restart {
        Some(policy) => restart::parse(policy).map_err(CliError::new)?,
        None => Default::default(),
    };
    let request = UpdateRequest {
        resources,
        restart_policy,
        publish_add: ports(&args.publish_add)?,
        publish_rm: ports(&args.publish_rm)?,
        egress: egress::of(
            args.egress.as_deref(),
            &args.egress_allow,
            &args.egress_deny,
        ),
    };
    if request == UpdateRequest::default() {
        return Err(CliError::new(
            "you must provide one or more flags when using this command",
        ));
    }
    let client = context.client().await?;
    each(&args.args, async |name| {
        for warning in client.container_update(name, &request).await?.warnings {
            output::error_line(&warning);
        }
        Ok(Some(name.to_owned()))
    })
    .await
}

fn ports(specs: &[String]) -> Result<PortMap, CliError> {
    let mut map = PortMap::new();
    for spec in specs {
        port::publish(spec, &mut map).map_err(CliError::new)?;
    }
    Ok(map)
}
