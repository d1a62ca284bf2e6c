//! What requests cost: a row for each attempt, or sums of them. Never a text.

use axum::Json;
use axum::extract::{Query, State};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tieline_store::spend::{By, Spend, Totals, reprice};
use tieline_store::{DbError, RequestRow, Store};

use super::decisions::{MOST, may_see_of, stored};
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;

/// Rows that one request looks at, at most: the newest. Where there are others, the answer says so.
const LOOKED_AT: usize = 100_000;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Page {
    /// Those of requests that came then or later, in milliseconds since 1970.
    #[serde(default)]
    since: i64,
    /// At most so many attempts, 100 where nothing is said.
    #[serde(default)]
    limit: Option<usize>,
    /// What is summed together; without it each attempt is shown.
    #[serde(default)]
    #[schemars(extend("enum" = ["day", "model", "key", "project", "zone", "backend", null]))]
    by: Option<String>,
}

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    let lost = app.router().records().lost() + app.lost().count();
    let Page { since, limit, by } = page;
    let Some(by) = by else {
        let most = limit.unwrap_or(100).min(MOST);
        let attempts = stored(&app, move |store| {
            let mut found = Vec::new();
            let each = |row: &RequestRow| {
                if found.len() < most && may_see_of(&caller, &row.key) {
                    found.push(shown(row));
                }
                found.len() < most
            };
            let complete = look(store, since, LOOKED_AT, each)?;
            Ok((found, complete))
        });
        let (attempts, complete) = attempts.await?;
        return Ok(Json(json!({ "attempts": attempts, "complete": complete, "lost": lost })));
    };
    let by = what(&by)?;
    let spend = stored(&app, move |store| {
        let mut spend = Spend::new(by);
        let each = |row: &RequestRow| {
            if may_see_of(&caller, &row.key) {
                // At what they were recorded to cost: today's prices are the command line's.
                spend.add(row, reprice(row, &|_, _| None));
            }
            true
        };
        let complete = look(store, since, LOOKED_AT, each)?;
        Ok((spend, complete))
    });
    let (spend, complete) = spend.await?;
    let group = |(name, totals): (&String, &Totals)| {
        let mut sums = sums(totals);
        sums["name"] = json!(name);
        sums
    };
    let groups: Vec<Value> = spend.groups.iter().map(group).collect();
    let (by, total) = (by.as_str(), sums(&spend.total));
    Ok(Json(json!({
        "by": by, "groups": groups, "total": total, "complete": complete, "lost": lost,
    })))
}

/// Shows `each` the newest `most` rows, until it has seen enough. Whether no others were left out.
fn look(
    store: &Store,
    since: i64,
    most: usize,
    mut each: impl FnMut(&RequestRow) -> bool,
) -> Result<bool, DbError> {
    let (mut left, mut complete) = (most, true);
    store.latest_requests_since(since, |row| {
        complete = left > 0;
        left = left.saturating_sub(1);
        complete && each(row)
    })?;
    Ok(complete)
}

fn what(word: &str) -> Result<By, ApiError> {
    let all = [By::Day, By::Model, By::Key, By::Project, By::Zone, By::Backend];
    all.into_iter().find(|by| by.as_str() == word).ok_or_else(|| {
        let text = "by is another word: expected day, model, key, project, zone or backend";
        ApiError::invalid("by", text)
    })
}

fn sums(totals: &Totals) -> Value {
    json!({
        "attempts": totals.rows,
        "cost_micro_usd": totals.cost,
        "at_least": totals.is_at_least(),
        "attempts_unknown": totals.unknown,
        "prompt_tokens": totals.prompt_tokens,
        "cached_tokens": totals.cached_tokens,
        "completion_tokens": totals.completion_tokens,
        "reasoning_tokens": totals.reasoning_tokens,
        "local_us": totals.local_us,
        "sent_bytes": totals.sent_bytes,
        "redacted": totals.redacted,
    })
}

fn shown(row: &RequestRow) -> Value {
    json!({
        "id": row.id,
        "attempt": row.attempt,
        "at_unix_ms": row.at_unix_ms,
        "key": row.key,
        "project": row.project,
        "dialect": row.dialect,
        "operation": row.operation,
        "backend": row.backend,
        "model": row.model,
        "vendor": row.vendor,
        "zone": row.zone.as_str(),
        "data_class": row.data_class,
        "policy_rule": row.policy_rule,
        "reason": row.reason,
        "outcome": row.outcome,
        "error": row.error,
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "cache_write_tokens": row.cache_write_tokens,
        "completion_tokens": row.completion_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "sources": row.sources,
        "cost_micro_usd": row.cost,
        "cost_at_least": row.cost_at_least,
        "reserved_micro_usd": row.reserved,
        "price_source": row.price_source,
        "price_date": row.price_date,
        "first_token_us": row.first_token_us,
        "total_us": row.total_us,
        "sent_bytes": row.sent_bytes,
        "redacted": row.redacted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_rows_are_looked_at_and_others_are_told_of() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let row = |number: u32| RequestRow { id: number.to_string(), ..RequestRow::default() };
        let looked_at = |most: usize, enough: usize| {
            let mut ids = Vec::new();
            let each = |row: &RequestRow| {
                ids.push(row.id.clone());
                ids.len() < enough
            };
            let complete = look(&store, 0, most, each).unwrap();
            (ids.concat(), complete)
        };
        assert_eq!(looked_at(3, 9), (String::new(), true));
        let rows: Vec<_> = (1..=3).map(row).collect();
        store.record_packed(&rows, &[]).unwrap();
        assert_eq!(looked_at(3, 9), ("321".to_owned(), true));
        store.record_packed(&[row(4)], &[]).unwrap();
        assert_eq!(looked_at(3, 9), ("432".to_owned(), false));
        // Who has seen enough misses nothing.
        assert_eq!(looked_at(3, 2), ("43".to_owned(), true));
    }
}
