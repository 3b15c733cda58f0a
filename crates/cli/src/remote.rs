//! Engines on other hosts: `ssh://[user@]host[:port][/path/of/socket]`, reached by the user's ssh
//! as Docker's command line does it.

use std::path::PathBuf;

use hull_client::Client;

use crate::error::{CliError, ENGINE_ERROR};

/// Seconds that ssh may take to connect.
const CONNECT_TIMEOUT: &str = "ConnectTimeout=30";

/// Where an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind a socket here.
    Socket(PathBuf),
    /// Behind the program with these arguments.
    Program(Vec<String>),
}

impl Place {
    /// Reads `unix:///PATH`, `/PATH` or `ssh://…`.
    pub(crate) fn read(host: &str) -> Result<Self, CliError> {
        let wrong = |why: &str| {
            CliError::with_code(
                format!(
                    "unable to parse host {host:?}: {why}: write unix:///PATH or ssh://[USER@]HOST[:PORT]"
                ),
                ENGINE_ERROR,
            )
        };
        match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Socket(path.into())),
            None if host.starts_with('/') => Ok(Self::Socket(host.into())),
            Some(("ssh", rest)) => ssh(rest).map(Self::Program).map_err(wrong),
            Some((scheme, _)) if scheme != "unix" => {
                Err(wrong("Hull is reached by unix sockets and by ssh"))
            }
            _ => Err(wrong("no absolute path of a socket")),
        }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        match self {
            Self::Socket(path) => Client::unix(path),
            Self::Program(words) => Client::program(words.clone()),
        }
    }
}

/// The command that leads there.
fn ssh(rest: &str) -> Result<Vec<String>, &'static str> {
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err("a password does not belong there");
    }
    let (host, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // What begins with a dash would be an option of ssh.
    let odd = |text: &str| {
        text.is_empty() || text.starts_with('-') || text.contains(|c: char| c.is_whitespace())
    };
    if odd(host) || user.is_some_and(odd) {
        return Err("no host is named");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("the port is no number");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if !path.chars().all(plain) {
        return Err("the path of the socket has characters that a shell may read");
    }
    let mut words: Vec<String> = ["ssh", "-o", CONNECT_TIMEOUT, "-T"]
        .map(str::to_owned)
        .into();
    if let Some(user) = user {
        words.extend(["-l".to_owned(), user.to_owned()]);
    }
    if let Some(port) = port {
        words.extend(["-p".to_owned(), port.to_owned()]);
    }
    words.extend(["--".to_owned(), host.to_owned(), "hull".to_owned()]);
    if !matches!(path, "" | "/") {
        words.extend(["--host".to_owned(), format!("unix://{path}")]);
    }
    words.extend(["system", "dial-stdio"].map(str::to_owned));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(host: &str) -> String {
        match Place::read(host).unwrap() {
            Place::Program(words) => words.join(" "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn read_sockets_are_absolute() {
        for host in ["unix:///a/b", "/a/b"] {
            assert_eq!(Place::read(host).unwrap(), Place::Socket("/a/b".into()));
        }
        for bad in ["", "unix://rel", "tcp://1.2.3.4:2375", "rel"] {
            assert!(Place::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn read_ssh_becomes_a_command() {
        let begin = "ssh -o ConnectTimeout=30 -T";
        assert_eq!(
            program("ssh://host"),
            format!("{begin} -- host hull system dial-stdio")
        );
        assert_eq!(
            program("ssh://me@host:2222/run/x.sock"),
            format!(
                "{begin} -l me -p 2222 -- host hull --host unix:///run/x.sock system dial-stdio"
            )
        );
        assert_eq!(
            program("ssh://[::1]:22/"),
            format!("{begin} -p 22 -- ::1 hull system dial-stdio")
        );
        for bad in [
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-l@host",
            "ssh://a:b@host",
            "ssh://host:x",
            "ssh://host/a;b",
            "ssh://host/$(x)",
        ] {
            assert!(Place::read(bad).is_err(), "{bad}");
        }
    }
}
