//! What a policy comes to on this machine: its parts, put together by whoever may read keys.

use std::fmt;
use std::sync::Arc;

use tieline_privacy::{Detectors, Guard, Guarded};
use tieline_store::Store;
use tieline_store::budget::{Period, Scope, ScopeKind, Till};
use tieline_types::MicroUsd;

use super::known::Known;
use crate::carry::Checker;
use crate::carry::breaker::Key;
use crate::choose::{Asked, BudgetLeft, Candidate};
use crate::policy::{Budget, BudgetScope, Policy};
use crate::prices::Priced;

/// A model of somebody else's that can be asked.
#[derive(Clone, Debug)]
pub struct RemoteModel {
    /// What is known of it.
    pub candidate: Candidate,
    /// The model, behind the guard.
    pub guarded: Guarded,
    /// What it costs, where that is known.
    pub price: Option<Priced>,
    /// The vendor's name, for ledgers.
    pub vendor: String,
    /// Whose circuits it uses.
    pub circuit: Key,
}

/// What a policy comes to.
#[derive(Clone)]
pub struct Setup {
    /// The policy.
    pub policy: Policy,
    /// Its models that can be asked: those whose key could be read.
    pub remotes: Vec<RemoteModel>,
    /// What finds personal text.
    pub detectors: Arc<Detectors>,
    /// What all remotes stand behind.
    pub guard: Arc<Guard>,
    /// Where money is reserved, and the store that knows what is left; `None`: nothing is spent.
    pub money: Option<(Till, Store)>,
    /// Whether nobody outside this machine may be asked.
    pub offline: bool,
    /// What the store knows of models.
    pub known: Arc<Known>,
    /// Who runs the programs of aliases; `None`: nobody, and no answer passes one.
    pub checker: Option<Arc<dyn Checker>>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, remotes, offline, .. } = self;
        f.debug_struct("Setup")
            .field("policy", &policy.digest)
            .field("remotes", &remotes.len())
            .field("offline", offline)
            .finish_non_exhaustive()
    }
}

impl Setup {
    /// The remote of this name.
    pub fn remote(&self, name: &str) -> Option<&RemoteModel> {
        self.remotes.iter().find(|remote| remote.candidate.name == name)
    }

    /// The budgets that a request comes under.
    pub(super) fn scopes(&self, asked: &Asked) -> Vec<Scope> {
        scopes(&self.policy, asked)
    }

    /// What is left of these budgets at a time. Reads the database.
    pub(super) fn left(&self, scopes: &[Scope], now_unix_s: i64) -> Vec<BudgetLeft> {
        if self.money.is_none() {
            return Vec::new();
        }
        let spent = self.spent();
        left(scopes, now_unix_s, spent)
    }

    /// What is spent and reserved of a budget in a period. Reads the database.
    fn spent(&self) -> impl Fn(&Scope, &str) -> MicroUsd {
        // Where they cannot be read, the reservation decides alone.
        let store = self.money.as_ref().map(|(_, store)| store);
        let balances = store.and_then(|store| store.balances().ok()).unwrap_or_default();
        move |scope: &Scope, period: &str| {
            let same = balances.iter().find(|(account, _)| {
                account.kind == scope.kind.as_str()
                    && account.id == scope.id
                    && account.period == period
            });
            same.map(|(_, balance)| balance.settled + balance.open).unwrap_or_default()
        }
    }

    /// All budgets of the policy, with what is left of each at a time. Reads the database.
    pub fn budgets(&self, now_unix_s: i64) -> Vec<Standing> {
        if self.money.is_none() {
            return Vec::new();
        }
        let spent = self.spent();
        let scopes = self.policy.budgets.iter().flat_map(limits);
        let standing = |scope: Scope| Standing {
            left: scope.cap - spent(&scope, &scope.period.name(now_unix_s)),
            scope,
        };
        scopes.map(standing).collect()
    }
}

/// A budget at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose, for how long, and the most of it.
    pub scope: Scope,
    /// What is neither spent nor reserved; below nothing where more was billed than reserved.
    pub left: MicroUsd,
}

/// The budgets of a policy that a request comes under.
pub(crate) fn scopes(policy: &Policy, asked: &Asked) -> Vec<Scope> {
    let all = policy.budgets.iter().filter(|budget| counts(budget, asked));
    all.flat_map(limits).collect()
}

/// The limits of one budget: of a day, of a month.
fn limits(budget: &Budget) -> impl Iterator<Item = Scope> + use<> {
    let (kind, id) = match &budget.scope {
        BudgetScope::Everything => (ScopeKind::Everything, String::new()),
        BudgetScope::Key(key) => (ScopeKind::Key, key.clone()),
        BudgetScope::Project(project) => (ScopeKind::Project, project.clone()),
    };
    let caps = [(Period::Day, budget.day), (Period::Month, budget.month)];
    caps.into_iter()
        .filter_map(move |(period, cap)| Some(Scope { kind, id: id.clone(), period, cap: cap? }))
}

/// What is left of budgets at a time, by what was spent of each in its period.
pub(crate) fn left(
    scopes: &[Scope],
    now_unix_s: i64,
    spent: impl Fn(&Scope, &str) -> MicroUsd,
) -> Vec<BudgetLeft> {
    let left = scopes.iter().map(|scope| BudgetLeft {
        scope: match scope.kind {
            ScopeKind::Key => BudgetScope::Key(scope.id.clone()),
            ScopeKind::Project => BudgetScope::Project(scope.id.clone()),
            _ => BudgetScope::Everything,
        },
        left: scope.cap - spent(scope, &scope.period.name(now_unix_s)),
    });
    left.collect()
}

fn counts(budget: &Budget, asked: &Asked) -> bool {
    match &budget.scope {
        BudgetScope::Everything => true,
        BudgetScope::Key(key) => *key == asked.key || Some(key) == asked.key_label.as_ref(),
        BudgetScope::Project(project) => Some(project) == asked.project.as_ref(),
    }
}
