//! The client, and a repository as one user sees it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hull_model::{Digest, Reference};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response, StatusCode};
use sha2::Digest as _;

use crate::auth::{Access, Authorizer};
use crate::document::media;
use crate::hosts::{Host, hosts};
use crate::link::{Link, back_off, worth_another_try};
use crate::watch;
use crate::{BlobReader, Credentials, Descriptor, Document, Proxies, RegistryError};

/// Largest manifest or index.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// How often a document is fetched whose connection breaks in its middle.
const DOCUMENT_TRIES: u32 = 3;
/// The digest of what is sent, as the registry knows it.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What a client is told once.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `certs.d` folders, the first that knows a domain decides.
    pub folders: Vec<PathBuf>,
    /// Registries that may be insecure, besides loopback: hosts, `host:port` or CIDR.
    pub insecure: Vec<String>,
    /// How long a registry may keep silent, half a minute unless told.
    pub patience: Option<Duration>,
    /// Proxies on the way to registries.
    pub proxies: Proxies,
}

/// Keeps connections and tokens.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    authorizer: Authorizer,
    links: Mutex<HashMap<String, (Vec<Host>, Links)>>,
}

/// Those of a domain, in their order.
pub(crate) type Links = Arc<Vec<Arc<Link>>>;

impl Client {
    /// A client without connections.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            authorizer: Authorizer::default(),
            links: Mutex::default(),
        }
    }

    /// The repository of a reference for one user.
    ///
    /// # Errors
    /// If the domain's configuration is malformed.
    pub fn repository(
        self: &Arc<Self>,
        name: &Reference,
        credentials: Credentials,
    ) -> Result<Repository, RegistryError> {
        Ok(Repository {
            links: self.links(&name.domain)?,
            client: Arc::clone(self),
            domain: name.domain.clone(),
            path: name.path.clone(),
            credentials,
        })
    }

    /// The same, with one more domain that may be insecure.
    #[must_use]
    pub fn with_insecure(&self, domain: &str) -> Self {
        let mut settings = self.settings.clone();
        settings.insecure.push(domain.to_owned());
        Self::new(settings)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// Configuration is read each time, connections are kept while it stays the same.
    fn links(&self, domain: &str) -> Result<Links, RegistryError> {
        let hosts = hosts(domain, &self.settings.folders, &self.settings.insecure)?;
        let mut known = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((same, links)) = known.get(domain)
            && *same == hosts
        {
            return Ok(Arc::clone(links));
        }
        let patience = self.settings.patience.unwrap_or(watch::PATIENCE);
        let links = hosts
            .iter()
            .map(|host| Link::new(host.clone(), &self.settings.proxies, patience).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let links: Links = Arc::new(links);
        known.insert(domain.to_owned(), (hosts, Arc::clone(&links)));
        Ok(links)
    }
}

/// One repository.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) client: Arc<Client>,
    pub(crate) links: Links,
    pub(crate) domain: String,
    pub(crate) path: String,
    pub(crate) credentials: Credentials,
}

/// What is to be done, for the choice of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Resolve,
    Pull,
    Push,
}

impl Repository {
    /// `repository:PATH:pull`, or with push.
    pub(crate) fn scope(&self, intent: Intent) -> String {
        let verbs = if intent == Intent::Push {
            "pull,push"
        } else {
            "pull"
        };
        format!("repository:{}:{verbs}", self.path)
    }

    pub(crate) fn access<'a>(&'a self, scope: &'a str) -> Access<'a> {
        Access {
            repository: &self.path,
            scope,
            credentials: &self.credentials,
        }
    }

    pub(crate) fn hosts(&self, intent: Intent) -> impl Iterator<Item = &Arc<Link>> {
        self.links.iter().filter(move |link| match intent {
            Intent::Resolve => link.host.resolve && link.host.pull,
            Intent::Pull => link.host.pull,
            Intent::Push => link.host.push,
        })
    }

    /// The hosts, those last that could not be reached a moment ago.
    pub(crate) fn in_order(&self, intent: Intent) -> Vec<Arc<Link>> {
        let mut hosts: Vec<Arc<Link>> = self.hosts(intent).cloned().collect();
        hosts.sort_by_key(|link| link.is_aside());
        hosts
    }

