//! Search: the registry's own (`/v1/search`, which Docker Hub and a few others have), else a look
//! through its list of repositories.

use reqwest::Method;
use serde::Deserialize;

use crate::client::{Intent, Repository, whole};
use crate::listing::read;
use crate::{RegistryError, auth};

/// Largest answer to a search.
const MAX_ANSWER_BYTES: u64 = 4 << 20;
/// Where Docker Hub answers pulls, and where it answers searches.
const HUB_BASE: &str = "https://registry-1.docker.io/v2";
const HUB_SEARCH: &str = "https://index.docker.io/v1/search";

/// One repository found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SearchHit {
    /// Its name, without the registry.
    pub name: String,
    /// What it is said to be.
    #[serde(deserialize_with = "or_default")]
    pub description: String,
    /// How many users like it.
    #[serde(rename = "star_count")]
    pub stars: u64,
    /// Whether the registry's makers answer for it.
    #[serde(rename = "is_official")]
    pub official: bool,
    /// Whether it is built there.
    #[serde(rename = "is_automated")]
    pub automated: bool,
}

fn or_default<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Option<Vec<SearchHit>>,
}

impl Repository {
    /// Repositories of this one's registry that have to do with `term`, at most `limit`.
    ///
    /// # Errors
    /// See [`RegistryError`]; where the registry has no search, that of its list.
    pub async fn search(&self, term: &str, limit: usize) -> Result<Vec<SearchHit>, RegistryError> {
        let mut found = match self.by_search(term, limit).await? {
            Some(found) => found,
            None => {
                let mut names = self.catalog().await?;
                names.retain(|name| name.contains(term));
                let hit = |name| SearchHit {
                    name,
                    ..SearchHit::default()
                };
                names.into_iter().map(hit).collect()
            }
        };
        found.truncate(limit);
        Ok(found)
    }

    /// None if the registry has no search.
    async fn by_search(
        &self,
        term: &str,
        limit: usize,
    ) -> Result<Option<Vec<SearchHit>>, RegistryError> {
        let what = format!("search in {}", self.domain);
        let access = auth::Access {
            repository: &self.domain,
            scope: "",
            credentials: &self.credentials,
        };
        let mut last = None;
        for link in self.in_order(Intent::Resolve) {
            let url = match link.host.base.as_str() {
                HUB_BASE => HUB_SEARCH.to_owned(),
                base => format!("{}/v1/search", base.strip_suffix("/v2").unwrap_or(base)),
            };
            let build = || {
                Ok(link
                    .request_to(Method::GET, &url)
                    .query(&[("q", term), ("n", &limit.to_string())]))
            };
            let sent = link
                .send(self.client.authorizer(), &access, false, build)
                .await;
            let mut answer = match sent {
                Ok(answer) => answer,
                Err(error @ RegistryError::Unreachable { .. }) => {
                    last = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !answer.status().is_success() {
                // Whoever has no search says so in many ways.
                if answer.status().is_client_error() && answer.status().as_u16() != 429 {
                    return Ok(None);
                }
                return Err(link.refused(answer, &what).await);
            }
            let bytes = whole(
                &link,
                &mut answer,
                &what,
                "MAX_ANSWER_BYTES",
                MAX_ANSWER_BYTES,
            )
            .await?;
            let answer: Result<Answer, _> = read(&bytes, &what);
            return Ok(answer.ok().and_then(|answer| answer.results));
        }
        match last {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }
}
