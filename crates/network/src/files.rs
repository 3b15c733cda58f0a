//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, by Docker's rules.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// Name servers given to a container when the host names none that it could reach, and nobody
/// named one: Google's, as with Docker.
pub const FALLBACK_NAME_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// The address that stands for the host in `--add-host NAME:host-gateway`.
const HOST_GATEWAY: &str = "host-gateway";

/// Where systemd-resolved lists the real servers behind its stub.
pub const RESOLVED_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// A host entry or name server that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// `--add-host` is not NAME:ADDRESS.
    #[error("bad format for add-host: {0:?}: write NAME:ADDRESS")]
    BadHost(String),
    /// The address in `--add-host` is none.
    #[error("invalid IP address in add-host: {0:?}")]
    BadAddress(String),
    /// `--dns` is no address.
    #[error("IP address is not correctly formatted: {0:?}")]
    BadNameServer(String),
    /// `host-gateway` where there is none.
    #[error(
        "unable to derive the address of host-gateway: the container has no network of its own"
    )]
    NoGateway,
}

/// The container's own entry in /etc/hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnHost<'a> {
    /// Address.
    pub address: IpAddr,
    /// Host name, with or without a domain.
    pub hostname: &'a str,
}

/// Splits `NAME:ADDRESS` or `NAME=ADDRESS`, the address in brackets or not.
fn split_entry(entry: &str, gateway: Option<IpAddr>) -> Result<(&str, IpAddr), FileError> {
    let (name, address) = entry
        .split_once(['=', ':'])
        .ok_or_else(|| FileError::BadHost(entry.to_owned()))?;
    let bad_name = |c: char| c.is_whitespace() || c.is_control();
    if name.is_empty() || name.contains(bad_name) {
        return Err(FileError::BadHost(entry.to_owned()));
    }
    if address == HOST_GATEWAY {
        return Ok((name, gateway.ok_or(FileError::NoGateway)?));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    let address = bare
        .parse()
        .map_err(|_| FileError::BadAddress(address.to_owned()))?;
    Ok((name, address))
}

/// Checks the entries of `--add-host` without writing anything.
///
/// # Errors
/// One of them is malformed.
pub fn check_extra_hosts(entries: &[String]) -> Result<(), FileError> {
    entries
        .iter()
        .try_for_each(|entry| split_entry(entry, Some(Ipv4Addr::LOCALHOST.into())).map(|_| ()))
}

/// The entries of `--add-host` as names and addresses.
///
/// # Errors
/// As [`hosts`].
pub fn extra_hosts(
    entries: &[String],
    gateway: Option<IpAddr>,
) -> Result<Vec<(String, IpAddr)>, FileError> {
    let split = |entry| split_entry(entry, gateway).map(|(name, a)| (name.to_owned(), a));
    entries.iter().map(|entry| split(entry)).collect()
}

/// Content of /etc/hosts: loopback, the entries of `--add-host`, and the container itself.
///
/// # Errors
/// An entry is malformed, or names `host-gateway` where `gateway` is `None`.
pub fn hosts(
    own: Option<OwnHost<'_>>,
    extra: &[String],
    gateway: Option<IpAddr>,
) -> Result<String, FileError> {
    let mut content = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for entry in extra {
        let (name, address) = split_entry(entry, gateway)?;
        writeln!(content, "{address}\t{name}").ok();
    }
    if let Some(OwnHost { address, hostname }) = own {
        match hostname.split_once('.') {
            Some((short, _)) if !short.is_empty() => {
                writeln!(content, "{address}\t{hostname} {short}").ok();
            }
            _ => {
                writeln!(content, "{address}\t{hostname}").ok();
            }
        }
    }
    Ok(content)
}

/// Content of /etc/hostname.
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// What the user says about the resolver; each list replaces the host's unless empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResolverOptions<'a> {
    /// `--dns`.
    pub servers: &'a [String],
    /// `--dns-search`; a single `.` means none.
    pub search: &'a [String],
    /// `--dns-option`.
    pub options: &'a [String],
}

/// The name servers in a resolv.conf, as written.
pub fn name_servers(content: &str) -> impl Iterator<Item = &str> {
    directives(content)
        .filter(|(directive, _)| *directive == "nameserver")
        .filter_map(|(_, rest)| rest.split_whitespace().next())
}

/// Whether `content` names loopback servers only, as with systemd-resolved: then the caller should
/// pass the content of [`RESOLVED_RESOLV_CONF`] instead, if that file is there.
pub fn is_loopback_only(content: &str) -> bool {
    let mut servers = name_servers(content).peekable();
    servers.peek().is_some() && servers.all(|server| !is_reachable(server))
}

