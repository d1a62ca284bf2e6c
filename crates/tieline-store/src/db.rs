//! What is known about models, in SQLite. A row here is what makes a file on disk a model: the
//! commit is the last step of every pull.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior, params};
use tieline_types::{Bytes, Digest, Hint, Tokens};

use crate::files::Stamp;
use crate::model::{Facts, Model, Trust, UPLOAD, shown};
use crate::overlay::Said;

/// Numbered, forward only: a released step never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_models.sql"),
    include_str!("../migrations/0002_ledger.sql"),
    include_str!("../migrations/0003_overlays.sql"),
    include_str!("../migrations/0004_keys.sql"),
    include_str!("../migrations/0005_money.sql"),
    include_str!("../migrations/0006_decisions.sql"),
    include_str!("../migrations/0007_profiles.sql"),
    include_str!("../migrations/0008_joules.sql"),
    include_str!("../migrations/0009_adapters.sql"),
    include_str!("../migrations/0010_intents.sql"),
];

const MODEL_COLUMNS: &str = "models.name, models.digest, models.source, models.reference,
    models.licence, models.pinned, models.pulled_at_unix_s, blobs.size_bytes, blobs.mismatch,
    blobs.architecture, blobs.quantisation, blobs.parameters, blobs.context_length_tokens,
    blobs.template_digest, blobs.is_adapter";

/// Why the store's list of models could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// SQLite failed.
    #[error("cannot {action} in the store's database {}", path.display())]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer program wrote it.
    #[error("the store's database {} has schema {found}, newer than {known}", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: usize,
        /// The newest that this program knows.
        known: usize,
    },
}

impl DbError {
    /// Whether the database works and does not take what it was given: that is no better the next time.
    pub fn is_refusal(&self) -> bool {
        let Self::Sqlite { source, .. } = self else { return false };
        let refusals = [ErrorCode::ConstraintViolation, ErrorCode::TooBig, ErrorCode::TypeMismatch];
        source.sqlite_error_code().is_some_and(|code| refusals.contains(&code))
    }
}

impl Hint for DbError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Newer { .. } => {
                Some("use the newer version of this program that wrote it".into())
            }
            Self::Sqlite { .. } => None,
        }
    }
}

pub(crate) struct Db {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a pull adds.
#[derive(Clone, Debug)]
pub(crate) struct NewModel {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) source: String,
    pub(crate) reference: String,
    pub(crate) licence: Option<String>,
    pub(crate) pinned: bool,
    pub(crate) pulled_at_unix_s: i64,
    pub(crate) target: String,
}

/// Where a model came from, to the letter: a model's own words are made to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) source: String,
    pub(crate) reference: String,
}

/// A finished pull of the same target.
#[derive(Clone, Debug)]
pub(crate) struct PullRecord {
    pub(crate) digest: Digest,
    pub(crate) source: String,
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Self, DbError> {
        let fail = |action| move |source| DbError::Sqlite { action, path: path.into(), source };
        let mut connection = Connection::open(path).map_err(fail("open"))?;
        prepare(&connection).map_err(fail("set options"))?;
        migrate(&mut connection, path)?;
        Ok(Self { path: path.into(), connection: Mutex::new(connection) })
    }

    pub(crate) fn list(&self) -> Result<Vec<Model>, DbError> {
        let sql = format!(
            "SELECT {MODEL_COLUMNS} FROM models JOIN blobs USING (digest) ORDER BY models.name"
        );
        self.run("list models", |db| db.prepare(&sql)?.query_map([], model)?.collect())
    }

    pub(crate) fn by_name(&self, name: &str) -> Result<Option<Model>, DbError> {
        self.one("models.name = ?1", name)
    }

    pub(crate) fn by_digest(&self, digest: Digest) -> Result<Option<Model>, DbError> {
        self.one("models.digest = ?1", &digest.hex())
    }

    pub(crate) fn by_origin(&self, text: &str) -> Result<Option<Model>, DbError> {
        self.one("models.reference = ?1 OR models.source = ?1", text)
    }

    pub(crate) fn origin(&self, name: &str) -> Result<Option<Origin>, DbError> {
        let sql = "SELECT source, reference FROM models WHERE name = ?1";
        self.run("search models", |db| {
            let read = |row: &Row<'_>| Ok(Origin { source: row.get(0)?, reference: row.get(1)? });
            db.query_row(sql, [name], read).optional()
        })
    }

