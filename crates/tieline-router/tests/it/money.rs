//! A request's money from its price to the bill: reserved, settled, written down, reckoned anew.

use std::sync::Arc;

use tieline_router::prices::{Priced, Prices, Target, most_prompt_tokens};
use tieline_store::budget::{
    Balance, BudgetError, Held, Period, Scope, ScopeKind, Till, TillThread,
};
use tieline_store::spend::{By, Certainty, Cost, Spend, reprice};
use tieline_store::{RequestRow, Store, UsageSources};
use tieline_types::{Bytes, MicroUsd, Source, Tokens, Usage, Zone};

const TARGET: Target<'_> = Target { backend: "work", vendor: "openai", model: "gpt-4o" };
const NOW: i64 = 1_795_867_200;

struct Desk {
    _folder: tempfile::TempDir,
    store: Store,
    priced: Priced,
    till: Till,
    _thread: TillThread,
}

fn desk() -> Desk {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let budgets = store.budgets().unwrap();
    budgets.recover(NOW).unwrap();
    let (till, thread) = Till::start(budgets, Arc::new(|| NOW)).unwrap();
    let priced = Prices::builtin().unwrap().find(TARGET).unwrap().clone();
    Desk { _folder: folder, store, priced, till, _thread: thread }
}

impl Desk {
    /// Reserves for a body of 400 bytes and an answer of 1000 tokens: 1424 · $2.50 + 1000 · $10, by the million.
    async fn reserve(&self, cap: i64, id: &str) -> Result<Held, BudgetError> {
        let worst = self.priced.worst(most_prompt_tokens(Bytes(400), 0, 0), Tokens(1000));
        assert_eq!(worst, MicroUsd(13_560));
        let everything = ScopeKind::Everything;
        let (id_of_all, period) = (String::new(), Period::Day);
        let scope = Scope { kind: everything, id: id_of_all, period, cap: MicroUsd(cap) };
        self.till.reserve(vec![scope], worst, id).await
    }

    fn row(&self, held: &Held, outcome: &str) -> RequestRow {
        RequestRow {
            id: "call".to_owned(),
            at_unix_ms: NOW * 1000,
            model: TARGET.model.to_owned(),
            backend: TARGET.backend.to_owned(),
            vendor: TARGET.vendor.to_owned(),
            zone: Zone::Cloud,
            outcome: outcome.to_owned(),
            reserved: Some(held.amount()),
            price_source: Some(self.priced.source.as_str().to_owned()),
            price_date: self.priced.source.date().map(|date| date.to_string()),
            ..RequestRow::default()
        }
    }

    fn balance(&self) -> Balance {
        self.store.balances().unwrap()[0].1
    }
}

#[tokio::test]
async fn an_answer_is_reserved_settled_written_and_reckoned_anew() {
    let desk = desk();
    let mut held = desk.reserve(20_000, "call/1").await.unwrap();
    let over = desk.reserve(20_000, "other/1").await.unwrap_err();
    let BudgetError::Over(over) = over else { panic!("{over}") };
    assert_eq!(over.left, MicroUsd(20_000 - 13_560));

    let row = desk.row(&held, "answered");
    held.sent();
    let (prompt_tokens, completion_tokens) = (Tokens(100), Tokens(20));
    let usage = Usage { prompt_tokens, completion_tokens, ..Usage::default() };
    let cost = desk.priced.cost(&usage);
    assert_eq!(cost, MicroUsd(450));
    held.settle(cost).await.unwrap();
    desk.reserve(20_000, "other/2").await.unwrap().release().await.unwrap();
    assert_eq!(desk.balance(), Balance { settled: cost, ..Balance::default() });

    let row = RequestRow {
        prompt_tokens: Some(100),
        cached_tokens: Some(0),
        completion_tokens: Some(20),
        sources: UsageSources::all(Source::Reported),
        cost: Some(cost),
        ..row
    };
    desk.store.record_requests(&[row]).unwrap();
    let mut spend = Spend::new(By::Backend);
    let twice = |_: &RequestRow, usage: &Usage| Some(desk.priced.cost(usage) + MicroUsd(450));
    desk.store.requests_since(0, |row| spend.add(row, reprice(row, &twice))).unwrap();
    assert_eq!((spend.total.cost, spend.total.recorded), (MicroUsd(900), MicroUsd(450)));
    assert!(!spend.groups["work"].is_at_least());
}

#[tokio::test]
async fn a_stream_that_broke_off_costs_at_least_what_was_seen_and_at_most_what_was_reserved() {
    let desk = desk();
    let mut held = desk.reserve(20_000, "call/1").await.unwrap();
    held.sent();
    let row = desk.row(&held, "left");
    let most = held.amount();
    held.settle_unknown().await.unwrap();
    assert_eq!(desk.balance(), Balance { settled: most, uncertain: most, open: MicroUsd::ZERO });

    // Seen until then: the prompt that was counted here, and seven tokens.
    let sources = UsageSources {
        prompt: Source::Estimated,
        completion: Source::Estimated,
        ..UsageSources::default()
    };
    let row = RequestRow {
        prompt_tokens: Some(100),
        completion_tokens: Some(7),
        sources,
        cost_at_least: true,
        ..row
    };
    let price_of = |_: &RequestRow, usage: &Usage| Some(desk.priced.cost(usage));
    let want = Cost { amount: MicroUsd(320), certainty: Certainty::AtLeast };
    assert_eq!(reprice(&row, &price_of), want);
    assert!(want.amount < most);
}
