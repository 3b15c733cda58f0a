//! `hull info`.

use std::fmt::Write as _;

use clap::Args;
use hull_api_types::system::Info;

use crate::context::Context;
use crate::error::CliError;
use crate::format::{human, inspect};
use crate::output;
use crate::spec::{Arity, command};
use crate::template::{MissingKey, Mode, Template, Value};

/// Arguments of `hull info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Format output using a custom template: 'json' prints JSON, 'TEMPLATE' prints output using the given Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

command!(
    InfoArgs,
    run,
    names = ["info", "system info"],
    usage = "[OPTIONS]",
    about = "Display system-wide information",
    arity = Arity::None,
);

async fn run(context: &Context, args: InfoArgs) -> Result<u8, CliError> {
    match args.format.as_deref().filter(|format| !format.is_empty()) {
        Some(format) => {
            let raw = context.client().await?.info_raw().await?;
            let mut value = inspect::value(&raw)?;
            if let Value::Map(map) = &mut value {
                map.type_name = Some("system.dockerInfo");
            }
            let source = if format == "json" {
                "{{json .}}"
            } else {
                format
            };
            let text = Template::parse(source, MissingKey::Error)
                .and_then(|template| template.run(&value, Mode::Row))
                .map_err(|error| CliError::new(error.to_string()))?;
            output::line(&text)?;
        }
        None => {
            output::print(&format!(
                "Client:\n Version:    {}\n Context:    default\n Debug Mode: {}\n\nServer:\n",
                context.version, context.debug
            ))?;
            let info = context.client().await?.info().await?;
            output::print(&text(&info))?;
            for warning in &info.warnings {
                output::error_line(warning);
            }
        }
    }
    Ok(0)
}

/// The server's part.
fn text(info: &Info) -> String {
    let mut out = String::new();
    let mut row = |indent: usize, name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{:indent$}{name}: {value}", "");
    };
    row(1, "Containers", &info.containers);
    row(2, "Running", &info.containers_running);
    row(2, "Paused", &info.containers_paused);
    row(2, "Stopped", &info.containers_stopped);
    row(1, "Images", &info.images);
    row(1, "Server Version", &info.server_version);
    row(1, "Storage Driver", &info.driver);
    for [name, value] in &info.driver_status {
        row(2, name, value);
    }
    row(1, "Logging Driver", &info.logging_driver);
    row(1, "Cgroup Driver", &info.cgroup_driver);
    if !info.cgroup_version.is_empty() {
        row(1, "Cgroup Version", &info.cgroup_version);
    }
    let _ = writeln!(out, " Plugins:");
    let mut row = |indent: usize, name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{:indent$}{name}: {value}", "");
    };
    row(2, "Volume", &info.plugins.volume.join(" "));
    row(2, "Network", &info.plugins.network.join(" "));
    row(2, "Log", &info.plugins.log.join(" "));
    row(1, "Swarm", &info.swarm.local_node_state);
    row(
        1,
        "Runtimes",
        &info.runtimes.keys().cloned().collect::<Vec<_>>().join(" "),
    );
    row(1, "Default Runtime", &info.default_runtime);
    if !info.isolation.is_empty() {
        row(1, "Default Isolation", &info.isolation);
    }
    row(1, "Init Binary", &info.init_binary);
    if !info.security_options.is_empty() {
        let _ = writeln!(out, " Security Options:");
        for option in &info.security_options {
            let mut parts = option.split(',');
            let name = parts
                .next()
                .map_or("", |name| name.strip_prefix("name=").unwrap_or(name));
            let _ = writeln!(out, "  {name}");
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                let key = if key == "profile" { "Profile" } else { key };
                let _ = writeln!(out, "   {key}: {value}");
            }
        }
    }
    let mut row = |indent: usize, name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{:indent$}{name}: {value}", "");
    };
    row(1, "Kernel Version", &info.kernel_version);
    row(1, "Operating System", &info.operating_system);
    row(1, "OSType", &info.os_type);
    row(1, "Architecture", &info.architecture);
    row(1, "CPUs", &info.ncpu);
    row(
        1,
        "Total Memory",
        &human::binary_size(info.mem_total as f64),
    );
    row(1, "Name", &info.name);
    row(1, "ID", &info.id);
    row(1, "Docker Root Dir", &info.docker_root_dir);
    row(1, "Debug Mode", &info.debug);
    if !info.labels.is_empty() {
        let _ = writeln!(out, " Labels:");
        for label in &info.labels {
            let _ = writeln!(out, "  {label}");
        }
    }
    let mut row = |indent: usize, name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{:indent$}{name}: {value}", "");
    };
    row(1, "Experimental", &info.experimental_build);
    row(1, "Live Restore Enabled", &info.live_restore_enabled);
    out.push('\n');
    out
}
