//! Requests to one host: authorisation, retries with back-off, the registry's words of an error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Request, RequestBuilder, Response, StatusCode, Url};

use crate::auth::{Access, Authorizer};
use crate::hosts::Host;
use crate::watch::{self, Watched, shown};
use crate::{Proxies, RegistryError, challenge, tls};

/// Tries of one request.
const TRIES: u32 = 6;
/// Tries of a connection: whoever mistyped a name without a network need not wait.
const CONNECT_TRIES: u32 = 3;
/// Pause after the first failure; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause. Who asks for a longer one is not asked again, but the user told.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often one request may be asked for other credentials: of several that share a token, others
/// may use it up meanwhile.
const CHALLENGES: u32 = 2;
/// How long a host that could not be reached is asked last.
const ASIDE: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_REDIRECTS: usize = 5;
/// Largest error document read.
const MAX_ERROR_BYTES: u64 = 64 << 10;
/// Longest excerpt of what a registry says.
const MAX_WORDS: usize = 400;

/// One host and the connections to it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) host: Host,
    http: reqwest::Client,
    /// For secrets: led to another host, it stays where it is.
    careful: reqwest::Client,
    patience: Duration,
    aside_until: Mutex<Option<Instant>>,
}

impl Link {
    pub(crate) fn new(
        host: Host,
        proxies: &Proxies,
        patience: Duration,
    ) -> Result<Self, RegistryError> {
        let config = |error: reqwest::Error| RegistryError::Config {
            file: host.name().to_owned(),
            why: chain(&error),
        };
        let tls = tls::config(&host)?;
        let client = |policy| {
            proxies
                .apply(reqwest::Client::builder())
                .tls_backend_preconfigured(tls.clone())
                .user_agent(concat!("hull/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .referer(false)
                .redirect(policy)
                .build()
                .map_err(config)
        };
        let careful = Policy::custom(|attempt| match attempt.previous().last() {
            Some(last) if attempt.previous().len() > MAX_REDIRECTS => {
                let text = format!("too many redirects from {last}");
                attempt.error(text)
            }
            Some(last) if last.origin() == attempt.url().origin() => attempt.follow(),
            _ => attempt.stop(),
        });
        let (http, careful) = (client(Policy::limited(MAX_REDIRECTS))?, client(careful)?);
        Ok(Self {
            host,
            http,
            careful,
            patience,
            aside_until: Mutex::default(),
        })
    }

    /// How long it may keep silent.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Reads an answer's body with patience.
    pub(crate) fn watch<'a>(&self, answer: &'a mut Response) -> Watched<'a> {
        Watched::new(answer, self.patience)
    }

