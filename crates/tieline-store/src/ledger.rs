//! What models did when they ran: what they held beside what was planned, how their runners died, and
//! which are quarantined for it. Times are given by the caller.

use rusqlite::{OptionalExtension, Row, params};
use tieline_types::{Bytes, Digest};

use crate::db::{DbError, digest};
use crate::store::Store;

/// Rows kept of each kind of load, and deaths kept of each model.
const KEPT: u32 = 16;

/// What a loaded model held, beside what was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRecord {
    /// The model's content.
    pub digest: Digest,
    /// Its architecture.
    pub architecture: String,
    /// The settings that decide what it takes, in one word each.
    pub settings: String,
    /// What was planned.
    pub planned: Bytes,
    /// What its process held.
    pub held: Bytes,
    /// When.
    pub at_unix_s: i64,
}

/// A model that is not started, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The model's content.
    pub digest: Digest,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since_unix_s: i64,
}

impl Store {
    /// Records what a model held.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn record_load(&self, load: &LoadRecord) -> Result<(), DbError> {
        let sql = "INSERT INTO loads
            (architecture, settings, digest, planned_bytes, held_bytes, at_unix_s)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let LoadRecord { digest, architecture, settings, planned, held, at_unix_s } = load;
        let old = "DELETE FROM loads WHERE architecture = ?1 AND settings = ?2 AND id NOT IN (
            SELECT id FROM loads WHERE architecture = ?1 AND settings = ?2
            ORDER BY id DESC LIMIT ?3)";
        self.db.run("record a load", |db| {
            let (planned, held) = (planned.0.cast_signed(), held.0.cast_signed());
            let row = params![architecture, settings, digest.hex(), planned, held, at_unix_s];
            db.execute(sql, row)?;
            db.execute(old, params![architecture, settings, KEPT]).map(drop)
        })
    }

    /// What loads of this kind were planned to hold and held, the newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn loads_like(
        &self,
        architecture: &str,
        settings: &str,
    ) -> Result<Vec<(Bytes, Bytes)>, DbError> {
        let sql = "SELECT planned_bytes, held_bytes FROM loads
            WHERE architecture = ?1 AND settings = ?2 ORDER BY id DESC";
        let bytes = |row: &Row<'_>, column| -> rusqlite::Result<Bytes> {
            Ok(Bytes(row.get::<_, i64>(column)?.cast_unsigned()))
        };
        self.db.run("read past loads", |db| {
            let read = |row: &Row<'_>| Ok((bytes(row, 0)?, bytes(row, 1)?));
            db.prepare(sql)?.query_map([architecture, settings], read)?.collect()
        })
    }

    /// Records that a model's runner died.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn record_death(&self, model: Digest, how: &str, at_unix_ms: i64) -> Result<(), DbError> {
        let sql = "INSERT INTO deaths (digest, how, at_unix_ms) VALUES (?1, ?2, ?3)";
        let old = "DELETE FROM deaths WHERE digest = ?1 AND id NOT IN (
            SELECT id FROM deaths WHERE digest = ?1 ORDER BY id DESC LIMIT ?2)";
        self.db.run("record a crash", |db| {
            db.execute(sql, params![model.hex(), how, at_unix_ms])?;
            db.execute(old, params![model.hex(), KEPT]).map(drop)
        })
    }

    /// When a model's runners died, from `since` on, the oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn deaths_since(&self, model: Digest, since_unix_ms: i64) -> Result<Vec<i64>, DbError> {
        let sql = "SELECT at_unix_ms FROM deaths WHERE digest = ?1 AND at_unix_ms >= ?2
            ORDER BY at_unix_ms";
        self.db.run("read past crashes", |db| {
            let rows = params![model.hex(), since_unix_ms];
            db.prepare(sql)?.query_map(rows, |row| row.get(0))?.collect()
        })
    }

    /// Keeps a model from being started. The first reason stands.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn quarantine(&self, quarantine: &Quarantine) -> Result<(), DbError> {
        let sql = "INSERT INTO quarantine (digest, reason, since_unix_s) VALUES (?1, ?2, ?3)
            ON CONFLICT (digest) DO NOTHING";
        let Quarantine { digest, reason, since_unix_s } = quarantine;
        self.db.run("quarantine a model", |db| {
            db.execute(sql, params![digest.hex(), reason, since_unix_s]).map(drop)
        })
    }

    /// All models that are not started, the newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn quarantined(&self) -> Result<Vec<Quarantine>, DbError> {
        let sql = "SELECT digest, reason, since_unix_s FROM quarantine
            ORDER BY since_unix_s DESC, digest";
        self.db
            .run("list the quarantine", |db| db.prepare(sql)?.query_map([], quarantine)?.collect())
    }

    /// Why a model is not started, where it is not.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn quarantine_of(&self, model: Digest) -> Result<Option<Quarantine>, DbError> {
        let sql = "SELECT digest, reason, since_unix_s FROM quarantine WHERE digest = ?1";
        self.db.run("read the quarantine", |db| {
            db.query_row(sql, [model.hex()], quarantine).optional()
        })
    }

    /// Lets a model be started again and forgets its crashes. `false`: it was not kept from it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn lift_quarantine(&self, model: Digest) -> Result<bool, DbError> {
        self.db.run("lift a quarantine", |db| {
            db.execute("DELETE FROM deaths WHERE digest = ?1", [model.hex()])?;
            let lifted = db.execute("DELETE FROM quarantine WHERE digest = ?1", [model.hex()])?;
            Ok(lifted > 0)
        })
    }
}

