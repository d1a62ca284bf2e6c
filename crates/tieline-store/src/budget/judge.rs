//! Judges what is asked of the budgets, inside one transaction.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use tieline_types::MicroUsd;

use crate::requests::{self, RequestRow};

use super::{Account, Balance, BudgetError, OverBudget, Recovered, Reservation, Scope, Settled};

/// Closed reservations are kept so long: to settle one to the truth that a vendor's bill tells a month later.
const KEPT_S: i64 = 60 * 86_400;

/// By how much a row on record may be older than the note of its attempt: a call's time is that of its arrival.
const OLDER_MS: i64 = 86_400_000;

/// Something to be judged.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// Keep this much free.
    Reserve { scopes: Vec<Scope>, amount: MicroUsd, id: String },
    /// It is over.
    End { id: String, ending: Ending },
}

/// What is known of a request's cost at its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// All.
    Known(MicroUsd),
    /// That it left.
    Unknown,
    /// That it never left.
    NeverSent,
}

/// What became of an ask.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Reserved(Reservation),
    Settled(Settled),
}

type Judged = Result<Verdict, BudgetError>;

/// Judges all asks in their order. Each sees what those before it changed. A failure of the database undoes them all.
pub(super) fn judge(
    db: &mut Connection,
    asks: &[Ask],
    owner: &str,
    now: i64,
) -> rusqlite::Result<Vec<Judged>> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let judged = asks
        .iter()
        .map(|ask| match ask {
            Ask::Reserve { amount, .. } if !is_amount(*amount) => {
                Ok(Err(BudgetError::NoAmount(*amount)))
            }
            Ask::Reserve { scopes, amount, id } => {
                let asked = Asked { scopes, amount: *amount, id, owner, now };
                reserve(&transaction, &asked)
            }
            Ask::End { id, ending } => end(&transaction, id, *ending, now),
        })
        .collect::<rusqlite::Result<_>>()?;
    transaction.commit()?;
    Ok(judged)
}

/// Bounded, so that sums of them do not overflow: SQLite would fail all that is judged together.
fn is_amount(amount: MicroUsd) -> bool {
    (0..=1_000_000_000_000_000).contains(&amount.0)
}

struct Asked<'a> {
    scopes: &'a [Scope],
    amount: MicroUsd,
    id: &'a str,
    owner: &'a str,
    now: i64,
}

fn reserve(transaction: &Transaction<'_>, asked: &Asked<'_>) -> rusqlite::Result<Judged> {
    let Asked { scopes, amount, id, owner, now } = *asked;
    let known = "SELECT 1 FROM reservations WHERE id = ?1";
    if transaction.prepare_cached(known)?.exists([id])? {
        return Ok(Err(BudgetError::Taken { id: id.to_owned() }));
    }
    // Two limits of one account, such as a rule's and a key's, take its money once.
    let mut accounts = BTreeMap::new();
    for scope in scopes {
        let account = Account {
            kind: scope.kind.as_str().to_owned(),
            id: scope.id.clone(),
            period: scope.period.name(now),
        };
        let Balance { settled, open, .. } = balance(transaction, &account)?;
        let left = scope.cap - (settled + open);
        if amount > left {
            let Scope { kind, id, period, cap } = scope.clone();
            let left = left.max(MicroUsd::ZERO);
            return Ok(Err(OverBudget { kind, id, period, cap, left, amount }.into()));
        }
        accounts.insert(account, ());
    }
    let accounts: Vec<Account> = accounts.into_keys().collect();
    for account in &accounts {
        change(transaction, account, Balance { open: amount, ..Balance::default() })?;
    }
    let insert = "INSERT INTO reservations
        (id, owner, scopes, amount_micro_usd, state, created_at_unix_s)
        VALUES (?1, ?2, ?3, ?4, 'open', ?5)";
    let row = params![id, owner, written(&accounts), amount.0, now];
    transaction.prepare_cached(insert)?.execute(row)?;
    Ok(Ok(Verdict::Reserved(Reservation { id: id.to_owned(), amount })))
}

fn end(
    transaction: &Transaction<'_>,
    id: &str,
    ending: Ending,
    now: i64,
) -> rusqlite::Result<Judged> {
    let sql = "SELECT scopes, amount_micro_usd, state FROM reservations WHERE id = ?1";
    let read = |row: &Row<'_>| Ok((row.get(0)?, MicroUsd(row.get(1)?), row.get(2)?));
    let found: Option<(String, MicroUsd, String)> =
        transaction.prepare_cached(sql)?.query_row([id], read).optional()?;
    let Some((scopes, reserved, state)) = found else {
        return Ok(Err(BudgetError::Unknown { id: id.to_owned() }));
    };
    let (actual, word) = match ending {
        Ending::Known(actual) if !is_amount(actual) => {
            return Ok(Err(BudgetError::NoAmount(actual)));
        }
        Ending::Known(actual) => (actual, "settled"),
        Ending::Unknown => (reserved, "uncertain"),
        Ending::NeverSent => (MicroUsd::ZERO, "released"),
    };
    // Only the truth is better than what a closed one holds.
    if state != "open" && (state == "settled" || word != "settled") {
        return Ok(Err(BudgetError::Closed { id: id.to_owned() }));
    }
    let was = held(&state, reserved);
    let is = match word {
        "uncertain" => held(word, reserved),
        _ => Balance { settled: actual, ..Balance::default() },
    };
    for account in read_accounts(&scopes) {
        change(transaction, &account, difference(is, was))?;
    }
    let update = "UPDATE reservations
        SET state = ?2, settled_micro_usd = ?3, closed_at_unix_s = ?4 WHERE id = ?1";
    transaction.prepare_cached(update)?.execute(params![id, word, actual.0, now])?;
    let above = (actual - reserved).max(MicroUsd::ZERO);
    Ok(Ok(Verdict::Settled(Settled { reserved, actual, above })))
}