    /// All models that were pulled as `reference`, the newest first.
    pub(crate) fn by_reference(&self, reference: &str) -> Result<Vec<Model>, DbError> {
        let sql = format!(
            "SELECT {MODEL_COLUMNS} FROM models JOIN blobs USING (digest)
             WHERE models.reference = ?1 ORDER BY models.pulled_at_unix_s DESC, models.name"
        );
        self.run("search models", |db| db.prepare(&sql)?.query_map([reference], model)?.collect())
    }

    /// The model whose digest starts with `prefix`, where only one digest does.
    pub(crate) fn by_prefix(&self, prefix: &str) -> Result<Option<Model>, DbError> {
        let sql = "SELECT digest FROM blobs WHERE substr(digest, 1, length(?1)) = ?1 LIMIT 2";
        let digests: Vec<String> = self.run("search models", |db| {
            db.prepare(sql)?.query_map([prefix], |row| row.get(0))?.collect()
        })?;
        match digests.as_slice() {
            [digest] => self.one("models.digest = ?1", digest),
            _ => Ok(None),
        }
    }

    fn one(&self, condition: &str, value: &str) -> Result<Option<Model>, DbError> {
        let sql = format!(
            "SELECT {MODEL_COLUMNS} FROM models JOIN blobs USING (digest)
             WHERE {condition} ORDER BY models.pulled_at_unix_s DESC, models.name LIMIT 1"
        );
        self.run("search models", |db| db.query_row(&sql, [value], model).optional())
    }

    /// How the file looked when it was last hashed, and whether the hash was wrong.
    pub(crate) fn stamp(&self, digest: Digest) -> Result<Option<(Stamp, bool)>, DbError> {
        let sql = "SELECT device, inode, size_bytes, mtime_ns, ctime_ns, mismatch
                   FROM blobs WHERE digest = ?1";
        self.run("read a file's state", |db| {
            let read = |row: &Row<'_>| Ok((stamp(row)?, row.get(5)?));
            db.query_row(sql, [digest.hex()], read).optional()
        })
    }

    pub(crate) fn set_stamp(&self, digest: Digest, stamp: &Stamp) -> Result<(), DbError> {
        let sql = "UPDATE blobs SET device = ?2, inode = ?3, mtime_ns = ?4, ctime_ns = ?5,
                   mismatch = 0 WHERE digest = ?1";
        let Stamp { device, inode, mtime_ns, ctime_ns, .. } = stamp;
        self.run("record a file's state", |db| {
            db.execute(sql, params![digest.hex(), device, inode, mtime_ns, ctime_ns]).map(drop)
        })
    }

    pub(crate) fn set_mismatch(&self, digest: Digest) -> Result<(), DbError> {
        let sql = "UPDATE blobs SET mismatch = 1 WHERE digest = ?1";
        self.run("mark a model", |db| db.execute(sql, [digest.hex()]).map(drop))
    }

