//! `hull login`: credentials are tried, then kept.

use std::io::Read as _;

use clap::Args;

use crate::context::Context;
use crate::credentials::{Auth, Store, key};
use crate::error::CliError;
use crate::output;
use crate::registry;
use crate::spec::{Arity, command};
use crate::streams::terminal;

/// Largest password read from standard input, bytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// Arguments of `hull login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Password or Personal Access Token (PAT)
    #[arg(short, long, value_name = "string")]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(short, long, value_name = "string")]
    username: Option<String>,
    /// The registry
    args: Vec<String>,
}

command!(
    LoginArgs,
    run,
    names = ["login"],
    usage = "[OPTIONS] [SERVER]",
    about = "Authenticate to a registry",
    arity = Arity::AtMost(1),
);

async fn run(context: &Context, args: LoginArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    let server = match args.args.first() {
        Some(server) => key(server),
        None => key(&registry::default(&client).await?),
    };
    let mut store = Store::open()?;
    let known = store.get(&server)?;
    let auth = match (&args.username, args.password_stdin, &args.password) {
        (_, true, Some(_)) => {
            return Err(CliError::new(
                "--password and --password-stdin are mutually exclusive",
            ));
        }
        (None, true, _) => {
            return Err(CliError::new(
                "Must provide --username with --password-stdin",
            ));
        }
        (Some(user), true, _) => of(user, &from_stdin()?, &server),
        (Some(user), false, Some(password)) => {
            output::error_line(
                "WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
            );
            of(user, password, &server)
        }
        (user, false, password) => match (user, password, known) {
            // What is known is tried anew.
            (None, None, Some(known)) => known,
            (user, password, _) => ask(user.as_deref(), password.as_deref(), &server)?,
        },
    };
    let reply = client.login(&auth).await?;
    let mut kept = auth;
    if !reply.identity_token.is_empty() {
        kept.identitytoken = reply.identity_token;
        kept.password.clear();
    }
    if let Some(warning) = store.put(&kept)? {
        output::error_line(&warning);
    }
    output::line(&reply.status)?;
    Ok(0)
}

fn of(user: &str, password: &str, server: &str) -> Auth {
    Auth {
        username: user.to_owned(),
        password: password.to_owned(),
        serveraddress: server.to_owned(),
        ..Auth::default()
    }
}

fn from_stdin() -> Result<String, CliError> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_PASSWORD)
        .read_to_string(&mut text)
        .map_err(|error| CliError::new(format!("cannot read the password: {error}")))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn ask(user: Option<&str>, password: Option<&str>, server: &str) -> Result<Auth, CliError> {
    if !terminal::stdin_is_terminal() {
        return Err(CliError::new(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    let user = match user {
        Some(user) => user.to_owned(),
        None => terminal::question("Username: ", true)?,
    };
    let password = match password {
        Some(password) => password.to_owned(),
        None => terminal::question("Password: ", false)?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(CliError::new("Error: username and password are required"));
    }
    Ok(of(&user, &password, server))
}
