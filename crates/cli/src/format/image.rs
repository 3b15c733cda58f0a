//! Images in lists: placeholders of `hull images --format`.

use hull_api_types::image::ImageSummary;

use crate::template::{Map, Value};

use super::human;
use super::list::Listing;

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// The list of images.
pub(crate) const LISTING: Listing<'static> = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.ID}}",
    headers: HEADERS,
};

/// The list with digests.
pub(crate) const LISTING_WITH_DIGESTS: Listing<'static> = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    ..LISTING
};

/// The table of `hull system df -v`.
pub(crate) const LISTING_OF_USAGE: Listing<'static> = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    ..LISTING
};

const NONE: &str = "<none>";

/// The rows of one image: one for each tag, or for each digest where it has no tag or digests are wanted.
pub(crate) fn rows(
    image: &ImageSummary,
    digests: bool,
    no_trunc: bool,
    now: i64,
    only: Option<&str>,
) -> Vec<Value> {
    let mut names: Vec<(String, String, String)> = Vec::new();
    let mut used = Vec::new();
    for tag in &image.repo_tags {
        let (repository, tag) = split_tag(tag);
        if repository == NONE {
            continue;
        }
        let own: Vec<&str> = image
            .repo_digests
            .iter()
            .filter_map(|digest| digest.split_once('@'))
            .filter(|(name, _)| *name == repository)
            .map(|(_, digest)| digest)
            .collect();
        used.push(repository.clone());
        if digests && !own.is_empty() {
            names.extend(
                own.iter()
                    .map(|digest| (repository.clone(), tag.clone(), (*digest).to_owned())),
            );
        } else {
            names.push((repository, tag, NONE.to_owned()));
        }
    }
    for (repository, digest) in image
        .repo_digests
        .iter()
        .filter_map(|digest| digest.split_once('@'))
    {
        if repository != NONE && !used.iter().any(|name| name == repository) {
            names.push((repository.to_owned(), NONE.to_owned(), digest.to_owned()));
            if !digests {
                break;
            }
        }
    }
    if names.is_empty() {
        names.push((NONE.to_owned(), NONE.to_owned(), NONE.to_owned()));
    }
    names
        .into_iter()
        .filter(|(repository, _, _)| only.is_none_or(|only| only == repository))
        .map(|(repository, tag, digest)| row(image, repository, tag, digest, no_trunc, now))
        .collect()
}

/// Repository and tag of `repository:tag`.
fn split_tag(name: &str) -> (String, String) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (name.to_owned(), NONE.to_owned()),
    }
}

fn row(
    image: &ImageSummary,
    repository: String,
    tag: String,
    digest: String,
    no_trunc: bool,
    now: i64,
) -> Value {
    let counted = |size: i64| {
        if size < 0 {
            "N/A".to_owned()
        } else {
            human::size4(size as f64)
        }
    };
    let mut map = Map::of_type("*formatter.imageContext");
    map.push(
        "Containers",
        if image.containers < 0 {
            "N/A".to_owned()
        } else {
            image.containers.to_string()
        },
    );
    map.push("CreatedAt", human::timestamp(image.created));
    map.push(
        "CreatedSince",
        if image.created <= 0 {
            "N/A".to_owned()
        } else {
            human::ago(image.created, now)
        },
    );
    map.push("Digest", digest);
    map.push(
        "ID",
        if no_trunc {
            image.id.clone()
        } else {
            human::short_id(&image.id)
        },
    );
    map.push("Repository", repository);
    map.push("SharedSize", counted(image.shared_size));
    map.push("Size", human::size(image.size));
    map.push("Tag", tag);
    map.push(
        "UniqueSize",
        if image.shared_size < 0 {
            "N/A".to_owned()
        } else {
            human::size4((image.size - image.shared_size) as f64)
        },
    );
    map.push("VirtualSize", human::size4(image.size as f64));
    if let Some(labels) = &image.labels {
        map.labels = labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
    }
    Value::Map(map)
}

#[cfg(test)]
mod tests {
    use super::super::list::render;
    use super::*;

    #[test]
    fn rows_one_for_each_tag() {
        let image: ImageSummary = serde_json::from_str(
            r#"{"Id":"sha256:0123456789abcdef","RepoTags":["a:1","host:5000/b:2"],"RepoDigests":[],"Created":1700000000,"Size":4261573,"SharedSize":-1,"Containers":-1}"#,
        )
        .unwrap();
        let text = render(
            &LISTING,
            &rows(&image, false, false, 1_700_000_120, None),
            None,
            false,
        )
        .unwrap();
        assert_eq!(
            text,
            "REPOSITORY    TAG       IMAGE ID       CREATED         SIZE\n\
             a             1         0123456789ab   2 minutes ago   4.26MB\n\
             host:5000/b   2         0123456789ab   2 minutes ago   4.26MB\n"
        );
        assert_eq!(rows(&image, false, false, 0, Some("a")).len(), 1);
    }

    #[test]
    fn rows_without_names_show_none() {
        let image: ImageSummary =
            serde_json::from_str(r#"{"Id":"sha256:00","Created":1,"Size":0}"#).unwrap();
        let text = render(
            &LISTING,
            &rows(&image, true, false, 2, None),
            Some("{{.Repository}}:{{.Tag}}@{{.Digest}}"),
            false,
        )
        .unwrap();
        assert_eq!(text, "<none>:<none>@<none>\n");
    }
}
