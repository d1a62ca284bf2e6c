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
            noted: RequestRow { id: id.to_owned(), ..RequestRow::default() },
            price: priced.then_some(Priced { price, above: None, source }),
            prompt: Tokens(100),
            // All of it costs what is reserved.
            completion: Tokens(2950),
            is_guess: false,
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
        Read { bill: metered.bill().unwrap(), error }
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
async fn whoever_leaves_pays_for_all_that_may_come() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece("Hello there"), piece("!")], false);
    let read = shop.read(vendor, shop.fare("1", true), 2).await;
    assert_eq!((read.bill.cost, read.bill.source), (Some(MicroUsd(6_000)), Source::Estimated));
    let balance = shop.balance().await;
    assert_eq!((balance.settled, balance.uncertain), (MicroUsd(6_000), MicroUsd(6_000)));
}

#[tokio::test]
async fn who_asks_for_less_leaves_with_less_to_pay() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece("Hello")], false);
    let fare = Fare { cut: Some(Tokens(50)), ..shop.fare("1", true) };
    // 100 tokens of prompt, 50 of answer; the budget keeps what was reserved.
    assert_eq!(shop.read(vendor, fare, 1).await.bill.cost, Some(MicroUsd(200)));
    assert_eq!(shop.balance().await.uncertain, MicroUsd(6_000));
}

#[tokio::test]
async fn a_vendor_that_goes_on_beyond_its_limit_is_taken_at_what_came() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece(&"x".repeat(12_000))], false);
    let read = shop.read(vendor, shop.fare("1", true), 1).await;
    assert_eq!(read.bill.cost, Some(MicroUsd(12_100)));
    assert_eq!(shop.balance().await.settled, MicroUsd(12_100));
}

#[tokio::test]
async fn where_nobody_knows_the_end_a_bill_and_a_note_are_at_least_so_much() {
    let shop = Shop::new();
    let guess = |id: &str| Fare { is_guess: true, scopes: Vec::new(), ..shop.fare(id, true) };
    let left = || Vendor::Says(vec![piece("Hello")], false);
    let bill = shop.read(left(), guess("1"), 1).await.bill;
    assert_eq!((bill.cost, bill.at_least), (Some(MicroUsd(6_000)), true));
    let cut = Fare { cut: Some(Tokens(50)), ..guess("2") };
    assert!(!shop.read(left(), cut, 1).await.bill.at_least);
    assert!(!shop.read(left(), shop.fare("3", true), 1).await.bill.at_least);
    let told = Vendor::Says(vec![finished(1000, 0, 50)], true);
    assert!(!shop.read(told, guess("4"), 1).await.bill.at_least);
    let metered = Metered::new(Arc::new(left()), guess("5"));
    for is_guess in [true, false] {
        let row = metered.at_most(Longest { tokens: Tokens(2950), is_guess }, None);
        assert_eq!((row.cost, row.cost_at_least), (Some(MicroUsd(6_000)), is_guess));
    }
}

#[tokio::test]
async fn each_run_has_a_reservation_and_a_bill_of_its_own() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![finished(1000, 0, 50)], true);
    let metered = Metered::new(Arc::new(vendor), shop.fare("1", true));
    for _ in 0..3 {
        let stream = metered.run(Request::new(Prompt::Text("x".into()))).await.unwrap();
        assert_eq!(stream.count().await, 1);
    }
    let costs = std::iter::from_fn(|| metered.bill()).map(|bill| bill.cost);
    assert_eq!(costs.collect::<Vec<_>>(), [Some(MicroUsd(1100)); 3]);
    assert_eq!(shop.balance().await.settled, MicroUsd(3300));
}

#[tokio::test]
async fn what_is_held_ahead_pays_the_next_run_or_is_given_back() {
    let shop = Shop::new();
    let vendor = || Arc::new(Vendor::Says(vec![finished(1000, 0, 50)], true));
    let first = Metered::new(vendor(), shop.fare("1", true));
    assert!(first.hold().await);
    let second = Metered::new(vendor(), shop.fare("2", true));
    assert!(!second.hold().await, "two of them are more than the cap");
    assert_eq!(second.bill(), None);
    first.let_go();
    shop.balance().await;
    assert!(second.hold().await);
    second.run(Request::new(Prompt::Text("x".into()))).await.unwrap().count().await;
    assert_eq!(second.bill().unwrap().reserved, Some(MicroUsd(6_000)));
    assert_eq!(shop.balance().await.settled, MicroUsd(1100));
}

