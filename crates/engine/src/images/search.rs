//! `search`: repositories of a registry.

use hull_model::{Error, Reference, Result};
use hull_registry::{Credentials, SearchHit};

use crate::Engine;
use crate::filters::Filters;

/// Hits of a search where nothing is said.
const DEFAULT_LIMIT: usize = 25;
/// Most hits of a search.
const MAX_LIMIT: usize = 100;

/// What a hit must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchFilters {
    /// The registry's makers answer for it, or do not.
    pub official: Option<bool>,
    /// It is built there, or is not.
    pub automated: Option<bool>,
    /// At least so many stars.
    pub stars: u64,
}

/// A repository found, by the name that can be pulled.
pub type SearchResult = SearchHit;

impl SearchFilters {
    /// Reads Docker's filters.
    ///
    /// # Errors
    /// For an unknown name or a malformed value.
    pub fn read(filters: &Filters) -> Result<Self> {
        filters.allow_only(&["is-official", "is-automated", "stars"])?;
        let truth = |name: &str| -> Result<Option<bool>> {
            match filters.values(name).first().map(String::as_str) {
                None => Ok(None),
                Some("true" | "1") => Ok(Some(true)),
                Some("false" | "0") => Ok(Some(false)),
                Some(other) => Err(Error::invalid(format!("invalid filter '{name}={other}'"))),
            }
        };
        let mut stars = 0;
        for text in filters.values("stars") {
            let count: u64 = text
                .parse()
                .map_err(|_| Error::invalid(format!("invalid filter 'stars={text}'")))?;
            stars = stars.max(count);
        }
        Ok(Self {
            official: truth("is-official")?,
            automated: truth("is-automated")?,
            stars,
        })
    }

    fn fit(&self, hit: &SearchHit) -> bool {
        self.official.is_none_or(|wanted| wanted == hit.official)
            && self.automated.is_none_or(|wanted| wanted == hit.automated)
            && hit.stars >= self.stars
    }
}

impl Engine {
    /// Searches a registry for `[registry/]term`.
    ///
    /// # Errors
    /// `InvalidArgument` for a term or limit that makes no sense; `Unavailable`, `NotFound`.
    pub async fn search(
        &self,
        term: &str,
        limit: Option<i64>,
        filters: &SearchFilters,
        credentials: Credentials,
    ) -> Result<Vec<SearchResult>> {
        let limit = match limit {
            None | Some(0) => DEFAULT_LIMIT,
            Some(wanted) => usize::try_from(wanted)
                .ok()
                .filter(|wanted| (1..=MAX_LIMIT).contains(wanted))
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "limit {wanted} is outside the range of [1, {MAX_LIMIT}]"
                    ))
                })?,
        };
        if term.contains("://") {
            return Err(Error::invalid(format!(
                "invalid repository name: repository name ({term}) should not have a scheme"
            )));
        }
        let (domain, term) = place(term);
        let name: Reference = format!("{domain}/search").parse()?;
        let repository = self.registry.repository(&name, credentials)?;
        // Filters come after the registry's own choice, so it is asked for all that it gives.
        let narrow = *filters != SearchFilters::default();
        let asked = if narrow { MAX_LIMIT } else { limit };
        let mut found = repository.search(term, asked).await?;
        found.retain(|hit| filters.fit(hit));
        found.truncate(limit);
        if domain != hull_model::reference::DEFAULT_DOMAIN {
            for hit in &mut found {
                hit.name = format!("{domain}/{}", hit.name);
            }
        }
        Ok(found)
    }
}

/// The registry that a term names, and the rest.
fn place(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some(("docker.io" | "index.docker.io", rest)) => {
            (hull_model::reference::DEFAULT_DOMAIN, rest)
        }
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => (first, rest),
        _ => (hull_model::reference::default_registry(), term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_takes_the_registry_off() {
        assert_eq!(place("box"), ("docker.io", "box"));
        assert_eq!(place("user/box"), ("docker.io", "user/box"));
        assert_eq!(place("reg.example:5000/a/b"), ("reg.example:5000", "a/b"));
        assert_eq!(place("localhost/"), ("localhost", ""));
        assert_eq!(place("index.docker.io/a"), ("docker.io", "a"));
    }

    #[test]
    fn filters_choose_by_stars_and_truth() {
        let hit = SearchHit {
            stars: 3,
            official: true,
            ..SearchHit::default()
        };
        let with = |official, stars| SearchFilters {
            official,
            stars,
            ..SearchFilters::default()
        };
        assert!(with(None, 3).fit(&hit));
        assert!(!with(None, 4).fit(&hit));
        assert!(with(Some(true), 0).fit(&hit));
        assert!(!with(Some(false), 0).fit(&hit));
    }
}
