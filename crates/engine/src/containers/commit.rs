//! `commit`: an image of a container as it is.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use hull_image::change;
use hull_image::commit::CommitOptions;
use hull_image::store::Upper;
use hull_model::image::{Empty, HealthConfig, RunConfig};
use hull_model::spec::MountSource;
use hull_model::{Digest, Error, ErrorKind, Reference, Result};
use hull_snapshot::Snapshotter;
use hull_state::{ContainerRecord, ContainerState};
use rustix::fs::{Mode, OFlags, open};

use super::attributes;
use super::entry::Container;
use crate::Engine;
use crate::images::{Image, StoredImage, blocking, name_fact};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// Name of the image, without a tag or with one; empty leaves it without a name.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// Who commits.
    pub author: String,
    /// Free text for the history.
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// What the image shall say instead of what the container says; what is empty in it is the
    /// container's.
    pub config: Option<RunConfig>,
    /// An empty entry point in it is meant.
    pub no_entrypoint: bool,
}

impl Engine {
    /// Makes an image of a container's file system and configuration.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a container on its way out; `InvalidArgument` for a malformed
    /// name or change, or a container whose root is the host's.
    pub async fn commit(self: &Arc<Self>, key: &str, request: CommitRequest) -> Result<Digest> {
        let container = self.containers.find(key)?;
        let engine = Arc::clone(self);
        // Of its own: a client that goes away must not leave the container frozen.
        let work = tokio::spawn(async move { engine.commit_container(container, request).await });
        work.await
            .map_err(|e| Error::internal("the commit broke off", e))?
    }

    async fn commit_container(
        self: &Arc<Self>,
        container: Arc<Container>,
        request: CommitRequest,
    ) -> Result<Digest> {
        let record = container.record();
        super::machine::refuse(&record, "commit")?;
        let state = match record.state {
            ContainerState::Dead => Some("Dead"),
            ContainerState::Removing => Some("being removed"),
            _ => None,
        };
        if let Some(state) = state {
            return Err(Error::conflict(format!(
                "You cannot commit container {} which is {state}",
                record.id
            )));
        }
        let name = reference(&request)?;
        let image = match record.image_id {
            Some(id) => self.images.by_id(id)?,
            None => return Err(Error::not_found("the container has no image")),
        };
        if image.host {
            return Err(Error::invalid(
                "this container's changes live in memory, above the host's own root: they cannot be committed",
            ));
        }
        let config = configured(&record, &image, &request)?;
        let options = CommitOptions {
            config,
            created_by: record.spec.cmd.join(" "),
            author: request.author,
            message: request.message.clone(),
            name: name.clone(),
        };
        let resting = !record.state.is_running();
        // One that does not run is not started meanwhile.
        let op = match resting {
            true => Some(Arc::clone(&container.op).lock_owned().await),
            false => None,
        };
        let freeze = request.pause && !resting;
        let frozen = freeze && self.freeze_for_commit(&record).await?;
        let engine = Arc::clone(self);
        let id = record.id.clone();
        let made = blocking(move || {
            let made = engine.commit_upper(&id, &image, options);
            drop(op);
            made
        })
        .await;
        if frozen && let Err(error) = self.unpause(&record.id).await {
            tracing::warn!(error = %error.chain(), container = %record.id, "cannot let it go on after a commit");
        }
        let made = made?;
        let mut facts = attributes(&container.record());
        facts.insert("comment".into(), request.message);
        facts.insert("imageID".into(), made.id().to_string());
        let called = name.as_ref().map(Reference::familiar).unwrap_or_default();
        facts.insert("imageRef".into(), called.clone());
        self.events
            .emit("container", "commit", &container.id, facts);
        if name.is_some() {
            self.events
                .emit("image", "tag", &made.id().to_string(), name_fact(&called));
        }
        Ok(made.id())
    }

    /// Freezes it; false if it is frozen already, or has just ended.
    async fn freeze_for_commit(self: &Arc<Self>, record: &ContainerRecord) -> Result<bool> {
        if let ContainerState::Paused { .. } = record.state {
            return Ok(false);
        }
        match self.pause(&record.id).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn commit_upper(&self, id: &str, image: &Image, options: CommitOptions) -> Result<StoredImage> {
        let look = "cannot look into the container";
        let upper = self.snapshots.upper_of(id).map_err(crate::internal(look))?;
        let dir = match upper {
            Some(path) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = open(path, flags, Mode::empty());
                Some(dir.map_err(crate::internal(look))?)
            }
            // Before its first start a container has written nothing.
            None => None,
        };
        let lowers = self.images.lowers(image)?;
        let merged = || {
            let view = self.snapshots.view(Some(id), &lowers);
            view.map_err(io::Error::other)
        };
        let upper = dir.as_ref().map(|dir| Upper {
            dir: dir.as_fd(),
            merged: &merged,
        });
        self.images
            .store
            .commit(image.stored(), upper, options)
            .map_err(Error::from)
    }
}

fn reference(request: &CommitRequest) -> Result<Option<Reference>> {
    if request.repository.is_empty() {
        return Ok(None);
    }
    let text = match &request.tag[..] {
        "" => request.repository.clone(),
        tag => format!("{}:{tag}", request.repository),
    };
    let reference: Reference = text.parse()?;
    if reference.digest.is_some() {
        return Err(Error::invalid(
            "refusing to create a tag with a digest reference",
        ));
    }
    Ok(Some(reference))
}

