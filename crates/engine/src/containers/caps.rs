//! Which capabilities a container gets.

use hull_model::{Error, Result};
use hull_sys::caps::{CapSet, DEFAULT};

/// Every capability this kernel grants us, without `CAP_`.
pub(crate) fn all() -> Vec<String> {
    let own = hull_sys::caps::get()
        .map(|sets| sets.permitted)
        .unwrap_or_default();
    own.names()
        .into_iter()
        .map(|n| n.trim_start_matches("CAP_").to_owned())
        .collect()
}

/// The defaults with `add` and `drop` applied, as Docker does: `ALL` first, single names after.
///
/// # Errors
/// If a name is not a capability.
pub(crate) fn resolve(add: &[String], drop: &[String], privileged: bool) -> Result<Vec<String>> {
    let add = normalise(add)?;
    let drop = normalise(drop)?;
    if privileged {
        return Ok(all());
    }
    let is_all = |list: &[String]| list.iter().any(|c| c == "ALL");
    let mut caps: Vec<String> = match (is_all(&add), is_all(&drop)) {
        (true, _) => all(),
        (false, true) => Vec::new(),
        (false, false) => DEFAULT.map(str::to_owned).into(),
    };
    for cap in add.into_iter().filter(|c| c != "ALL") {
        if !caps.contains(&cap) {
            caps.push(cap);
        }
    }
    caps.retain(|c| !drop.contains(c));
    Ok(caps)
}

fn normalise(list: &[String]) -> Result<Vec<String>> {
    list.iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            let short = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
            if short == "ALL" || CapSet::from_name(&short).is_some() {
                Ok(short)
            } else {
                Err(Error::invalid(format!(
                    "invalid capability: \"{name}\": it is none of the kernel's"
                )))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn drop_all_then_add_one_leaves_that_one() {
        assert_eq!(
            resolve(&strings(&["cap_net_admin"]), &strings(&["ALL"]), false).unwrap(),
            ["NET_ADMIN"]
        );
    }

    #[test]
    fn default_without_one_has_thirteen() {
        assert_eq!(resolve(&[], &strings(&["MKNOD"]), false).unwrap().len(), 13);
    }

    #[test]
    fn unknown_name_is_refused() {
        assert!(resolve(&strings(&["FLY"]), &[], false).is_err());
    }
}
