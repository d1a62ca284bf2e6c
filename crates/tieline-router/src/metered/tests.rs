use std::time::Duration;

use futures_util::{StreamExt, stream};
use tieline_store::Store;
use tieline_store::budget::{Account, Balance, Period, ScopeKind};
use tieline_types::{FinishReason, Finished, Piece, Price, Prompt, Timing};

use super::*;
use crate::prices::PriceSource;

/// A vendor that says these events, refuses, or says nothing more.
#[derive(Clone, Debug)]
enum Vendor {
    Says(Vec<Event>, bool),
    Refuses(ErrorKind),
}

#[async_trait]
impl Backend for Vendor {
    fn name(&self) -> &str {
        "vendor/model"
    }

    fn zone(&self) -> Zone {
        Zone::Cloud
    }

    async fn run(&self, _: Request) -> Result<EventStream, BackendError> {
        match self.clone() {
            Self::Says(events, ends) => {
                let events = stream::iter(events.into_iter().map(Ok));
                Ok(if ends { events.boxed() } else { events.chain(stream::pending()).boxed() })
            }
            Self::Refuses(kind) => Err(BackendError::new(kind, "no")),
        }
    }
}

fn finished(prompt: u32, cached: u32, completion: u32) -> Event {
    let usage = Usage {
        prompt_tokens: Tokens(prompt),
        cached_tokens: Tokens(cached),
        completion_tokens: Tokens(completion),
        ..Usage::default()
    };
    let (timing, reason) = (Timing::default(), FinishReason::EndOfTurn);
    let (peak_memory, receipt) = (None, None);
    Event::Finished(Box::new(Finished { reason, usage, timing, seed: 0, peak_memory, receipt }))
}

fn piece(text: &str) -> Event {
    Event::Piece(Piece { text: text.into(), logprobs: Vec::new() })
}

struct Shop {
    store: Store,
    till: Till,
    _home: tempfile::TempDir,
}

/// What was read of an answer.
struct Read {
    bill: Bill,
    error: Option<ErrorKind>,
}

impl Shop {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let (till, _) = Till::start(store.budgets().unwrap(), Arc::new(|| 1000)).unwrap();
        Self { store, till, _home: home }
    }

    fn fare(&self, id: &str, priced: bool) -> Fare {
        let price = Price {
            input: MicroUsd(1_000_000),
            cached_input: MicroUsd(100_000),
            output: MicroUsd(2_000_000),
            ..Price::default()
        };
        let scope = Scope {
            kind: ScopeKind::Everything,
            id: String::new(),
            period: Period::Day,
            cap: MicroUsd(10_000),
        };
        let source = PriceSource::Policy { date: None };
        Fare {
            till: Some(self.till.clone()),
            cut: None,
            scopes: vec![scope],
            most: MicroUsd(6_000),
            id: id.to_owned(),
            price: priced.then_some(Priced { price, above: None, source }),
            prompt: Tokens(100),
        }
    }

    /// Reads `most` events, then leaves.
    async fn read(&self, vendor: Vendor, fare: Fare, most: usize) -> Read {
        let metered = Metered::new(Arc::new(vendor), fare);
        let stream = metered.run(Request::new(Prompt::Text("x".into()))).await;
        let error = match stream {
            Ok(mut stream) => {
                for _ in 0..most {
                    stream.next().await;
                }
                None
            }
            Err(error) => Some(error.kind),
        };
        Read { bill: metered.bill(), error }
    }

    /// The day's account, once all is settled.
    async fn balance(&self) -> Balance {
        for _ in 0..1000 {
            let all = self.store.balances().unwrap();
            let day = |account: &Account| account.period != "total";
            let balance = all.into_iter().find(|(account, _)| day(account)).unwrap().1;
            if balance.open == MicroUsd::ZERO {
                return balance;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("something stays open");
    }
}

#[tokio::test]
async fn an_answer_costs_what_its_vendor_counted() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece("Hello"), finished(1000, 400, 50)], true);
    let read = shop.read(vendor, shop.fare("1", true), 3).await;
    assert_eq!((read.bill.cost, read.bill.source), (Some(MicroUsd(740)), Source::Reported));
    assert_eq!(read.bill.reserved, Some(MicroUsd(6_000)));
    assert_eq!(shop.balance().await.settled, MicroUsd(740));
}

