//! Where the repositories of a domain are: mirrors and trust from `certs.d` folders.
//!
//! ```text
//! certs.d/DOMAIN/hosts.toml        containerd's form: server, [host."URL"] with capabilities, ca,
//!                                  client, skip_verify, header, override_path
//! certs.d/DOMAIN/*.crt             Docker's form: authorities
//! certs.d/DOMAIN/NAME.cert, .key   Docker's form: client certificate
//! certs.d/_default/hosts.toml      for domains without a folder
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::RegistryError;

/// Docker Hub's name, and where it really is.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";
/// Largest hosts.toml read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One place to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Up to and with `/v2`, without a slash at the end.
    pub(crate) base: String,
    /// Blobs and manifests by digest may be read.
    pub(crate) pull: bool,
    /// Tags may be asked for.
    pub(crate) resolve: bool,
    /// It may be written to.
    pub(crate) push: bool,
    /// Its certificate is not checked.
    pub(crate) skip_verify: bool,
    /// Further authorities.
    pub(crate) authorities: Vec<PathBuf>,
    /// Client certificates: certificate, key (none if in one file).
    pub(crate) clients: Vec<(PathBuf, Option<PathBuf>)>,
    /// Headers sent along.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    /// A mirror gets the domain's name as `ns` parameter.
    pub(crate) mirror: bool,
}

impl Host {
    fn new(base: String) -> Self {
        Self {
            base,
            pull: true,
            resolve: true,
            push: true,
            skip_verify: false,
            authorities: Vec::new(),
            clients: Vec::new(),
            headers: BTreeMap::new(),
            mirror: false,
        }
    }

    /// Host and port, for messages and as the key of tokens.
    pub(crate) fn name(&self) -> &str {
        let rest = self.base.split_once("://").map_or(&*self.base, |p| p.1);
        rest.split('/').next().unwrap_or(rest)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    server: Option<String>,
    host: toml::Table,
    #[serde(flatten)]
    own: Entry,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany<String>>,
    client: Option<OneOrMany<Client>>,
    skip_verify: bool,
    header: BTreeMap<String, OneOrMany<String>>,
    override_path: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Client {
    File(String),
    Pair([String; 2]),
}

/// The hosts of a domain, in the order in which they are asked.
pub(crate) fn hosts(
    domain: &str,
    folders: &[PathBuf],
    insecure: &[String],
) -> Result<Vec<Host>, RegistryError> {
    let server = if domain == HUB { HUB_HOST } else { domain };
    for folder in folders {
        for name in [domain, "_default"] {
            let dir = folder.join(name.replace(':', "_"));
            let dir = if folder.join(name).is_dir() {
                folder.join(name)
            } else {
                dir
            };
            if !dir.is_dir() {
                continue;
            }
            let file = dir.join("hosts.toml");
            if file.exists() {
                return from_toml(&file, server);
            }
            if name == domain {
                return docker_form(&dir, server, is_insecure(domain, insecure));
            }
        }
    }
    Ok(plain(server, is_insecure(domain, insecure)))
}

/// A host nobody said anything about. One that may be insecure is tried by TLS first.
fn plain(server: &str, insecure: bool) -> Vec<Host> {
    let mut tls = Host::new(format!("https://{server}/v2"));
    if !insecure {
        return vec![tls];
    }
    tls.skip_verify = true;
    vec![tls, Host::new(format!("http://{server}/v2"))]
}

/// Loopback addresses are, as with Docker; others if they were named: a host with or without
/// port, or a network in CIDR notation.
fn is_insecure(domain: &str, insecure: &[String]) -> bool {
    let host = host_of(domain);
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost"
        || address.is_some_and(|address| address.is_loopback())
        || insecure.iter().any(|named| {
            named == domain || named == host || address.is_some_and(|a| within(a, named))
        })
}

fn host_of(domain: &str) -> &str {
    match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => domain,
    }
}

/// Whether the address is in the network `a.b.c.d/n`.
pub(crate) fn within(address: IpAddr, network: &str) -> bool {
    let Some((base, bits)) = network.split_once('/') else {
        return false;
    };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (address, base) {
        (IpAddr::V4(a), IpAddr::V4(b)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        _ => false,
    }
}

fn docker_form(dir: &Path, server: &str, insecure: bool) -> Result<Vec<Host>, RegistryError> {
    let mut names: Vec<PathBuf> = fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|error| wrong(dir, error))?;
    names.sort();
    let with = |extension: &'static str| {
        names
            .iter()
            .filter(move |path| path.extension().is_some_and(|e| e == extension))
            .cloned()
    };
    let mut hosts = plain(server, insecure);
    for host in &mut hosts {
        host.authorities = with("crt").collect();
        if !host.authorities.is_empty() {
            host.skip_verify = false;
        }
        for certificate in with("cert") {
            let key = certificate.with_extension("key");
            if !key.exists() {
                return Err(wrong(&certificate, "it has no .key file beside it"));
            }
            host.clients.push((certificate, Some(key)));
        }
    }
    Ok(hosts)
}