    /// The commit point of a pull. Gives the file whose last name it took.
    pub(crate) fn publish(
        &self,
        model: &NewModel,
        (stamp, facts): (&Stamp, &Facts),
        said: Said<'_>,
    ) -> Result<Option<Digest>, DbError> {
        self.run("record a model", |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let sql = "SELECT digest FROM models WHERE name = ?1";
            let before =
                transaction.query_row(sql, [&model.name], |row| digest(row, 0)).optional()?;
            insert_blob(&transaction, model.digest, stamp, facts)?;
            insert_name(&transaction, model)?;
            said.keep(&transaction, &model.name)?;
            let left = match before {
                Some(before) if forget_unnamed(&transaction, before)? => Some(before),
                _ => None,
            };
            transaction.commit()?;
            Ok(left)
        })
    }

    /// The files that have a name.
    pub(crate) fn named(&self) -> Result<HashSet<Digest>, DbError> {
        let sql = "SELECT DISTINCT digest FROM models";
        self.run("list names", |db| db.prepare(sql)?.query_map([], |row| digest(row, 0))?.collect())
    }

    /// Files that came here until this time and have no name any more, or never got one; of others this database knows
    /// nothing. The time is in seconds of Unix.
    pub(crate) fn left_behind(&self, until_unix_s: i64) -> Result<HashSet<Digest>, DbError> {
        let sql = "SELECT digest FROM pulls
                   WHERE NOT EXISTS (SELECT 1 FROM models WHERE models.digest = pulls.digest)
                   GROUP BY digest HAVING max(pulled_at_unix_s) <= ?1";
        self.run("list what has no name", |db| {
            db.prepare(sql)?.query_map([until_unix_s], |row| digest(row, 0))?.collect()
        })
    }

    /// Notes a file that came and got no name. Nobody waits for a pull of no target.
    pub(crate) fn note_unnamed(
        &self,
        digest: Digest,
        source: &str,
        now_unix_s: i64,
    ) -> Result<(), DbError> {
        self.run("note a file", |db| insert_pull(db, ("", &digest.hex()), (source, now_unix_s)))
    }

    /// The names of a file.
    pub(crate) fn names_of(&self, digest: Digest) -> Result<Vec<String>, DbError> {
        let sql = "SELECT name FROM models WHERE digest = ?1 ORDER BY name";
        self.run("list names", |db| {
            db.prepare(sql)?.query_map([digest.hex()], |row| row.get(0))?.collect()
        })
    }

    /// Drops a name, and the file's row where no other name is left; says whether it did.
    pub(crate) fn remove(&self, name: &str, digest: Digest) -> Result<bool, DbError> {
        self.run("remove a model", |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute("DELETE FROM models WHERE name = ?1", [name])?;
            // What was said before it goes with it.
            transaction.execute("DELETE FROM overlays WHERE name = ?1 AND base = ?1", [name])?;
            let last = forget_unnamed(&transaction, digest)?;
            transaction.commit()?;
            Ok(last)
        })
    }

    /// The number of the newest pull.
    pub(crate) fn newest_pull(&self) -> Result<i64, DbError> {
        let sql = "SELECT coalesce(max(id), 0) FROM pulls";
        self.run("read the history", |db| db.query_row(sql, [], |row| row.get(0)))
    }

    /// The newest pull of `target` after pull number `after`.
    pub(crate) fn pulled_since(
        &self,
        target: &str,
        after: i64,
    ) -> Result<Option<PullRecord>, DbError> {
        let sql = "SELECT digest, source FROM pulls WHERE target = ?1 AND id > ?2
                   ORDER BY id DESC LIMIT 1";
        self.run("read the history", |db| {
            let read =
                |row: &Row<'_>| Ok(PullRecord { digest: digest(row, 0)?, source: row.get(1)? });
            db.query_row(sql, params![target, after], read).optional()
        })
    }

    pub(crate) fn run<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DbError> {
        let fail = |source| DbError::Sqlite { action, path: self.path.clone(), source };
        work(&mut self.lock()).map_err(fail)
    }

    /// A panic while the lock was held leaves no half change: SQLite rolls a transaction back.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait for others.
const BUSY: Duration = Duration::from_secs(5);

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    write_ahead(connection)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)
}

/// SQLite does not wait for others while it changes the journal, whatever the timeout.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    const PAUSE: Duration = Duration::from_millis(10);
    let mut left = BUSY.as_millis() / PAUSE.as_millis();
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(error)
                if left > 0 && error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) =>
            {
                left -= 1;
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), DbError> {
    let fail = |source| DbError::Sqlite { action: "migrate", path: path.into(), source };
    let known = MIGRATIONS.len();
    // Asked without a lock first: opening a store that is up to date writes nothing.
    if version(connection).map_err(fail)? == known {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
    let found = version(&transaction).map_err(fail)?;
    if found > known {
        return Err(DbError::Newer { path: path.into(), found, known });
    }
    for step in &MIGRATIONS[found..] {
        transaction.execute_batch(step).map_err(fail)?;
    }
    transaction.pragma_update(None, "user_version", known.cast_signed()).map_err(fail)?;
    transaction.commit().map_err(fail)
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

fn insert_blob(
    connection: &Connection,
    digest: Digest,
    stamp: &Stamp,
    facts: &Facts,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO blobs (digest, size_bytes, device, inode, mtime_ns, ctime_ns,
                   architecture, quantisation, parameters, context_length_tokens, template_digest,
                   is_adapter)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
               ON CONFLICT (digest) DO UPDATE SET device = excluded.device,
                   inode = excluded.inode, mtime_ns = excluded.mtime_ns,
                   ctime_ns = excluded.ctime_ns, mismatch = 0,
                   is_adapter = excluded.is_adapter";
    let Stamp { device, inode, size, mtime_ns, ctime_ns } = stamp;
    connection.execute(
        sql,
        params![
            digest.hex(),
            size,
            device,
            inode,
            mtime_ns,
            ctime_ns,
            facts.architecture,
            facts.quantisation,
            facts.parameters.cast_signed(),
            facts.context_length.map(|tokens| tokens.0),
            facts.template_digest.map(|digest| digest.hex()),
            facts.is_adapter,
        ],
    )?;
    Ok(())
}

/// Drops a file's row where no name is left; says whether it did.
fn forget_unnamed(connection: &Connection, digest: Digest) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM blobs WHERE digest = ?1
               AND NOT EXISTS (SELECT 1 FROM models WHERE digest = ?1)";
    Ok(connection.execute(sql, [digest.hex()])? == 1)
}

fn insert_name(connection: &Connection, model: &NewModel) -> rusqlite::Result<()> {
    let sql = "INSERT INTO models (name, digest, source, reference, licence, pinned,
                   pulled_at_unix_s)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (name) DO UPDATE SET digest = excluded.digest,
                   source = excluded.source, reference = excluded.reference,
                   licence = excluded.licence,
                   pinned = CASE WHEN models.digest = excluded.digest
                       THEN max(models.pinned, excluded.pinned) ELSE excluded.pinned END,
                   pulled_at_unix_s = excluded.pulled_at_unix_s";
    let NewModel { name, source, reference, licence, pinned, pulled_at_unix_s, .. } = model;
    let digest = model.digest.hex();
    connection.execute(
        sql,
        params![name, digest, source, reference, licence, pinned, pulled_at_unix_s],
    )?;
    insert_pull(connection, (&model.target, &digest), (source, *pulled_at_unix_s))
}

