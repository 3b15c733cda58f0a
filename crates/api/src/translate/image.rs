//! Images as lists, inspect and history show them.
use hull_api_types::image::{
    HistoryItem, ImageDeleteItem, ImageInspect, ImageMetadata, ImageSummary, RootFs,
};
use hull_api_types::inspect::GraphDriver;
use hull_engine::Filters;
use hull_engine::images::{ImageRemoved, StoredImage};

use super::{config, container, time};

/// Unix seconds of its making.
pub(crate) fn created(image: &StoredImage) -> i64 {
    image
        .config()
        .created
        .as_deref()
        .map_or(0, time::unix_seconds)
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn parent(image: &StoredImage) -> String {
    image
        .record
        .parent
        .map(|id| id.to_string())
        .unwrap_or_default()
}

/// Writes a line of a list.
pub(crate) fn summary(
    image: &StoredImage,
    containers: Option<usize>,
    shared: Option<u64>,
) -> ImageSummary {
    let labels = &image.config().config.labels;
    ImageSummary {
        containers: containers.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
        created: created(image),
        id: image.id().to_string(),
        labels: (!labels.is_empty()).then(|| labels.clone()),
        parent_id: parent(image),
        repo_digests: image.familiar_digests(),
        repo_tags: image.familiar_tags(),
        shared_size: shared.map_or(-1, size),
        size: size(image.record.size),
        ..ImageSummary::default()
    }
}

/// Writes everything about an image.
pub(crate) fn inspect(image: &StoredImage) -> ImageInspect {
    let document = image.config();
    let history = document.history.last();
    let comment = if image.record.comment.is_empty() {
        history
            .and_then(|line| line.comment.clone())
            .unwrap_or_default()
    } else {
        image.record.comment.clone()
    };
    ImageInspect {
        id: image.id().to_string(),
        repo_tags: image.familiar_tags(),
        repo_digests: image.familiar_digests(),
        parent: parent(image),
        comment,
        created: document.created.clone().unwrap_or_default(),
        author: document.author.clone().unwrap_or_default(),
        config: Some(config::of_image(&document.config)),
        architecture: document.architecture.clone(),
        variant: document.variant.clone().unwrap_or_default(),
        os: document.os.clone(),
        size: size(image.record.size),
        graph_driver: GraphDriver {
            data: None,
            name: container::DRIVER.into(),
        },
        root_fs: RootFs {
            kind: "layers".into(),
            layers: image
                .record
                .layers()
                .iter()
                .map(ToString::to_string)
                .collect(),
        },
        metadata: ImageMetadata {
            last_tag_time: last_tag(image),
        },
        ..ImageInspect::default()
    }
}

/// When it last got a name; Go's zero time if never.
fn last_tag(image: &StoredImage) -> String {
    let record = &image.record;
    match &record.tagged {
        Some(time) => time.clone(),
        // A record of an earlier version.
        None if !image.tags.is_empty() => record.stored.clone(),
        None => time::NEVER.into(),
    }
}

/// Writes a line of a history.
pub(crate) fn history(line: hull_image::store::HistoryLine) -> HistoryItem {
    HistoryItem {
        comment: line.comment,
        created: line.created.as_deref().map_or(0, time::unix_seconds),
        created_by: line.created_by,
        id: line
            .id
            .map_or_else(|| "<missing>".into(), |id| id.to_string()),
        size: size(line.size),
        tags: (!line.tags.is_empty()).then_some(line.tags),
    }
}

/// Writes what a removal did.
pub(crate) fn removed(list: Vec<ImageRemoved>) -> Vec<ImageDeleteItem> {
    list.into_iter()
        .map(|one| match one {
            ImageRemoved::Untagged(name) => ImageDeleteItem {
                untagged: name,
                deleted: String::new(),
            },
            ImageRemoved::Deleted(id) => ImageDeleteItem {
                untagged: String::new(),
                deleted: id.to_string(),
            },
        })
        .collect()
}

/// Leaves an image only the names that `reference` patterns ask for; false when none is left.
pub(crate) fn keep_named(image: &mut StoredImage, filters: &Filters) -> bool {
    if filters.values("reference").is_empty() {
        return true;
    }
    image.tags.retain(|name| is_named(name, filters));
    image.digests.retain(|name| is_named(name, filters));
    !image.tags.is_empty() || !image.digests.is_empty()
}

/// Whether a name is one that `reference` patterns ask for.
pub(crate) fn is_named(name: &hull_model::Reference, filters: &Filters) -> bool {
    filters.values("reference").is_empty()
        || filters.matches("reference", |pattern| {
            glob(pattern, &name.familiar()) || glob(pattern, &name.familiar_name())
        })
}

/// Go's path.Match without character classes: `*` and `?` stop at a `/`.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last star took one byte more.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some(b'?'), Some(byte)) if *byte != b'/' => {
                p += 1;
                t += 1;
                continue;
            }
            (Some(want), Some(byte)) if want == byte => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        match retry {
            Some((after, at)) if text.get(at).is_some_and(|byte| *byte != b'/') => {
                p = after;
                t = at + 1;
                retry = Some((after, t));
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_stars_stop_at_slashes() {
        for (pattern, text, want) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox:latest", true),
            ("*box", "busybox", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a?c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*x", "abc", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }
}
