//! The routes.
use std::sync::Arc;

use axum::Router;
use axum::routing::{any, delete, get, head, post};
use hull_engine::Engine;

use crate::error::ApiError;
use crate::handlers::{
    archive, commit, containers, copy, disk, distribution, exec, gc, image_list, images, kernels,
    lists, network_check, networks, search, streams, system, volumes,
};

/// All routes over an engine. Versions are taken off the path before.
pub(crate) fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .merge(system_routes())
        .merge(container_routes())
        .merge(image_routes())
        .merge(other_routes())
        .merge(kernels::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(engine)
}

/// Docker answers a known path with an unknown method the same way.
async fn not_found() -> ApiError {
    ApiError::page_not_found()
}

fn system_routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/_ping", get(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(system::events))
        .route("/system/df", get(disk::usage))
        .route("/hull/gc", post(gc::gc))
        .route("/auth", post(system::auth))
        .route("/build", post(system::build))
        .route("/build/prune", post(system::build_prune))
        .route("/session", any(system::build))
}

fn container_routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/containers/json", get(lists::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{name}", delete(containers::remove))
        .route("/containers/{name}/json", get(lists::inspect))
        .route("/containers/{name}/start", post(containers::start))
        .route("/containers/{name}/stop", post(containers::stop))
        .route("/containers/{name}/restart", post(containers::restart))
        .route("/containers/{name}/kill", post(containers::kill))
        .route("/containers/{name}/pause", post(containers::pause))
        .route("/containers/{name}/unpause", post(containers::unpause))
        .route("/containers/{name}/rename", post(containers::rename))
        .route("/containers/{name}/resize", post(containers::resize))
        .route("/containers/{name}/update", post(containers::update))
        .route("/containers/{name}/top", get(containers::top))
        .route("/containers/{name}/wait", post(streams::wait))
        .route("/containers/{name}/attach", post(streams::attach))
        .route("/containers/{name}/logs", get(streams::logs))
        .route("/containers/{name}/stats", get(streams::stats))
        .route("/containers/{name}/export", get(images::export))
        .route("/containers/{name}/changes", get(lists::changes))
        .route(
            "/containers/{name}/archive",
            head(archive::stat).get(archive::get).put(archive::put),
        )
        .route("/containers/{name}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/commit", post(commit::commit))
}

fn image_routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/images/json", get(image_list::list))
        .route("/images/create", post(images::create))
        .route("/images/load", post(images::load))
        .route("/images/get", get(images::save))
        .route("/images/prune", post(images::prune))
        .route("/images/search", get(search::search))
        .route("/distribution/{*rest}", get(distribution::inspect))
        .route("/hull/manifests/{*name}", get(distribution::manifest))
        .route("/hull/manifests", post(distribution::push_list))
        .route("/hull/layers/missing", post(copy::missing))
        // Names have slashes, so what follows them is taken off by hand.
        .route(
            "/images/{*rest}",
            get(images::named_get)
                .post(images::named_post)
                .delete(images::remove),
        )
}

fn other_routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route(
            "/volumes/{name}",
            get(volumes::inspect).delete(volumes::remove),
        )
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/hull/networks/check", post(network_check::check))
        .route(
            "/networks/{name}",
            get(networks::inspect).delete(networks::remove),
        )
        .route("/networks/{name}/connect", post(networks::connect))
        .route("/networks/{name}/disconnect", post(networks::disconnect))
}
