//! `hull cp`: files between a container and the host.

use clap::Args;
use hull_image::copy::names;

use super::{cp_download, cp_upload};
use crate::context::Context;
use crate::error::CliError;
use crate::format::human;
use crate::output;
use crate::spec::{Arity, command};
use crate::streams::terminal;

/// Arguments of `hull cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symlinks in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Suppress the summary after the copy. It is suppressed if no terminal is attached
    #[arg(short, long)]
    quiet: bool,
    /// Source and destination
    args: Vec<String>,
}

command!(
    CpArgs,
    run,
    names = ["cp", "container cp"],
    usage = "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n        hull cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about = "Copy files/folders between a container and the local filesystem",
    arity = Arity::Exactly(2),
);

/// One copy.
#[derive(Debug)]
pub(super) struct Copy {
    /// The container.
    pub(super) container: String,
    /// Path that is read.
    pub(super) source: String,
    /// Path that is written.
    pub(super) destination: String,
    /// Keep owners.
    pub(super) archive: bool,
    /// Follow a link that the source is.
    pub(super) follow: bool,
}

/// What was copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    /// Bytes of files.
    pub(super) content: u64,
    /// Bytes of the stream.
    pub(super) stream: u64,
}

async fn run(context: &Context, args: CpArgs) -> Result<u8, CliError> {
    let text = |index: usize| args.args.get(index).cloned().unwrap_or_default();
    let (source, destination) = (text(0), text(1));
    if source.is_empty() {
        return Err(CliError::new("source can not be empty"));
    }
    if destination.is_empty() {
        return Err(CliError::new("destination can not be empty"));
    }
    let copy = |container: &str, source: &str, destination: &str| Copy {
        container: container.to_owned(),
        source: source.to_owned(),
        destination: destination.to_owned(),
        archive: args.archive,
        follow: args.follow_link,
    };
    let (copied, place) = match (split(&source), split(&destination)) {
        ((Some(container), source), (None, destination)) => {
            let copy = copy(container, source, destination);
            match cp_download::download(context, &copy).await? {
                Some(copied) => (copied, destination.to_owned()),
                None => return Ok(0),
            }
        }
        ((None, source), (Some(container), path)) => {
            let copy = copy(container, source, path);
            let copied = cp_upload::upload(context, &copy).await?;
            (copied, destination.clone())
        }
        ((Some(_), _), (Some(_), _)) => {
            return Err(CliError::new("copying between containers is not supported"));
        }
        ((None, _), (None, _)) => {
            return Err(CliError::new("must specify at least one container source"));
        }
    };
    if !args.quiet && terminal::stdout_is_terminal() {
        let size = |bytes: u64| human::size(i64::try_from(bytes).unwrap_or(i64::MAX));
        output::error_line(&format!(
            "Successfully copied {} (transferred {}) to {place}",
            size(copied.content),
            size(copied.stream)
        ));
    }
    Ok(0)
}

/// Container and path of an argument: what begins with `/` or `.` is a local path, whatever
/// colons it has.
fn split(arg: &str) -> (Option<&str>, &str) {
    if arg.starts_with('/') {
        return (None, arg);
    }
    match arg.split_once(':') {
        Some((container, path)) if !container.starts_with('.') => (Some(container), path),
        _ => (None, arg),
    }
}

/// A local path made absolute, with its end kept.
pub(super) fn absolute(path: &str) -> Result<String, CliError> {
    if path.starts_with('/') {
        return Ok(names::clean_keeping_end(path));
    }
    let here = std::env::current_dir()?;
    let here = here
        .to_str()
        .ok_or_else(|| CliError::new("the current folder's name is not valid UTF-8"))?;
    Ok(names::clean_keeping_end(&format!("{here}/{path}")))
}

/// What a copy's source or destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    /// Its path, the end kept.
    pub(super) path: String,
    /// It is there.
    pub(super) exists: bool,
    /// It is a folder.
    pub(super) is_dir: bool,
}

