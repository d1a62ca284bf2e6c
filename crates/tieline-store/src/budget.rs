//! Budgets: what a request may cost at most is reserved before it leaves, and settled to the truth after.
//!
//! A reservation is one transaction that reads what is settled and what is open and writes what is reserved, while
//! nobody else can write: no two requests see the same money, whichever threads or processes they are of. A
//! reservation outlives the process that made it, and [`Budgets::recover`] settles those of dead processes at their
//! full amount: what a request that left may have cost is never given out again. Prices nothing; see the router for
//! that. Times are given by the caller.

mod intents;
mod judge;
mod owner;
mod period;
#[cfg(test)]
mod tests;
mod till;

use std::path::PathBuf;
use std::time::Duration;

use tieline_types::{Hint, MicroUsd};

use crate::db::{Db, DbError};
use crate::store::Store;

use owner::Owner;

pub use intents::Intents;
pub use owner::OwnerError;
pub use period::Period;
pub use till::{Clock, Held, Till, TillThread};

/// What a budget limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeKind {
    /// All that this store's owner spends.
    Everything,
    /// What is asked with a key.
    Key,
    /// What is asked for a project.
    Project,
    /// What is asked in a session.
    Session,
    /// What a backend is asked.
    Backend,
    /// What a model is asked.
    Model,
    /// What is asked of a second one, beside a first that is slow.
    Hedge,
}

impl ScopeKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Everything,
        Self::Key,
        Self::Project,
        Self::Session,
        Self::Backend,
        Self::Model,
        Self::Hedge,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Key => "key",
            Self::Project => "project",
            Self::Session => "session",
            Self::Backend => "backend",
            Self::Model => "model",
            Self::Hedge => "hedge",
        }
    }
}

/// One limit that a request comes under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What it limits.
    pub kind: ScopeKind,
    /// Which of them; empty for everything and hedges.
    pub id: String,
    /// For how long.
    pub period: Period,
    /// The most that may be spent in that time.
    pub cap: MicroUsd,
}

/// A scope in one of its periods: what a row of the budgets is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// What it is of.
    pub kind: String,
    /// Which of them.
    pub id: String,
    /// The period's name: `2026-11-28`, `2026-11` or `total`, by UTC.
    pub period: String,
}

/// What an account holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Spent for good.
    pub settled: MicroUsd,
    /// The part of it that nobody confirmed: the full amount of requests whose end is not known.
    pub uncertain: MicroUsd,
    /// Reserved by requests on their way.
    pub open: MicroUsd,
}

/// What a reservation took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Its name, as the caller gave it.
    pub id: String,
    /// What the request may cost at most.
    pub amount: MicroUsd,
}

/// How a request's money ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What was reserved.
    pub reserved: MicroUsd,
    /// What was settled.
    pub actual: MicroUsd,
    /// By how much the truth is above what was reserved: then a cap may be passed, and the estimate was wrong.
    pub above: MicroUsd,
}

/// What was found of dead processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Reservations that they left open, by name.
    pub ids: Vec<String>,
    /// What they are settled at together: what they may have cost at most.
    pub amount: MicroUsd,
    /// Attempts that left and were not on record: they are now, at the most that they may have cost.
    pub unsettled: usize,
    /// What the ledger says of them together; those without a price are not in it.
    pub unsettled_cost: MicroUsd,
    /// Notes of attempts that cannot be read: what they cost is not known.
    pub damaged: usize,
    /// The files that those are in, kept for whoever looks into it.
    pub set_aside: Vec<PathBuf>,
}

/// A limit that a request would pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {} of {cap} {} is used up to {left}: the request may cost {amount}", self.budget(), period.phrase()
)]
pub struct OverBudget {
    /// What the limit is of.
    pub kind: ScopeKind,
    /// Which of them.
    pub id: String,
    /// For how long it is.
    pub period: Period,
    /// The limit.
    pub cap: MicroUsd,
    /// What is left of it.
    pub left: MicroUsd,
    /// What the request may cost at most.
    pub amount: MicroUsd,
}

