//! What happened to requests: one row for each attempt, without a word of it.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;

use rusqlite::{Connection, Row, ToSql, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use tieline_types::{MicroUsd, Source, Zone};

use crate::db::DbError;
use crate::decisions::{self, DecisionRow, PackedDecision, Packing};
use crate::files::private_file;
use crate::store::Store;

/// Rows that are kept.
const KEPT: i64 = 1_000_000;

/// A source in one letter, as a row has it.
fn letter(source: Source) -> char {
    match source {
        Source::Measured => 'm',
        Source::Reported => 'r',
        Source::Estimated => 'e',
        Source::Unknown => 'u',
    }
}

fn of_letter(told: u8) -> Source {
    let same = |source: &Source| letter(*source) == char::from(told);
    Source::ALL.into_iter().find(same).unwrap_or_default()
}

/// Where each number of a row's usage is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UsageSources {
    /// Of the tokens read.
    pub prompt: Source,
    /// Of those that were known already.
    pub cached: Source,
    /// Of those that were written to a cache.
    pub cache_write: Source,
    /// Of the tokens written.
    pub completion: Source,
    /// Of those that were thought.
    pub reasoning: Source,
}

impl UsageSources {
    /// The same for all numbers.
    pub fn all(source: Source) -> Self {
        let [prompt, cached, cache_write, completion, reasoning] = [source; 5];
        Self { prompt, cached, cache_write, completion, reasoning }
    }

    fn letters(self) -> String {
        let Self { prompt, cached, cache_write, completion, reasoning } = self;
        [prompt, cached, cache_write, completion, reasoning].map(letter).iter().collect()
    }

    fn of_letters(letters: &str) -> Self {
        let at = |index| letters.as_bytes().get(index).map_or(Source::Unknown, |&l| of_letter(l));
        Self {
            prompt: at(0),
            cached: at(1),
            cache_write: at(2),
            completion: at(3),
            reasoning: at(4),
        }
    }
}

/// One attempt to answer a request, from the request's arrival to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestRow {
    /// Tells the call apart; several answers to one call, and several attempts at one, have a row each.
    pub id: String,
    /// When it came, in milliseconds since 1970.
    pub at_unix_ms: i64,
    /// The id of the key that asked; empty: this machine's user.
    pub key: String,
    /// The API that it came by.
    pub dialect: String,
    /// What was asked.
    pub operation: String,
    /// Who answered.
    pub model: String,
    /// Why this one.
    pub reason: String,
    /// The model's content, in hex digits, where it was loaded.
    pub digest: Option<String>,
    /// How it ended: `answered`, `failed`, `left`, `cancelled`, `hedge_lost`; `unsettled`: nobody knows, since the
    /// process that asked was killed, and the cost is the most that it may be.
    pub outcome: String,
    /// What the failure was, as a word.
    pub error: Option<String>,
    /// Tokens read.
    pub prompt_tokens: Option<u32>,
    /// Those of them that were known already.
    pub cached_tokens: Option<u32>,
    /// Tokens written.
    pub completion_tokens: Option<u32>,
    /// From arrival to the first token, in microseconds.
    pub first_token_us: Option<i64>,
    /// From arrival to the end, in microseconds.
    pub total_us: i64,
    /// The backend's name, as the policy knows it; empty: a model of this machine.
    pub backend: String,
    /// Whose prices it has, such as `openai`; empty: nobody's.
    pub vendor: String,
    /// How far the request travelled.
    pub zone: Zone,
    /// Which attempt of its call this was, from 1.
    pub attempt: u32,
    /// The project that it was asked for; empty: none was named.
    pub project: String,
    /// What its text was held to be, as a word.
    pub data_class: Option<String>,
    /// The rule of the policy that let it go there.
    pub policy_rule: Option<String>,
    /// Tokens of the prompt that a vendor wrote to its cache.
    pub cache_write_tokens: Option<u32>,
    /// Tokens of the answer that were thought.
    pub reasoning_tokens: Option<u32>,
    /// Where each of these numbers is from.
    pub sources: UsageSources,
    /// What the price was taken from: `table` or `policy`.
    pub price_source: Option<String>,
    /// The day that the price is known for, `YYYY-MM-DD`.
    pub price_date: Option<String>,
    /// What it cost by the prices of its time, in millionths of a dollar; `None`: nobody knows.
    pub cost: Option<MicroUsd>,
    /// Whether the cost covers only what was seen: a stream broke off before its usage was told, or nothing said how long it
    /// might be.
    pub cost_at_least: bool,
    /// What was reserved for it at most.
    pub reserved: Option<MicroUsd>,
    /// Bytes that left this machine for it; `None`: nobody counted.
    pub sent_bytes: Option<i64>,
    /// Texts that were replaced before it left.
    pub redacted: Option<u32>,
    /// The name under which it was noted before it left, where it cost money.
    pub reservation: Option<String>,
}

