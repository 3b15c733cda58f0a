//! config.json becomes a launch plan. Whatever the plan cannot express is refused by the name of
//! its field: a container that runs with less than was asked for is worse than none.

mod block_io;
mod capabilities;
mod cgroups_path;
mod device_rules;
mod devices;
mod limit_error;
mod linux;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod schedule;
mod seccomp;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hull_proto::LaunchPlan;
use hull_proto::plan::RootFs;
use oci_spec::runtime::{Process, Spec};

use crate::hooks::{self, Hooks};
use crate::log::Said;

pub(crate) use cgroups_path::{place as place_cgroup, remove_parents};
pub(crate) use limit_error::{name_field, name_limit};
pub(crate) use mounts::option_words;
pub(crate) use process::translate as translate_process;
pub(crate) use resources::translate as translate_resources;

/// Name of the file in a bundle.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// Largest config.json read.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// A bundle ready to be launched.
pub(crate) struct Translated {
    /// The plan.
    pub(crate) plan: LaunchPlan,
    /// Descriptors the plan refers to by index.
    pub(crate) fds: Vec<OwnedFd>,
    /// The specification it came from.
    pub(crate) spec: Spec,
    /// Programs run at points of its life.
    pub(crate) hooks: Hooks,
    /// What the user should know.
    pub(crate) said: Said,
    /// Descriptors of the caller that the program gets, from 3 on.
    pub(crate) preserve_fds: u32,
}

/// A field that is set although nothing here can honour it.
pub(crate) fn unsupported(field: &str, present: bool) -> Result<()> {
    if present {
        bail!("{CONFIG_FILE}: {field} is not supported: remove it");
    }
    Ok(())
}

/// Reads a JSON file with errors that name the field.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    parse_json(&read_bounded(path)?, path)
}

/// Reads JSON that came from `path`, with errors that name the field.
pub(crate) fn parse_json<T: serde::de::DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        anyhow::anyhow!(
            "{}: {}: {}",
            path.display(),
            error.path().clone(),
            error.inner()
        )
    })
}

/// Reads a config.json that came from `path`.
pub(crate) fn parse_config(bytes: &[u8], path: &Path, said: &mut Said) -> Result<Spec> {
    const SETS: &str = "/process/capabilities";
    capabilities::parse_known(bytes, path, SETS, &mut said.warnings)
}

/// Reads a process.json that came from `path`.
pub(crate) fn parse_process(bytes: &[u8], path: &Path, said: &mut Said) -> Result<Process> {
    capabilities::parse_known(bytes, path, "/capabilities", &mut said.warnings)
}

/// Reads the file of `exec --process`.
pub(crate) fn read_process(path: &Path, said: &mut Said) -> Result<Process> {
    parse_process(&read_bounded(path)?, path, said)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        bail!("{} is larger than {MAX_CONFIG_BYTES} bytes", path.display());
    }
    Ok(bytes)
}

/// Reads the bundle's config.json and translates it for the container `id`.
pub(crate) fn translate(bundle: &Path, id: &str, seccomp_cache: &Path) -> Result<Translated> {
    let config = bundle.join(CONFIG_FILE);
    let mut said = Said::default();
    let bytes = read_bounded(&config)?;
    let spec = parse_config(&bytes, &config, &mut said)?;
    drop(bytes);
    // What reads JSON is the largest part of the program, and done.
    hull_sys::memory::unmap_code();
    translate_spec(spec, bundle, id, seccomp_cache, said)
}