#[tokio::test]
async fn a_vendor_that_counts_nothing_is_estimated() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece("Hello there"), finished(0, 0, 0)], true);
    let read = shop.read(vendor, shop.fare("1", true), 3).await;
    assert_eq!((read.bill.cost, read.bill.source), (Some(MicroUsd(6_000)), Source::Estimated));
    assert_eq!(shop.balance().await.settled, MicroUsd(6_000));
}

#[tokio::test]
async fn a_count_that_cannot_be_is_estimated() {
    let shop = Shop::new();
    let vendor = Vendor::Says(vec![piece("Hello there"), finished(1000, 0, 0)], true);
    let read = shop.read(vendor, shop.fare("1", true), 3).await;
    // The prompt as it was told, the answer at its longest.
    assert_eq!((read.bill.cost, read.bill.source), (Some(MicroUsd(6_900)), Source::Estimated));
    let vendor = Vendor::Says(vec![piece(&"x".repeat(1000)), finished(1000, 0, 7)], true);
    let shop = Shop::new();
    let read = shop.read(vendor, shop.fare("1", true), 3).await;
    assert_eq!(read.bill.source, Source::Estimated, "seven tokens are no thousand bytes");
}

#[tokio::test]
async fn a_refusal_costs_nothing_and_silence_may_cost_all() {
    let shop = Shop::new();
    let read = shop.read(Vendor::Refuses(ErrorKind::Upstream), shop.fare("1", true), 0).await;
    assert_eq!((read.error, read.bill.cost), (Some(ErrorKind::Upstream), Some(MicroUsd::ZERO)));
    assert_eq!(shop.balance().await.settled, MicroUsd::ZERO);
    let read = shop.read(Vendor::Refuses(ErrorKind::Timeout), shop.fare("2", true), 0).await;
    assert_eq!((read.bill.cost, read.bill.source), (Some(MicroUsd(6_000)), Source::Estimated));
    let balance = shop.balance().await;
    assert_eq!((balance.settled, balance.uncertain), (MicroUsd(6_000), MicroUsd(6_000)));
}

#[test]
fn who_could_not_be_reached_is_not_at_work() {
    let error = |cause: Option<std::io::ErrorKind>| {
        let error =
            BackendError::new(ErrorKind::Upstream, "no").of(Origin::Upstream, Retry::Elsewhere);
        match cause {
            Some(kind) => error.with_source(std::io::Error::from(kind)),
            None => error,
        }
    };
    use std::io::ErrorKind as Io;
    assert!(!may_be_at_work(&error(None)), "it refused");
    assert!(!may_be_at_work(&error(Some(Io::ConnectionRefused))));
    assert!(may_be_at_work(&error(Some(Io::ConnectionReset))));
    let broke = error(None).with_source(std::fmt::Error);
    assert!(may_be_at_work(&broke), "it broke in no way that the system knows");
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
    let vendor = Vendor::Says(vec![finished(1000, 0, 50)], false);
    let first = Metered::new(Arc::new(vendor), shop.fare("1", true));
    let mut stream = first.run(Request::new(Prompt::Text("x".into()))).await.unwrap();
    let read = shop.read(Vendor::Says(vec![], true), shop.fare("2", true), 0).await;
    assert_eq!(read.error, Some(ErrorKind::OverBudget));
    assert_eq!(read.bill, Bill { cost: Some(MicroUsd::ZERO), ..Bill::default() });
    stream.next().await.unwrap().unwrap();
    shop.balance().await;
    assert!(shop.read(Vendor::Says(vec![], true), shop.fare("3", true), 0).await.error.is_none());
}

#[tokio::test]
async fn what_surely_costs_nothing_leaves_no_note() {
    let shop = Shop::new();
    for (input, notes) in [(0, 0), (1_000_000, 1)] {
        let mut fare = shop.fare(&input.to_string(), true);
        fare.scopes.clear();
        let price = Price { input: MicroUsd(input), ..Price::default() };
        fare.price =
            Some(Priced { price, above: None, source: PriceSource::Policy { date: None } });
        let vendor = Vendor::Says(vec![finished(5, 0, 5)], false);
        let metered = Metered::new(Arc::new(vendor), fare);
        let under_way = metered.run(Request::new(Prompt::Text("x".into()))).await.unwrap();
        assert_eq!(shop.till.intents().outstanding(), notes, "{input}");
        drop(under_way);
    }
}