impl Default for RequestRow {
    /// A first attempt on this machine of which nothing else is known.
    fn default() -> Self {
        Self {
            id: String::new(),
            at_unix_ms: 0,
            key: String::new(),
            dialect: String::new(),
            operation: String::new(),
            model: String::new(),
            reason: String::new(),
            digest: None,
            outcome: String::new(),
            error: None,
            prompt_tokens: None,
            cached_tokens: None,
            completion_tokens: None,
            first_token_us: None,
            total_us: 0,
            backend: String::new(),
            vendor: String::new(),
            zone: Zone::Host,
            attempt: 1,
            project: String::new(),
            data_class: None,
            policy_rule: None,
            cache_write_tokens: None,
            reasoning_tokens: None,
            sources: UsageSources::default(),
            price_source: None,
            price_date: None,
            cost: None,
            cost_at_least: false,
            reserved: None,
            sent_bytes: None,
            redacted: None,
            reservation: None,
        }
    }
}

/// Rows that the database does not take.
const ASIDE: &str = "ledger.set-aside.jsonl";
/// The most bytes of them.
const ASIDE_BYTES: u64 = 16 << 20;
/// Rows that are read while the database is closed to others.
const AT_A_TIME: i64 = 1024;
/// No request is under way for longer.
const LONGEST_MS: i64 = 24 * 3600 * 1000;

/// All columns that a row is written to and read from, in the order of [`values`] and [`request`].
const COLUMNS: &str = "id, at_unix_ms, key, dialect, operation, model, reason, digest, outcome,
    error, prompt_tokens, cached_tokens, completion_tokens, first_token_us, total_us, backend,
    vendor, zone, attempt, project, data_class, policy_rule, cache_write_tokens, reasoning_tokens,
    sources, price_source, price_date, cost_micro_usd, cost_at_least, reserved_micro_usd,
    sent_bytes, redacted, reservation";

impl Store {
    /// Writes these rows in one transaction, and lets the oldest of too many go.
    ///
    /// # Errors
    /// The database cannot be written; then none of them is there.
    pub fn record_requests(&self, rows: &[RequestRow]) -> Result<(), DbError> {
        self.record_packed(rows, &[])
    }

    /// Writes what happened to requests and what they were decided on in one transaction, and lets the oldest of
    /// too many requests go.
    ///
    /// # Errors
    /// The database cannot be written, or a decision not be packed; then none of it is there.
    pub fn record(&self, rows: &[RequestRow], decisions: &[DecisionRow]) -> Result<(), DbError> {
        let mut packing = Packing::default();
        let packed = decisions.iter().map(|row| packing.pack(row.clone()));
        let packed = packed.collect::<Result<Vec<_>, _>>();
        let packed = self.db.run("pack decisions", |_| packed.map_err(decisions::unpackable))?;
        self.record_packed(rows, &packed)
    }

