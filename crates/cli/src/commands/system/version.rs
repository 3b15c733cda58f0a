//! `hull version`.

use std::fmt::Write as _;

use clap::Args;
use hull_api_types::system::Version;

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::template::{Map, MissingKey, Mode, Template, Value};

/// Arguments of `hull version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Format output using a custom template: 'json' prints JSON, 'TEMPLATE' prints output using the given Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

command!(
    VersionArgs,
    run,
    names = ["version"],
    usage = "[OPTIONS]",
    about = "Show the Hull version information",
    arity = Arity::None,
);

async fn run(context: &Context, args: VersionArgs) -> Result<u8, CliError> {
    let server = match context.client().await {
        Ok(client) => client.version().await.map_err(CliError::from),
        Err(error) => Err(error),
    };
    match args.format.as_deref().filter(|format| !format.is_empty()) {
        None => {
            output::print(&client_text(context))?;
            output::print(&server_text(&server?))?;
        }
        Some(format) => {
            // The client's part can be told without a server; the error follows it.
            let value = value(context, server.as_ref().ok())?;
            let source = if format == "json" {
                "{{json .}}"
            } else {
                format
            };
            let text = Template::parse(source, MissingKey::NoValue)
                .and_then(|template| template.run(&value, Mode::Row))
                .map_err(|error| CliError::new(error.to_string()))?;
            output::line(&text)?;
            server?;
        }
    }
    Ok(0)
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn client_text(context: &Context) -> String {
    format!(
        "Client:\n Version:           {}\n API version:       {}\n OS/Arch:           linux/{}\n Context:           default\n",
        context.version,
        hull_api_types::API_VERSION,
        arch()
    )
}

fn server_text(server: &Version) -> String {
    let mut out = format!("\nServer: {}\n Engine:\n", server.platform.name);
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {:<17} {value}", format!("{name}:"));
        }
    };
    row("Version", &server.version);
    row(
        "API version",
        &format!(
            "{} (minimum version {})",
            server.api_version, server.min_api_version
        ),
    );
    row("Git commit", &server.git_commit);
    row("Built", &server.build_time);
    row("OS/Arch", &format!("{}/{}", server.os, server.arch));
    row("Kernel", &server.kernel_version);
    row(
        "Experimental",
        if server.experimental { "true" } else { "false" },
    );
    for component in server
        .components
        .iter()
        .filter(|component| component.name != "Engine")
    {
        let _ = writeln!(
            out,
            " {}:\n  {:<17} {}",
            component.name, "Version:", component.version
        );
        for (name, value) in &component.details {
            let _ = writeln!(out, "  {:<17} {value}", format!("{name}:"));
        }
    }
    out
}

fn value(context: &Context, server: Option<&Version>) -> Result<Value, CliError> {
    let mut client = Map::of_type("system.clientVersion");
    client.push(
        "Platform",
        Value::Map({
            let mut platform = Map::of_type("struct");
            platform.push("Name", "Hull");
            platform
        }),
    );
    client.push("Version", context.version);
    client.push("ApiVersion", hull_api_types::API_VERSION);
    client.push("DefaultAPIVersion", hull_api_types::API_VERSION);
    client.push("GitCommit", "");
    client.push("GoVersion", "");
    client.push("Os", "linux");
    client.push("Arch", arch());
    client.push("BuildTime", "");
    client.push("Context", "default");
    let mut all = Map::of_type("system.versionInfo");
    all.push("Client", client);
    let server = match server {
        Some(server) => {
            let json =
                serde_json::to_vec(server).map_err(|error| CliError::new(error.to_string()))?;
            serde_json::from_slice(&json).map_err(|error| CliError::new(error.to_string()))?
        }
        None => Value::Nil,
    };
    all.push("Server", server);
    Ok(Value::Map(all))
}
