//! The Docker Engine API over unix sockets: translates between JSON and the engine's use-cases.
//!
//! ```text
//! server ─▶ version (takes /v1.NN off) ─▶ router ─▶ handlers ─▶ hull_engine
//!                                                     │ translate (wire types ↔ model)
//!                                                     └ body, hijack (JSON, streams, upgrades)
//! ```

mod body;
mod detach;
mod error;
mod handlers;
mod hijack;
mod params;
mod router;
mod server;
#[cfg(test)]
mod tests;
mod translate;
mod version;

use std::future::Future;
use std::sync::Arc;

use hull_engine::Engine;
use tokio::net::UnixListener;

/// Serves the API of an engine on every listener until `shutdown` ends; requests that run then
/// get a moment to end, streams are cut off.
pub async fn serve(
    listeners: Vec<UnixListener>,
    engine: Arc<Engine>,
    shutdown: impl Future<Output = ()>,
) {
    server::serve(listeners, router::router(engine), shutdown).await;
}
