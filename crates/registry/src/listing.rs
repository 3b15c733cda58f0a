//! What a registry lists: the tags of a repository, and its repositories.

use reqwest::header::LINK;
use reqwest::{Method, Response};
use serde::Deserialize;

use crate::client::{Intent, Repository, whole};
use crate::{RegistryError, auth};

/// Largest page of a list.
const MAX_PAGE_BYTES: u64 = 8 << 20;
/// Most pages read of one list.
const MAX_PAGES: usize = 1_000;
/// Most names taken from one list.
const MAX_NAMES: usize = 100_000;
/// Names asked for at once.
const PAGE: usize = 500;

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Repository {
    /// All tags, in the registry's order.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let what = format!("list of the tags of {}", self.name());
        let mut pages = Pages::new(&what);
        while let Some(query) = pages.wanted()? {
            let path = format!("tags/list?{query}");
            let (link, mut answer) = self
                .ask(Intent::Resolve, Method::GET, &path, &what, |r| r)
                .await?;
            let next = next_page(&answer);
            let bytes = whole(&link, &mut answer, &what, "MAX_PAGE_BYTES", MAX_PAGE_BYTES).await?;
            let page: Tags = read(&bytes, &what)?;
            pages.add(page.tags.unwrap_or_default(), next);
        }
        Ok(pages.found)
    }

    /// The repositories of this registry, as far as it tells them.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn catalog(&self) -> Result<Vec<String>, RegistryError> {
        let what = format!("list of the repositories of {}", self.domain);
        let mut pages = Pages::new(&what);
        while let Some(query) = pages.wanted()? {
            let (bytes, next) = self.catalog_page(&query, &what).await?;
            let page: Catalog = read(&bytes, &what)?;
            pages.add(page.repositories.unwrap_or_default(), next);
        }
        Ok(pages.found)
    }

    async fn catalog_page(
        &self,
        query: &str,
        what: &str,
    ) -> Result<(Vec<u8>, Option<String>), RegistryError> {
        let access = auth::Access {
            repository: &self.domain,
            scope: "registry:catalog:*",
            credentials: &self.credentials,
        };
        let mut last = None;
        for link in self.in_order(Intent::Resolve) {
            let url = format!("{}/_catalog?{query}", link.host.base);
            let build = || Ok(link.request_to(Method::GET, &url));
            match link
                .send(self.client.authorizer(), &access, false, build)
                .await
            {
                Ok(mut answer) if answer.status().is_success() => {
                    let next = next_page(&answer);
                    let bytes =
                        whole(&link, &mut answer, what, "MAX_PAGE_BYTES", MAX_PAGE_BYTES).await?;
                    return Ok((bytes, next));
                }
                Ok(answer) if link.host.mirror => last = Some(link.refused(answer, what).await),
                // What comes after the registry itself is only the same one without TLS.
                Ok(answer) => return Err(link.refused(answer, what).await),
                Err(error) => last = last.or(Some(error)),
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::NotFound {
            what: what.to_owned(),
            why: "no host is configured for this".to_owned(),
        }))
    }
}

/// A list that comes page by page.
struct Pages<'a> {
    what: &'a str,
    found: Vec<String>,
    /// The query of the page that comes next.
    query: Option<String>,
    asked: usize,
}

impl<'a> Pages<'a> {
    fn new(what: &'a str) -> Self {
        Self {
            what,
            found: Vec::new(),
            query: Some(format!("n={PAGE}")),
            asked: 0,
        }
    }

    /// The query to ask now, none at the end.
    fn wanted(&mut self) -> Result<Option<String>, RegistryError> {
        if self.found.len() > MAX_NAMES || (self.query.is_some() && self.asked == MAX_PAGES) {
            return Err(too_many(self.what));
        }
        self.asked += 1;
        Ok(self.query.clone())
    }

    /// Takes a page. One of nothing that leads to another leads nowhere, and so does one that leads
    /// to itself.
    fn add(&mut self, names: Vec<String>, next: Option<String>) {
        let empty = names.is_empty();
        self.found.extend(names);
        self.query = next.filter(|next| !empty && self.query.as_ref() != Some(next));
    }
}

/// The query of the next page: `Link: </v2/…?QUERY>; rel="next"` (RFC 8288).
fn next_page(answer: &Response) -> Option<String> {
    let text = answer.headers().get(LINK)?.to_str().ok()?;
    query_of(text)
}

fn query_of(link: &str) -> Option<String> {
    let (_, rest) = link.split_once('<')?;
    let (target, parameters) = rest.split_once('>')?;
    if !parameters.contains("next") {
        return None;
    }
    let (_, query) = target.split_once('?')?;
    Some(query.to_owned())
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    what: &str,
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| RegistryError::Malformed {
        what: what.to_owned(),
        why: error.to_string(),
    })
}

fn too_many(what: &str) -> RegistryError {
    RegistryError::Limit {
        what: what.to_owned(),
        name: "MAX_NAMES",
        limit: MAX_NAMES as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_of_next_link_is_taken_and_others_are_not() {
        assert_eq!(
            query_of(r#"</v2/a/tags/list?last=x&n=2>; rel="next""#).as_deref(),
            Some("last=x&n=2")
        );
        for bad in ["", "</v2/a?b>; rel=\"prev\"", "<x>; rel=next", "a?b"] {
            assert_eq!(query_of(bad), None, "{bad}");
        }
    }
}
