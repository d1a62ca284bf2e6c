//! What happened to requests: one row for each, without a word of it.

use rusqlite::{Row, TransactionBehavior, params};

use crate::db::DbError;
use crate::store::Store;

/// Rows that are kept.
const KEPT: i64 = 1_000_000;

/// One request, from its arrival to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestRow {
    /// Tells the call apart; several answers to one call have a row each.
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
    /// How it ended.
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
}

impl Store {
    /// Writes these rows in one transaction, and lets the oldest of too many go.
    ///
    /// # Errors
    /// The database cannot be written; then none of them is there.
    pub fn record_requests(&self, rows: &[RequestRow]) -> Result<(), DbError> {
        let sql = "INSERT INTO requests (id, at_unix_ms, key, dialect, operation, model, reason,
                digest, outcome, error, prompt_tokens, cached_tokens, completion_tokens,
                first_token_us, total_us)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        let old = "DELETE FROM requests WHERE number <= (SELECT max(number) FROM requests) - ?1";
        self.db.run("record requests", |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut insert = transaction.prepare_cached(sql)?;
            for row in rows {
                insert.execute(params![
                    row.id,
                    row.at_unix_ms,
                    row.key,
                    row.dialect,
                    row.operation,
                    row.model,
                    row.reason,
                    row.digest,
                    row.outcome,
                    row.error,
                    row.prompt_tokens,
                    row.cached_tokens,
                    row.completion_tokens,
                    row.first_token_us,
                    row.total_us,
                ])?;
            }
            drop(insert);
            transaction.execute(old, [KEPT])?;
            transaction.commit()
        })
    }

    /// So many of the latest requests, the newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn latest_requests(&self, most: u32) -> Result<Vec<RequestRow>, DbError> {
        let sql = "SELECT id, at_unix_ms, key, dialect, operation, model, reason, digest, outcome,
                error, prompt_tokens, cached_tokens, completion_tokens, first_token_us, total_us
            FROM requests ORDER BY number DESC LIMIT ?1";
        self.db.run("list requests", |db| db.prepare(sql)?.query_map([most], request)?.collect())
    }
}

fn request(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
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
}
