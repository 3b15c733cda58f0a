//! Durable records: what exists, in one SQLite database that survives `kill -9` at any moment.
//!
//! SQLite in WAL mode hands each commit to the kernel with one write; the process may then die
//! and the commit stays. Only a power failure needs an `fsync`, and only records that are meant
//! to outlive one ask for it ([`Durability::Disk`]). Reading happens once, at start: the
//! engine's maps are the cache.

mod network;
mod record;
mod six;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};

pub use network::{Join, NetworkRecord};
pub use record::{
    ContainerRecord, ContainerState, Endpoint, Health, HealthProbe, MountPoint, Place,
};
pub use six::{Endpoint6, Range6};

/// Bytes kept back on the disk, so that ends and removals can be recorded when it is full.
const RESERVE: usize = 512 << 10;

/// Version of the schema this build writes.
const SCHEMA: i64 = 2;

/// What a commit must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The death of this process.
    Process,
    /// A power failure, too.
    Disk,
}

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// SQLite refused.
    #[error("state database {path}: cannot {action}")]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The reason.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer Hull wrote it.
    #[error(
        "state database {path} has schema {found}, this Hull knows up to {SCHEMA}: use the newer Hull"
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// A record could not be encoded.
    #[error("record {id} cannot be encoded")]
    Encode {
        /// Whose record.
        id: String,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
}

/// The database.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// What was read at start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// All containers.
    pub containers: Vec<ContainerRecord>,
    /// All networks that users made.
    pub networks: Vec<NetworkRecord>,
    /// Ids whose record could not be read, with the reason; the caller reports them and lets
    /// them be.
    pub unreadable: Vec<(String, String)>,
}