/// Where an archive goes and what its first component becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The folder to unpack in.
    pub(super) folder: String,
    /// The new name; none leaves the source's.
    pub(super) name: Option<String>,
}

/// Decides where a source of this kind goes: into a folder that is there, else under the
/// destination's name.
pub(super) fn target(source_is_dir: bool, destination: &Side) -> Result<Target, CliError> {
    if destination.exists && destination.is_dir {
        return Ok(Target {
            folder: destination.path.clone(),
            name: None,
        });
    }
    if destination.exists && source_is_dir {
        return Err(CliError::new("cannot copy directory"));
    }
    if !destination.exists && !source_is_dir && names::says_folder(&destination.path) {
        return Err(CliError::new("no such directory"));
    }
    let (folder, name) = names::split_entry(&destination.path);
    Ok(Target {
        folder,
        name: Some(name),
    })
}

/// The name that members begin with when a link was followed to `target`, and the path to ask for:
/// that of the target with the end of what was written.
pub(super) fn followed(written: &str, target: &str) -> (String, Option<String>) {
    let mut path = target.to_owned();
    if names::means_content(written) && !names::means_content(&path) {
        path.push_str("/.");
    }
    if written.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    let name = names::base(written);
    let differs = names::base(&path) != name;
    (path, differs.then(|| name.to_owned()))
}

/// Refuses what cannot be replaced by a copy. `mode` has the bits of Go's `os.FileMode`.
pub(super) fn check_mode(mode: u32) -> Result<(), &'static str> {
    const DEVICE: u32 = 1 << 26;
    if mode & DEVICE != 0 {
        return Err("got a device");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_takes_explicit_local_paths_as_they_are() {
        assert_eq!(split("c:/etc"), (Some("c"), "/etc"));
        assert_eq!(split("c:"), (Some("c"), ""));
        assert_eq!(split("/a:b"), (None, "/a:b"));
        assert_eq!(split("./a:b"), (None, "./a:b"));
        assert_eq!(split("-"), (None, "-"));
        assert_eq!(split("c:a:b"), (Some("c"), "a:b"));
    }

    #[test]
    fn target_follows_the_table_of_dockers_manual() {
        let side = |path: &str, exists, is_dir| Side {
            path: path.into(),
            exists,
            is_dir,
        };
        let to = |folder: &str, name: Option<&str>| Target {
            folder: folder.into(),
            name: name.map(str::to_owned),
        };
        // A file: under a new name, refused, over a file, into a folder.
        let file = |side| target(false, &side);
        assert_eq!(
            file(side("/d/new", false, false)).unwrap(),
            to("/d", Some("new"))
        );
        assert!(file(side("/d/new/", false, false)).is_err());
        assert_eq!(
            file(side("/d/f", true, false)).unwrap(),
            to("/d", Some("f"))
        );
        assert_eq!(file(side("/d", true, true)).unwrap(), to("/d", None));
        // A folder: under a new name, refused over a file, into a folder.
        let dir = |side| target(true, &side);
        assert_eq!(
            dir(side("/d/new", false, false)).unwrap(),
            to("/d", Some("new"))
        );
        assert_eq!(
            dir(side("/d/new/", false, false)).unwrap(),
            to("/d", Some("new"))
        );
        assert!(dir(side("/d/f", true, false)).is_err());
        assert_eq!(dir(side("/d", true, true)).unwrap(), to("/d", None));
    }

    #[test]
    fn followed_keeps_the_written_name_and_end() {
        assert_eq!(
            followed("/a/link", "/b/real"),
            ("/b/real".into(), Some("link".into()))
        );
        assert_eq!(followed("/a/link/.", "/b/real"), ("/b/real/.".into(), None));
        assert_eq!(
            followed("/a/link/", "/b/real"),
            ("/b/real/".into(), Some("link".into()))
        );
    }
}
