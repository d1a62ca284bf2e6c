//! What requests were decided on, what was decided, and what became of it, without a word of them. What stands in the
//! texts is for the router to know: here they are JSON that is packed small and kept for a while.

mod pack;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::{fmt, io};

use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest as _, Sha256};
use tieline_types::{Bytes, Digest};

use crate::db::DbError;
use crate::store::Store;

/// How long decisions are kept, in milliseconds: ninety days.
pub(crate) const KEPT_MS: i64 = 90 * 24 * 3600 * 1000;

/// What all that is kept may take, as it is packed, with what the database needs for each row.
pub(crate) const KEPT_BYTES: Bytes = Bytes(256 << 20);

/// What the database needs for a row and its places in the indexes, about.
const ROW: i64 = 160;

/// Rows that are looked at for the latest of one key.
const LATEST: u32 = 20_000;

/// Rows that are looked at in one step of forgetting: others who write wait for no more.
const STEP: u32 = 2048;

/// Grounds that a reader remembers: each takes as much as who could answer.
const KNOWN: usize = 16;

/// Grounds whose packer is remembered.
const PACKERS: usize = 4;

/// What decisions were made on besides the request itself. Many of them share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grounds {
    /// The policy; `None`: none was asked.
    pub policy: Option<Digest>,
    /// The version of the program that decided.
    pub program: String,
    /// The version of the form that both texts have.
    pub format: u32,
    /// Who could answer, as JSON.
    pub candidates: String,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionRow {
    /// The request's id. Several answers to one call share it.
    pub id: String,
    /// When the request came, in milliseconds since 1970.
    pub at_unix_ms: i64,
    /// The id of the key that asked; empty: this machine's user.
    pub key: String,
    /// What it was made on besides.
    pub grounds: Arc<Grounds>,
    /// The rest, as JSON.
    pub facts: String,
}

/// A decision that is there and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is on record of request {id} cannot be read")]
pub struct Damaged {
    /// The request's id.
    pub id: String,
}

/// Decisions of one call that are read.
const OF_CALL: u32 = 256;

const SELECT: &str = "SELECT decisions.id, decisions.at_unix_ms, decisions.key, decisions.body,
    decisions.grounds FROM decisions";

impl Store {
    /// The decision of this id; of several answers to one call, the latest.
    ///
    /// # Errors
    /// The database cannot be read. The inner error: the row cannot.
    pub fn decision(&self, id: &str) -> Result<Option<Result<DecisionRow, Damaged>>, DbError> {
        let sql = format!("{SELECT} WHERE id = ?1 ORDER BY end_bytes DESC LIMIT 1");
        self.db.run("search decisions", |db| {
            let mut reader = Reader::new(db);
            let found = db.query_row(&sql, [id], |row| reader.read(row)).optional()?;
            Ok(found)
        })
    }

