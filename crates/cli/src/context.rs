//! What every command has at hand: where the daemon is, how to reach it, and the runtime.

use std::future::Future;
use std::path::{Path, PathBuf};

use hull_client::{Client, ClientError};

use crate::error::CliError;
use crate::{Hooks, daemon_start};

/// Where daemons listen unless told otherwise.
const DEFAULT_RUN_DIR: &str = "/run/hull";
/// The socket's name in the run directory.
const SOCKET_NAME: &str = "hull.sock";

/// The surroundings of one command.
#[derive(Debug)]
pub(crate) struct Context {
    /// The daemon's socket.
    pub(crate) socket: PathBuf,
    /// The directory with the daemon's socket, process id and log.
    pub(crate) run_dir: PathBuf,
    /// Whether the user named the daemon, which then is not ours to start.
    pub(crate) explicit: bool,
    /// Whether `-D` was given.
    pub(crate) debug: bool,
    /// The client's version.
    pub(crate) version: &'static str,
}

impl Context {
    /// Resolves flags and environment, the one place where the command line reads it.
    pub(crate) fn new(host: Option<&str>, debug: bool, hooks: &Hooks) -> Result<Self, CliError> {
        let run_dir = std::env::var_os("HULL_RUN_DIR")
            .filter(|dir| !dir.is_empty())
            .map_or_else(|| PathBuf::from(DEFAULT_RUN_DIR), PathBuf::from);
        let from_env = std::env::var("HULL_HOST")
            .ok()
            .filter(|host| !host.is_empty());
        let host = host.map(str::to_owned).or(from_env);
        let (socket, explicit) = match &host {
            Some(host) => (socket_path(host)?, true),
            None => {
                let socket = std::env::var_os("HULL_SOCKET").filter(|socket| !socket.is_empty());
                (
                    socket.map_or_else(|| run_dir.join(SOCKET_NAME), PathBuf::from),
                    false,
                )
            }
        };
        Ok(Self {
            socket,
            run_dir,
            explicit,
            debug,
            version: hooks.version,
        })
    }

    /// Runs a command to its end on a runtime of its own.
    pub(crate) fn block_on<F: Future<Output = Result<u8, CliError>>>(
        &self,
        future: F,
    ) -> Result<u8, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| CliError::new(format!("start the runtime: {error}")))?;
        let result = runtime.block_on(future);
        // A thread that still waits for input must not hold the exit up.
        runtime.shutdown_background();
        result
    }

    /// A client that is connected; starts the daemon where none listens on the default socket.
    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        let client = Client::unix(&self.socket);
        match client.connect().await {
            Ok(()) => Ok(client),
            Err(error) if !self.explicit && nobody_listens(&error) => {
                daemon_start::start(self, &client).await?;
                Ok(client)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A client of a daemon that runs already; `None` where none does.
    pub(crate) async fn running_client(&self) -> Result<Option<Client>, CliError> {
        let client = Client::unix(&self.socket);
        match client.connect().await {
            Ok(()) => Ok(Some(client)),
            Err(error) if nobody_listens(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the socket is missing or nobody accepts on it.
pub(crate) fn nobody_listens(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { source, .. } => {
            matches!(
                source.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            )
        }
        _ => false,
    }
}

/// The path in `unix://PATH`.
fn socket_path(host: &str) -> Result<PathBuf, CliError> {
    match host.split_once("://") {
        Some(("unix", path)) if Path::new(path).is_absolute() => Ok(PathBuf::from(path)),
        None if Path::new(host).is_absolute() => Ok(PathBuf::from(host)),
        _ => Err(CliError::with_code(
            format!(
                "unable to parse host {host:?}: Hull listens on unix sockets only, write unix:///PATH"
            ),
            crate::error::ENGINE_ERROR,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_path_takes_unix_urls_only() {
        assert_eq!(socket_path("unix:///a/b").unwrap(), PathBuf::from("/a/b"));
        assert_eq!(socket_path("/a/b").unwrap(), PathBuf::from("/a/b"));
        assert!(socket_path("tcp://1.2.3.4:2375").is_err());
        assert!(socket_path("unix://rel").is_err());
        assert!(socket_path("").is_err());
    }
}
