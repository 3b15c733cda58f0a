//! Tokens: what a registry's challenge is answered with, kept until it expires.
//!
//! Source: distribution's "Token Authentication Specification" and RFC 6749 for refresh tokens.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::challenge::Challenge;
use crate::hosts::Host;
use crate::link::{Link, chain};
use crate::{Credentials, RegistryError};

/// Life of a token whose issuer says nothing.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is renewed so long before its end.
const MARGIN: Duration = Duration::from_secs(5);
/// Largest answer of a token server read.
const MAX_TOKEN_BYTES: usize = 1 << 20;
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
    known: Mutex<HashMap<Key, Known>>,
}

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

impl Authorizer {
    /// The header that was good the last time.
    pub(crate) async fn known(&self, host: &Host, access: &Access<'_>) -> Option<String> {
        if let Credentials::Token(token) = access.credentials {
            return Some(format!("Bearer {token}"));
        }
        let known = self.known.lock().await;
        let found = known.get(&key(host, access))?;
        let fresh = found
            .until
            .is_none_or(|until| Instant::now() + MARGIN < until);
        fresh.then(|| found.header.clone())
    }

    /// Gets what the challenge asks for, unless another request did while this one waited.
    pub(crate) async fn answer(
        &self,
        link: &Link,
        access: &Access<'_>,
        challenges: &[Challenge],
        refused: Option<String>,
    ) -> Result<(), RegistryError> {
        let mut known = self.known.lock().await;
        let key = key(&link.host, access);
        if known
            .get(&key)
            .is_some_and(|k| Some(&k.header) != refused.as_ref())
        {
            return Ok(());
        }
        known.remove(&key);
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
        if known.len() >= MAX_KEPT {
            known.clear();
        }
        known.insert(key, fresh);
        Ok(())
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
    let loopback =
        |url: &str| url.starts_with("http://127.") || url.starts_with("http://localhost");
    let plain_host = link.host.base.starts_with("http://");
    if !realm.starts_with("https://") && !plain_host && !loopback(realm) {
        // Credentials must not be led from an encrypted connection to a plain one.
        return Err(denied(format!("its token server {realm} is not encrypted")));
    }
    let service = get("service").unwrap_or_default();
    let request = match access.credentials {
        Credentials::Identity(refresh) => link.http().post(realm).form(&[
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "hull"),
            ("scope", access.scope),
            ("refresh_token", refresh),
        ]),
        other => {
            let mut query = vec![("service", service)];
            query.extend(access.scope.split(' ').map(|scope| ("scope", scope)));
            let mut request = link.http().get(realm);
            if let Credentials::Basic { user, password } = other {
                query.push(("account", user));
                request = request.header(reqwest::header::AUTHORIZATION, basic(user, password));
            }
            request.query(&query)
        }
    };
    let mut answer = request
        .send()
        .await
        .map_err(|error| RegistryError::Unreachable {
            host: realm.to_owned(),
            why: chain(&error),
        })?;
    if !answer.status().is_success() {
        return Err(denied(format!(
            "its token server answered {}",
            answer.status()
        )));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| link.unreachable(&e))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_TOKEN_BYTES {
            return Err(denied("its token server's answer is too large".to_owned()));
        }
    }
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