fn from_toml(path: &Path, server: &str) -> Result<Vec<Host>, RegistryError> {
    let size = fs::metadata(path).map_err(|e| wrong(path, e))?.len();
    if size > MAX_FILE_BYTES {
        return Err(wrong(path, "it is too large"));
    }
    let text = fs::read_to_string(path).map_err(|e| wrong(path, e))?;
    parse(path, &text, server)
}

/// Reads the text of a hosts.toml; `path` is where it lies.
pub(crate) fn parse(path: &Path, text: &str, server: &str) -> Result<Vec<Host>, RegistryError> {
    let file: File = toml::from_str(text).map_err(|e| wrong(path, e))?;
    // toml's tables forget their order, which is that of the fall-back: it is the text's.
    let mut named: Vec<(usize, String, Entry)> = Vec::new();
    for (url, entry) in file.host {
        let entry = Entry::deserialize(entry).map_err(|e| wrong(path, e))?;
        named.push((
            text.find(&format!("{url:?}")).unwrap_or(usize::MAX),
            url,
            entry,
        ));
    }
    named.sort_by_key(|(at, _, _)| *at);
    let mut hosts = Vec::new();
    for (_, url, entry) in named {
        hosts.push(host(path, &url, entry, true)?);
    }
    let server = file.server.unwrap_or_else(|| format!("https://{server}"));
    hosts.push(host(path, &server, file.own, false)?);
    Ok(hosts)
}

fn host(file: &Path, url: &str, entry: Entry, mirror: bool) -> Result<Host, RegistryError> {
    let url = if url.contains("://") {
        url.to_owned()
    } else {
        format!("https://{url}")
    };
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err(wrong(file, format!("{url:?} is neither http nor https")));
    }
    if reqwest::Url::parse(&url).is_err() {
        return Err(wrong(file, format!("{url:?} is no address")));
    }
    let url = url.trim_end_matches('/');
    let base = if entry.override_path || url.ends_with("/v2") {
        url.to_owned()
    } else {
        format!("{url}/v2")
    };
    let mut host = Host::new(base);
    host.mirror = mirror;
    if let Some(capabilities) = entry.capabilities {
        (host.pull, host.resolve, host.push) = (false, false, false);
        for capability in capabilities {
            match capability.as_str() {
                "pull" => host.pull = true,
                "resolve" => host.resolve = true,
                "push" => host.push = true,
                other => return Err(wrong(file, format!("unknown capability {other:?}"))),
            }
        }
    } else if mirror {
        host.push = false;
    }
    host.skip_verify = entry.skip_verify;
    let dir = file.parent().unwrap_or(Path::new("/"));
    let ca = entry.ca.map(OneOrMany::into_vec).unwrap_or_default();
    host.authorities = ca.iter().map(|name| dir.join(name)).collect();
    for client in entry.client.map(OneOrMany::into_vec).unwrap_or_default() {
        host.clients.push(match client {
            Client::File(both) => (dir.join(both), None),
            Client::Pair([certificate, key]) => (dir.join(certificate), Some(dir.join(key))),
        });
    }
    host.headers = entry
        .header
        .into_iter()
        .map(|(name, values)| (name, values.into_vec()))
        .collect();
    Ok(host)
}