/// The configuration of the new image: what is asked for or else the container's, changed by the
/// instructions; and the container's where that says nothing.
fn configured(
    record: &ContainerRecord,
    image: &Image,
    request: &CommitRequest,
) -> Result<RunConfig> {
    let container = of_container(record, image);
    let mut config = request.config.clone().unwrap_or_else(|| container.clone());
    let mut entrypoint_meant = request.no_entrypoint;
    let mut cmd_changed = false;
    for change in request.changes.iter().flat_map(|text| text.lines()) {
        if change.trim().is_empty() {
            continue;
        }
        change::apply(&mut config, change).map_err(Error::from)?;
        let instruction = change.split_whitespace().next().unwrap_or_default();
        if instruction.eq_ignore_ascii_case("CMD") {
            cmd_changed = true;
        } else if instruction.eq_ignore_ascii_case("ENTRYPOINT") {
            entrypoint_meant = true;
            // Arguments of the former entry point would mean nothing to the new one.
            if !cmd_changed {
                config.cmd.clear();
            }
        }
    }
    Ok(merged(config, container, entrypoint_meant))
}

/// What a container is configured with, in an image's terms.
fn of_container(record: &ContainerRecord, image: &Image) -> RunConfig {
    let spec = &record.spec;
    let base = &image.config().config;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let ports = spec
        .exposed()
        .map(|p| format!("{}/{}", p.number, p.protocol.as_str()));
    let anonymous = spec.mounts.iter().filter(|mount| {
        matches!(
            mount.source,
            MountSource::Volume {
                anonymous: true,
                ..
            }
        )
    });
    let mut volumes = base.volumes.clone();
    volumes.extend(anonymous.map(|mount| (mount.target.clone(), Empty {})));
    RunConfig {
        user: spec.user.clone(),
        exposed_ports: ports.map(|port| (port, Empty {})).collect(),
        env: spec.env.clone(),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.cmd.clone(),
        volumes,
        working_dir: spec.working_dir.clone(),
        labels: spec.labels.clone(),
        stop_signal: some(&spec.stop_signal),
        healthcheck: spec.healthcheck.clone(),
        on_build: Vec::new(),
        shell: base.shell.clone(),
    }
}

/// Fills what is empty in `config`.
fn merged(mut config: RunConfig, container: RunConfig, entrypoint_meant: bool) -> RunConfig {
    let or = |own: String, other: String| if own.is_empty() { other } else { own };
    let union = |mut own: BTreeMap<String, Empty>, other: BTreeMap<String, Empty>| {
        own.extend(other);
        own
    };
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in container.env {
        if !config.env.iter().any(|own| name(own) == name(&entry)) {
            config.env.push(entry);
        }
    }
    for (label, value) in container.labels {
        config.labels.entry(label).or_insert(value);
    }
    if config.entrypoint.is_empty() {
        if config.cmd.is_empty() {
            config.cmd = container.cmd;
        }
        if !entrypoint_meant {
            config.entrypoint = container.entrypoint;
        }
    }
    RunConfig {
        user: or(config.user, container.user),
        exposed_ports: union(config.exposed_ports, container.exposed_ports),
        volumes: union(config.volumes, container.volumes),
        working_dir: or(config.working_dir, container.working_dir),
        stop_signal: config.stop_signal.or(container.stop_signal),
        healthcheck: health(config.healthcheck, container.healthcheck),
        shell: if config.shell.is_empty() {
            container.shell
        } else {
            config.shell
        },
        ..config
    }
}

fn health(own: Option<HealthConfig>, other: Option<HealthConfig>) -> Option<HealthConfig> {
    let (mut own, other) = match (own, other) {
        (Some(own), Some(other)) => (own, other),
        (own, other) => return own.or(other),
    };
    if own.test.is_empty() {
        own.test = other.test;
    }
    for (mine, theirs) in [
        (&mut own.interval, other.interval),
        (&mut own.timeout, other.timeout),
        (&mut own.start_period, other.start_period),
        (&mut own.start_interval, other.start_interval),
        (&mut own.retries, other.retries),
    ] {
        if *mine == 0 {
            *mine = theirs;
        }
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn merged_keeps_what_is_asked_for_and_fills_the_rest() {
        let config = RunConfig {
            env: list(&["A=2"]),
            user: "x".into(),
            ..RunConfig::default()
        };
        let container = RunConfig {
            env: list(&["A=1", "B=1"]),
            user: "y".into(),
            cmd: list(&["sh"]),
            entrypoint: list(&["/init"]),
            ..RunConfig::default()
        };
        let config = merged(config, container, false);
        assert_eq!(config.env, ["A=2", "B=1"]);
        assert_eq!(
            (&config.user[..], &config.cmd[..]),
            ("x", &list(&["sh"])[..])
        );
        assert_eq!(config.entrypoint, ["/init"]);
    }

    #[test]
    fn merged_new_entrypoint_takes_no_old_arguments() {
        let container = || RunConfig {
            cmd: list(&["sh"]),
            entrypoint: list(&["/init"]),
            ..RunConfig::default()
        };
        let asked = RunConfig {
            entrypoint: list(&["/new"]),
            ..RunConfig::default()
        };
        let config = merged(asked, container(), true);
        assert!(config.cmd.is_empty());
        assert_eq!(config.entrypoint, ["/new"]);
        // An entry point taken away leaves the command.
        let config = merged(RunConfig::default(), container(), true);
        assert_eq!((config.cmd.len(), config.entrypoint.len()), (1, 0));
    }
}
