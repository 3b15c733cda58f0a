//! `--link` as it is written, and as inspect shows it.

use hull_engine::ContainerRecord;
use hull_model::spec::Link;
use hull_model::{Error, Result};

/// Reads `NAME`, `NAME:ALIAS` and what inspect shows, `/NAME:/CONTAINER/ALIAS`.
///
/// # Errors
/// One is malformed, or two have one alias.
pub(crate) fn of(list: &[String]) -> Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    for text in list {
        let link = one(text)?;
        if links.iter().any(|known| known.alias == link.alias) {
            return Err(Error::invalid(format!(
                "two links have the name {:?}",
                link.alias
            )));
        }
        links.push(link);
    }
    Ok(links)
}

fn one(text: &str) -> Result<Link> {
    let invalid = || Error::invalid(format!("bad format for links: {text}: write NAME:ALIAS"));
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    let name = name.strip_prefix('/').unwrap_or(name);
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    let bad = |word: &str| {
        let usable = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        word.is_empty() || !word.chars().all(usable)
    };
    if bad(name) || bad(alias) {
        return Err(invalid());
    }
    Ok(Link {
        name: name.to_owned(),
        alias: alias.to_owned(),
        ..Link::default()
    })
}

/// As inspect shows the links of a container.
pub(crate) fn shown(record: &ContainerRecord) -> Option<Vec<String>> {
    let show = |link: &Link| format!("/{}:/{}/{}", link.name, record.name, link.alias);
    let list: Vec<String> = record.spec.links.iter().map(show).collect();
    (!list.is_empty()).then_some(list)
}

/// As inspect shows those that a join on a network has.
pub(crate) fn on_network(links: &[Link]) -> Option<Vec<String>> {
    let show = |link: &Link| format!("{}:{}", link.name, link.alias);
    let list: Vec<String> = links.iter().map(show).collect();
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_in_each_form() {
        let read = |text: &str| of(&[text.to_owned()]).map(|mut list| list.remove(0));
        for text in ["db:store", "/db:/web/store"] {
            let link = read(text).unwrap();
            assert_eq!((link.name.as_str(), link.alias.as_str()), ("db", "store"));
        }
        assert_eq!(read("db").unwrap().alias, "db");
        for wrong in ["", ":", "db:", ":store", "a b:c", "db:a\nb"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(of(&["a:x".into(), "b:x".into()]).is_err());
    }
}