fn wrong(path: &Path, why: impl ToString) -> RegistryError {
    RegistryError::Config {
        file: path.display().to_string(),
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(hosts: &[Host]) -> Vec<&str> {
        hosts.iter().map(|host| host.base.as_str()).collect()
    }

    #[test]
    fn hosts_without_configuration_use_tls_and_loopback_may_do_without() {
        let hub = hosts("docker.io", &[], &[]).expect("hosts");
        assert_eq!(bases(&hub), ["https://registry-1.docker.io/v2"]);
        let local = hosts("127.0.0.1:5000", &[], &[]).expect("hosts");
        assert_eq!(
            bases(&local),
            ["https://127.0.0.1:5000/v2", "http://127.0.0.1:5000/v2"]
        );
        let named = ["10.0.0.0/8".to_owned(), "reg.example".to_owned()];
        for (domain, count) in [
            ("10.1.2.3:80", 2),
            ("11.1.2.3", 1),
            ("reg.example:5000", 2),
            ("other.example", 1),
        ] {
            assert_eq!(hosts(domain, &[], &named).expect(domain).len(), count);
        }
    }

    #[test]
    fn hosts_toml_keeps_the_order_and_its_options() {
        let dir = tempfile::tempdir().expect("dir");
        let own = dir.path().join("docker.io");
        fs::create_dir(&own).expect("mkdir");
        let text = r#"
server = "https://upstream.example"
[host."http://z.mirror:5000"]
  capabilities = ["pull", "resolve"]
  skip_verify = true
[host."https://a.mirror/path/v2"]
  ca = "ca.pem"
  client = [["c.pem", "k.pem"]]
  override_path = true
  [host."https://a.mirror/path/v2".header]
    x-one = "1"
"#;
        fs::write(own.join("hosts.toml"), text).expect("write");
        let found = hosts("docker.io", &[dir.path().to_owned()], &[]).expect("hosts");
        assert_eq!(
            bases(&found),
            [
                "http://z.mirror:5000/v2",
                "https://a.mirror/path/v2",
                "https://upstream.example/v2"
            ]
        );
        let [first, second, last] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert!(first.skip_verify && first.resolve && !first.push);
        assert_eq!(second.authorities, [own.join("ca.pem")]);
        assert_eq!(second.headers["x-one"], ["1"]);
        assert!(last.push && !last.mirror);
    }

    #[test]
    fn docker_form_takes_authorities_and_refuses_a_missing_key() {
        let dir = tempfile::tempdir().expect("dir");
        let own = dir.path().join("reg.example:5000");
        fs::create_dir(&own).expect("mkdir");
        fs::write(own.join("ca.crt"), "").expect("write");
        let folders = [dir.path().to_owned()];
        let found = hosts("reg.example:5000", &folders, &[]).expect("hosts");
        assert_eq!(found.first().map(|h| h.authorities.len()), Some(1));
        fs::write(own.join("me.cert"), "").expect("write");
        let error = hosts("reg.example:5000", &folders, &[]).expect_err("no key");
        assert!(error.to_string().contains(".key"), "{error}");
    }

    #[test]
    fn hosts_toml_nonsense_names_the_file() {
        let dir = tempfile::tempdir().expect("dir");
        let own = dir.path().join("_default");
        fs::create_dir(&own).expect("mkdir");
        for bad in [
            "server = 3",
            "server = \"https://\"",
            "[host.\"ftp://x\"]",
            "[host.\"https://x\"]\ncapabilities=[\"fly\"]",
        ] {
            fs::write(own.join("hosts.toml"), bad).expect("write");
            let error = hosts("x", &[dir.path().to_owned()], &[]).expect_err(bad);
            assert!(error.to_string().contains("hosts.toml"), "{error}");
        }
    }
}