#[tokio::test]
async fn whoever_leaves_pays_for_what_came_and_what_may_be_on_its_way() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece("Hello there"), piece("!")], false);
    let read = shop.read(vendor, shop.fare("1", true), 2).await;
    // 100 tokens of prompt, 12 bytes as 6 tokens, 32 more.
    assert_eq!((read.bill.cost, read.bill.source), (Some(MicroUsd(176)), Source::Estimated));
    assert_eq!(shop.balance().await.settled, MicroUsd(176));
}

#[tokio::test]
async fn an_estimate_is_never_above_what_was_reserved() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece(&"x".repeat(12_000))], false);
    let read = shop.read(vendor, shop.fare("1", true), 1).await;
    assert_eq!(read.bill.cost, Some(MicroUsd(6_000)));
}

#[tokio::test]
async fn a_vendor_that_counts_nothing_is_estimated() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece("Hello there"), finished(0, 0, 0)], true);
    let read = shop.read(vendor, shop.fare("1", true), 3).await;
    assert_eq!((read.bill.cost, read.bill.source), (Some(MicroUsd(112)), Source::Estimated));
    assert_eq!(shop.balance().await.settled, MicroUsd(112));
}

#[tokio::test]
async fn a_count_that_cannot_be_is_estimated() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece("Hello there"), finished(1000, 0, 0)], true);
    let read = shop.read(vendor, shop.fare("1", true), 3).await;
    // The prompt as it was told, 11 bytes as 6 tokens.
    assert_eq!((read.bill.cost, read.bill.source), (Some(MicroUsd(1012)), Source::Estimated));
}

#[tokio::test]
async fn a_refusal_costs_nothing_and_silence_may_cost_all() {
    let shop = Shop::new();
    let read = shop.read(Vendor::Refuses(ErrorKind::Upstream), shop.fare("1", true), 0).await;
    assert_eq!((read.error, read.bill.cost), (Some(ErrorKind::Upstream), Some(MicroUsd::ZERO)));
    assert_eq!(shop.balance().await.settled, MicroUsd::ZERO);
    let read = shop.read(Vendor::Refuses(ErrorKind::Timeout), shop.fare("2", true), 0).await;
    assert_eq!(read.bill.cost, None);
    let balance = shop.balance().await;
    assert_eq!((balance.settled, balance.uncertain), (MicroUsd(6_000), MicroUsd(6_000)));
}

#[tokio::test]
async fn an_unknown_price_uses_up_the_reservation() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![finished(5, 0, 5)], true);
    let read = shop.read(vendor, shop.fare("1", false), 2).await;
    assert_eq!(read.bill.cost, None);
    assert_eq!(read.bill.usage.unwrap().prompt_tokens, Tokens(5));
    assert_eq!(shop.balance().await.settled, MicroUsd(6_000));
}

#[tokio::test]
async fn what_may_cost_more_than_is_left_is_not_sent() {
    let shop = Shop::new();
    let first = Metered::new(Arc::new(Vendor::Says(vec![], false)), shop.fare("1", true));
    let stream = first.run(Request::new(Prompt::Text("x".into()))).await.unwrap();
    let read = shop.read(Vendor::Says(vec![], true), shop.fare("2", true), 0).await;
    assert_eq!(read.error, Some(ErrorKind::OverBudget));
    assert_eq!(read.bill, Bill { cost: Some(MicroUsd::ZERO), ..Bill::default() });
    drop(stream);
    shop.balance().await;
    assert!(shop.read(Vendor::Says(vec![], true), shop.fare("3", true), 0).await.error.is_none());
}
