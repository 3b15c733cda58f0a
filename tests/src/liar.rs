//! A registry made up by a test: it keeps what it is given, lies as it is told, and notes what it
//! was asked.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hull_testkit::archive::digest;
use serde_json::{Value, json};

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header, empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whether it is of this method and its path has this part.
    #[must_use]
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

/// How a body comes.
#[derive(Debug, Clone)]
pub enum Body {
    /// As it is.
    Whole(Arc<Vec<u8>>),
    /// Its first bytes, then the connection breaks.
    Cut(Arc<Vec<u8>>, usize),
    /// In pieces of so many bytes with a pause after each.
    Slowly(Arc<Vec<u8>>, usize, Duration),
    /// Never, nor does the head.
    Never,
    /// Nothing comes, and the connection ends.
    Gone,
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers besides the length.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Body,
    /// The length that the head says, if another than the body's; none of a body in chunks.
    pub length: Option<u64>,
    /// Whether the body goes in chunks, which tells no length.
    pub chunked: bool,
}

impl Reply {
    /// An answer with a body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Whole(Arc::new(body.into())),
            length: None,
            chunked: false,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// To another place.
    #[must_use]
    pub fn redirect(to: &str) -> Self {
        Self::new(307, "").header("Location", to)
    }

    /// Says nothing at all.
    #[must_use]
    pub fn never() -> Self {
        Self {
            body: Body::Never,
            ..Self::new(200, "")
        }
    }

    /// Hangs up.
    #[must_use]
    pub fn gone() -> Self {
        Self {
            body: Body::Gone,
            ..Self::new(200, "")
        }
    }

    /// The same with its body cut.
    #[must_use]
    pub fn cut(mut self, bytes: usize) -> Self {
        if let Body::Whole(body) = &self.body {
            self.body = Body::Cut(Arc::clone(body), bytes);
        }
        self
    }

    /// The same in pieces.
    #[must_use]
    pub fn slowly(mut self, bytes: usize, pause: Duration) -> Self {
        if let Body::Whole(body) = &self.body {
            self.body = Body::Slowly(Arc::clone(body), bytes, pause);
        }
        self
    }
}

/// A server that answers by a function; it ends with the process.
#[derive(Debug)]
pub struct Liar {
    /// `127.0.0.1:PORT`.
    pub host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Liar {
    /// Listens, and gives its host to the function that makes what answers.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn start<F>(make: impl FnOnce(&str) -> F) -> Self
    where
        F: Fn(&Request) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        let answer = Arc::new(make(&host));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || {
                    let _ = serve(client, &*answer, &log);
                });
            }
        });
        Self { host, requests }
    }

    /// One that serves a shelf as it is.
    #[must_use]
    pub fn honest(shelf: &Shelf) -> Self {
        let shelf = shelf.clone();
        Self::start(move |_| move |request: &Request| shelf.answer(request))
    }

    /// What it was asked so far.
    ///
    /// # Panics
    /// If a connection's thread has.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("requests").clone()
    }

    /// How often it was asked so.
    #[must_use]
    pub fn count(&self, method: &str, part: &str) -> usize {
        let requests = self.requests();
        requests.iter().filter(|r| r.is(method, part)).count()
    }
}

