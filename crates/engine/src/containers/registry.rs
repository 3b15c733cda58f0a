//! All containers, by id and by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use hull_model::{Error, Result};

use super::entry::Container;

/// The maps; names are reserved before a record exists.
#[derive(Debug, Default)]
pub(crate) struct Registry(RwLock<Maps>);

#[derive(Debug, Default)]
struct Maps {
    // Ordered, so that an id's prefix is found without a scan.
    by_id: BTreeMap<String, Arc<Container>>,
    by_name: HashMap<String, String>,
}

impl Registry {
    /// Finds by full id, name, or unambiguous prefix of the id, in this order.
    ///
    /// # Errors
    /// If none or several match.
    pub(crate) fn find(&self, key: &str) -> Result<Arc<Container>> {
        let maps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let name = key.strip_prefix('/').unwrap_or(key);
        if let Some(found) = maps.by_id.get(key) {
            return Ok(Arc::clone(found));
        }
        if let Some(found) = maps.by_name.get(name).and_then(|id| maps.by_id.get(id)) {
            return Ok(Arc::clone(found));
        }
        let missing = || Error::not_found(format!("No such container: {key}"));
        if key.is_empty() {
            return Err(missing());
        }
        let mut matches = maps
            .by_id
            .range(key.to_owned()..)
            .take_while(|(id, _)| id.starts_with(key));
        match (matches.next(), matches.next()) {
            (Some((_, found)), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "multiple IDs found with provided prefix: {key}: give more digits"
            ))),
            (None, _) => Err(missing()),
        }
    }

    /// Reserves a name for an id.
    ///
    /// # Errors
    /// If it is taken, with Docker's words.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match maps.by_name.get(name) {
            Some(other) if other != id => Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{other}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            ))),
            _ => {
                maps.by_name.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back, if it is this id's.
    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if maps.by_name.get(name).is_some_and(|owner| owner == id) {
            maps.by_name.remove(name);
        }
    }

    /// Adds a container whose name is reserved.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        maps.by_id.insert(container.id.clone(), container);
    }

    /// Takes a container out, with its name.
    pub(crate) fn remove(&self, container: &Container) {
        let name = container.with(|r| r.name.clone());
        let mut maps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        maps.by_id.remove(&container.id);
        if maps
            .by_name
            .get(&name)
            .is_some_and(|owner| *owner == container.id)
        {
            maps.by_name.remove(&name);
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_id
            .values()
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_state::ContainerRecord;

    fn add(registry: &Registry, id: &str, name: &str) {
        registry.reserve(name, id).unwrap();
        let record = ContainerRecord {
            id: id.into(),
            name: name.into(),
            ..ContainerRecord::default()
        };
        registry.insert(Container::new(record));
    }

    #[test]
    fn find_by_name_prefix_and_ambiguous_prefix() {
        let registry = Registry::default();
        add(&registry, "abc1", "web");
        add(&registry, "abd2", "abc");
        assert_eq!(registry.find("/web").unwrap().id, "abc1");
        assert_eq!(
            registry.find("abc").unwrap().id,
            "abd2",
            "a name wins over a prefix"
        );
        assert_eq!(registry.find("abd").unwrap().id, "abd2");
        assert!(
            registry
                .find("ab")
                .unwrap_err()
                .to_string()
                .contains("multiple")
        );
        assert!(registry.find("").is_err());
    }

    #[test]
    fn reserve_taken_name_is_a_conflict_until_released() {
        let registry = Registry::default();
        add(&registry, "a", "web");
        assert!(registry.reserve("web", "b").is_err());
        registry.release("web", "b");
        assert!(registry.reserve("web", "b").is_err());
        registry.release("web", "a");
        registry.reserve("web", "b").unwrap();
    }
}