    /// As [`Store::record`], of decisions that are packed already: the database is closed to others for a shorter
    /// while.
    ///
    /// # Errors
    /// The database cannot be written; then none of it is there.
    pub fn record_packed(
        &self,
        rows: &[RequestRow],
        decisions: &[PackedDecision],
    ) -> Result<(), DbError> {
        let old = "DELETE FROM requests WHERE number <= (SELECT max(number) FROM requests) - ?1";
        self.db.run("record requests", |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            insert(&transaction, rows)?;
            transaction.execute(old, [KEPT])?;
            decisions::insert(&transaction, decisions)?;
            transaction.commit()
        })
    }

    /// Keeps a row that the database does not take in a file beside it, a line of JSON each. Says which.
    ///
    /// # Errors
    /// The file cannot be written, or has no room.
    pub fn set_aside(&self, row: &RequestRow) -> io::Result<PathBuf> {
        let path = self.root().join(ASIDE);
        let mut line = serde_json::to_vec(row)?;
        line.push(b'\n');
        let mut file = private_file().append(true).open(&path)?;
        let length = file.metadata()?.len();
        if length.saturating_add(line.len() as u64) > ASIDE_BYTES {
            return Err(io::Error::other("the file of rows that were set aside is full"));
        }
        file.write_all(&line)?;
        file.sync_all()?;
        Ok(path)
    }

    /// So many of the latest requests, the newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn latest_requests(&self, most: u32) -> Result<Vec<RequestRow>, DbError> {
        let sql = format!("SELECT {COLUMNS} FROM requests ORDER BY number DESC LIMIT ?1");
        self.db.run("list requests", |db| db.prepare(&sql)?.query_map([most], request)?.collect())
    }

    /// Hands the requests that came from `since_unix_ms` on to `each`, the newest first, until it has seen enough and says
    /// `false`. The database is closed to others for some of them at a time alone.
    ///
    /// # Errors
    /// The database cannot be read; then `each` saw some of them.
    pub fn latest_requests_since(
        &self,
        since_unix_ms: i64,
        mut each: impl FnMut(&RequestRow) -> bool,
    ) -> Result<(), DbError> {
        let newest = "SELECT coalesce(max(number), 0) FROM requests";
        let some = format!(
            "SELECT {COLUMNS} FROM requests
             WHERE number > ?1 AND number <= ?2 AND at_unix_ms >= ?3 ORDER BY number DESC"
        );
        // Rows come in the order of ends, not of arrivals.
        let earliest = since_unix_ms.saturating_sub(LONGEST_MS);
        let mut last: i64 =
            self.db.run("list requests", |db| db.query_row(newest, [], |row| row.get(0)))?;
        while last > 0 {
            let before = last - AT_A_TIME;
            let rows: Vec<RequestRow> = self.db.run("list requests", |db| {
                let mut statement = db.prepare_cached(&some)?;
                statement.query_map(params![before, last, earliest], request)?.collect()
            })?;
            let mut wanted = rows.iter().filter(|row| row.at_unix_ms >= since_unix_ms);
            if rows.is_empty() || !wanted.all(&mut each) {
                break;
            }
            last = before;
        }
        Ok(())
    }

    /// Hands each request that came from `since_unix_ms` on to `each`, the oldest first, one at a time: a year of
    /// them need not fit into memory.
    ///
    /// # Errors
    /// The database cannot be read; then `each` saw some of them.
    pub fn requests_since(
        &self,
        since_unix_ms: i64,
        mut each: impl FnMut(&RequestRow),
    ) -> Result<(), DbError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM requests WHERE at_unix_ms >= ?1 ORDER BY at_unix_ms, number"
        );
        self.db.run("read requests", |db| {
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query(params![since_unix_ms])?;
            while let Some(row) = rows.next()? {
                each(&request(row)?);
            }
            Ok(())
        })
    }
}

fn insert(db: &Connection, rows: &[RequestRow]) -> rusqlite::Result<()> {
    let places = vec!["?"; COLUMNS.split(',').count()].join(", ");
    let sql = format!("INSERT INTO requests ({COLUMNS}) VALUES ({places})");
    let mut insert = db.prepare_cached(&sql)?;
    rows.iter().try_for_each(|row| insert_row(&mut insert, row))
}