    /// Asks one host after the other until one answers with success. The last one's answer counts
    /// where none does, but a "not there" says more than a "not reached".
    pub(crate) async fn ask(
        &self,
        intent: Intent,
        method: Method,
        path: &str,
        what: &str,
        with: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<(Arc<Link>, Response), RegistryError> {
        let scope = self.scope(intent);
        let mut last: Option<RegistryError> = None;
        let hosts = self.in_order(intent);
        // Where there is another one to ask, failures are not waited out. One that could not be
        // reached a moment ago is no such one, and its error no news.
        let fresh = match hosts.iter().filter(|link| !link.is_aside()).count() {
            0 => hosts.len(),
            fresh => fresh,
        };
        for (number, link) in hosts.into_iter().enumerate() {
            let patient = number + 1 == fresh;
            let is_news = number < fresh;
            let path = format!("{}/{path}", self.path);
            let build = || Ok(with(link.request(method.clone(), &path, &self.domain)));
            let access = self.access(&scope);
            let authorizer = self.client.authorizer();
            let mut sent = link.send(authorizer, &access, patient, build).await;
            // The registry itself: what comes after it is only the same one without TLS.
            let itself = !link.host.mirror;
            if let Ok(answer) = &sent
                && itself
                && !patient
                && worth_another_try(answer.status())
            {
                sent = link.send(authorizer, &access, true, build).await;
            }
            let error = match sent {
                Ok(answer) if answer.status().is_success() => return Ok((link, answer)),
                Ok(answer) => link.refused(answer, what).await,
                Err(error) => error,
            };
            let reached =
                |error: &RegistryError| !matches!(error, RegistryError::Unreachable { .. });
            if !reached(&error) {
                link.set_aside();
            }
            if reached(&error) && itself {
                return Err(error);
            }
            let better = is_news && !last.as_ref().is_some_and(reached);
            if last.is_none() || reached(&error) || better {
                last = Some(error);
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::NotFound {
            what: what.to_owned(),
            why: format!("no host of {} is configured for this", self.domain),
        }))
    }

    /// Fetches a document as a whole; where the connection breaks in its middle, once more.
    async fn fetch(
        &self,
        intent: Intent,
        path: &str,
        what: &str,
        (name, limit): (&'static str, u64),
        with: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        let mut breaks = 0;
        loop {
            let (link, mut answer) = self.ask(intent, Method::GET, path, what, &with).await?;
            let headers = std::mem::take(answer.headers_mut());
            match whole(&link, &mut answer, what, name, limit).await {
                Err(RegistryError::Unreachable { .. }) if breaks + 1 < DOCUMENT_TRIES => {
                    breaks += 1;
                    tokio::time::sleep(back_off(breaks)).await;
                }
                read => return Ok((headers, read?)),
            }
        }
    }

    /// `domain/path`, for messages.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    pub(crate) fn label(&self, reference: &str) -> String {
        let mark = if reference.contains(':') { '@' } else { ':' };
        format!("{}{mark}{reference}", self.name())
    }

    /// The manifest of a tag or digest; of a digest, verified.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn manifest(&self, reference: &str) -> Result<Document, RegistryError> {
        let expected: Option<Digest> = if reference.contains(':') {
            Some(reference.parse().map_err(|_| RegistryError::Malformed {
                what: self.label(reference),
                why: "its digest is not sha256".to_owned(),
            })?)
        } else {
            None
        };
        let intent = if expected.is_some() {
            Intent::Pull
        } else {
            Intent::Resolve
        };
        let what = self.label(reference);
        let accept = media::ACCEPT.join(", ");
        let path = format!("manifests/{reference}");
        let limit = ("MAX_MANIFEST_BYTES", MAX_MANIFEST_BYTES);
        let (headers, bytes) = self
            .fetch(intent, &path, &what, limit, |request| {
                request.header(ACCEPT, &accept)
            })
            .await?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = text(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default();
        let media_type = media_type.trim().to_owned();
        // What a tag means only the registry knows, but what it says must be what it sends.
        let expected = expected.or_else(|| text(CONTENT_DIGEST)?.trim().parse().ok());
        let digest = digest_of(&bytes);
        match expected {
            Some(expected) if expected != digest => Err(RegistryError::Digest {
                what,
                expected,
                found: digest,
            }),
            _ => Ok(Document {
                bytes,
                media_type,
                digest,
            }),
        }
    }

    /// A small blob as a whole, verified.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn small_blob(
        &self,
        descriptor: &Descriptor,
        name: &'static str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {} of {}", descriptor.digest, self.name());
        if descriptor.size > limit {
            return Err(RegistryError::Limit { what, name, limit });
        }
        let path = format!("blobs/{}", descriptor.digest);
        let (_, bytes) = self
            .fetch(Intent::Pull, &path, &what, (name, limit), |request| request)
            .await?;
        if bytes.len() as u64 != descriptor.size {
            return Err(RegistryError::Length {
                what,
                expected: descriptor.size,
                found: bytes.len() as u64,
            });
        }
        let found = digest_of(&bytes);
        if found != descriptor.digest {
            return Err(RegistryError::Digest {
                what,
                expected: descriptor.digest,
                found,
            });
        }
        Ok(bytes)
    }

    /// A blob as a stream that survives broken connections. Its digest is for the reader to check.
    pub fn blob(&self, descriptor: &Descriptor) -> BlobReader {
        BlobReader::start(self.clone(), descriptor)
    }

    /// Whether the repository has the blob.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let what = format!("blob {digest} of {}", self.name());
        let path = format!("blobs/{digest}");
        match self
            .ask(Intent::Push, Method::HEAD, &path, &what, |r| r)
            .await
        {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Checks that the credentials are good: the base of the API answers.
    ///
    /// # Errors
    /// `Denied` if they are not.
    pub async fn check(&self) -> Result<(), RegistryError> {
        let mut last = None;
        for link in self.in_order(Intent::Resolve) {
            let base = format!("{}/", link.host.base);
            let access = Access {
                repository: &self.domain,
                scope: "",
                credentials: &self.credentials,
            };
            let build = || Ok(link.request_to(Method::GET, &base));
            match link
                .send(self.client.authorizer(), &access, false, build)
                .await
            {
                Ok(answer) if answer.status() == StatusCode::OK => return Ok(()),
                Ok(answer) => return Err(link.refused(answer, &self.domain).await),
                Err(error @ RegistryError::Unreachable { .. }) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::NotFound {
            what: self.domain.clone(),
            why: "no host is configured".to_owned(),
        }))
    }
}

/// Reads a bounded answer.
pub(crate) async fn whole(
    link: &Link,
    answer: &mut Response,
    what: &str,
    name: &'static str,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    match link.watch(answer).whole(limit).await {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(RegistryError::Limit {
            what: what.to_owned(),
            name,
            limit,
        }),
        Err(why) => Err(RegistryError::Unreachable {
            host: link.host.name().to_owned(),
            why: format!("{what} broke off: {why}"),
        }),
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}