impl State {
    /// Opens the database, making it where missing.
    ///
    /// # Errors
    /// If the file cannot be opened or was written by a newer Hull.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let fail = |action| {
            move |source| StateError::Sqlite {
                path: path.to_owned(),
                action,
                source,
            }
        };
        let connection = Connection::open(path).map_err(fail("open it"))?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-512;
                 PRAGMA wal_autocheckpoint=256; PRAGMA busy_timeout=2000;",
            )
            .map_err(fail("configure it"))?;
        let found: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fail("read its schema"))?;
        if found > SCHEMA {
            return Err(StateError::TooNew {
                path: path.to_owned(),
                found,
            });
        }
        if found < 1 {
            connection
                .execute_batch(
                    "BEGIN; CREATE TABLE container (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                     PRAGMA user_version=1; COMMIT;",
                )
                .map_err(fail("make its tables"))?;
        }
        if found < 2 {
            connection
                .execute_batch(
                    "BEGIN; CREATE TABLE network (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                     PRAGMA user_version=2; COMMIT;",
                )
                .map_err(fail("make the table of networks"))?;
        }
        let state = Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
        };
        state.keep_reserve();
        Ok(state)
    }

    /// Reads every record.
    ///
    /// # Errors
    /// If the database cannot be read; single bad records are listed instead.
    pub fn load(&self) -> Result<Loaded, StateError> {
        let connection = self.lock();
        let mut loaded = Loaded::default();
        let mut read = || -> rusqlite::Result<()> {
            let Loaded {
                containers,
                networks,
                unreadable,
            } = &mut loaded;
            read_table(&connection, "container", containers, unreadable)?;
            read_table(&connection, "network", networks, unreadable)?;
            Ok(())
        };
        read().map_err(|source| self.error("read it", source))?;
        Ok(loaded)
    }

    /// Writes a container's record, new or changed.
    ///
    /// # Errors
    /// If the disk is full or fails; the old record then stays.
    pub fn put(&self, record: &ContainerRecord, durability: Durability) -> Result<(), StateError> {
        let text = serde_json::to_string(record).map_err(|source| StateError::Encode {
            id: record.id.clone(),
            source,
        })?;
        self.write(durability, "write a record", |connection| {
            connection
                .prepare_cached("INSERT INTO container (id, record) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET record = ?2")?
                .execute(params![record.id, text])
        })
    }

    /// Forgets a container.
    ///
    /// # Errors
    /// If the disk fails; the record then stays.
    pub fn delete(&self, id: &str, durability: Durability) -> Result<(), StateError> {
        self.write(durability, "delete a record", |connection| {
            connection
                .prepare_cached("DELETE FROM container WHERE id = ?1")?
                .execute(params![id])
        })
    }

    /// Writes a network's record, new or changed.
    ///
    /// # Errors
    /// If the disk is full or fails; the old record then stays.
    pub fn put_network(&self, record: &NetworkRecord) -> Result<(), StateError> {
        let text = serde_json::to_string(record).map_err(|source| StateError::Encode {
            id: record.id.clone(),
            source,
        })?;
        self.write(Durability::Disk, "write a network", |connection| {
            connection
                .prepare_cached("INSERT INTO network (id, record) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET record = ?2")?
                .execute(params![record.id, text])
        })
    }

    /// Forgets a network.
    ///
    /// # Errors
    /// If the disk fails; the record then stays.
    pub fn delete_network(&self, id: &str) -> Result<(), StateError> {
        self.write(Durability::Disk, "delete a network", |connection| {
            connection
                .prepare_cached("DELETE FROM network WHERE id = ?1")?
                .execute(params![id])
        })
    }

    fn write(
        &self,
        durability: Durability,
        action: &'static str,
        step: impl Fn(&Connection) -> rusqlite::Result<usize>,
    ) -> Result<(), StateError> {
        let connection = self.lock();
        let run = || -> rusqlite::Result<()> {
            if durability == Durability::Disk {
                connection.execute_batch("PRAGMA synchronous=FULL")?;
            }
            let outcome = step(&connection);
            if durability == Durability::Disk {
                connection.execute_batch("PRAGMA synchronous=NORMAL")?;
            }
            outcome.map(|_| ())
        };
        let mut outcome = run();
        if outcome.as_ref().is_err_and(is_full) && std::fs::remove_file(self.reserve()).is_ok() {
            // What the reserve took is free now.
            outcome = run();
        } else if outcome.is_ok() && !self.reserve().exists() {
            self.keep_reserve();
        }
        outcome.map_err(|source| self.error(action, source))
    }

    fn reserve(&self) -> PathBuf {
        self.path.with_extension("reserve")
    }

    /// Takes the reserve; a disk that has no room for it is tried again after the next write.
    fn keep_reserve(&self) {
        let path = self.reserve();
        let taken = std::fs::write(&path, vec![0; RESERVE]);
        if taken.is_err() {
            let _ = std::fs::remove_file(path);
        }
    }

    fn error(&self, action: &'static str, source: rusqlite::Error) -> StateError {
        StateError::Sqlite {
            path: self.path.clone(),
            action,
            source,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic between two statements leaves no half transaction: SQLite rolls back.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the records of a table; bad ones are listed instead.
fn read_table<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    table: &str,
    records: &mut Vec<T>,
    unreadable: &mut Vec<(String, String)>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("SELECT id, record FROM {table}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, text): (String, String) = (row.get(0)?, row.get(1)?);
        match serde_json::from_str(&text) {
            Ok(record) => records.push(record),
            Err(error) => unreadable.push((id, error.to_string())),
        }
    }
    Ok(())
}

/// The disk had no room, or could not be written for another reason that room may mend.
fn is_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DiskFull, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DiskFull | SystemIoFailure))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> ContainerRecord {
        ContainerRecord {
            id: id.into(),
            name: format!("name-{id}"),
            ..ContainerRecord::default()
        }
    }

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("hull-state-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn records_written_are_read_by_the_next_open() {
        let dir = folder("reopen");
        let path = dir.join("state.db");
        let state = State::open(&path).unwrap();
        state.put(&record("a"), Durability::Process).unwrap();
        state.put(&record("b"), Durability::Disk).unwrap();
        state
            .put(
                &ContainerRecord {
                    name: "new".into(),
                    ..record("a")
                },
                Durability::Process,
            )
            .unwrap();
        state.delete("b", Durability::Disk).unwrap();
        // A killed process runs no destructor.
        std::mem::forget(state);
        let loaded = State::open(&path).unwrap().load().unwrap();
        assert_eq!(loaded.containers.len(), 1);
        assert_eq!(loaded.containers[0].name, "new");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn database_of_the_first_schema_gets_a_table_of_networks() {
        let dir = folder("older");
        let path = dir.join("state.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch(
                "CREATE TABLE container (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
                 INSERT INTO container VALUES ('a', '{\"id\":\"a\"}'); PRAGMA user_version=1;",
            )
            .unwrap();
        let state = State::open(&path).unwrap();
        let net = NetworkRecord {
            id: "n".into(),
            name: "front".into(),
            ..NetworkRecord::default()
        };
        state.put_network(&net).unwrap();
        let other = NetworkRecord {
            id: "m".into(),
            ..net.clone()
        };
        state.put_network(&other).unwrap();
        state.delete_network("m").unwrap();
        std::mem::forget(state);
        let loaded = State::open(&path).unwrap().load().unwrap();
        assert_eq!(loaded.containers[0].id, "a");
        assert_eq!(loaded.networks, [net]);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn newer_schema_is_refused_with_a_hint() {
        let dir = folder("newer");
        let path = dir.join("state.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA user_version=99")
            .unwrap();
        assert!(
            State::open(&path)
                .unwrap_err()
                .to_string()
                .contains("use the newer Hull")
        );
        std::fs::remove_dir_all(dir).unwrap();
    }
}
