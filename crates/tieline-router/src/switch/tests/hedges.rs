//! Which second candidate is asked beside a slow first one.

use std::time::Duration;

use tieline_types::MicroUsd;

use super::limits::shop;
use super::*;
use crate::carry::{Attempt, Ended};

const HEDGE: &str = "[hedge]\nday = 1\nafter = \"1s\"\n";

/// Whether a run that asks these would be hedged.
async fn hedges(setup: Setup, router: &Router, request: &Request, names: [&str; 2]) -> bool {
    let setup = Arc::new(setup);
    let (call, host) = (call("auto"), router.host());
    let planned = router.switch().plan(setup, host, (&call, request)).await.unwrap();
    let tries = &planned.decision().tries;
    let find = |name: &str| tries.iter().find(|one| one.name == name).unwrap();
    planned.hedge(&names.map(find), 0).is_some()
}

#[tokio::test]
async fn nobody_is_asked_whose_cost_has_no_end_and_no_model_against_another_here() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let request = chat(&[(Role::User, "Hi")]);
    let (away, here) = (["mock", "cloud/big"], ["cloud/big", "mock"]);
    let (with_money, _store, _home) = shop(&vendor, HEDGE);
    assert!(hedges(with_money.clone(), &router, &request, away).await);
    assert!(hedges(with_money.clone(), &router, &request, here).await);
    assert!(!hedges(with_money.clone(), &router, &request, ["mock", "mock"]).await);
    let penniless = Setup { money: None, ..with_money.clone() };
    assert!(!hedges(penniless.clone(), &router, &request, away).await);
    assert!(hedges(penniless, &router, &request, here).await, "what runs here costs nothing");
    let mut endless = with_money.clone();
    endless.remotes[0].candidate.max_output = None;
    assert!(!hedges(endless.clone(), &router, &request, away).await);
    let short = Request { max_tokens: Some(Tokens(10)), ..request.clone() };
    assert!(hedges(endless, &router, &short, away).await);
    let mut unpriced = with_money.clone();
    unpriced.remotes[0].price = None;
    assert!(!hedges(unpriced, &router, &request, away).await);
    let mut never = with_money;
    never.policy.hedge.day = MicroUsd::ZERO;
    assert!(!hedges(never, &router, &request, here).await);
}

#[tokio::test]
async fn without_a_time_it_is_what_was_measured() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let request = chat(&[(Role::User, "Hi")]);
    let (setup, _store, _home) = shop(&vendor, "[hedge]\nday = 1\n");
    let names = ["cloud/big", "mock"];
    assert!(!hedges(setup.clone(), &router, &request, names).await);
    router.switch().replace(setup.clone());
    for _ in 0..20 {
        answer(&router, "cloud/big", request.clone()).await.unwrap();
    }
    assert!(hedges(setup, &router, &request, names).await);
    let waits = &router.switch().shared.waits;
    let attempt = Attempt {
        name: "cloud/big".to_owned(),
        seat: 0,
        zone: Zone::Cloud,
        ended: Ended::HedgeLost,
        error: None,
        first_token: None,
        total: Duration::from_secs(9),
        usage: Usage::default(),
        usage_told: false,
        timing: None,
        accepted: true,
    };
    (0..9).for_each(|_| waits.learn(&attempt));
    assert_eq!(waits.p95("cloud/big"), Some(Duration::from_secs(9)));
}

#[tokio::test]
async fn a_tools_result_goes_to_one_alone() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let (setup, _store, _home) = shop(&vendor, HEDGE);
    router.switch().replace(setup.clone());
    let ask = [(Role::System, "Be brief."), (Role::User, "What is the time?")];
    answer(&router, "auto", chat(&ask)).await.unwrap();
    assert!(!hedges(setup, &router, &after_a_tool(&ask), ["cloud/big", "mock"]).await);
}
