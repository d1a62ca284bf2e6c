//! What keeps a request from others: the network, circuits, keys and money.

use std::sync::Arc;
use std::time::Instant;

use tieline_privacy::survey::{Survey, Unknown};
use tieline_store::Store;
use tieline_store::budget::{Period, ScopeKind, Till};
use tieline_types::MicroUsd;

use super::*;
use crate::carry::breaker::{Fault, Outcome as Went};
use crate::choose::Reason;
use crate::policy::BudgetScope;

/// Why the vendor's model may not answer what is asked now.
async fn reason(router: &Router) -> Option<Reason> {
    answer(router, "auto", chat(&[(Role::User, "Hi")])).await.unwrap();
    let plan = last(router).plan.clone().unwrap();
    plan.rejections.iter().find(|one| one.name == "cloud/big").map(|one| one.reason)
}

fn open_circuit(router: &Router) {
    let mut breakers = router.switch().shared.breakers.lock().unwrap();
    let key = Key { host: "cloud".into(), model: "big".into(), key: "cloud".into() };
    for _ in 0..50 {
        breakers.record(&key, Went::Fault(Fault::Model), Instant::now());
    }
}

#[tokio::test]
async fn a_network_that_is_gone_is_a_reason_of_its_own() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    assert_eq!(reason(&router).await, None);
    for _ in 0..50 {
        let mut network = router.switch().shared.network.lock().unwrap();
        network.failed("cloud", Instant::now());
    }
    assert_eq!(reason(&router).await, Some(Reason::Offline));
}

#[tokio::test]
async fn an_open_circuit_is_seen_by_the_plan_and_costs_nothing_after_it() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let request = chat(&[(Role::User, "Hi")]);
    let routed = router.decide(call("auto"), &request).await.unwrap();
    open_circuit(&router);
    let all: Vec<_> = routed.run(request).await.unwrap().collect().await;
    assert!(all.iter().all(Result::is_ok));
    let tried = &last(&router).tried;
    assert_eq!((tried[0].ended, tried[0].cost_micro_usd), ("skipped", Some(0)));
    assert_eq!(reason(&router).await, Some(Reason::BreakerOpen));
    assert!(vendor.left.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_nobody_could_look_through_stays() {
    let vendor = Arc::new(Vendor::default());
    let setup = setup(&vendor);
    let (call, request) = (call("auto"), chat(&[(Role::User, "Hi")]));
    let offline = |surveyed: Result<Survey, Unknown>, online| {
        asked(&setup, (&call, &request), (surveyed, online)).unwrap().offline
    };
    assert!(!offline(Ok(Survey::default()), true));
    assert!(offline(Ok(Survey::default()), false));
    assert!(offline(Err(Unknown), true));
}

#[tokio::test]
async fn a_key_for_some_models_reaches_no_others() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let request = chat(&[(Role::User, "Hi")]);
    let allowed: Option<Arc<[String]>> = Some(Arc::from(["mock".to_owned()]));
    for model in ["cloud/big", "auto"] {
        let call = Call { allowed: allowed.clone(), ..call(model) };
        let decided = router.decide(call, &request).await;
        assert!(decided.is_ok_and(|routed| routed.zone() == Zone::Host) == (model == "auto"));
    }
    assert!(vendor.left.lock().unwrap().is_empty());
}

/// The setup with budgets, and the store that they are in.
pub(super) fn shop(vendor: &Arc<Vendor>, budgets: &str) -> (Setup, Store, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let (till, _) = Till::start(store.budgets().unwrap(), Arc::new(|| 1000)).unwrap();
    let policy = Policy::parse(&format!("{POLICY}\n{budgets}")).unwrap();
    let money = Some((till, store.clone()));
    (Setup { policy, money, ..setup(vendor) }, store, home)
}

#[tokio::test]
async fn where_money_is_limited_an_answer_ends_where_the_reservation_does() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let (setup, _, _home) = shop(&vendor, "[[budget]]\nday = 5\n");
    router.switch().replace(setup);
    answer(&router, "cloud/big", chat(&[(Role::User, "Hi")])).await.unwrap();
    let plan = last(&router).plan.clone().unwrap();
    let sent: serde_json::Value = serde_json::from_str(&vendor.left.lock().unwrap()[0]).unwrap();
    assert_eq!(sent["max_tokens"], plan.tries[0].reserve_tokens.0);
    assert_eq!(last(&router).tried[0].reserved_micro_usd, Some(plan.tries[0].reserve.0));
}

#[tokio::test]
async fn prompts_of_one_call_have_money_of_their_own() {
    for budgets in ["", "[[budget]]\nday = 5\n"] {
        let vendor = Arc::new(Vendor::default());
        let router = router(&vendor);
        let (setup, _, _home) = shop(&vendor, budgets);
        let intents = setup.money.as_ref().unwrap().0.intents().clone();
        router.switch().replace(setup);
        let request = chat(&[(Role::User, "Hi")]);
        let mut streams = Vec::new();
        for _ in 0..2 {
            // The server decides each of them under the call's one id.
            let routed = router.decide(call("cloud/big"), &request).await.unwrap();
            streams.push(routed.run(request.clone()).await.unwrap());
        }
        assert_eq!(intents.outstanding(), 2, "{budgets}");
    }
}

#[tokio::test]
async fn budgets_are_of_their_key_and_what_was_spent_is_gone() {
    let vendor = Arc::new(Vendor::default());
    let budgets = "[[budget]]\nday = 2\nkey = \"team\"\n[[budget]]\nmonth = 9\n";
    let (setup, store, _home) = shop(&vendor, budgets);
    let request = chat(&[(Role::User, "Hi")]);
    let scopes = |label: Option<&str>| {
        let call = Call { label: label.map(str::to_owned), ..call("auto") };
        let surveyed = Ok(Survey::default());
        setup.scopes(&asked(&setup, (&call, &request), (surveyed, true)).unwrap())
    };
    assert_eq!(scopes(None).len(), 1);
    let team = scopes(Some("team"));
    assert_eq!((team[0].kind, team[0].period), (ScopeKind::Key, Period::Day));
    let budgets = store.budgets().unwrap();
    budgets.reserve(&team, MicroUsd(500_000), "a", 1000).unwrap();
    let left = setup.left(&team, 1000);
    assert_eq!(left[0].scope, BudgetScope::Key("team".to_owned()));
    assert_eq!([left[0].left, left[1].left], [MicroUsd(1_500_000), MicroUsd(8_500_000)]);
}