/// Writes those of these rows whose reservation is not on record. `since_unix_ms`: none of them is older on record.
/// Returns what was written.
pub(crate) fn insert_missing(
    db: &Connection,
    rows: Vec<RequestRow>,
    since_unix_ms: i64,
) -> rusqlite::Result<Vec<RequestRow>> {
    let sql = "SELECT reservation FROM requests WHERE at_unix_ms >= ?1 AND reservation NOT NULL";
    let known: HashSet<String> =
        db.prepare(sql)?.query_map([since_unix_ms], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let is_missing =
        |row: &RequestRow| row.reservation.as_ref().is_none_or(|name| !known.contains(name));
    let missing: Vec<RequestRow> = rows.into_iter().filter(is_missing).collect();
    insert(db, &missing)?;
    Ok(missing)
}

fn insert_row(insert: &mut rusqlite::Statement<'_>, row: &RequestRow) -> rusqlite::Result<()> {
    let sources = row.sources.letters();
    let (cost, reserved) = (row.cost.map(|cost| cost.0), row.reserved.map(|cost| cost.0));
    let values: [&dyn ToSql; 33] = [
        &row.id,
        &row.at_unix_ms,
        &row.key,
        &row.dialect,
        &row.operation,
        &row.model,
        &row.reason,
        &row.digest,
        &row.outcome,
        &row.error,
        &row.prompt_tokens,
        &row.cached_tokens,
        &row.completion_tokens,
        &row.first_token_us,
        &row.total_us,
        &row.backend,
        &row.vendor,
        &row.zone.as_str(),
        &row.attempt,
        &row.project,
        &row.data_class,
        &row.policy_rule,
        &row.cache_write_tokens,
        &row.reasoning_tokens,
        &sources,
        &row.price_source,
        &row.price_date,
        &cost,
        &row.cost_at_least,
        &reserved,
        &row.sent_bytes,
        &row.redacted,
        &row.reservation,
    ];
    insert.execute(&values[..]).map(drop)
}

fn request(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let zone: String = row.get(17)?;
    let sources: String = row.get(24)?;
    Ok(RequestRow {
        id: row.get(0)?,
        at_unix_ms: row.get(1)?,
        key: row.get(2)?,
        dialect: row.get(3)?,
        operation: row.get(4)?,
        model: row.get(5)?,
        reason: row.get(6)?,
        digest: row.get(7)?,
        outcome: row.get(8)?,
        error: row.get(9)?,
        prompt_tokens: row.get(10)?,
        cached_tokens: row.get(11)?,
        completion_tokens: row.get(12)?,
        first_token_us: row.get(13)?,
        total_us: row.get(14)?,
        backend: row.get(15)?,
        vendor: row.get(16)?,
        // A word of a later version is the farthest: nothing is called near that may not be.
        zone: Zone::ALL.into_iter().find(|known| known.as_str() == zone).unwrap_or(Zone::Cloud),
        attempt: row.get(18)?,
        project: row.get(19)?,
        data_class: row.get(20)?,
        policy_rule: row.get(21)?,
        cache_write_tokens: row.get(22)?,
        reasoning_tokens: row.get(23)?,
        sources: UsageSources::of_letters(&sources),
        price_source: row.get(25)?,
        price_date: row.get(26)?,
        cost: row.get::<_, Option<i64>>(27)?.map(MicroUsd),
        cost_at_least: row.get(28)?,
        reserved: row.get::<_, Option<i64>>(29)?.map(MicroUsd),
        sent_bytes: row.get(30)?,
        redacted: row.get(31)?,
        reservation: row.get(32)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_kept_and_come_back_the_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let row = |id: &str| RequestRow {
            id: id.to_owned(),
            at_unix_ms: 5,
            model: "mock".to_owned(),
            outcome: "answered".to_owned(),
            prompt_tokens: Some(9),
            total_us: 7,
            ..RequestRow::default()
        };
        store.record_requests(&[row("a"), row("b")]).unwrap();
        store.record_requests(&[]).unwrap();
        // Several answers to one call share its id.
        store.record_requests(&[row("b")]).unwrap();
        assert_eq!(store.latest_requests(2).unwrap(), [row("b"), row("b")]);
        assert_eq!(store.latest_requests(9).unwrap().len(), 3);
    }

    #[test]
    fn the_latest_from_a_time_on_come_until_enough_were_seen() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let day = 24 * 3600 * 1000;
        let row = |at_unix_ms| RequestRow { at_unix_ms, ..RequestRow::default() };
        // One that took long is written among later ones, and is older than all of a page.
        let most = AT_A_TIME;
        let mut rows: Vec<_> = (0..most).map(|at| row(at - 2 * day)).collect();
        rows.extend((0..9).map(row));
        rows.extend((0..most).map(|_| row(-1)));
        store.record_requests(&rows).unwrap();
        let seen = |since, enough: usize| {
            let mut seen = Vec::new();
            let all = store.latest_requests_since(since, |row| {
                seen.push(row.at_unix_ms);
                seen.len() < enough
            });
            all.unwrap();
            seen
        };
        assert_eq!(seen(5, usize::MAX), [8, 7, 6, 5]);
        assert_eq!(seen(5, 2), [8, 7]);
        assert_eq!(seen(i64::MIN, usize::MAX).len(), rows.len());
        assert_eq!(seen(day * 9, usize::MAX), [0; 0]);
    }

    #[test]
    fn every_column_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let sources = UsageSources {
            prompt: Source::Reported,
            cached: Source::Measured,
            completion: Source::Estimated,
            ..UsageSources::default()
        };
        let row = RequestRow {
            id: "a".to_owned(),
            at_unix_ms: 5,
            key: "k".to_owned(),
            dialect: "openai".to_owned(),
            operation: "chat".to_owned(),
            model: "gpt-4o".to_owned(),
            reason: "named".to_owned(),
            digest: Some("00".to_owned()),
            outcome: "hedge_lost".to_owned(),
            error: Some("Timeout".to_owned()),
            prompt_tokens: Some(1),
            cached_tokens: Some(2),
            completion_tokens: Some(3),
            first_token_us: Some(4),
            total_us: 5,
            backend: "work".to_owned(),
            vendor: "openai".to_owned(),
            zone: Zone::CloudZeroRetention,
            attempt: 2,
            project: "tie".to_owned(),
            data_class: Some("internal".to_owned()),
            policy_rule: Some("day work".to_owned()),
            cache_write_tokens: Some(6),
            reasoning_tokens: Some(7),
            sources,
            price_source: Some("table".to_owned()),
            price_date: Some("2026-01-01".to_owned()),
            cost: Some(MicroUsd(8)),
            cost_at_least: true,
            reserved: Some(MicroUsd(9)),
            sent_bytes: Some(10),
            redacted: Some(11),
            reservation: Some("a/0.1".to_owned()),
        };
        store.record_requests(std::slice::from_ref(&row)).unwrap();
        assert_eq!(store.latest_requests(1).unwrap(), std::slice::from_ref(&row));
        let mut seen = Vec::new();
        store.requests_since(5, |row| seen.push(row.clone())).unwrap();
        assert_eq!(seen, [row]);
        store.requests_since(6, |row| panic!("{row:?} is older")).unwrap();
    }

    #[test]
    fn rows_from_before_are_of_this_machine_and_measured() {
        let folder = tempfile::tempdir().unwrap();
        let old = rusqlite::Connection::open(folder.path().join("store.sqlite")).unwrap();
        for step in [
            include_str!("../migrations/0001_models.sql"),
            include_str!("../migrations/0002_ledger.sql"),
            include_str!("../migrations/0003_overlays.sql"),
            include_str!("../migrations/0004_keys.sql"),
            "INSERT INTO requests (id, at_unix_ms, key, dialect, operation, model, reason, outcome,
                prompt_tokens, total_us)
                VALUES ('old', 1, '', 'openai', 'chat', 'smollm2', 'named', 'answered', 7, 9)",
        ] {
            old.execute_batch(step).unwrap();
        }
        old.pragma_update(None, "user_version", 4).unwrap();
        drop(old);
        let row = Store::open(folder.path()).unwrap().latest_requests(1).unwrap().remove(0);
        let want = RequestRow {
            id: "old".to_owned(),
            at_unix_ms: 1,
            dialect: "openai".to_owned(),
            operation: "chat".to_owned(),
            model: "smollm2".to_owned(),
            reason: "named".to_owned(),
            outcome: "answered".to_owned(),
            prompt_tokens: Some(7),
            total_us: 9,
            sources: UsageSources::all(Source::Measured),
            ..RequestRow::default()
        };
        assert_eq!(row, want);
    }
}