/// Content of /etc/resolv.conf, made from the host's. Servers on loopback mean the container's own
/// loopback inside, and IPv6 ones cannot be reached from this network, so both are left out;
/// [`FALLBACK_NAME_SERVERS`] stand in if none remains.
///
/// # Errors
/// A server of `options` is no address.
pub fn resolv_conf(host: &str, options: &ResolverOptions<'_>) -> Result<String, FileError> {
    let mut content = String::new();
    if options.servers.is_empty() {
        let mut any = false;
        for server in name_servers(host).filter(|server| is_reachable(server)) {
            writeln!(content, "nameserver {server}").ok();
            any = true;
        }
        if !any {
            for server in FALLBACK_NAME_SERVERS {
                writeln!(content, "nameserver {server}").ok();
            }
        }
    } else {
        for server in options.servers {
            let address: IpAddr = server
                .parse()
                .map_err(|_| FileError::BadNameServer(server.clone()))?;
            writeln!(content, "nameserver {address}").ok();
        }
    }
    let host_words = |names: &[&str]| -> Vec<String> {
        // As with the resolver itself, the last line of a kind counts.
        let last = directives(host)
            .filter(|(directive, _)| names.contains(directive))
            .last();
        let words = last.map(|(_, rest)| rest.split_whitespace().map(str::to_owned).collect());
        words.unwrap_or_default()
    };
    let search = if options.search.is_empty() {
        host_words(&["search", "domain"])
    } else {
        options.search.to_vec()
    };
    if !search.is_empty() && search != ["."] {
        writeln!(content, "search {}", search.join(" ")).ok();
    }
    let resolver_options = if options.options.is_empty() {
        host_words(&["options"])
    } else {
        options.options.to_vec()
    };
    if !resolver_options.is_empty() {
        writeln!(content, "options {}", resolver_options.join(" ")).ok();
    }
    Ok(content)
}

/// The lines of a resolv.conf that say something, as directive and rest.
fn directives(content: &str) -> impl Iterator<Item = (&str, &str)> {
    content
        .lines()
        .map(|line| line.split(['#', ';']).next().unwrap_or_default().trim())
        .filter_map(|line| line.split_once(char::is_whitespace))
}

/// Whether a container on an IPv4 bridge can talk to the server.
fn is_reachable(server: &str) -> bool {
    server
        .parse::<Ipv4Addr>()
        .is_ok_and(|address| !address.is_loopback() && !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn hosts_with_extra_entries_lists_them_before_the_container() {
        let own = OwnHost {
            address: Ipv4Addr::new(172, 17, 0, 2).into(),
            hostname: "web.example.org",
        };
        let extra = strings(&[
            "db:10.0.0.5",
            "host=host-gateway",
            "six:[fd00::1]",
            "seven:fd00::2",
        ]);
        let content =
            hosts(Some(own), &extra, Some(Ipv4Addr::new(172, 17, 0, 1).into())).expect("hosts");
        assert!(content.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(content.ends_with(
            "10.0.0.5\tdb\n172.17.0.1\thost\nfd00::1\tsix\nfd00::2\tseven\n\
             172.17.0.2\tweb.example.org web\n"
        ));
    }

    #[test]
    fn hosts_with_malformed_entries_is_an_error() {
        for entry in [
            "db",
            ":1.2.3.4",
            "db:",
            "db:1.2.3",
            "a b:1.2.3.4",
            "a\nb:1.2.3.4",
        ] {
            assert!(hosts(None, &strings(&[entry]), None).is_err(), "{entry}");
        }
        assert_eq!(
            hosts(None, &strings(&["h:host-gateway"]), None),
            Err(FileError::NoGateway)
        );
    }

    #[test]
    fn resolv_conf_drops_loopback_servers_and_keeps_the_rest() {
        let host = "# by hand\nnameserver 127.0.0.53\nnameserver 10.1.2.3 # ours\nnameserver fd00::1\n\
                    domain old\nsearch a.org b.org\noptions edns0 trust-ad\n";
        let content = resolv_conf(host, &ResolverOptions::default()).expect("resolv.conf");
        assert_eq!(
            content,
            "nameserver 10.1.2.3\nsearch a.org b.org\noptions edns0 trust-ad\n"
        );
    }

    #[test]
    fn resolv_conf_without_any_server_falls_back() {
        let content = resolv_conf("nameserver ::1\n", &ResolverOptions::default());
        assert_eq!(
            content.expect("resolv.conf"),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
        assert!(is_loopback_only("nameserver 127.0.0.53\n"));
        assert!(!is_loopback_only("nameserver 9.9.9.9\n"));
        assert!(!is_loopback_only(""));
    }

    #[test]
    fn resolv_conf_with_the_users_words_takes_them_instead() {
        let host = "nameserver 10.1.2.3\nsearch a.org\noptions edns0\n";
        let options = ResolverOptions {
            servers: &strings(&["127.0.0.1", "fd00::9"]),
            search: &strings(&["."]),
            options: &strings(&["ndots:2"]),
        };
        let content = resolv_conf(host, &options).expect("resolv.conf");
        assert_eq!(
            content,
            "nameserver 127.0.0.1\nnameserver fd00::9\noptions ndots:2\n"
        );
        let wrong = ResolverOptions {
            servers: &strings(&["dns.example.org"]),
            ..ResolverOptions::default()
        };
        assert!(resolv_conf(host, &wrong).is_err());
    }
}
