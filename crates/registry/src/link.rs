//! Requests to one host: authorisation, retries with back-off, the registry's words of an error.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode};

use crate::auth::{Access, Authorizer};
use crate::hosts::Host;
use crate::{RegistryError, challenge, tls};

/// Tries of one request.
const TRIES: u32 = 6;
/// Tries of a connection: whoever mistyped a name without a network need not wait.
const CONNECT_TRIES: u32 = 3;
/// Pause after the first failure; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause, whatever the registry asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a host that could not be reached is asked last.
const ASIDE: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Without a byte for so long a connection counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;
/// Largest error document read.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Longest excerpt of what a registry says.
const MAX_WORDS: usize = 400;

/// One host and the connections to it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) host: Host,
    http: reqwest::Client,
    aside_until: Mutex<Option<Instant>>,
}

impl Link {
    pub(crate) fn new(host: Host) -> Result<Self, RegistryError> {
        let config = |error: reqwest::Error| RegistryError::Config {
            file: host.name().to_owned(),
            why: chain(&error),
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(&host)?)
            .user_agent(concat!("hull/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
            .build()
            .map_err(config)?;
        Ok(Self {
            host,
            http,
            aside_until: Mutex::default(),
        })
    }

    /// It could not be reached: for a while others are asked first.
    pub(crate) fn set_aside(&self) {
        *self.aside() = Some(Instant::now() + ASIDE);
    }

    pub(crate) fn is_aside(&self) -> bool {
        self.aside().is_some_and(|until| Instant::now() < until)
    }

    fn aside(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.aside_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// A request for a path below `/v2`.
    pub(crate) fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        domain: &str,
    ) -> RequestBuilder {
        let mut url = format!("{}/{path}", self.host.base);
        if self.host.mirror {
            let mark = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{mark}ns={domain}");
        }
        self.request_to(method, &url)
    }

    /// A request to where the registry led us.
    pub(crate) fn request_to(&self, method: reqwest::Method, url: &str) -> RequestBuilder {
        let mut request = self.http.request(method, url);
        for (name, values) in &self.host.headers {
            for value in values {
                request = request.header(name, value);
            }
        }
        request
    }

    /// Sends what `build` makes until there is an answer that is neither a demand for
    /// credentials nor a wish to be asked later. `again` says whether it may be sent twice.
    pub(crate) async fn send(
        &self,
        authorizer: &Authorizer,
        access: &Access<'_>,
        again: bool,
        build: impl Fn() -> Result<RequestBuilder, RegistryError>,
    ) -> Result<Response, RegistryError> {
        let tries = if again { TRIES } else { 1 };
        let mut challenged = false;
        let mut failures = 0;
        loop {
            let mut request = build()?;
            let known = authorizer.known(&self.host, access).await;
            if let Some(value) = &known {
                request = request.header(AUTHORIZATION, value);
            }
            let pause = match request.send().await {
                Err(error) => {
                    failures += 1;
                    let tries = if error.is_connect() {
                        tries.min(CONNECT_TRIES)
                    } else {
                        tries
                    };
                    if failures >= tries || error.is_redirect() || error.is_builder() {
                        return Err(self.unreachable(&error));
                    }
                    None
                }
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    let challenges = challenges(&answer);
                    if challenged || challenges.is_empty() {
                        let why = words(answer).await;
                        return Err(self.denied(access, &why));
                    }
                    challenged = true;
                    authorizer.answer(self, access, &challenges, known).await?;
                    continue;
                }
                Ok(answer) if worth_another_try(answer.status()) => {
                    failures += 1;
                    if failures >= tries {
                        return Ok(answer);
                    }
                    retry_after(&answer)
                }
                Ok(answer) => return Ok(answer),
            };
            tokio::time::sleep(pause.unwrap_or_else(|| back_off(failures))).await;
        }
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::Unreachable {
            host: self.host.name().to_owned(),
            why: chain(error),
        }
    }

    fn denied(&self, access: &Access<'_>, why: &str) -> RegistryError {
        let why = if why.is_empty() {
            "log in with hull login".to_owned()
        } else {
            format!("{why}; it may need hull login")
        };
        RegistryError::Denied {
            host: self.host.name().to_owned(),
            what: access.repository.to_owned(),
            why,
        }
    }

    /// The error for an answer that is none of those hoped for.
    pub(crate) async fn refused(&self, answer: Response, what: &str) -> RegistryError {
        let status = answer.status();
        let why = words(answer).await;
        let host = self.host.name().to_owned();
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound {
                what: what.to_owned(),
                why,
            },
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => RegistryError::Denied {
                host,
                what: what.to_owned(),
                why,
            },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooMany { host, why },
            status => RegistryError::Status {
                host,
                status: status.as_u16(),
                what: what.to_owned(),
                why,
            },
        }
    }
}

fn worth_another_try(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn challenges(answer: &Response) -> Vec<challenge::Challenge> {
    answer
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect()
}

/// Doubling, and a random part so that many clients do not come back at once.
pub(crate) fn back_off(failures: u32) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(8));
    let mut byte = [0u8; 1];
    let part = match getrandom::fill(&mut byte) {
        Ok(()) => u32::from(byte[0]),
        Err(_) => 128,
    };
    (full / 2 + full.saturating_mul(part) / 512).min(LONGEST_PAUSE)
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => http_date(text)?
            .duration_since(SystemTime::now())
            .unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

fn http_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// What a registry says of its refusal: the messages of the specification's error document.
async fn words(mut answer: Response) -> String {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(default)]
        details: String,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ERROR_BYTES {
            return String::new();
        }
    }
    let Ok(body) = serde_json::from_slice::<Body>(&bytes) else {
        return String::new();
    };
    let mut text = body
        .errors
        .iter()
        .map(|one| {
            if one.message.is_empty() {
                &one.code
            } else {
                &one.message
            }
        })
        .filter(|text| !text.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if text.is_empty() {
        text = body.details;
    }
    // A registry does not get to write control characters on a terminal.
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_WORDS)
        .collect()
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_and_ends() {
        assert!(back_off(1) <= FIRST_PAUSE);
        assert!(back_off(4) > back_off(1));
        assert!(back_off(99) <= LONGEST_PAUSE);
    }
}
