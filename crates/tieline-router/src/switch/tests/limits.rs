//! What keeps a request from others: the network, circuits, keys and money.

use std::sync::Arc;
use std::time::Instant;

use testkit::scripted::{Step, piece, started};
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
    let key = Key { host: "cloud".into(), model: "big".into(), key: "cloud".into(), turn: 1 };
    for _ in 0..50 {
        breakers.record(&key, Went::Fault(Fault::Model), Instant::now());
    }
}

#[tokio::test]
async fn a_network_that_is_gone_is_a_reason_of_its_own() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    assert_eq!(reason(&router).await, None);
    assert_eq!((last(&router).decision.reason, router.switch().offline_for()), ("chosen", None));
    for _ in 0..50 {
        let mut network = router.switch().shared.network.lock().unwrap();
        network.failed("cloud", Instant::now());
    }
    assert_eq!(reason(&router).await, Some(Reason::Offline));
    assert_eq!(last(&router).decision.reason, "offline");
    assert!(router.switch().offline_for().is_some());
    // Whoever asks for a model of this machine is told nothing of that.
    answer(&router, "mock", chat(&[(Role::User, "Hi")])).await.unwrap();
    assert_eq!(last(&router).decision.reason, "named");
}

#[tokio::test(start_paused = true)]
async fn a_model_here_may_load_for_long_and_then_goes_on_as_the_policy_says() {
    for (steps, seconds) in [(vec![started()], 300), (vec![started(), piece("Hel")], 5)] {
        let vendor = Arc::new(Vendor::default());
        let steps = steps.into_iter().chain([Step::Hang]).collect();
        let router = Router::new(Arc::new(Scripted::default().with("mock", steps)), None);
        let text = format!("[deadlines]\nfirst_token = \"3s\"\nidle = \"5s\"\n{POLICY}");
        let policy = Policy::parse(&text).unwrap();
        router.switch().replace(Setup { policy, offline: true, ..setup(&vendor) });
        let since = tokio::time::Instant::now();
        let error = answer(&router, "auto", chat(&[(Role::User, "Hi")])).await.unwrap_err();
        assert_eq!((error.kind, since.elapsed().as_secs()), (ErrorKind::Timeout, seconds));
    }
}

/// A policy of these backends, in their zones, each with a model `a` and a model `b`, and a vendor for each.
fn town(backends: &[(&str, &str, bool)]) -> (Router, Vec<Arc<Vendor>>) {
    let mut text =
        POLICY[POLICY.find("[[rule]]").unwrap()..].replace("\"cloud\"", "[\"lan\", \"cloud\"]");
    for (name, zone, _) in backends {
        use std::fmt::Write;
        let url = format!("https://{name}.example/v1");
        let head = format!("protocol = \"openai\"\nurl = {url:?}\nzone = {zone:?}");
        write!(text, "\n[backends.{name}]\n{head}\nmodels = {{ a = {{}}, b = {{}} }}\n").unwrap();
    }
    let vendors: Vec<_> = backends
        .iter()
        .map(|(_, _, away)| Arc::new(Vendor { away: *away, ..Vendor::default() }))
        .collect();
    let mut all = setup(&vendors[0]);
    all.policy = Policy::parse(&text).unwrap();
    all.remotes.clear();
    for candidate in all.policy.remote_candidates() {
        let (name, model) = candidate.name.split_once('/').unwrap();
        let vendor = backends.iter().position(|(one, _, _)| *one == name).unwrap();
        let circuit = Key { host: name.into(), model: model.into(), key: name.into(), turn: 0 };
        let guarded =
            Guarded::new(Arc::clone(&vendors[vendor]) as Arc<dyn Remote>, Arc::clone(&all.guard));
        let vendor = "openai".to_owned();
        all.remotes.push(RemoteModel { candidate, guarded, price: None, vendor, circuit });
    }
    let router = Router::new(Arc::new(Scripted::hello()), None);
    router.switch().replace(all);
    (router, vendors)
}

async fn named(router: &Router, model: &str) -> Result<String, ErrorKind> {
    answer(router, model, chat(&[(Role::User, "Hi")])).await.map_err(|error| error.kind)
}

#[tokio::test]
async fn two_models_of_a_dead_host_are_one_host() {
    let (router, _) = town(&[("dead", "cloud", true), ("well", "cloud", false)]);
    for model in ["dead/a", "dead/b", "dead/a", "dead/b"] {
        assert_eq!(named(&router, model).await, Err(ErrorKind::Upstream), "{model}");
    }
    assert_eq!(named(&router, "well/a").await.as_deref(), Ok("afar"));
}