fn quarantine(row: &Row<'_>) -> rusqlite::Result<Quarantine> {
    Ok(Quarantine { digest: digest(row, 0)?, reason: row.get(1)?, since_unix_s: row.get(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: Digest = Digest([7; 32]);

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    fn load(settings: &str, held: u64) -> LoadRecord {
        LoadRecord {
            digest: MODEL,
            architecture: "llama".to_owned(),
            settings: settings.to_owned(),
            planned: Bytes(100),
            held: Bytes(held),
            at_unix_s: 1,
        }
    }

    #[test]
    fn loads_are_kept_by_kind_the_newest_few() {
        let (_folder, store) = store();
        for held in 0..40 {
            store.record_load(&load("f16", held)).unwrap();
        }
        store.record_load(&load("q8_0", 7)).unwrap();
        let found = store.loads_like("llama", "f16").unwrap();
        assert_eq!(found.len(), 16);
        assert_eq!(found[0], (Bytes(100), Bytes(39)));
        assert_eq!(store.loads_like("llama", "q8_0").unwrap(), [(Bytes(100), Bytes(7))]);
        assert_eq!(store.loads_like("gemma", "f16").unwrap(), []);
    }

    #[test]
    fn deaths_are_found_by_time_and_forgotten_when_lifted() {
        let (folder, store) = store();
        for at in [10, 20, 30] {
            store.record_death(MODEL, "was killed by signal 9", at).unwrap();
        }
        assert_eq!(store.deaths_since(MODEL, 20).unwrap(), [20, 30]);
        assert_eq!(store.deaths_since(Digest([8; 32]), 0).unwrap(), [0i64; 0]);
        let why = Quarantine { digest: MODEL, reason: "it died".to_owned(), since_unix_s: 3 };
        store.quarantine(&why).unwrap();
        store.quarantine(&Quarantine { reason: "again".to_owned(), ..why.clone() }).unwrap();
        // It outlives the process.
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.quarantined().unwrap(), std::slice::from_ref(&why));
        assert_eq!(store.quarantine_of(MODEL).unwrap(), Some(why));
        assert!(store.lift_quarantine(MODEL).unwrap());
        assert!(!store.lift_quarantine(MODEL).unwrap());
        assert_eq!(store.quarantine_of(MODEL).unwrap(), None);
        assert_eq!(store.deaths_since(MODEL, 0).unwrap(), [0i64; 0]);
    }
}
