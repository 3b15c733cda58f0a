//! Tokens: what a registry's challenge is answered with, kept until it expires.
//!
//! Source: distribution's "Token Authentication Specification" and RFC 6749 for refresh tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::challenge::Challenge;
use crate::hosts::Host;
use crate::link::{Link, back_off, chain, retry_after, worth_another_try};
use crate::watch::{self, shown};
use crate::{Credentials, RegistryError};

/// Life of a token whose issuer says nothing.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is renewed so long before its end.
const MARGIN: Duration = Duration::from_secs(5);
/// Largest answer of a token server read.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// How often a token server is asked that is busy or breaks off.
const TRIES: u32 = 4;
/// Longest pause that a token server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Most tokens kept.
const MAX_KEPT: usize = 1_000;

/// Who wants to do what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<'a> {
    /// The repository.
    pub(crate) repository: &'a str,
    /// Such as `repository:library/busybox:pull`, several with a space between.
    pub(crate) scope: &'a str,
    /// For the domain asked for.
    pub(crate) credentials: &'a Credentials,
}

/// Answers challenges.
#[derive(Debug, Default)]
pub(crate) struct Authorizer {
    known: StdMutex<HashMap<Key, Place>>,
}

/// Held while a token is fetched: a slow token server holds up those alone who want its token.
type Place = Arc<Mutex<Option<Known>>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    base: String,
    scope: String,
    /// Tokens of one user are not for another.
    user: String,
}

struct Known {
    header: String,
    until: Option<Instant>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

fn key(host: &Host, access: &Access<'_>) -> Key {
    Key {
        base: host.base.clone(),
        scope: access.scope.to_owned(),
        user: access.credentials.to_header(),
    }
}

impl Known {
    fn is_fresh(&self) -> bool {
        self.until
            .is_none_or(|until| Instant::now() + MARGIN < until)
    }
}

impl Authorizer {
    fn place(&self, key: Key) -> Place {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KEPT && !known.contains_key(&key) {
            known.clear();
        }
        Arc::clone(known.entry(key).or_default())
    }

    /// The header that was good the last time.
    pub(crate) async fn known(&self, host: &Host, access: &Access<'_>) -> Option<String> {
        if let Credentials::Token(token) = access.credentials {
            return Some(format!("Bearer {token}"));
        }
        let place = self.place(key(host, access));
        let known = place.lock().await;
        let found = known.as_ref().filter(|known| known.is_fresh());
        found.map(|known| known.header.clone())
    }

    /// Gets the header that the challenge asks for, unless another request did while this one
    /// waited.
    pub(crate) async fn answer(
        &self,
        link: &Link,
        access: &Access<'_>,
        challenges: &[Challenge],
        refused: Option<String>,
    ) -> Result<String, RegistryError> {
        let place = self.place(key(&link.host, access));
        let mut known = place.lock().await;
        if let Some(known) = &*known
            && known.is_fresh()
            && Some(&known.header) != refused.as_ref()
        {
            return Ok(known.header.clone());
        }
        *known = None;
        let by = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        let fresh = match (by("bearer"), by("basic"), access.credentials) {
            (Some(bearer), _, _) => token(link, access, bearer).await?,
            (None, Some(_), Credentials::Basic { user, password }) => Known {
                header: basic(user, password),
                until: None,
            },
            _ => {
                return Err(RegistryError::Denied {
                    host: link.host.name().to_owned(),
                    what: access.repository.to_owned(),
                    why: "it wants a name and a password: hull login".to_owned(),
                });
            }
        };
        let header = fresh.header.clone();
        *known = Some(fresh);
        Ok(header)
    }
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

async fn token(
    link: &Link,
    access: &Access<'_>,
    challenge: &Challenge,
) -> Result<Known, RegistryError> {
    let get = |name: &str| challenge.parameters.get(name).map(String::as_str);
    let denied = |why: String| RegistryError::Denied {
        host: link.host.name().to_owned(),
        what: access.repository.to_owned(),
        why,
    };
    let realm = get("realm").ok_or_else(|| denied("its challenge names no realm".to_owned()))?;
    let place = Url::parse(realm)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| denied(format!("its token server {realm:?} is no address")))?;
    let plain_host = link.host.base.starts_with("http://");
    if place.scheme() != "https" && !plain_host && !is_loopback(&place) {
        // Credentials must not be led from an encrypted connection to a plain one.
        return Err(denied(format!(
            "its token server {realm:?} is not encrypted"
        )));
    }
    let service = get("service").unwrap_or_default();
    let build = || match access.credentials {
        Credentials::Identity(refresh) => link.careful().post(place.clone()).form(&[
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "hull"),
            ("scope", access.scope),
            ("refresh_token", refresh),
        ]),
        other => {
            let mut query = vec![("service", service)];
            query.extend(access.scope.split(' ').map(|scope| ("scope", scope)));
            let mut request = link.careful().get(place.clone());
            if let Credentials::Basic { user, password } = other {
                query.push(("account", user));
                request = request.header(reqwest::header::AUTHORIZATION, basic(user, password));
            }
            request.query(&query)
        }
    };
    let unreachable = |why: String| RegistryError::Unreachable {
        host: place.host_str().unwrap_or_default().to_owned(),
        why,
    };
    let mut failures = 0;
    let bytes = loop {
        failures += 1;
        let mut pause = None;
        let patience = link.patience().saturating_mul(watch::ANSWER);
        let error = match tokio::time::timeout(patience, build().send()).await {
            Err(_) => unreachable(format!("it did not answer within {}", shown(patience))),
            Ok(Err(error)) if error.is_redirect() || error.is_builder() => {
                return Err(unreachable(chain(&error)));
            }
            Ok(Err(error)) => unreachable(chain(&error)),
            Ok(Ok(mut answer)) if answer.status().is_success() => {
                match link.watch(&mut answer).whole(MAX_TOKEN_BYTES).await {
                    Ok(Some(bytes)) => break bytes,
                    Ok(None) => {
                        let why = "its token server's answer is too large";
                        return Err(denied(why.to_owned()));
                    }
                    Err(why) => unreachable(why),
                }
            }
            Ok(Ok(answer)) => {
                let status = answer.status();
                let error = denied(format!("its token server answered {status}"));
                if !worth_another_try(status) {
                    return Err(error);
                }
                pause = retry_after(&answer);
                error
            }
        };
        if failures >= TRIES || pause.is_some_and(|pause| pause > LONGEST_PAUSE) {
            return Err(error);
        }
        tokio::time::sleep(pause.unwrap_or_else(|| back_off(failures))).await;
    };
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|error| denied(format!("its token server's answer is not valid: {error}")))?;
    let token = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    if token.is_empty() {
        return Err(denied("its token server gave no token".to_owned()));
    }
    let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
    Ok(Known {
        header: format!("Bearer {token}"),
        until: Instant::now().checked_add(life),
    })
}

/// By its parsed host: `127.0.0.1.example` is not on this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_loopback_looks_at_the_whole_host() {
        for (url, own) in [
            ("http://127.0.0.1:80/token", true),
            ("http://[::1]/token", true),
            ("http://localhost/", true),
            ("http://127.0.0.1.example/", false),
            ("http://localhost.example/", false),
            ("http://127.0.0.1@example/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).expect(url)), own, "{url}");
        }
    }
}
