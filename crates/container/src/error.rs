//! Why a launch failed, with the kind that decides status and exit code.

use std::path::PathBuf;

use hull_model::ErrorKind;
use hull_sys::Errno;
use hull_sys::cgroup::CgroupError;

use crate::user::UserError;

/// A process could not be launched. Nothing is left of the try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The program does not exist.
    #[error("exec: {program:?}: {}", if program.contains('/') {
        "no such file or directory"
    } else {
        "executable file not found in $PATH"
    })]
    NotFound {
        /// As given.
        program: String,
    },
    /// The program exists but cannot be executed.
    #[error("exec: {program:?}: {}", reason(source))]
    NotExecutable {
        /// As given.
        program: String,
        /// Why; part of the message, since it is what the user must see.
        source: Errno,
    },
    /// The plan is not one that can be executed.
    #[error("{0}")]
    Plan(String),
    /// The user cannot be found.
    #[error(transparent)]
    User(#[from] UserError),
    /// The source of a mount cannot be used.
    #[error("cannot mount {} at {target}", path.display())]
    Source {
        /// Path on the host.
        path: PathBuf,
        /// Path inside.
        target: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The parent could not prepare something.
    #[error("cannot {action}")]
    Prepare {
        /// What.
        action: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The control group.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The system call filter.
    #[error("cannot make the system call filter: {0}")]
    Seccomp(String),
    /// The caller of a launch stopped it on the way, with its own reason.
    #[error("{0}")]
    Stopped(String),
    /// The child failed on the way to execve.
    #[error("cannot {action}")]
    Step {
        /// Whether the request or the host is to blame.
        kind: ErrorKind,
        /// What.
        action: String,
        /// Why.
        #[source]
        source: Errno,
    },
}

impl LaunchError {
    /// The kind, for the API and for the exit code of `hull run` (125, 126 or 127).
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::CommandNotFound,
            Self::NotExecutable { .. } => ErrorKind::CommandNotExecutable,
            Self::Plan(_) | Self::User(_) | Self::Seccomp(_) => ErrorKind::InvalidArgument,
            Self::Source {
                source: Errno::NOENT | Errno::NOTDIR,
                ..
            } => ErrorKind::InvalidArgument,
            Self::Step { kind, .. } => *kind,
            // A value the kernel does not take, such as a processor that is not there.
            Self::Cgroup(error)
                if matches!(
                    error.errno(),
                    Some(Errno::INVAL | Errno::RANGE | Errno::ACCESS)
                ) =>
            {
                ErrorKind::InvalidArgument
            }
            Self::Source { .. } | Self::Prepare { .. } | Self::Cgroup(_) | Self::Stopped(_) => {
                ErrorKind::Internal
            }
        }
    }
}

pub(crate) fn prepare(action: impl Into<String>) -> impl FnOnce(Errno) -> LaunchError {
    let action = action.into();
    move |source| LaunchError::Prepare { action, source }
}

/// The words of the kernel for the errors of execve, as Docker's users know them.
fn reason(errno: &Errno) -> String {
    match *errno {
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::NOEXEC => "exec format error".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        Errno::TOOBIG => "argument list too long".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_missing_program_tells_path_search_from_path() {
        let name = LaunchError::NotFound {
            program: "nope".into(),
        };
        assert_eq!(
            name.to_string(),
            "exec: \"nope\": executable file not found in $PATH"
        );
        let path = LaunchError::NotFound {
            program: "/nope".into(),
        };
        assert_eq!(
            path.to_string(),
            "exec: \"/nope\": no such file or directory"
        );
        assert_eq!(path.kind(), ErrorKind::CommandNotFound);
    }
}