impl OverBudget {
    fn budget(&self) -> String {
        match self.kind {
            ScopeKind::Everything => "budget".to_owned(),
            ScopeKind::Hedge => "budget of hedges".to_owned(),
            kind => format!("budget of {} {:?}", kind.as_str(), self.id),
        }
    }
}

impl Hint for OverBudget {
    fn hint(&self) -> Option<String> {
        Some(
            match self.period {
                Period::Day => {
                    "wait for the next day (UTC), raise the limit, or ask a model of this machine"
                }
                Period::Month => {
                    "wait for the next month (UTC), raise the limit, or ask a model of this machine"
                }
                Period::Total => "raise the limit, or ask a model of this machine",
            }
            .to_owned(),
        )
    }
}

/// Why money could not be reserved or settled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// A limit would be passed. Nothing is reserved.
    #[error(transparent)]
    Over(#[from] OverBudget),
    /// An amount below zero, or of more than a thousand million dollars.
    #[error("cannot reserve or settle {0}: expected an amount of $0 to $1000000000")]
    NoAmount(MicroUsd),
    /// There is one of this name.
    #[error("a reservation {id:?} was made before")]
    Taken {
        /// Its name.
        id: String,
    },
    /// There is none of this name.
    #[error("no reservation {id:?} was made")]
    Unknown {
        /// Its name.
        id: String,
    },
    /// It is settled for good.
    #[error("reservation {id:?} was settled before")]
    Closed {
        /// Its name.
        id: String,
    },
    /// The thread that writes is gone: the process ends.
    #[error("cannot reserve money: the thread that writes budgets has ended")]
    Ended,
    /// The transaction that this was part of failed. Nothing of it is written.
    #[error("cannot write the budgets: {0}")]
    Unwritten(String),
    /// What leaves could not be noted before. Nothing left.
    #[error("cannot note a request before it leaves")]
    Unnoted(#[from] std::io::Error),
    /// The database could not be read or written.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hint for BudgetError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Over(over) => over.hint(),
            Self::Db(error) => error.hint(),
            Self::Unwritten(_) | Self::Unnoted(_) => {
                Some("free some space on the store's disk, and see the log".to_owned())
            }
            Self::NoAmount(_)
            | Self::Taken { .. }
            | Self::Unknown { .. }
            | Self::Closed { .. }
            | Self::Ended => None,
        }
    }
}

/// The store's budgets, and this process's reservations in them.
#[derive(Debug)]
pub struct Budgets {
    root: PathBuf,
    db: Db,
    owner: Owner,
}

/// Why the budgets could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetsError {
    /// This process cannot say that it lives.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The database could not be opened.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hint for BudgetsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Owner(error) => error.hint(),
            Self::Db(error) => error.hint(),
        }
    }
}

impl Store {
    /// Opens the budgets. What is reserved through them counts as of a living process until they are dropped.
    ///
    /// # Errors
    /// The database cannot be opened, or the file that says so cannot be made.
    pub fn budgets(&self) -> Result<Budgets, BudgetsError> {
        // A connection of its own: who looks something up in the store does not wait for money to reach the disk.
        let db = Db::open(&self.layout.database())?;
        db.run("set options", |db| db.busy_handler(Some(wait)))?;
        Ok(Budgets { owner: Owner::new(self.root())?, root: self.root().to_owned(), db })
    }

    /// What each account holds, by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn balances(&self) -> Result<Vec<(Account, Balance)>, DbError> {
        self.db.run("read budgets", |db| judge::balances(db))
    }
}

/// Looks each millisecond whether others have written: SQLite's own wait grows to a tenth of a second, and a request
/// waits here.
fn wait(tries: i32) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    tries < 5000
}

impl Budgets {
    /// Reserves `amount` in each scope, or in none.
    ///
    /// # Errors
    /// A limit would be passed; the name is taken; the amount is below zero; the database cannot be written. Nothing
    /// is reserved then.
    pub fn reserve(
        &self,
        scopes: &[Scope],
        amount: MicroUsd,
        id: &str,
        now_unix_s: i64,
    ) -> Result<Reservation, BudgetError> {
        let ask = judge::Ask::Reserve { scopes: scopes.to_vec(), amount, id: id.to_owned() };
        match self.judge_one(&ask, now_unix_s)? {
            judge::Verdict::Reserved(reservation) => Ok(reservation),
            judge::Verdict::Settled(_) => Err(BudgetError::Closed { id: id.to_owned() }),
        }
    }

