//! What every command has at hand: where the daemon is, how to reach it, and the runtime.

use std::future::Future;
use std::path::PathBuf;

use hull_client::{Client, ClientError};

use crate::error::CliError;
use crate::remote::Place;
use crate::{Hooks, daemon_start};

/// Where daemons listen unless told otherwise.
const DEFAULT_RUN_DIR: &str = "/run/hull";
/// The socket's name in the run directory.
const SOCKET_NAME: &str = "hull.sock";

/// The surroundings of one command.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where the daemon is.
    pub(crate) place: Place,
    /// The daemon's socket; empty where it is on another host.
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
        let (place, explicit) = match &host {
            Some(host) => (Place::read(host)?, true),
            None => {
                let socket = std::env::var_os("HULL_SOCKET").filter(|socket| !socket.is_empty());
                let socket = socket.map_or_else(|| run_dir.join(SOCKET_NAME), PathBuf::from);
                (Place::Socket(socket), false)
            }
        };
        let socket = match &place {
            Place::Socket(path) => path.clone(),
            Place::Program(_) => PathBuf::new(),
        };
        Ok(Self {
            place,
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
        // The process ends with the command: a thread that still waits for input must not hold the
        // exit up, and to take the runtime down piece by piece would be work for nobody.
        std::mem::forget(runtime);
        result
    }

    /// A client that is connected; starts the daemon where none listens on the default socket.
    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        let client = self.place.client();
        if let Place::Program(words) = &self.place {
            greet(&client, words).await?;
            return Ok(client);
        }
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
        let client = self.place.client();
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

/// Asks an engine behind a program for a sign of life: what goes wrong on the way shows now.
pub(crate) async fn greet(client: &Client, words: &[String]) -> Result<(), CliError> {
    match client.ping().await {
        Ok(()) => Ok(()),
        Err(ClientError::Transport { .. }) => Err(CliError::new(format!(
            "cannot reach the engine: `{}` ended without an answer (is hull installed there, and does its daemon run?)",
            words.join(" ")
        ))),
        Err(error) => Err(error.into()),
    }
}