/// Translates what a config.json in `bundle` says.
pub(crate) fn translate_spec(
    spec: Spec,
    bundle: &Path,
    id: &str,
    seccomp_cache: &Path,
    mut said: Said,
) -> Result<Translated> {
    check_version(spec.version())?;
    unsupported("vm", spec.vm().is_some())?;
    unsupported("solaris", spec.solaris().is_some())?;
    unsupported("windows", spec.windows().is_some())?;
    unsupported("zos", spec.zos().is_some())?;

    let mut plan = LaunchPlan {
        id: id.to_owned(),
        seccomp_cache: seccomp_cache.to_owned(),
        ..LaunchPlan::default()
    };
    let mut fds = Vec::new();
    let root = spec
        .root()
        .as_ref()
        .context("config.json: root is missing")?;
    let path = fs::canonicalize(bundle.join(root.path())).with_context(|| {
        format!(
            "config.json: root.path: cannot use {}",
            root.path().display()
        )
    })?;
    if !path.is_dir() {
        bail!("config.json: root.path: {} is not a folder", path.display());
    }
    plan.rootfs = RootFs::Directory { path };
    plan.readonly_rootfs = root.readonly().unwrap_or(false);
    plan.hostname = spec.hostname().clone().unwrap_or_default();
    plan.domainname = spec.domainname().clone().unwrap_or_default();

    let process = spec
        .process()
        .as_ref()
        .context("config.json: process is missing")?;
    plan.process = process::translate(process, "process", &mut said)?;
    let linux = spec
        .linux()
        .as_ref()
        .context("config.json: linux is missing")?;
    let label = linux.mount_label().as_deref().unwrap_or_default();
    let given = spec.mounts().as_deref().unwrap_or_default();
    plan.mounts = mounts::translate_all(given, bundle, label, &mut said.warnings)?;
    linux::translate(linux, &mut plan, &mut fds, &mut said.warnings)?;
    let root = linux.rootfs_propagation().as_deref().unwrap_or_default();
    mounts::confine_shared(&mut plan.mounts, root);
    seccomp::translate(linux, &mut plan.process)?;
    if plan.namespaces.uts == hull_proto::plan::Namespace::Host {
        let field = if plan.hostname.is_empty() {
            "domainname"
        } else {
            "hostname"
        };
        if !plan.hostname.is_empty() || !plan.domainname.is_empty() {
            bail!("config.json: {field} needs a uts namespace in linux.namespaces");
        }
    }
    let hooks = spec.hooks().as_ref().map(hooks::translate).transpose()?;
    Ok(Translated {
        plan,
        fds,
        hooks: hooks.unwrap_or_default(),
        spec,
        said,
        preserve_fds: 0,
    })
}

/// Versions 1.x are compatible with one another by the specification's own promise.
fn check_version(version: &str) -> Result<()> {
    if version.is_empty() {
        bail!("config.json: ociVersion is missing");
    }
    if !is_version(version) {
        bail!("config.json: ociVersion {version:?} is no version as of SemVer 2.0.0");
    }
    if !version.starts_with("1.") {
        bail!("config.json: ociVersion {version} is not supported, 1.x is");
    }
    Ok(())
}

/// `MAJOR.MINOR.PATCH`, then `-…` for what comes before it and `+…` for its build.
fn is_version(text: &str) -> bool {
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (core, before) = match text.split_once('-') {
        Some((core, before)) => (core, Some(before)),
        None => (text, None),
    };
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    core.split('.').count() == 3
        && core.split('.').all(number)
        && [before, build]
            .into_iter()
            .flatten()
            .all(|words| words.split('.').all(word))
}

/// An absolute path as text, or an error that names the field.
pub(crate) fn absolute(field: &str, path: &Path) -> Result<String> {
    if !path.is_absolute() {
        bail!(
            "config.json: {field}: {} is not an absolute path",
            path.display()
        );
    }
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => bail!(
            "config.json: {field}: {} is not valid UTF-8",
            path.display()
        ),
    }
}

/// The bundle's folder as an absolute path without symbolic links.
pub(crate) fn bundle_dir(bundle: Option<&Path>) -> Result<PathBuf> {
    let given = bundle.unwrap_or(Path::new("."));
    fs::canonicalize(given).with_context(|| format!("cannot use the bundle {}", given.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_version_one_and_what_comes_before_it_is_taken() {
        for good in ["1.0.0", "1.0.2-dev", "1.0.0-rc.5+x.1", "1.99.7"] {
            check_version(good).expect(good);
        }
        for bad in [
            "", "1", "1.0", "1.x.0", "2.0.0", "0.9.0", "1.0.0-", "1.0.0 ", "1.01.0",
        ] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }
}
