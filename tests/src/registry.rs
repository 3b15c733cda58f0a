//! A registry on loopback (Debian's docker-registry), and a proxy that breaks connections.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hull_testkit::{Run, eventually};

/// A running registry; it ends with the value.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
    dir: PathBuf,
}

/// How a registry is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Plain HTTP.
    Plain,
    /// TLS by a certificate of its own authority, `ca.crt` in its folder.
    Tls,
    /// Wants `user` with the password `secret`.
    Password,
}

impl Registry {
    /// Starts one that keeps all in `dir`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(dir: &Path, kind: Kind) -> Self {
        Self::start_with(dir, kind, "")
    }

    /// Starts one with more lines at the end of its configuration: those of `http: tls:` for TLS.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with(dir: &Path, kind: Kind, more: &str) -> Self {
        fs::create_dir_all(dir).expect("make the registry's folder");
        let port = free_port();
        let host = format!("127.0.0.1:{port}");
        let shown = dir.display();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: {shown}/data\nhttp:\n  addr: {host}\n"
        );
        match kind {
            Kind::Plain => {}
            Kind::Tls => {
                certificate(dir);
                config.push_str(&format!(
                    "  tls:\n    certificate: {shown}/ca.crt\n    key: {shown}/ca.key\n"
                ));
            }
            Kind::Password => {
                let line = Run::new("htpasswd").args(["-Bbn", "user", "secret"]).ok();
                fs::write(dir.join("passwords"), line + "\n").expect("write passwords");
                config.push_str(&format!(
                    "auth:\n  htpasswd:\n    realm: test\n    path: {shown}/passwords\n"
                ));
            }
        }
        config.push_str(more);
        let file = dir.join("config.yml");
        fs::write(&file, config).expect("write the registry's configuration");
        let log = fs::File::create(dir.join("log")).expect("make the registry's log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        eventually("the registry listens", || TcpStream::connect(&host).is_ok());
        Self {
            child,
            host,
            dir: dir.to_owned(),
        }
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The stored file of a blob.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }

    /// Has skopeo put a docker-archive there as `name`, in `format` (`oci`, `v2s2`).
    pub fn put(&self, archive: &Path, name: &str, format: &str) {
        Run::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
                "--format",
                format,
                &format!("docker-archive:{}", archive.display()),
                &format!("docker://{}/{name}", self.host),
            ])
            .ok();
    }

    /// What skopeo says of `name`, by a Go template.
    #[must_use]
    pub fn inspect(&self, name: &str, template: &str) -> String {
        Run::new("skopeo")
            .args([
                "inspect",
                "--tls-verify=false",
                "--format",
                template,
                &format!("docker://{}/{name}", self.host),
            ])
            .ok()
            .trim()
            .to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on now.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").port()
}

fn certificate(dir: &Path) {
    Run::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=registry",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ])
        .dir(dir)
        .ok();
}

/// What a proxy does with a request for a blob.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Passes so many bytes of the answer's body, then breaks the connection.
    Cut(usize),
    /// Answers this instead, whole with its head.
    Say(&'static str),
}

/// Stands before a registry and does mischief, one fault a request, then none.
#[derive(Debug)]
pub struct Proxy {
    /// `127.0.0.1:PORT`.
    pub host: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Faults hit requests whose line contains `about`, in this order.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn start(registry: &Registry, about: &'static str, faults: Vec<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (target, log) = (registry.host.clone(), Arc::clone(&requests));
        let next = Arc::new(AtomicUsize::new(0));
        let faults = Arc::new(faults);
        // Ends with the process; it holds nothing but the port.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (target, log) = (target.clone(), Arc::clone(&log));
                let (next, faults) = (Arc::clone(&next), Arc::clone(&faults));
                std::thread::spawn(move || {
                    let _ = serve(client, &target, about, &faults, &next, &log);
                });
            }
        });
        Self { host, requests }
    }

    /// Request lines and `Range` headers seen.
    ///
    /// # Panics
    /// If a connection's thread has.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("requests").clone()
    }
}

/// One request a connection: the answer says that it closes.
fn serve(
    mut client: TcpStream,
    target: &str,
    about: &str,
    faults: &[Fault],
    next: &AtomicUsize,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 || head.len() > 64 << 10 {
            return Ok(());
        }
        // A greeting in TLS is no request: whoever greets is to come again without.
        if head.is_empty() && !byte[0].is_ascii_uppercase() {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    let range = text
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("range:"))
        .unwrap_or_default()
        .to_owned();
    log.lock().expect("log").push(format!("{line} {range}"));
    let fault = if line.contains(about) {
        faults.get(next.fetch_add(1, Ordering::Relaxed))
    } else {
        None
    };
    if let Some(Fault::Say(answer)) = fault {
        // Whoever is not told would use the connection once more.
        let answer = answer.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        client.write_all(answer.as_bytes())?;
        return client.shutdown(Shutdown::Both);
    }
    let mut server = TcpStream::connect(target)?;
    let (first, rest) = text.split_once("\r\n").unwrap_or((&text, ""));
    server.write_all(format!("{first}\r\nConnection: close\r\n{rest}").as_bytes())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let body = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map_or(answer.len(), |at| at + 4);
    let end = match fault {
        Some(Fault::Cut(bytes)) => (body + bytes).min(answer.len()),
        _ => answer.len(),
    };
    client.write_all(&answer[..end])?;
    client.shutdown(Shutdown::Both)
}
