//! `hull volume create`.

use clap::Args;
use hull_api_types::volume::VolumeCreateRequest;

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::values::environment;

/// Arguments of `hull volume create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Specify volume driver name (default "local")
    #[arg(short, long, value_name = "string")]
    driver: Option<String>,
    /// Set metadata for a volume
    #[arg(long, value_name = "list")]
    label: Vec<String>,
    /// Specify volume name
    #[arg(long, value_name = "string", hide = true)]
    name: Option<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "map")]
    opt: Vec<String>,
    /// A name
    args: Vec<String>,
}

command!(
    CreateArgs,
    run,
    names = ["volume create"],
    usage = "[OPTIONS] [VOLUME]",
    about = "Create a volume",
    arity = Arity::AtMost(1),
);

async fn run(context: &Context, args: CreateArgs) -> Result<u8, CliError> {
    if args.name.is_some() && !args.args.is_empty() {
        return Err(CliError::new(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let request = VolumeCreateRequest {
        name: args
            .args
            .into_iter()
            .next()
            .or(args.name)
            .unwrap_or_default(),
        driver: args.driver.unwrap_or_else(|| "local".to_owned()),
        driver_opts: environment::pairs(&args.opt),
        labels: environment::labels(&[], &args.label).map_err(CliError::new)?,
    };
    let volume = context.client().await?.volume_create(&request).await?;
    output::line(&volume.name)?;
    Ok(0)
}
