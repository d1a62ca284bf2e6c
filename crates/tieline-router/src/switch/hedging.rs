//! When a second candidate is asked beside a slow first one, and with which money.

use std::sync::Arc;

use tieline_store::budget::{Period, Scope, ScopeKind};
use tieline_types::{MicroUsd, Tokens, Zone};

use super::planned::{Planned, Purse, lock};
use super::setup::RemoteModel;
use crate::carry::{Hedge, Hedged};
use crate::choose::{Pinned, Try};

impl Planned {
    /// The hedge of a run that asks these in their order. All of them may be asked by rules, zones and budgets. A
    /// tool's result belongs to whoever called it, and two models of this machine would only share its speed.
    pub(super) fn hedge(&self, tries: &[&Try], run: u32) -> Option<Hedge> {
        let policy = &self.setup.policy.hedge;
        if policy.day <= MicroUsd::ZERO || self.decision.pinned == Some(Pinned::ToolLoop) {
            return None;
        }
        let &[first, second, ..] = tries else { return None };
        if first.zone == Zone::Host && second.zone == Zone::Host {
            return None;
        }
        let after = policy.after.or_else(|| self.shared.waits.p95(&first.name))?;
        let note = self.hedge_note();
        let Some(remote) = self.setup.remote(&second.name) else {
            let may_pay = Arc::new(|| Box::pin(async { true }) as _);
            return Some(Hedge { after, second: self.here(second), may_pay, told: note });
        };
        let purse = self.hedge_purse(remote, second)?;
        let id = format!("{}/{run}.hedge", self.purse);
        let (second, metered) = self.there((remote, second), id, purse);
        let payer = metered.clone();
        let may_pay = Arc::new(move || {
            let payer = payer.clone();
            Box::pin(async move { payer.hold().await }) as _
        });
        let told = Arc::new(move |told| {
            if told != Hedged::Asked {
                metered.let_go();
            }
            note(told);
        });
        Some(Hedge { after, second, may_pay, told })
    }

    /// Where it is written that a second one was asked, or why not.
    fn hedge_note(&self) -> Arc<dyn Fn(Hedged) + Send + Sync> {
        let account = Arc::clone(&self.account);
        Arc::new(move |told| lock(&account).hedged = Some(told))
    }

    /// What a second answer is paid with: its own budgets and the hedges'. Without a till, a price or an end nobody
    /// could say what it may cost, and it is not asked.
    fn hedge_purse(&self, remote: &RemoteModel, second: &Try) -> Option<Purse> {
        self.setup.money.as_ref()?;
        let price = remote.price.as_ref()?;
        let mut scopes = self.scopes();
        let longest: Option<Tokens> = match scopes.is_empty() {
            // Where no budget cuts an answer, a hedge does not either.
            true => {
                [self.asked.max_tokens, remote.candidate.max_output].into_iter().flatten().min()
            }
            false => Some(second.reserve_tokens),
        };
        let longest = longest?;
        scopes.push(Scope {
            kind: ScopeKind::Hedge,
            id: String::new(),
            period: Period::Day,
            cap: self.setup.policy.hedge.day,
        });
        Some(Purse {
            scopes,
            most: price.worst(self.longest_prompt(second), longest),
            cut: Some(longest),
        })
    }
}