fn insert_pull(
    connection: &Connection,
    (target, digest): (&str, &str),
    (source, at_unix_s): (&str, i64),
) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO pulls (target, digest, source, pulled_at_unix_s) VALUES (?1, ?2, ?3, ?4)";
    connection.execute(sql, params![target, digest, source, at_unix_s])?;
    Ok(())
}

fn model(row: &Row<'_>) -> rusqlite::Result<Model> {
    let trust = match (row.get(8)?, row.get(5)?) {
        (true, _) => Trust::Mismatch,
        (false, true) => Trust::Pinned,
        (false, false) => match row.get_ref(2)?.as_str()? {
            UPLOAD => Trust::Uploaded,
            _ => Trust::FirstSeen,
        },
    };
    let size: i64 = row.get(7)?;
    Ok(Model {
        name: row.get(0)?,
        digest: digest(row, 1)?,
        source: shown(row.get_ref(2)?.as_str()?),
        reference: shown(row.get_ref(3)?.as_str()?),
        licence: row.get(4)?,
        trust,
        pulled_at_unix_s: row.get(6)?,
        size: Bytes(size.cast_unsigned()),
        architecture: row.get(9)?,
        quantisation: row.get(10)?,
        parameters: row.get::<_, Option<i64>>(11)?.map(i64::cast_unsigned),
        context_length: row.get::<_, Option<u32>>(12)?.map(Tokens),
        template_digest: match row.get::<_, Option<String>>(13)? {
            Some(_) => Some(digest(row, 13)?),
            None => None,
        },
        is_adapter: row.get(14)?,
        missing: false,
    })
}

fn stamp(row: &Row<'_>) -> rusqlite::Result<Stamp> {
    Ok(Stamp {
        device: row.get(0)?,
        inode: row.get(1)?,
        size: row.get(2)?,
        mtime_ns: row.get(3)?,
        ctime_ns: row.get(4)?,
    })
}

pub(crate) fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let hex: String = row.get(column)?;
    format!("sha256:{hex}").parse().map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(connection: &Connection) -> Vec<String> {
        let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name";
        let mut statement = connection.prepare(sql).unwrap();
        let texts = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        // SQLite writes an added column on a line of its own making.
        let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        texts.map(|text| words(text.unwrap()).replace(" ,", ",").replace(" )", ")")).collect()
    }

    #[test]
    fn the_steps_give_the_schema_beside_them() {
        let stepped = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|step| stepped.execute_batch(step).unwrap());
        let whole = Connection::open_in_memory().unwrap();
        whole.execute_batch(include_str!("../schema.sql")).unwrap();
        assert_eq!(schema(&stepped), schema(&whole));
    }

    #[test]
    fn every_step_is_listed_and_no_number_repeats() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut numbers: Vec<usize> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().to_str().unwrap()[..4].parse().unwrap())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=MIGRATIONS.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        Db::open(&path).unwrap().lock().pragma_update(None, "user_version", 99).unwrap();
        let error = Db::open(&path).unwrap_err();
        assert!(matches!(error, DbError::Newer { found: 99, .. }), "{error}");
        assert!(error.hint().unwrap().contains("newer version"));
    }

    #[test]
    fn the_options_hold() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("db")).unwrap();
        let read = |name: &str| -> String {
            let sql = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
            db.lock().query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(read("journal_mode"), "wal");
        assert_eq!(read("synchronous"), "2");
        assert_eq!(read("foreign_keys"), "1");
        assert_eq!(read("trusted_schema"), "0");
    }
}