#[tokio::test]
async fn a_network_that_is_gone_leaves_what_is_near() {
    let (router, vendors) = town(&[("cloud", "cloud", true), ("box", "lan", false)]);
    for _ in 0..2 {
        assert_eq!(named(&router, "cloud/a").await, Err(ErrorKind::Upstream));
    }
    // Of the policy's two hosts the near one was never asked, and nothing of it was needed to know.
    assert_eq!(named(&router, "cloud/a").await, Err(ErrorKind::Unavailable));
    let plan = last(&router).plan.clone().unwrap();
    let far = plan.rejections.iter().find(|one| one.name == "cloud/a").unwrap();
    assert_eq!(far.reason, Reason::Offline);
    assert_eq!(named(&router, "box/a").await.as_deref(), Ok("afar"));
    assert_eq!(vendors[1].asked.load(Ordering::Relaxed), 1);
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
    let alone = router.switch().left_alone();
    assert_eq!((alone[0].name.as_str(), alone[0].reason), ("cloud/big", "model_failing"));
    assert!(vendor.left.lock().unwrap().is_empty());
    // Whoever names it is told when to come again.
    let request = chat(&[(Role::User, "Hi")]);
    let error = answer(&router, "cloud/big", request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(matches!(error.retry, Retry::After(wait) if !wait.is_zero()), "{:?}", error.retry);
}

#[tokio::test]
async fn what_was_held_against_a_key_ends_where_keys_are_read_again() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    for fault in [Fault::Key, Fault::Limited(None)] {
        let key = Key { host: "cloud".into(), model: "big".into(), key: "cloud".into(), turn: 1 };
        let mut breakers = router.switch().shared.breakers.lock().unwrap();
        breakers.record(&key, Went::Fault(fault), Instant::now());
        drop(breakers);
        let reasons = || router.switch().left_alone().into_iter().map(|one| one.reason).next();
        assert!(reasons().is_some());
        router.switch().replace(setup(&vendor));
        let want = (fault != Fault::Key).then_some("rate_limited");
        assert_eq!(reasons(), want, "{fault:?}");
        if fault == Fault::Key {
            // An attempt that was under way with the old key is refused late: the new one is not to blame.
            let mut breakers = router.switch().shared.breakers.lock().unwrap();
            breakers.record(&key, Went::Fault(fault), Instant::now());
            drop(breakers);
            assert_eq!(reasons(), None);
        }
    }
}

#[tokio::test]
async fn what_nobody_could_look_through_stays() {
    let vendor = Arc::new(Vendor::default());
    let setup = setup(&vendor);
    let (call, request) = (call("auto"), chat(&[(Role::User, "Hi")]));
    let offline = |surveyed: Result<Survey, Unknown>, online| {
        let asked = asked(&setup, (&call, &request), (surveyed, online)).unwrap();
        (asked.offline, asked.network_gone)
    };
    assert_eq!(offline(Ok(Survey::default()), true), (false, false));
    assert_eq!(offline(Ok(Survey::default()), false), (false, true));
    assert_eq!(offline(Err(Unknown), true), (true, false));
}

#[tokio::test]
async fn a_deadline_of_the_caller_or_the_alias_counts_where_it_is_sooner() {
    let vendor = Arc::new(Vendor::default());
    let text = format!("[models.quick]\nfirst_token = \"2s\"\ntotal = \"30s\"\n{POLICY}");
    let setup = Setup { policy: Policy::parse(&text).unwrap(), ..setup(&vendor) };
    let request = chat(&[(Role::User, "Hi")]);
    let check = |model: &str, first_token: Option<&str>, deadline: Option<&str>| {
        let word = |word: Option<&str>| word.map(str::to_owned);
        let (first_token, deadline) = (word(first_token), word(deadline));
        let hints = Hints { first_token, deadline, ..Hints::default() };
        let call = Call { hints, ..call(model) };
        let asked = asked(&setup, (&call, &request), (Ok(Survey::default()), true));
        asked.map_err(|error| error.kind).map(|asked| {
            let deadlines = setup.policy.deadlines_of(&asked);
            (deadlines.first_token.as_millis(), deadlines.total.as_millis())
        })
    };
    assert_eq!(check("auto", None, None), Ok((60_000, 600_000)));
    assert_eq!(check("quick", None, None), Ok((2000, 30_000)));
    assert_eq!(check("quick", Some("800ms"), Some("1m")), Ok((800, 30_000)));
    assert_eq!(check("auto", Some("5m"), Some("10s")), Ok((10_000, 10_000)));
    for word in ["soon", "0s", "-1s", "7", ""] {
        assert_eq!(check("auto", Some(word), None), Err(ErrorKind::InvalidRequest), "{word}");
        assert_eq!(check("auto", None, Some(word)), Err(ErrorKind::InvalidRequest), "{word}");
    }
    // It weighs in the choice, and an answer that has to be seen to begin is streamed.
    let router = router(&vendor);
    for (first_token, whole) in [(None, true), (Some("5s".to_owned()), false)] {
        let hints = Hints { first_token, ..Hints::default() };
        let request = Request { whole: true, ..request.clone() };
        let call = Call { hints, ..call("cloud/big") };
        let routed = router.decide(call, &request).await.unwrap();
        routed.run(request).await.unwrap().collect::<Vec<_>>().await;
        assert_eq!(vendor.wishes.lock().unwrap().last(), Some(&whole));
    }
    let missed = |router: &Router| last(router).plan.as_ref().unwrap().scores[0].miss;
    let hurried = missed(&router);
    answer(&router, "cloud/big", request.clone()).await.unwrap();
    assert!(missed(&router) < hurried, "{hurried}");
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
    let standing = |now| -> Vec<_> {
        let all = setup.budgets(now).into_iter();
        all.map(|one| (one.scope.id, one.scope.period, one.left.0)).collect()
    };
    let full =
        [("team".to_owned(), Period::Day, 2_000_000), (String::new(), Period::Month, 9_000_000)];
    assert_eq!(standing(1000), full);
    let team = scopes(Some("team"));
    assert_eq!((team[0].kind, team[0].period), (ScopeKind::Key, Period::Day));
    let budgets = store.budgets().unwrap();
    budgets.reserve(&team, MicroUsd(500_000), "a", 1000).unwrap();
    let left = setup.left(&team, 1000);
    assert_eq!(left[0].scope, BudgetScope::Key("team".to_owned()));
    assert_eq!([left[0].left, left[1].left], [MicroUsd(1_500_000), MicroUsd(8_500_000)]);
    let lefts = |now| standing(now).into_iter().map(|(_, _, left)| left).collect::<Vec<_>>();
    assert_eq!(lefts(1000), [1_500_000, 8_500_000]);
    // The next day has its own, in the same month.
    assert_eq!(lefts(1000 + 86_400), [2_000_000, 8_500_000]);
}
