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

/// Rows of `name: value`, indented by blanks.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn row(&mut self, indent: usize, name: &str, value: &dyn std::fmt::Display) {
        let _ = writeln!(self.0, "{:indent$}{name}: {value}", "");
    }

    fn title(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }
}

/// The server's part.
fn text(info: &Info) -> String {
    let mut out = Rows::default();
    out.row(1, "Containers", &info.containers);
    out.row(2, "Running", &info.containers_running);
    out.row(2, "Paused", &info.containers_paused);
    out.row(2, "Stopped", &info.containers_stopped);
    out.row(1, "Images", &info.images);
    out.row(1, "Server Version", &info.server_version);
    out.row(1, "Storage Driver", &info.driver);
    for [name, value] in &info.driver_status {
        out.row(2, name, value);
    }
    out.row(1, "Logging Driver", &info.logging_driver);
    out.row(1, "Cgroup Driver", &info.cgroup_driver);
    if !info.cgroup_version.is_empty() {
        out.row(1, "Cgroup Version", &info.cgroup_version);
    }
    out.title(" Plugins:");
    out.row(2, "Volume", &info.plugins.volume.join(" "));
    out.row(2, "Network", &info.plugins.network.join(" "));
    out.row(2, "Log", &info.plugins.log.join(" "));
    out.row(1, "Swarm", &info.swarm.local_node_state);
    out.row(
        1,
        "Runtimes",
        &info.runtimes.keys().cloned().collect::<Vec<_>>().join(" "),
    );
    out.row(1, "Default Runtime", &info.default_runtime);
    if !info.isolation.is_empty() {
        out.row(1, "Default Isolation", &info.isolation);
    }
    if !info.hypervisor.is_empty() {
        out.row(1, "Hypervisor", &info.hypervisor);
    }
    if !info.hypervisor_reason.is_empty() {
        out.row(2, "Without KVM", &info.hypervisor_reason);
    }
    out.row(1, "Init Binary", &info.init_binary);
    if !info.security_options.is_empty() {
        out.title(" Security Options:");
        for option in &info.security_options {
            let mut parts = option.split(',');
            let name = parts
                .next()
                .map_or("", |name| name.strip_prefix("name=").unwrap_or(name));
            out.title(&format!("  {name}"));
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                let key = if key == "profile" { "Profile" } else { key };
                out.title(&format!("   {key}: {value}"));
            }
        }
    }
    out.row(1, "Kernel Version", &info.kernel_version);
    out.row(1, "Operating System", &info.operating_system);
    out.row(1, "OSType", &info.os_type);
    out.row(1, "Architecture", &info.architecture);
    out.row(1, "CPUs", &info.ncpu);
    out.row(
        1,
        "Total Memory",
        &human::binary_size(info.mem_total as f64),
    );
    out.row(1, "Name", &info.name);
    out.row(1, "ID", &info.id);
    out.row(1, "Docker Root Dir", &info.docker_root_dir);
    out.row(1, "Debug Mode", &info.debug);
    if !info.labels.is_empty() {
        out.title(" Labels:");
        for label in &info.labels {
            out.title(&format!("  {label}"));
        }
    }
    out.row(1, "Experimental", &info.experimental_build);
    out.row(1, "Live Restore Enabled", &info.live_restore_enabled);
    out.title("");
    out.0
}