/// What a reservation in this state holds of an account.
fn held(state: &str, reserved: MicroUsd) -> Balance {
    match state {
        "open" => Balance { open: reserved, ..Balance::default() },
        "uncertain" => Balance { settled: reserved, uncertain: reserved, ..Balance::default() },
        _ => Balance::default(),
    }
}

fn difference(is: Balance, was: Balance) -> Balance {
    Balance {
        settled: is.settled - was.settled,
        uncertain: is.uncertain - was.uncertain,
        open: is.open - was.open,
    }
}

fn balance(db: &Connection, account: &Account) -> rusqlite::Result<Balance> {
    let sql = "SELECT settled_micro_usd, uncertain_micro_usd, open_micro_usd FROM budgets
        WHERE kind = ?1 AND id = ?2 AND period = ?3";
    let Account { kind, id, period } = account;
    let read = |row: &Row<'_>| read_balance(row, 0);
    let found = db.prepare_cached(sql)?.query_row(params![kind, id, period], read);
    Ok(found.optional()?.unwrap_or_default())
}

fn read_balance(row: &Row<'_>, first: usize) -> rusqlite::Result<Balance> {
    Ok(Balance {
        settled: MicroUsd(row.get(first)?),
        uncertain: MicroUsd(row.get(first + 1)?),
        open: MicroUsd(row.get(first + 2)?),
    })
}

fn change(db: &Connection, account: &Account, by: Balance) -> rusqlite::Result<()> {
    // A constraint is checked before the conflict: a first row is made of zeros, so that what is taken off can be.
    let make = "INSERT INTO budgets (kind, id, period) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    let add = "UPDATE budgets SET settled_micro_usd = settled_micro_usd + ?4,
            uncertain_micro_usd = uncertain_micro_usd + ?5, open_micro_usd = open_micro_usd + ?6
        WHERE kind = ?1 AND id = ?2 AND period = ?3";
    let Account { kind, id, period } = account;
    db.prepare_cached(make)?.execute(params![kind, id, period])?;
    let row = params![kind, id, period, by.settled.0, by.uncertain.0, by.open.0];
    db.prepare_cached(add)?.execute(row).map(drop)
}

/// What each account holds.
pub(super) fn balances(db: &Connection) -> rusqlite::Result<Vec<(Account, Balance)>> {
    let sql = "SELECT kind, id, period, settled_micro_usd, uncertain_micro_usd, open_micro_usd
        FROM budgets ORDER BY kind, id, period";
    let read = |row: &Row<'_>| {
        let account = Account { kind: row.get(0)?, id: row.get(1)?, period: row.get(2)? };
        Ok((account, read_balance(row, 3)?))
    };
    db.prepare(sql)?.query_map([], read)?.collect()
}

/// Who has something open.
pub(super) fn owners(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT DISTINCT owner FROM reservations WHERE state = 'open' ORDER BY owner";
    db.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Settles what these owners left open at its full amount, writes what they noted and did not book into the ledger,
/// and forgets what was closed long ago.
pub(super) fn recover(
    db: &mut Connection,
    (owners, noted): (&[&str], Vec<RequestRow>),
    now: i64,
) -> rusqlite::Result<Recovered> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut recovered = Recovered::default();
    for owner in owners {
        let open = "SELECT id FROM reservations WHERE state = 'open' AND owner = ?1 ORDER BY id";
        let ids: Vec<String> = transaction
            .prepare(open)?
            .query_map([owner], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in ids {
            if let Ok(Verdict::Settled(settled)) = end(&transaction, &id, Ending::Unknown, now)? {
                recovered.amount += settled.actual;
                recovered.ids.push(id);
            }
        }
    }
    let oldest = noted.iter().map(|row| row.at_unix_ms).min().unwrap_or(i64::MAX);
    let missing = requests::insert_missing(&transaction, noted, oldest.saturating_sub(OLDER_MS))?;
    recovered.unsettled = missing.len();
    for cost in missing.iter().filter_map(|row| row.cost) {
        recovered.unsettled_cost += cost;
    }
    let old = "DELETE FROM reservations WHERE state != 'open' AND closed_at_unix_s < ?1";
    transaction.execute(old, [now.saturating_sub(KEPT_S)])?;
    transaction.commit()?;
    Ok(recovered)
}

/// As JSON: an id may hold any character.
fn written(accounts: &[Account]) -> String {
    let parts: Vec<[&str; 3]> = accounts
        .iter()
        .map(|account| [account.kind.as_str(), account.id.as_str(), account.period.as_str()])
        .collect();
    serde_json::json!(parts).to_string()
}

/// Empty where it was damaged: then no account is changed by mistake.
fn read_accounts(text: &str) -> Vec<Account> {
    let parts: Vec<[String; 3]> = serde_json::from_str(text).unwrap_or_default();
    parts.into_iter().map(|[kind, id, period]| Account { kind, id, period }).collect()
}