/// One request a connection.
fn serve(
    client: TcpStream,
    answer: &(dyn Fn(&Request) -> Reply + Send + Sync),
    log: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    // A greeting in TLS is no request: whoever greets is to come again without.
    if !reader
        .fill_buf()?
        .first()
        .is_some_and(u8::is_ascii_uppercase)
    {
        return Ok(());
    }
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next(), words.next());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let mut request = Request {
        method: method.unwrap_or_default(),
        path: path.unwrap_or_default(),
        headers,
        body: Vec::new(),
    };
    if request.header("transfer-encoding").contains("chunked") {
        read_chunks(&mut reader, &mut request.body)?;
    } else if let Ok(length) = request.header("content-length").parse::<u64>() {
        (&mut reader).take(length).read_to_end(&mut request.body)?;
    }
    log.lock().expect("log").push(request.clone());
    let reply = answer(&request);
    write(client, &request, &reply)
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        reader.by_ref().take(size).read_to_end(body)?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn write(mut client: TcpStream, request: &Request, reply: &Reply) -> io::Result<()> {
    let (bytes, end) = match &reply.body {
        Body::Whole(bytes) | Body::Slowly(bytes, ..) => (bytes, bytes.len()),
        Body::Cut(bytes, end) => (bytes, *end.min(&bytes.len())),
        Body::Gone => return client.shutdown(Shutdown::Both),
        Body::Never => {
            // Until the other side gives up.
            let _ = client.read(&mut [0; 1]);
            return Ok(());
        }
    };
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else {
        let length = reply.length.unwrap_or(bytes.len() as u64);
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    client.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        let (step, pause) = match &reply.body {
            Body::Slowly(_, step, pause) => (*step, *pause),
            _ => (64 << 10, Duration::ZERO),
        };
        for piece in bytes[..end].chunks(step) {
            if reply.chunked {
                client.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
            }
            client.write_all(piece)?;
            if reply.chunked {
                client.write_all(b"\r\n")?;
            }
            std::thread::sleep(pause);
        }
        if reply.chunked && end == bytes.len() {
            client.write_all(b"0\r\n\r\n")?;
        }
    }
    client.shutdown(Shutdown::Write)?;
    // Closed with bytes unread the kernel would take back what was sent.
    let _ = client.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = client.read(&mut [0; 1]);
    Ok(())
}

/// A layer as a registry has it.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Media type.
    pub kind: &'static str,
    /// The compressed bytes.
    pub bytes: Arc<Vec<u8>>,
    /// Digest of the tar, with `sha256:`.
    pub diff_id: String,
}

impl Packed {
    /// A tar as it is.
    #[must_use]
    pub fn plain(tar: &[u8]) -> Self {
        Self {
            kind: "application/vnd.oci.image.layer.v1.tar",
            bytes: Arc::new(tar.to_vec()),
            diff_id: format!("sha256:{}", digest(tar)),
        }
    }

    /// A tar in gzip.
    ///
    /// # Panics
    /// If it cannot be packed.
    #[must_use]
    pub fn gzip(tar: &[u8]) -> Self {
        Self {
            kind: "application/vnd.oci.image.layer.v1.tar+gzip",
            bytes: Arc::new(gzip(tar)),
            ..Self::plain(tar)
        }
    }

    /// Bytes that are said to be the gzip of some tar.
    #[must_use]
    pub fn claimed(bytes: Vec<u8>) -> Self {
        Self {
            kind: "application/vnd.oci.image.layer.v1.tar+gzip",
            diff_id: format!("sha256:{}", digest(&bytes)),
            bytes: Arc::new(bytes),
        }
    }

    /// Its digest, with `sha256:`.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("sha256:{}", digest(&self.bytes))
    }

    /// Its descriptor.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.kind, "digest": self.digest(), "size": self.bytes.len()})
    }
}

/// The gzip of bytes.
///
/// # Panics
/// Never: memory takes all.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("pack");
    encoder.finish().expect("pack")
}

/// What a registry keeps. Clones are the same shelf.
#[derive(Debug, Clone, Default)]
pub struct Shelf(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    blobs: BTreeMap<String, Arc<Vec<u8>>>,
    /// By tag and by digest: media type and bytes.
    manifests: BTreeMap<String, (String, Arc<Vec<u8>>)>,
    uploads: BTreeMap<String, Vec<u8>>,
}