    /// Whether an address is this host's, and may have what was given for it alone.
    pub(crate) fn is_own(&self, url: &Url) -> bool {
        Url::parse(&self.host.base).is_ok_and(|base| base.origin() == url.origin())
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

    pub(crate) fn careful(&self) -> &reqwest::Client {
        &self.careful
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

    /// A request to where the registry led us. What the configuration says to send along goes to
    /// the host itself alone.
    pub(crate) fn request_to(&self, method: reqwest::Method, url: &str) -> RequestBuilder {
        let mut request = self.http.request(method, url);
        if Url::parse(url).is_ok_and(|url| self.is_own(&url)) {
            for (name, values) in &self.host.headers {
                for value in values {
                    request = request.header(name, value);
                }
            }
        }
        request
    }

    /// Adds what proves who asks, unless the request goes to another host.
    pub(crate) fn prove(&self, request: &mut Request, header: Option<&str>) {
        let Some(header) = header.filter(|_| self.is_own(request.url())) else {
            return;
        };
        if let Ok(mut value) = HeaderValue::from_str(header) {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
    }

    /// Sends a request once; an answer must begin in time.
    pub(crate) async fn execute(&self, request: Request) -> Result<Response, Failure> {
        // A registry that takes an upload may have to copy it before it answers.
        let times = match request.body() {
            Some(_) => watch::UPLOAD,
            None => watch::ANSWER,
        };
        let patience = self.patience.saturating_mul(times);
        match tokio::time::timeout(patience, self.http.execute(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure {
                tries: match &error {
                    error if error.is_redirect() || error.is_builder() => 1,
                    error if error.is_connect() => CONNECT_TRIES,
                    _ => TRIES,
                },
                error: self.unreachable(&error),
            }),
            Err(_) => Err(Failure {
                tries: CONNECT_TRIES,
                error: RegistryError::Unreachable {
                    host: self.host.name().to_owned(),
                    why: format!("it did not answer within {}", shown(patience)),
                },
            }),
        }
    }

    /// Sends a body that is made meanwhile. It may take any time, but not stand still: `taken`
    /// counts how often something of it was taken.
    pub(crate) async fn upload(
        &self,
        request: Request,
        taken: &AtomicU64,
    ) -> Result<Response, RegistryError> {
        let patience = self.patience.saturating_mul(watch::UPLOAD);
        let mut sent = std::pin::pin!(self.http.execute(request));
        let mut before = 0;
        loop {
            match tokio::time::timeout(patience, &mut sent).await {
                Ok(answer) => return answer.map_err(|error| self.unreachable(&error)),
                Err(_) => {
                    let now = taken.load(Ordering::Relaxed);
                    if now == before {
                        return Err(RegistryError::Unreachable {
                            host: self.host.name().to_owned(),
                            why: format!("an upload stood still for {}", shown(patience)),
                        });
                    }
                    before = now;
                }
            }
        }
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
        let mut proof = None;
        self.send_with(authorizer, access, again, &mut proof, build)
            .await
    }

    /// The same; what it was asked with is left in `given`. A token just given is used even if its
    /// issuer lets it live for a moment only.
    pub(crate) async fn send_with(
        &self,
        authorizer: &Authorizer,
        access: &Access<'_>,
        again: bool,
        given: &mut Option<String>,
        build: impl Fn() -> Result<RequestBuilder, RegistryError>,
    ) -> Result<Response, RegistryError> {
        let tries = if again { TRIES } else { 1 };
        let mut challenged = 0;
        let mut failures = 0;
        loop {
            let mut request = build()?.build().map_err(|e| self.unreachable(&e))?;
            if given.is_none() {
                *given = authorizer.known(&self.host, access).await;
            }
            self.prove(&mut request, given.as_deref());
            let own = self.is_own(request.url());
            let pause = match self.execute(request).await {
                Err(failure) => {
                    failures += 1;
                    if failures >= tries.min(failure.tries) {
                        return Err(failure.error);
                    }
                    None
                }
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    let challenges = challenges(&answer);
                    if challenged >= CHALLENGES || challenges.is_empty() || !own {
                        let why = self.words(answer).await;
                        return Err(self.denied(access, &why));
                    }
                    challenged += 1;
                    let refused = given.take();
                    let fresh = authorizer
                        .answer(self, access, &challenges, refused.clone())
                        .await?;
                    if refused.as_ref() == Some(&fresh) {
                        let why = self.words(answer).await;
                        return Err(self.denied(access, &why));
                    }
                    *given = Some(fresh);
                    continue;
                }
                Ok(answer) if worth_another_try(answer.status()) => {
                    failures += 1;
                    let pause = retry_after(&answer);
                    if failures >= tries || pause.is_some_and(|pause| pause > LONGEST_PAUSE) {
                        return Ok(answer);
                    }
                    // While it waits a token may expire.
                    challenged = 0;
                    pause
                }
                Ok(answer) => return Ok(answer),
            };
            tokio::time::sleep(pause.unwrap_or_else(|| back_off(failures))).await;
        }
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        let (host, why) = (self.host.name().to_owned(), chain(error));
        if error.is_redirect() {
            RegistryError::Redirects { host, why }
        } else {
            RegistryError::Unreachable { host, why }
        }
    }

    /// What a registry says of its refusal.
    async fn words(&self, mut answer: Response) -> String {
        match self.watch(&mut answer).whole(MAX_ERROR_BYTES).await {
            Ok(Some(bytes)) => messages(&bytes),
            _ => String::new(),
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
        let later = retry_after(&answer).filter(|_| worth_another_try(status));
        let mut why = self.words(answer).await;
        if let Some(later) = later {
            let mark = if why.is_empty() { "" } else { "; " };
            why = format!("{why}{mark}it asks to wait {}", shown(later));
        }
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

pub(crate) fn worth_another_try(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

pub(crate) fn challenges(answer: &Response) -> Vec<challenge::Challenge> {
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
pub(crate) fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => http_date(text)?
            .duration_since(SystemTime::now())
            .unwrap_or_default(),
    };
    Some(pause)
}

fn http_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// Why there is no answer, and how often it is worth to try.
#[derive(Debug)]
pub(crate) struct Failure {
    tries: u32,
    pub(crate) error: RegistryError,
}

/// The messages of the specification's error document.
fn messages(bytes: &[u8]) -> String {
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
    let Ok(body) = serde_json::from_slice::<Body>(bytes) else {
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
    harmless(&text)
}

/// A registry does not get to write control characters on a terminal, nor whole books.
pub(crate) fn harmless(text: &str) -> String {
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
