//! All commands: the one list that names them.

use crate::commands::{
    container, daemon, image, inspect, kernel, manifest, network, system, volume,
};
use crate::spec::Spec;

/// Groups of commands and what they are about.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("container", "Manage containers"),
    ("daemon", "Run or stop the daemon"),
    ("image", "Manage images"),
    ("kernel", "Manage the kernels of virtual machines"),
    (
        "manifest",
        "Manage manifest lists: images for several platforms",
    ),
    ("network", "Manage networks"),
    ("system", "Manage Hull"),
    ("volume", "Manage volumes"),
];

/// Every command.
pub(crate) static SPECS: &[&Spec] = &[
    &container::attach::SPEC,
    &container::commit::SPEC,
    &container::cp::SPEC,
    &container::create::SPEC,
    &container::diff::SPEC,
    &container::exec::SPEC,
    &container::export::SPEC,
    &container::inspect::SPEC,
    &container::kill::SPEC,
    &container::list::SPEC,
    &container::logs::SPEC,
    &container::pause::SPEC,
    &container::port::SPEC,
    &container::prune::SPEC,
    &container::remove::SPEC,
    &container::rename::SPEC,
    &container::restart::SPEC,
    &container::run::SPEC,
    &container::start::SPEC,
    &container::stats::SPEC,
    &container::stop::SPEC,
    &container::top::SPEC,
    &container::unpause::SPEC,
    &container::update::SPEC,
    &container::wait::SPEC,
    &daemon::SPEC,
    &image::copy::SPEC,
    &image::history::SPEC,
    &image::import::SPEC,
    &image::inspect::SPEC,
    &image::list::SPEC,
    &image::load::SPEC,
    &image::prune::SPEC,
    &image::pull::SPEC,
    &image::push::SPEC,
    &image::remove::SPEC,
    &image::save::SPEC,
    &image::search::SPEC,
    &image::tag::SPEC,
    &inspect::SPEC,
    &kernel::choose::SPEC,
    &kernel::install::SPEC,
    &kernel::list::SPEC,
    &kernel::remove::SPEC,
    &manifest::annotate::SPEC,
    &manifest::create::SPEC,
    &manifest::inspect::SPEC,
    &manifest::push::SPEC,
    &manifest::remove::SPEC,
    &network::check::SPEC,
    &network::connect::SPEC,
    &network::create::SPEC,
    &network::disconnect::SPEC,
    &network::inspect::SPEC,
    &network::list::SPEC,
    &network::prune::SPEC,
    &network::remove::SPEC,
    &system::df::SPEC,
    &system::dial_stdio::SPEC,
    &system::events::SPEC,
    &system::gc::SPEC,
    &system::info::SPEC,
    &system::login::SPEC,
    &system::logout::SPEC,
    &system::prune::SPEC,
    &system::version::SPEC,
    &volume::create::SPEC,
    &volume::inspect::SPEC,
    &volume::list::SPEC,
    &volume::prune::SPEC,
    &volume::remove::SPEC,
];

/// The command called `name`.
pub(crate) fn find(name: &str) -> Option<&'static Spec> {
    SPECS
        .iter()
        .copied()
        .find(|spec| spec.names.contains(&name))
}