    /// Settles a reservation at what the request cost, more than was reserved too: truth comes before a limit. One
    /// that was recovered or released may be settled later, when the truth is known.
    ///
    /// # Errors
    /// There is no such reservation, it is settled, or the database cannot be written.
    pub fn settle(
        &self,
        id: &str,
        actual: MicroUsd,
        now_unix_s: i64,
    ) -> Result<Settled, BudgetError> {
        self.end(id, judge::Ending::Known(actual), now_unix_s)
    }

    /// Settles a reservation of which nobody knows what it cost at its full amount, as uncertain.
    ///
    /// # Errors
    /// As [`Budgets::settle`].
    pub fn settle_unknown(&self, id: &str, now_unix_s: i64) -> Result<Settled, BudgetError> {
        self.end(id, judge::Ending::Unknown, now_unix_s)
    }

    /// Gives a reservation back whose request never left this machine.
    ///
    /// # Errors
    /// As [`Budgets::settle`].
    pub fn release(&self, id: &str, now_unix_s: i64) -> Result<(), BudgetError> {
        self.end(id, judge::Ending::NeverSent, now_unix_s).map(drop)
    }

    /// Settles what dead processes left open at its full amount, as uncertain: their requests may have been answered
    /// and billed. Writes what they noted and did not book into the ledger, as unsettled. Forgets reservations that
    /// were closed long ago.
    ///
    /// # Errors
    /// The database cannot be written, or a dead process's notes not be read; then nothing changed.
    pub fn recover(&self, now_unix_s: i64) -> Result<Recovered, BudgetError> {
        let root = &self.root;
        let mut owners = self.db.run("list reservations", |db| judge::owners(db))?;
        owners.extend(owner::marked(root)?);
        owners.sort();
        owners.dedup();
        // Our own lock is held, so we are not among them. Theirs are held until the change is committed, so that of two
        // who recover one does.
        let dead: Vec<owner::Dead> =
            owners.into_iter().filter_map(|owner| owner::Dead::find(root, &owner)).collect();
        let (mut rows, mut damaged) = (Vec::new(), Vec::new());
        for one in &dead {
            let left = one.left()?;
            rows.extend(left.rows);
            damaged.push(left.damaged);
        }
        let names: Vec<&str> = dead.iter().map(owner::Dead::name).collect();
        let mut recovered = self.db.run("recover reservations", |db| {
            judge::recover(db, (&names, std::mem::take(&mut rows)), now_unix_s)
        })?;
        recovered.damaged = damaged.iter().sum();
        for (one, damaged) in dead.into_iter().zip(damaged) {
            match damaged {
                0 => one.forget(),
                _ => recovered.set_aside.push(one.set_aside()),
            }
        }
        Ok(recovered)
    }

    /// Where what leaves is noted.
    pub fn intents(&self) -> &Intents {
        self.owner.intents()
    }

    fn end(&self, id: &str, ending: judge::Ending, now: i64) -> Result<Settled, BudgetError> {
        match self.judge_one(&judge::Ask::End { id: id.to_owned(), ending }, now)? {
            judge::Verdict::Settled(settled) => Ok(settled),
            judge::Verdict::Reserved(_) => Err(BudgetError::Unknown { id: id.to_owned() }),
        }
    }

    fn judge_one(&self, ask: &judge::Ask, now: i64) -> Result<judge::Verdict, BudgetError> {
        let mut verdicts = self.judge(std::slice::from_ref(ask), now)?;
        verdicts.pop().unwrap_or(Err(BudgetError::Ended))
    }

    /// Judges all asks in their order, in one transaction, and returns when it is on the disk.
    fn judge(
        &self,
        asks: &[judge::Ask],
        now_unix_s: i64,
    ) -> Result<Vec<Result<judge::Verdict, BudgetError>>, DbError> {
        let owner = self.owner.name();
        self.db.run("change budgets", |db| judge::judge(db, asks, owner, now_unix_s))
    }
}
