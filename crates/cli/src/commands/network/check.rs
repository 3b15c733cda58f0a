//! `hull network check`: compares networks with what the kernel has, and repairs them.

use clap::Args;
use hull_api_types::network_check::NetworkCheck;

use crate::context::Context;
use crate::error::CliError;
use crate::format::list::{self, Listing};
use crate::output;
use crate::spec::{Arity, command};
use crate::template::Value;

/// For `--format`: each fault is one row.
const LISTING: Listing<'static> = Listing {
    table: "{{.Network}}\t{{.Part}}\t{{.Text}}\t{{.Repaired}}",
    quiet: "{{.Text}}",
    headers: &[
        ("Network", "NETWORK"),
        ("Part", "PART"),
        ("Text", "FAULT"),
        ("Repaired", "REPAIRED"),
        ("Error", "ERROR"),
    ],
};

/// Arguments of `hull network check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json', or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Repair what is not as it should be
    #[arg(long)]
    repair: bool,
    /// Network; without, all
    args: Vec<String>,
}

command!(
    CheckArgs,
    run,
    names = ["network check"],
    usage = "[OPTIONS] [NETWORK]",
    about = "Compare networks with what the kernel has: links, addresses, rules, names",
    arity = Arity::AtMost(1),
);

async fn run(context: &Context, args: CheckArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    let network = args.args.first().map(String::as_str);
    let report = client.network_check(network, args.repair).await?;
    match args.format.as_deref() {
        Some(format) => {
            let rows = report.faults.iter().map(|fault| {
                serde_json::to_string(fault)
                    .and_then(|text| serde_json::from_str::<Value>(&text))
                    .map_err(|error| CliError::new(format!("cannot read the reply: {error}")))
            });
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            list::print(&LISTING, &rows, Some(format), false)?;
        }
        None => output::print(&text(&report))?,
    }
    Ok(u8::from(report.faults.iter().any(|fault| !fault.repaired)))
}

fn text(report: &NetworkCheck) -> String {
    let mut out = String::new();
    for fault in &report.faults {
        let network = match fault.network.as_str() {
            "" => "all networks",
            name => name,
        };
        out.push_str(&format!("{network}: {}: {}", fault.part, fault.text));
        match (fault.repaired, report.repair, fault.error.as_str()) {
            (true, ..) => out.push_str(" (repaired)"),
            (false, true, "") => out.push_str(" (not repaired)"),
            (false, true, error) => out.push_str(&format!(" (not repaired: {error})")),
            (false, false, _) => {}
        }
        out.push('\n');
    }
    let looked_at = match report.networks.len() {
        1 => "1 network".to_owned(),
        n => format!("{n} networks"),
    };
    let left = report.faults.iter().filter(|f| !f.repaired).count();
    out.push_str(&match (report.faults.len(), left) {
        (0, _) => format!("{looked_at} checked: all is as it should be\n"),
        (found, 0) => format!("{looked_at} checked: {found} repaired\n"),
        (_, left) if report.repair => {
            format!("{looked_at} checked: {left} could not be repaired\n")
        }
        (found, _) => {
            format!("{looked_at} checked: {found} wrong; hull network check --repair repairs it\n")
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use hull_api_types::network_check::NetworkFault;

    use super::*;

    #[test]
    fn text_tells_each_fault_and_what_became_of_it() {
        let fault = |network: &str, repaired| NetworkFault {
            network: network.into(),
            part: "firewall".into(),
            text: "table hull is missing".into(),
            repaired,
            error: String::new(),
        };
        let mut report = NetworkCheck {
            networks: vec!["bridge".into()],
            ..NetworkCheck::default()
        };
        assert_eq!(text(&report), "1 network checked: all is as it should be\n");
        report.faults = vec![fault("", false)];
        assert!(text(&report).starts_with("all networks: firewall: table hull is missing\n"));
        report.repair = true;
        report.faults = vec![fault("", true), fault("web", false)];
        assert_eq!(
            text(&report),
            "all networks: firewall: table hull is missing (repaired)\n\
             web: firewall: table hull is missing (not repaired)\n\
             1 network checked: 1 could not be repaired\n"
        );
    }
}