/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Shelf {
    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.0.lock().expect("shelf")
    }

    /// Keeps a blob and gives its digest, with `sha256:`.
    #[must_use]
    pub fn blob(&self, bytes: Arc<Vec<u8>>) -> String {
        let digest = format!("sha256:{}", digest(&bytes));
        self.content().blobs.insert(digest.clone(), bytes);
        digest
    }

    /// The bytes of a blob.
    #[must_use]
    pub fn bytes_of(&self, digest: &str) -> Option<Arc<Vec<u8>>> {
        self.content().blobs.get(digest).cloned()
    }

    /// Keeps a manifest under a tag and its digest, which it gives.
    pub fn manifest(&self, tag: &str, kind: &str, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", digest(bytes));
        let mut content = self.content();
        for name in [tag, &digest] {
            let entry = (kind.to_owned(), Arc::new(bytes.to_vec()));
            content.manifests.insert(name.to_owned(), entry);
        }
        digest
    }

    /// The manifest of an image of these layers, the configuration and the layers kept.
    #[must_use]
    pub fn image_manifest(&self, layers: &[Packed]) -> Value {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["sh"],
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let size = config.len();
        let digest = self.blob(Arc::new(config));
        for layer in layers {
            let _ = self.blob(Arc::clone(&layer.bytes));
        }
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest,
                "size": size,
            },
            "layers": layers.iter().map(Packed::descriptor).collect::<Vec<_>>(),
        })
    }

    /// Keeps an image under a tag and gives its manifest's digest.
    pub fn image(&self, tag: &str, layers: &[Packed]) -> String {
        let manifest = self.image_manifest(layers).to_string();
        self.manifest(tag, MANIFEST, manifest.as_bytes())
    }

    /// Answers as a registry does.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap_or_default();
        let method = request.method.as_str();
        if path == "/v2/" {
            return Reply::new(200, "{}");
        }
        let (before, last) = path.rsplit_once('/').unwrap_or_default();
        if before.contains("/blobs/uploads") {
            return self.upload(request, before, last);
        }
        if before.ends_with("/manifests") {
            if method == "PUT" {
                let kind = request.header("content-type");
                let digest = self.manifest(last, kind, &request.body);
                return Reply::new(201, "").header("Docker-Content-Digest", &digest);
            }
            return match self.content().manifests.get(last) {
                Some((kind, bytes)) => Reply {
                    body: Body::Whole(Arc::clone(bytes)),
                    ..Reply::new(200, "").header("Content-Type", kind)
                },
                None => missing("MANIFEST_UNKNOWN"),
            };
        }
        match self.content().blobs.get(last) {
            Some(bytes) if before.ends_with("/blobs") => ranged(request, bytes),
            _ => missing("BLOB_UNKNOWN"),
        }
    }

    fn upload(&self, request: &Request, before: &str, last: &str) -> Reply {
        let mut content = self.content();
        if request.method == "POST" {
            if request.path.contains("mount=") {
                return missing("NOT_HERE");
            }
            let id = format!("u{}", content.uploads.len());
            content.uploads.insert(id.clone(), Vec::new());
            return Reply::new(202, "").header("Location", &format!("{before}/{id}"));
        }
        let Some(upload) = content.uploads.get_mut(last) else {
            return missing("UPLOAD_UNKNOWN");
        };
        upload.extend_from_slice(&request.body);
        let place = format!("{before}/{last}");
        if request.method != "PUT" {
            return Reply::new(202, "").header("Location", &place);
        }
        let bytes = std::mem::take(upload);
        let found = format!("sha256:{}", digest(&bytes));
        let (_, said) = request.path.split_once("digest=").unwrap_or_default();
        if said.replace("%3A", ":") != found {
            return Reply::new(400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
        }
        content.blobs.insert(found, Arc::new(bytes));
        Reply::new(201, "")
    }
}

fn missing(code: &str) -> Reply {
    Reply::new(404, json!({"errors": [{"code": code}]}).to_string())
}

/// The whole, or what `Range: bytes=N-` asks for.
#[must_use]
pub fn ranged(request: &Request, bytes: &Arc<Vec<u8>>) -> Reply {
    let from = request
        .header("range")
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    match from.and_then(|from| Some((from, bytes.get(from..)?))) {
        Some((from, rest)) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, rest).header("Content-Range", &range)
        }
        None => Reply {
            body: Body::Whole(Arc::clone(bytes)),
            ..Reply::new(200, "")
        },
    }
}
