//! Guest kernels, which are Hull's own.
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::routing::{get, post};
use hull_api_types::kernel::Kernel as Reply;
use hull_engine::Engine;
use hull_engine::kernels::{Install, Kernel, Kernels};

use super::Eng;
use super::gc::nanos;
use super::images::feed;
use crate::body;
use crate::error::ApiResult;
use crate::params::Params;
use crate::translate::time;

pub(crate) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/hull/kernels", get(list).post(install))
        .route("/hull/kernels/{name}", get(inspect).delete(remove))
        .route("/hull/kernels/{name}/use", post(choose))
}

fn shown(kernel: Kernel) -> Reply {
    let digest = |hex: String| match hex.is_empty() {
        true => hex,
        false => format!("sha256:{hex}"),
    };
    Reply {
        name: kernel.name,
        version: kernel.manifest.version,
        architecture: kernel.manifest.architecture,
        source: kernel.manifest.source,
        digest: digest(kernel.manifest.sha256),
        config_digest: digest(kernel.manifest.config_sha256),
        size: kernel.manifest.size,
        created_at: time::rfc3339(nanos(kernel.installed)),
        default: kernel.default,
        path: kernel.path.display().to_string(),
    }
}

/// `GET /hull/kernels`.
async fn list(State(engine): Eng) -> ApiResult {
    let kernels = engine.with_kernels(|kernels| Ok(kernels.list()?)).await?;
    body::reply(&kernels.into_iter().map(shown).collect::<Vec<_>>())
}

/// `POST /hull/kernels?name=…&digest=…&force=1` with a vmlinux, plain or compressed with zstd, or
/// an archive with one.
async fn install(State(engine): Eng, uri: Uri, request_body: Body) -> ApiResult {
    let params = Params::of(&uri);
    let text = |name: &str| Some(params.get(name).to_owned()).filter(|text| !text.is_empty());
    let options = Install {
        name: text("name"),
        sha256: text("digest"),
        force: params.flag("force"),
    };
    let kernel = engine.install_kernel(feed(request_body), options).await?;
    body::reply(&shown(kernel))
}

/// `GET /hull/kernels/{name}`.
async fn inspect(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    let find = move |kernels: &Kernels| Ok(kernels.get(&name)?);
    body::reply(&shown(engine.with_kernels(find).await?))
}

/// `POST /hull/kernels/{name}/use`.
async fn choose(State(engine): Eng, Path(name): Path<String>) -> ApiResult {
    let choose = move |kernels: &Kernels| Ok(kernels.use_by_default(&name)?);
    body::reply(&shown(engine.with_kernels(choose).await?))
}

/// `DELETE /hull/kernels/{name}?force=1`.
async fn remove(State(engine): Eng, uri: Uri, Path(name): Path<String>) -> ApiResult {
    let force = Params::of(&uri).flag("force");
    let remove = move |kernels: &Kernels| Ok(kernels.remove(&name, force)?);
    engine.with_kernels(remove).await?;
    body::no_content()
}
