//! A file from anywhere on the web, for `import` of an address. The folder in `certs.d` that is
//! named for its host holds further authorities.

use bytes::Bytes;
use reqwest::{Method, Response, Url};

use crate::client::Client;
use crate::hosts::hosts;
use crate::link::Link;
use crate::{RegistryError, watch};

/// A file on its way.
#[derive(Debug)]
pub struct Download {
    link: Link,
    answer: Response,
}

impl Client {
    /// Begins to download what is at an `http://` or `https://` address.
    ///
    /// # Errors
    /// If the address is none, its host cannot be reached or answers with another status than 200.
    pub async fn download(&self, address: &str) -> Result<Download, RegistryError> {
        let wrong = |why: &str| RegistryError::Config {
            file: address.to_owned(),
            why: why.to_owned(),
        };
        let url = Url::parse(address).map_err(|e| wrong(&e.to_string()))?;
        let host = match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) => host,
            _ => return Err(wrong("it is no address of the web")),
        };
        let domain = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let settings = self.settings();
        let host = hosts(&domain, &settings.folders, &settings.insecure)?
            .pop()
            .ok_or_else(|| wrong("no host is configured for it"))?;
        let patience = settings.patience.unwrap_or(watch::PATIENCE);
        let link = Link::new(host, &settings.proxies, patience)?;
        let request = link
            .request_to(Method::GET, address)
            .build()
            .map_err(|e| link.unreachable(&e))?;
        let answer = link.execute(request).await.map_err(|e| e.error)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(link.refused(answer, "the download").await);
        }
        Ok(Download { link, answer })
    }
}

impl Download {
    /// Its size, where the host tells.
    pub fn size(&self) -> Option<u64> {
        self.answer.content_length()
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// If the connection breaks or stalls.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let next = self.link.watch(&mut self.answer).chunk().await;
        next.map_err(|why| RegistryError::Unreachable {
            host: self.link.host.name().to_owned(),
            why,
        })
    }
}
