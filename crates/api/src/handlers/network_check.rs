//! Whether networks are as they should be, and what stands behind them.

use axum::extract::State;
use axum::http::Uri;
use hull_api_types::network_check::{NetworkCheck, NetworkDetail, NetworkFault};
use hull_engine::Engine;
use hull_engine::networks::NetworkDescription;

use super::Eng;
use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::params::Params;

/// `POST /hull/networks/check?network=NAME&repair=1`: without a name all.
pub(crate) async fn check(State(engine): Eng, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let key = Some(params.get("network")).filter(|name| !name.is_empty());
    let repair = params.flag("repair");
    let report = engine.check_networks(key, repair).await?;
    let faults = report.faults.into_iter().map(|fault| NetworkFault {
        network: fault.network,
        part: fault.part.into(),
        text: fault.text,
        repaired: fault.repaired,
        error: fault.error,
    });
    body::reply(&NetworkCheck {
        faults: faults.collect(),
        networks: report.networks,
        repair,
    })
}

/// What stands behind a network with a bridge of ours.
pub(super) fn detail(
    engine: &Engine,
    network: &NetworkDescription,
) -> Result<Option<NetworkDetail>, ApiError> {
    let Some(bridge) = &network.bridge else {
        return Ok(None);
    };
    let inside = engine.network_inside(network);
    Ok(Some(NetworkDetail {
        bridge: bridge.bridge.clone(),
        table: bridge.table.clone(),
        rules: engine.network_rules(&network.id)?,
        name_server: inside.name_server,
        names: inside
            .names
            .into_iter()
            .map(|(name, all)| (name, all.iter().map(ToString::to_string).collect()))
            .collect(),
        links: inside.links,
        warnings: bridge.warnings.clone(),
    }))
}
