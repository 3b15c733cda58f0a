//! Uploads: a blob that is there is not sent, one that another repository of the registry has is
//! mounted, any other is streamed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hull_model::Digest;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::mpsc;

use crate::client::{Intent, Repository, digest_of};
use crate::link::{Link, challenges};
use crate::{Document, RegistryError};

const OCTETS: &str = "application/octet-stream";

/// A blob that is sent: its chunks as they are made, then its digest.
#[derive(Debug)]
pub struct Blob {
    /// The bytes. An error ends the upload.
    pub chunks: mpsc::Receiver<Result<Bytes, String>>,
    /// Known once all chunks were made.
    pub digest: tokio::sync::oneshot::Receiver<Digest>,
}

impl Repository {
    /// The host that takes pushes: of a registry without TLS, the one that answers.
    async fn reachable(&self) -> Result<Arc<Link>, RegistryError> {
        let mut last = None;
        for link in self.in_order(Intent::Push) {
            let base = format!("{}/", link.host.base);
            let sent = match link.request_to(Method::GET, &base).build() {
                Ok(request) => link.execute(request).await.map_err(|failure| failure.error),
                Err(error) => Err(link.unreachable(&error)),
            };
            match sent {
                Ok(_) => return Ok(link),
                Err(error) => {
                    link.set_aside();
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::NotFound {
            what: self.name(),
            why: "no host of it may be written to".to_owned(),
        }))
    }

    /// Has the blob of another repository of this registry appear here. False if it did not.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, RegistryError> {
        let link = self.reachable().await?;
        let scope = format!("{} repository:{from}:pull", self.scope(Intent::Push));
        let path = format!("{}/blobs/uploads/?mount={digest}&from={from}", self.path);
        let build = || {
            Ok(link
                .request(Method::POST, &path, &self.domain)
                .header(CONTENT_LENGTH, 0))
        };
        let access = self.access(&scope);
        let answer = link
            .send(self.client.authorizer(), &access, true, build)
            .await?;
        match answer.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => {
                // It began an upload instead, which nobody will go on with.
                if let Ok(place) = location(&answer) {
                    let build = || Ok(link.request_to(Method::DELETE, place.as_str()));
                    let _ = link
                        .send(self.client.authorizer(), &access, false, build)
                        .await;
                }
                Ok(false)
            }
            // Many refuse what they may not read: then it is sent.
            status if status.is_client_error() => Ok(false),
            _ => Err(link.refused(answer, &format!("mount of {digest}")).await),
        }
    }

    /// Sends a small blob, if it is not there.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn put_small(&self, bytes: &[u8]) -> Result<Digest, RegistryError> {
        let digest = digest_of(bytes);
        if self.has_blob(&digest).await? {
            return Ok(digest);
        }
        let link = self.reachable().await?;
        let place = self.begin(&link, &mut None).await?;
        self.finish(&link, place, &digest, Bytes::copy_from_slice(bytes))
            .await?;
        Ok(digest)
    }

    /// Sends a blob while it is made.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn put(&self, blob: Blob) -> Result<Digest, RegistryError> {
        let link = self.reachable().await?;
        let mut proof = None;
        let place = self.begin(&link, &mut proof).await?;
        let scope = self.scope(Intent::Push);
        let access = self.access(&scope);
        let authorizer = self.client.authorizer();
        let taken = Arc::new(AtomicU64::new(0));
        let state = (blob.chunks, Arc::clone(&taken));
        let chunks = futures_util::stream::unfold(state, |(mut chunks, taken)| async move {
            let next = chunks.recv().await?;
            taken.fetch_add(1, Ordering::Relaxed);
            Some((next.map_err(std::io::Error::other), (chunks, taken)))
        });
        let mut request = link
            .request_to(Method::PATCH, place.as_str())
            .header(CONTENT_TYPE, OCTETS)
            .body(reqwest::Body::wrap_stream(chunks))
            .build()
            .map_err(|e| link.unreachable(&e))?;
        link.prove(&mut request, proof.as_deref());
        let answer = link.upload(request, &taken).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            // The token expired meanwhile: whoever has the bytes may send them once more.
            let challenges = challenges(&answer);
            authorizer
                .answer(&link, &access, &challenges, proof)
                .await?;
            return Err(RegistryError::Unreachable {
                host: link.host.name().to_owned(),
                why: format!("the token for {} expired during an upload", self.name()),
            });
        }
        if !answer.status().is_success() {
            return Err(link
                .refused(answer, &format!("upload to {}", self.name()))
                .await);
        }
        let place = location(&answer)?;
        let digest = blob
            .digest
            .await
            .map_err(|_| RegistryError::Source("it ended without its digest".to_owned()))?;
        self.finish(&link, place, &digest, Bytes::new()).await?;
        Ok(digest)
    }

    async fn begin(&self, link: &Link, proof: &mut Option<String>) -> Result<Url, RegistryError> {
        let scope = self.scope(Intent::Push);
        let path = format!("{}/blobs/uploads/", self.path);
        let build = || {
            Ok(link
                .request(Method::POST, &path, &self.domain)
                .header(CONTENT_LENGTH, 0))
        };
        let access = self.access(&scope);
        let answer = link
            .send_with(self.client.authorizer(), &access, true, proof, build)
            .await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(link.refused(answer, &self.name()).await);
        }
        location(&answer)
    }

    async fn finish(
        &self,
        link: &Link,
        mut place: Url,
        digest: &Digest,
        rest: Bytes,
    ) -> Result<(), RegistryError> {
        place
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let scope = self.scope(Intent::Push);
        let build = || {
            Ok(link
                .request_to(Method::PUT, place.as_str())
                .header(CONTENT_TYPE, OCTETS)
                .body(rest.clone()))
        };
        let access = self.access(&scope);
        let answer = link
            .send(self.client.authorizer(), &access, true, build)
            .await?;
        if answer.status() == StatusCode::CREATED || answer.status() == StatusCode::NO_CONTENT {
            return Ok(());
        }
        Err(link.refused(answer, &format!("blob {digest}")).await)
    }

    /// Sends a manifest under a tag or its digest.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn put_manifest(
        &self,
        reference: &str,
        document: &Document,
    ) -> Result<(), RegistryError> {
        let link = self.reachable().await?;
        let scope = self.scope(Intent::Push);
        let path = format!("{}/manifests/{reference}", self.path);
        let body = Bytes::copy_from_slice(&document.bytes);
        let build = || {
            Ok(link
                .request(Method::PUT, &path, &self.domain)
                .header(CONTENT_TYPE, &document.media_type)
                .body(body.clone()))
        };
        let access = self.access(&scope);
        let answer = link
            .send(self.client.authorizer(), &access, true, build)
            .await?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(link
            .refused(answer, &format!("{}:{reference}", self.name()))
            .await)
    }
}

/// Where an upload goes on; it may be relative to the request's address.
fn location(answer: &Response) -> Result<Url, RegistryError> {
    let wrong = |why: &str| RegistryError::Malformed {
        what: format!("answer of {}", answer.url()),
        why: why.to_owned(),
    };
    let place = answer
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| wrong("it tells no place for the upload"))?;
    answer
        .url()
        .join(place)
        .map_err(|_| wrong("its place for the upload is no address"))
}