    /// The decisions of this id, the newest first, no more than 256: several answers to one call have one each.
    ///
    /// # Errors
    /// The database cannot be read. The inner error: the row cannot.
    pub fn decisions_of(&self, id: &str) -> Result<Vec<Result<DecisionRow, Damaged>>, DbError> {
        let sql = format!("{SELECT} WHERE id = ?1 ORDER BY end_bytes DESC LIMIT ?2");
        self.db.run("search decisions", |db| {
            let mut reader = Reader::new(db);
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query(params![id, OF_CALL])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(reader.read(row)?);
            }
            Ok(found)
        })
    }

    /// Hands the latest decisions to `each`, the newest first, until it has seen enough and says `false`. Those of
    /// this key alone, where one is given. No more than 20,000 are looked at.
    ///
    /// # Errors
    /// The database cannot be read; then `each` saw some of them.
    pub fn latest_decisions(
        &self,
        key: Option<&str>,
        mut each: impl FnMut(Result<DecisionRow, Damaged>) -> bool,
    ) -> Result<(), DbError> {
        let sql = format!(
            "{SELECT} WHERE end_bytes IN (SELECT end_bytes FROM decisions ORDER BY end_bytes DESC LIMIT ?2)
             AND (?1 IS NULL OR key = ?1) ORDER BY end_bytes DESC"
        );
        self.db.run("list decisions", |db| {
            let mut reader = Reader::new(db);
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query(params![key, LATEST])?;
            while let Some(row) = rows.next()? {
                if !each(reader.read(row)?) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Hands each decision of a request that came from `since_unix_ms` on and before `until_unix_ms` to `each`, the
    /// oldest first, one at a time.
    ///
    /// # Errors
    /// The database cannot be read; then `each` saw some of them.
    pub fn decisions_between(
        &self,
        (since_unix_ms, until_unix_ms): (i64, i64),
        mut each: impl FnMut(Result<DecisionRow, Damaged>),
    ) -> Result<(), DbError> {
        let sql = format!(
            "{SELECT} WHERE at_unix_ms >= ?1 AND at_unix_ms < ?2 ORDER BY at_unix_ms, end_bytes"
        );
        self.db.run("read decisions", |db| {
            let mut reader = Reader::new(db);
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query([since_unix_ms, until_unix_ms])?;
            while let Some(row) = rows.next()? {
                each(reader.read(row)?);
            }
            Ok(())
        })
    }

    /// Lets go of what is older than ninety days and of the oldest beyond 256 MiB, a step of it. Says whether
    /// there may be more.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn forget_decisions(&self, now_unix_ms: i64) -> Result<bool, DbError> {
        self.forget_decisions_beyond(now_unix_ms.saturating_sub(KEPT_MS), KEPT_BYTES)
    }

    /// What all that is kept takes, about.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn decisions_bytes(&self) -> Result<Bytes, DbError> {
        let sql = "SELECT coalesce(max(end_bytes) - min(end_bytes), 0) FROM decisions";
        let bytes: i64 =
            self.db.run("measure decisions", |db| db.query_row(sql, [], |row| row.get(0)))?;
        Ok(Bytes(bytes.cast_unsigned()))
    }

    fn forget_decisions_beyond(&self, old_unix_ms: i64, most: Bytes) -> Result<bool, DbError> {
        let most = i64::try_from(most.0).unwrap_or(i64::MAX);
        // The oldest are looked at alone: a clock that was set back delays one that is late, and no more.
        let sql = "DELETE FROM decisions WHERE end_bytes IN (
            SELECT end_bytes FROM (SELECT end_bytes, at_unix_ms FROM decisions ORDER BY end_bytes LIMIT ?3)
            WHERE at_unix_ms < ?1 OR end_bytes <= (SELECT max(end_bytes) FROM decisions) - ?2)";
        // The newest grounds stay: a writer may be about to use them.
        let unused = "DELETE FROM grounds WHERE last_used_bytes < coalesce(
            (SELECT min(end_bytes) FROM decisions), (SELECT max(last_used_bytes) FROM grounds))";
        self.db.run("forget decisions", |db| {
            let gone = db.execute(sql, params![old_unix_ms, most, STEP])?;
            if gone > 0 {
                db.execute(unused, [])?;
            }
            Ok(gone == usize::try_from(STEP).unwrap_or(usize::MAX))
        })
    }
}

/// A decision, packed.
#[derive(Clone, Debug)]
pub struct PackedDecision {
    id: String,
    at_unix_ms: i64,
    key: String,
    grounds: Arc<Grounds>,
    body: Vec<u8>,
}

/// Packs decisions. Remembers what it needs for the grounds of the latest ones, which the next ones most likely share.
#[derive(Default)]
pub struct Packing {
    known: Vec<(Arc<Grounds>, pack::Packer)>,
}

impl fmt::Debug for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packing").field("known", &self.known.len()).finish()
    }
}

impl Packing {
    /// Packs a decision. It takes some tens of microseconds, and no lock.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn pack(&mut self, row: DecisionRow) -> io::Result<PackedDecision> {
        let DecisionRow { id, at_unix_ms, key, grounds, facts } = row;
        let body = self.packer(&grounds)?.pack(&facts)?;
        Ok(PackedDecision { id, at_unix_ms, key, grounds, body })
    }

    fn packer(&mut self, grounds: &Arc<Grounds>) -> io::Result<&mut pack::Packer> {
        let known = self.known.iter().position(|(known, _)| Arc::ptr_eq(known, grounds));
        let at = match known {
            Some(at) => at,
            None => {
                if self.known.len() == PACKERS {
                    self.known.remove(0);
                }
                self.known.push((Arc::clone(grounds), pack::Packer::new(grounds)?));
                self.known.len() - 1
            }
        };
        Ok(&mut self.known[at].1)
    }
}

/// Writes decisions, and their grounds where they are new. In the caller's transaction.
pub(crate) fn insert(connection: &Connection, rows: &[PackedDecision]) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    // Goes on counting where all decisions are forgotten.
    let newest = "SELECT max(coalesce((SELECT max(end_bytes) FROM decisions), 0),
        coalesce((SELECT max(last_used_bytes) FROM grounds), 0))";
    let mut end: i64 = connection.query_row(newest, [], first)?;
    let mut known: HashMap<*const Grounds, i64> = HashMap::new();
    let sql = "INSERT INTO decisions (end_bytes, id, at_unix_ms, key, grounds, body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = connection.prepare_cached(sql)?;
    for PackedDecision { id, at_unix_ms, key, grounds, body } in rows {
        let number = match known.entry(Arc::as_ptr(grounds)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let (number, bytes) = insert_grounds(connection, grounds, end)?;
                end += bytes;
                *vacant.insert(number)
            }
        };
        end += length(body) + ROW;
        insert.execute(params![end, id, at_unix_ms, key, number, body])?;
    }
    let used = "UPDATE grounds SET last_used_bytes = ?2 WHERE number = ?1";
    for number in known.values() {
        connection.execute(used, params![number, end])?;
    }
    Ok(())
}

fn first(row: &Row<'_>) -> rusqlite::Result<i64> {
    row.get(0)
}

fn length(body: &[u8]) -> i64 {
    i64::try_from(body.len()).unwrap_or(i64::MAX)
}

pub(crate) fn unpackable(error: io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// The number of the grounds, and what they take where they are new.
fn insert_grounds(
    connection: &Connection,
    grounds: &Grounds,
    end: i64,
) -> rusqlite::Result<(i64, i64)> {
    let Grounds { policy, program, format, candidates } = grounds;
    let policy = policy.map(|policy| policy.0);
    let digest = digest(grounds);
    let known = "SELECT number FROM grounds WHERE digest = ?1";
    if let Some(number) = connection.query_row(known, [digest], first).optional()? {
        return Ok((number, 0));
    }
    let body = pack::whole(candidates).map_err(unpackable)?;
    let sql = "INSERT INTO grounds (digest, policy, program, format, body, last_used_bytes)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    connection.execute(sql, params![digest, policy, program, format, body, end])?;
    Ok((connection.last_insert_rowid(), length(&body) + ROW))
}

/// Of everything that is in it, each part with its length in front.
fn digest(grounds: &Grounds) -> [u8; 32] {
    let Grounds { policy, program, format, candidates } = grounds;
    let mut hasher = Sha256::new();
    let policy = policy.map_or_else(Vec::new, |policy| policy.0.to_vec());
    for part in [&policy[..], program.as_bytes(), &format.to_le_bytes(), candidates.as_bytes()] {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Reads rows, and grounds that many share once.
struct Reader<'c> {
    connection: &'c Connection,
    known: HashMap<i64, Known>,
}

impl<'c> Reader<'c> {
    fn new(connection: &'c Connection) -> Self {
        Self { connection, known: HashMap::new() }
    }

    fn read(&mut self, row: &Row<'_>) -> rusqlite::Result<Result<DecisionRow, Damaged>> {
        let (Some(id), Some(number)) = (sound(row.get(0))?, sound(row.get(4))?) else {
            let id = row.get_ref(0)?.as_bytes().unwrap_or_default();
            return Ok(Err(Damaged { id: String::from_utf8_lossy(id).into_owned() }));
        };
        if self.known.len() == KNOWN {
            self.known.clear();
        }
        let known = match self.known.entry(number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(grounds(self.connection, number)?),
        };
        let Some((grounds, unpacker)) = known else { return Ok(Err(Damaged { id })) };
        let read = |unpacker: &mut pack::Unpacker| {
            let facts = unpacker.unpack(row.get_ref(3).ok()?.as_blob().ok()?).ok()?;
            Some((row.get(1).ok()?, row.get(2).ok()?, facts))
        };
        let Some((at_unix_ms, key, facts)) = read(unpacker) else { return Ok(Err(Damaged { id })) };
        Ok(Ok(DecisionRow { id, at_unix_ms, key, grounds: Arc::clone(grounds), facts }))
    }
}

/// What was read; `None`: it is there and is not what it should be.
fn sound<T>(read: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    match read {
        Ok(value) => Ok(Some(value)),
        Err(
            FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Grounds that were read; `None`: they are not there, or cannot be read.
type Known = Option<(Arc<Grounds>, pack::Unpacker)>;

fn grounds(connection: &Connection, number: i64) -> rusqlite::Result<Known> {
    let sql = "SELECT policy, program, format, body FROM grounds WHERE number = ?1";
    let read = |row: &Row<'_>| {
        let policy = row.get::<_, Option<[u8; 32]>>(0)?.map(Digest);
        Ok((policy, row.get(1)?, row.get(2)?, row.get::<_, Vec<u8>>(3)?))
    };
    let read = sound(connection.query_row(sql, [number], read).optional())?.flatten();
    let Some((policy, program, format, body)) = read else { return Ok(None) };
    let Ok(candidates) = pack::unwhole(&body) else { return Ok(None) };
    let grounds = Grounds { policy, program, format, candidates };
    let unpacker = pack::Unpacker::new(&grounds).ok();
    Ok(unpacker.map(|unpacker| (Arc::new(grounds), unpacker)))
}
