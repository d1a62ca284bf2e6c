use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tieline_privacy::Treatment;
use tieline_store::{DecisionRow, Store};
use tieline_types::{MicroUsd, Source, Tokens, Usage, Zone};

use super::*;
use crate::choose;
use crate::choose::tests::properties::{a_policy, a_request, candidates};
use crate::choose::{Candidate, Decision, decide};
use crate::plan;
use crate::policy::Policy;
use crate::prices::PriceSource;
use crate::record::{AskedFor, Filed, Outcome, Record};

/// A record of what this policy decides.
pub(crate) fn filed(policy: &Policy, asked: &choose::Asked, candidates: &[Candidate]) -> Filed {
    let decision = decide(policy, asked, candidates);
    let record = Record {
        id: "r".to_owned(),
        at_unix_ms: 5,
        key: String::new(),
        dialect: "openai",
        operation: "chat",
        decision: plan::Decision { model: decision.asked.clone(), reason: "chosen" },
        plan: Some(Arc::new(decision)),
        asked: Some(asked.clone()),
        tried: Vec::new(),
        digest: None,
        outcome: Outcome::Answered,
        error: None,
        cached: false,
        saved_micro_usd: None,
        hedge: None,
        usage: Some(Usage { prompt_tokens: Tokens(7), ..Usage::default() }),
        first_token_us: Some(1),
        total_us: 2,
        asked_for: AskedFor::default(),
        finish: None,
        trace_parent: None,
    };
    Filed { record: Arc::new(record), candidates: Some(Arc::new(candidates.to_vec())) }
}

fn row(filed: &Filed) -> DecisionRow {
    Keeper::default().row(filed).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_decision_is_made_again_from_the_store(
        policy in a_policy(), asked in a_request(), candidates in candidates()
    ) {
        static STORE: LazyLock<(tempfile::TempDir, Store)> = LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            (folder, store)
        });
        let store = &STORE.1;
        let filed = filed(&policy, &asked, &candidates);
        store.record(&[], &[row(&filed)]).unwrap();
        let read = Kept::read(&store.decision("r").unwrap().unwrap().unwrap()).unwrap();
        let made = read.made.unwrap();
        prop_assert_eq!(&made.candidates, &candidates);
        prop_assert_eq!(&made.asked, &asked);
        let again = decide(&policy, &made.asked, &made.candidates);
        prop_assert_eq!(&again, filed.record.plan.as_deref().unwrap());
        let text = |decision: &Decision| serde_json::to_string(decision).unwrap();
        prop_assert_eq!(text(&again), text(&made.decision));
    }
}

#[test]
fn what_was_measured_stands_beside_the_decision_and_the_rest_is_shared() {
    let policy = Policy::default();
    let candidate = |tps: f64, loaded: bool| {
        let figure = |value, source| Some(choose::Figure { value, source });
        let profile = choose::Profile {
            prefill_tps: figure(900.0, Source::Reported),
            decode_tps: figure(tps, Source::Measured),
            ..choose::Profile::default()
        };
        Candidate {
            name: "here".to_owned(),
            local: true,
            zone: Zone::Host,
            abilities: choose::Abilities::default(),
            space: None,
            context: None,
            max_output: None,
            price: None,
            above: None,
            licence: None,
            profile,
            state: choose::State { loaded, verified: true, ..choose::State::default() },
        }
    };
    let asked = choose::Asked { asked: "auto".to_owned(), ..choose::Asked::default() };
    let mut keeper = Keeper::default();
    let (slow, fast) = ([candidate(3.0, false)], [candidate(40.0, true)]);
    let one = keeper.row(&filed(&policy, &asked, &slow)).unwrap();
    let other = keeper.row(&filed(&policy, &asked, &fast)).unwrap();
    assert!(Arc::ptr_eq(&one.grounds, &other.grounds));
    assert!(!one.grounds.candidates.contains("40") && one.grounds.candidates.contains("900"));
    for (row, was) in [(one, slow), (other, fast)] {
        assert_eq!(Kept::read(&row).unwrap().made.unwrap().candidates, was);
    }
    // Another policy has grounds of its own, and so has a request that none decided.
    let named = Policy { digest: tieline_types::Digest([1; 32]), ..policy.clone() };
    let of_other = keeper.row(&filed(&named, &asked, &[candidate(3.0, false)])).unwrap();
    assert_eq!(of_other.grounds.policy, Some(named.digest));
    let record =
        Record { plan: None, asked: None, ..filed(&policy, &asked, &[]).record.as_ref().clone() };
    let named = keeper.row(&Filed { record: Arc::new(record), candidates: None }).unwrap();
    assert_eq!((named.grounds.policy, named.grounds.candidates.as_str()), (None, "[]"));
    assert!(Kept::read(&named).unwrap().made.is_none());
}

#[test]
fn a_row_reads_as_the_record_that_it_was_made_of() {
    let policy = Policy::default();
    let asked = choose::Asked { asked: "auto".to_owned(), ..choose::Asked::default() };
    let filed = filed(&policy, &asked, &[]);
    let record = serde_json::to_value(filed.record.as_ref()).unwrap();
    assert_eq!(super::kept::record(&row(&filed)).unwrap(), record);
}

#[test]
fn what_cannot_be_read_says_why() {
    let policy = Policy::default();
    let asked = choose::Asked { asked: "auto".to_owned(), ..choose::Asked::default() };
    let good = row(&filed(&policy, &asked, &[]));
    let why = |change: fn(&mut DecisionRow)| {
        let mut row = good.clone();
        change(&mut row);
        Kept::read(&row).unwrap_err()
    };
    let newer = why(|row| Arc::make_mut(&mut row.grounds).format = 2);
    assert!(matches!(newer, Unreadable::Newer(2)), "{newer:?}");
    let broken = why(|row| row.facts.truncate(30));
    assert!(matches!(broken, Unreadable::Broken(_)), "{broken:?}");
    let grounds = why(|row| Arc::make_mut(&mut row.grounds).candidates.push('x'));
    assert!(matches!(grounds, Unreadable::Broken(_)), "{grounds:?}");
    let more = why(|row| row.facts = row.facts.replace("\"now\":[]", "\"now\":[{\"state\":{}}]"));
    assert!(matches!(more, Unreadable::Incomplete), "{more:?}");
    let half = why(|row| {
        let from = row.facts.find("\"asked\":{").unwrap();
        let to = row.facts.find(",\"tried\"").unwrap();
        row.facts.replace_range(from..to, "\"asked\":null");
    });
    assert!(matches!(half, Unreadable::Incomplete), "{half:?}");
    let mut newer = good;
    Arc::make_mut(&mut newer.grounds).format = 2;
    assert!(super::kept::record(&newer).is_err());
}

const POLICY: &str = r#"
[backends.cloud]
protocol = "openai"
url = "https://cloud.example/v1"
zone = "cloud"
models.big = { quality = 0.9, price = { input = 1, output = 1 }, decode_tps = 50 }
models.unpriced = { quality = 0.3 }
[[rule]]
name = "work"
class = ["public", "internal"]
zone = "cloud"
as = "as-is"
"#;

fn policy(more: &str) -> Policy {
    Policy::parse(&format!("{POLICY}{more}")).unwrap()
}

fn measured(value: f64) -> Option<choose::Figure> {
    Some(choose::Figure { value, source: Source::Measured })
}

/// What this policy decides of a request among its own and a model of this machine, at a time.
fn kept(policy: &Policy, at_unix_ms: i64) -> Kept {
    let mut candidates = policy.remote_candidates();
    let mut local = candidates[0].clone();
    (local.name, local.local, local.zone) = ("here".to_owned(), true, Zone::Host);
    (local.price, local.profile) = (None, choose::Profile::default());
    local.state = choose::State { verified: true, queue_ms: 7, ..choose::State::default() };
    candidates[0].profile.decode_tps = measured(90.0);
    candidates[0].profile.first_token_s = measured(0.25);
    candidates[0].state.cached_tokens = Tokens(3);
    candidates.push(policy.with_local(local));
    let asked = choose::Asked {
        asked: "auto".to_owned(),
        prompt_tokens: Tokens(1000),
        max_tokens: Some(Tokens(1000)),
        ..choose::Asked::default()
    };
    let mut kept = Kept::read(&row(&filed(policy, &asked, &candidates))).unwrap();
    kept.at_unix_ms = at_unix_ms;
    kept
}

/// The policy's models at the prices that it states with them.
fn priced(policy: &Policy) -> Vec<(Candidate, Option<PriceSource>)> {
    let source = |one: &Candidate| one.price.map(|_| PriceSource::Policy { date: None });
    policy.remote_candidates().into_iter().map(|one| (one.clone(), source(&one))).collect()
}

fn again(policy: &Policy) -> Again {
    Again::new(policy.clone(), priced(policy))
}

#[track_caller]
fn find<'c>(candidates: &'c [Candidate], name: &str) -> &'c Candidate {
    candidates.iter().find(|one| one.name == name).unwrap()
}

#[test]
fn who_could_answer_is_as_it_was_and_what_a_policy_says_is_the_new_ones() {
    let old = policy("[local.here]\nquality = 0.1\n");
    let kept = kept(&old, 0);
    let new = POLICY.replace("quality = 0.9", "quality = 0.7").replace("50 }", "60 }")
        + "[backends.lab]\nprotocol = \"tieline\"\nurl = \"http://10.0.0.1\"\nzone = \"lan\"\nmodels.mid = { quality = 0.5 }\n\
           [local.here]\nquality = { code = 0.4 }\n";
    let new = Policy::parse(&new.replace("models.unpriced = { quality = 0.3 }\n", "")).unwrap();
    let made = kept.made.as_ref().unwrap();
    let candidates = again(&new).decide(&kept, made).candidates;
    let names: Vec<&str> = candidates.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["here", "cloud/big", "lab/mid"]);
    let big = find(&candidates, "cloud/big");
    // What was measured and how it was stay; the policy's word is the new one's.
    assert_eq!(
        (big.profile.decode_tps, big.profile.first_token_s),
        (measured(90.0), measured(0.25))
    );
    assert_eq!((big.state.cached_tokens, big.profile.quality["any"].low), (Tokens(3), 0.7));
    let here = find(&candidates, "here");
    assert_eq!(here.state.queue_ms, 7);
    assert_eq!(here.profile.quality.keys().collect::<Vec<_>>(), ["code"]);
    assert_eq!(find(&candidates, "lab/mid"), find(&new.remote_candidates(), "lab/mid"));
}

#[test]
fn a_price_is_the_policys_else_that_of_then_else_that_of_now() {
    let price = |each| Some(tieline_types::Price { input: MicroUsd(each), ..Default::default() });
    let old = policy("");
    let mut kept = kept(&old, 0);
    let made = kept.made.as_mut().unwrap();
    made.candidates.iter_mut().find(|one| one.name == "cloud/unpriced").unwrap().price = price(5);
    let new = policy("[local.x]\nquality = 0.1\n");
    let table = PriceSource::Table { date: jiff::civil::date(2026, 1, 1), url: String::new() };
    let remotes = |said: &PriceSource| {
        let mut remotes = priced(&new);
        for (one, source) in remotes.iter_mut().filter(|(one, _)| one.price.is_none()) {
            (one.price, *source) = (price(9), Some(said.clone()));
        }
        remotes
    };
    let prices_by = |said: &PriceSource, made: &Made, kept: &Kept| {
        let anew = Again::new(new.clone(), remotes(said)).decide(kept, made);
        ["cloud/big", "cloud/unpriced"]
            .map(|name| find(&anew.candidates, name).price.unwrap().input.0)
    };
    let prices = |made: &Made, kept: &Kept| prices_by(&table, made, kept);
    let made = kept.made.clone().unwrap();
    // A row of the new policy's `[[price]]` is its word too.
    assert_eq!(prices_by(&PriceSource::Policy { date: None }, &made, &kept), [1_000_000, 9]);
    assert_eq!(prices(&made, &kept), [1_000_000, 5]);
    let mut unknown = made;
    unknown.candidates.retain(|one| one.name != "cloud/unpriced");
    assert_eq!(prices(&unknown, &kept), [1_000_000, 9]);
}

#[test]
fn a_budget_is_spent_by_what_is_decided_again_and_is_full_the_next_day() {
    let old = policy("");
    // Each reserves 2,000 millionths and costs 1,400 by forecast: the third has no room.
    let mut again = again(&policy("[[budget]]\nday = 0.0040\n"));
    let day = 24 * 3600 * 1000;
    let names = [0, 1000, 2000, day, day + 1].map(|at| {
        let kept = kept(&old, at);
        let anew = again.decide(&kept, kept.made.as_ref().unwrap());
        anew.decision.tries[0].name.clone()
    });
    assert_eq!(names, ["cloud/big", "cloud/big", "here", "cloud/big", "cloud/big"]);
}

#[test]
fn what_would_leave_and_what_would_stay_is_told() {
    let (open, shut) = (policy(""), Policy::default());
    let report = |from: &Policy, to: &Policy| {
        let mut replay = Replay::new(again(to));
        // Without a policy there are none but those of this machine: the others' were there all the same.
        let mut kept = kept(if from.backends.is_empty() { &open } else { from }, 0);
        let made = kept.made.as_mut().unwrap();
        let mut asked = made.asked.clone();
        asked.budgets.clear();
        made.decision = decide(from, &asked, &made.candidates);
        replay.add(&kept);
        replay.report(1)
    };
    let leaves = report(&shut, &open);
    assert_eq!((leaves.leave.ids.as_slice(), leaves.stay.count), (&["r".to_owned()][..], 0));
    assert_eq!(leaves.zones, [report::Pair { from: "host".into(), to: "cloud".into(), count: 1 }]);
    let stays = report(&open, &shut);
    assert_eq!((stays.leave.count, stays.stay.ids.as_slice()), (0, &["r".to_owned()][..]));
    // Nobody here may answer first, and somebody else may after that.
    let second = POLICY
        .replace("quality = 0.9", "quality = 0.0")
        .replace("[[rule]]", "[local.here]\nquality = 0.9\n[[rule]]")
        + "[preferences]\ncascade_margin = 0\n";
    let might = report(&shut, &Policy::parse(&second).unwrap());
    assert_eq!((might.leave.count, might.might_leave.count), (0, 1));
    let lan = POLICY.replace("zone = \"cloud\"", "zone = \"lan\"").replace("as-is", "redacted");
    let farther = report(&Policy::parse(&lan).unwrap(), &open);
    assert_eq!((farther.leave.count, farther.farther.count, farther.bare.count), (0, 1, 1));
    assert_eq!(farther.treatments[0].from, "redacted");
    let nearer = report(&open, &Policy::parse(&lan).unwrap());
    assert_eq!((nearer.leave.count, nearer.farther.count, nearer.bare.count), (0, 0, 0));
    let none = report(&open, &open);
    assert_eq!(
        (none.changed, none.leave.count, none.stay.count, none.might_leave.count),
        (0, 0, 0, 0)
    );
}

/// A decision of these tries, in this order; the first that is local leads a cascade where it is said so.
fn tries(all: &[(&str, Zone, Treatment)], cascade: bool) -> Decision {
    let mut decision = decide(&policy(""), &choose::Asked::default(), &[]);
    let one = |(name, zone, treatment): &(&str, Zone, Treatment)| choose::Try {
        name: (*name).to_owned(),
        zone: *zone,
        treatment: *treatment,
        rule: "rule".to_owned(),
        reserve: MicroUsd::ZERO,
        reserve_tokens: Tokens(0),
    };
    decision.tries = all.iter().map(one).collect();
    let first = all.iter().find(|(_, zone, _)| *zone == Zone::Host).filter(|_| cascade);
    decision.cascade = first.map(|(first, ..)| choose::Cascade {
        first: (*first).to_owned(),
        escalate_to: "cloud/big".to_owned(),
        most_error: 0.5,
        calibrated: None,
        sampled_at: None,
    });
    decision
}

/// What is told of a change: leave, might, farther, bare, stay.
#[track_caller]
fn reached(was: &Decision, new: &Decision, want: [u64; 5]) {
    let mut replay = Replay::new(again(&Policy::default()));
    replay.compare("r", was, new);
    let Report { leave, might_leave, farther, bare, stay, .. } = replay.report(1);
    assert_eq!([&leave, &might_leave, &farther, &bare, &stay].map(|ids| ids.count), want);
}

#[test]
fn all_who_are_tried_count_for_how_far_and_how_bare_a_request_goes() {
    use Treatment::{AsIs, Redacted};
    use Zone::{Cloud, Host, Lan};
    let here = ("here", Host, AsIs);
    let (near, far) = (("lan/x", Lan, Redacted), ("cloud/big", Cloud, AsIs));
    let veiled = ("cloud/veiled", Cloud, Redacted);
    let plain = |all: &[_]| tries(all, false);
    // Whoever is asked first is here both times.
    reached(&plain(&[here, near]), &plain(&[here, far]), [0, 0, 1, 1, 0]);
    reached(&plain(&[here, far]), &plain(&[here, near]), [0, 0, 0, 0, 0]);
    // Whoever is asked first is the same.
    reached(&plain(&[veiled]), &plain(&[veiled, far]), [0, 0, 0, 1, 0]);
    reached(&plain(&[near]), &plain(&[near, far]), [0, 0, 1, 1, 0]);
    reached(&plain(&[veiled, far]), &plain(&[far, veiled]), [0, 0, 0, 1, 0]);
    // Whoever could leave only where others fail now does so first, and farther.
    reached(&plain(&[here, near]), &plain(&[far]), [1, 0, 1, 1, 0]);
    // What was as it is already is no barer.
    reached(&plain(&[far]), &plain(&[far, veiled]), [0, 0, 0, 0, 0]);
    // What is asked here first stays only where nobody else is asked.
    reached(&plain(&[far]), &tries(&[far, here], true), [0, 0, 0, 0, 0]);
    reached(&plain(&[far]), &plain(&[here, far]), [0, 0, 0, 0, 0]);
    reached(&plain(&[far]), &plain(&[here]), [0, 0, 0, 0, 1]);
}

#[test]
fn a_difference_of_costs_is_of_requests_whose_cost_is_known_both_times() {
    let unpriced = POLICY.replace("price = { input = 1, output = 1 }, ", "");
    let (old, new) = (Policy::parse(&unpriced).unwrap(), policy(""));
    let mut replay = Replay::new(again(&new));
    replay.add(&kept(&old, 0));
    replay.add(&kept(&new, 1));
    let report = replay.report(1);
    // Both go to the same model: only of one is it known what that cost before.
    assert_eq!(report.strategies[1].unpriced, 1);
    assert_eq!((report.difference.cost_usd.unwrap().value, report.difference.unpriced), (0.0, 1));
}

#[test]
fn each_way_to_choose_has_its_figures() {
    let policy = policy("");
    let mut replay = Replay::new(again(&policy));
    for at in 0..4 {
        replay.add(&kept(&policy, at));
    }
    replay.unreadable(None);
    replay.unreadable(Some(&Unreadable::Newer(9)));
    let report = replay.report(1);
    assert_eq!((report.requests, report.unreadable, report.newer), (4, 1, 1));
    let told = report.strategies.iter().map(|one| {
        let cost = one.cost_usd.map(|cost| (cost.value * 1e6).round());
        (one.strategy, one.who.as_deref(), one.measured, one.answered, cost)
    });
    let forecast = |strategy, who, cost| (strategy, who, false, 4, Some(cost));
    let want = [
        // Nobody was asked for these, so that they cost nothing.
        ("as it was", None, true, 4, Some(0.0)),
        forecast("as it was", None, 5600.0),
        forecast("this policy", None, 5600.0),
        forecast("all here", None, 0.0),
        forecast("all away", None, 5600.0),
        forecast("one for all", Some("cloud/big"), 5600.0),
    ];
    assert_eq!(told.collect::<Vec<_>>(), want);
    assert_eq!(report.strategies[2].times.reported, 0);
    assert_eq!(report.difference.cost_usd.unwrap().value, 0.0);
}

/// What a model here answered first, and how that was judged.
fn judged(mut kept: Kept, (error, was_kept): (Option<f64>, bool), check: Option<&str>) -> Kept {
    kept.end.tried.push(kept::Attempt {
        name: "here".to_owned(),
        zone: Zone::Host,
        ended: if was_kept { "answered" } else { "escalated" }.to_owned(),
        error: None,
        first_token_us: None,
        total_us: 1,
        usage: None,
        source: Source::Measured,
        cost_micro_usd: Some(0),
        sent_bytes: 0,
        redacted: 0,
        judged: Some(kept::Judged { kept: was_kept, error, check: check.map(str::to_owned) }),
    });
    kept
}

const CASCADE: &str = "[local.here]\nquality = 0.5\n[preferences]\ncascade_margin = 1\n";

/// The cost of a policy's forecast in micro-dollars, with its interval.
fn costs(policy: &Policy, all: &[Kept]) -> ([f64; 3], report::Report) {
    let mut replay = Replay::new(again(policy));
    all.iter().for_each(|kept| replay.hear(kept));
    all.iter().for_each(|kept| replay.add(kept));
    let report = replay.report(1);
    let cost = report.strategies[2].cost_usd.unwrap();
    ([cost.value, cost.low, cost.high].map(|cost| (cost * 1e6).round()), report)
}

#[test]
fn a_cascade_costs_what_its_escalations_do() {
    let policy = policy(CASCADE);
    let one = || kept(&policy, 0);
    let cascade = one().made.unwrap().decision.cascade.unwrap();
    assert_eq!((cascade.first.as_str(), cascade.escalate_to.as_str()), ("here", "cloud/big"));
    let (keeps, escalates) = ((None, true), (None, false));
    // What was judged is known: each of the others costs 1,400.
    let known = [keeps, escalates, keeps, keeps].map(|was| judged(one(), was, None));
    let ([cost, ..], report) = costs(&policy, &known);
    assert_eq!((cost, report.escalations.value, report.escalations.unknown), (1400.0, 1.0, 0));
    assert_eq!(report.escalations.low, report.escalations.high);
    // The others are taken to be like them: (1 + ½) ÷ (4 + 1) of each.
    let others = [known.as_slice(), &[one(), one(), one(), one()]].concat();
    let ([cost, low, high], report) = costs(&policy, &others);
    assert_eq!(cost, 1400.0 + 4.0 * 0.3 * 1400.0);
    assert!(low < 1400.0 && high > 1400.0 + 4.0 * 0.6 * 1400.0, "{low} {high}");
    assert!(report.escalations.low > 1.0 && report.escalations.high < 5.0);
    let [local, remote] = [3, 4].map(|at| report.strategies[at].quality.unwrap().value);
    let quality = report.strategies[2].quality.unwrap().value;
    assert!((quality - (local + (2.2 / 8.0) * (remote - local))).abs() < 1e-9, "{quality}");
    // Where nothing was judged, all may be escalated, or none.
    let ([cost, low, high], report) = costs(&policy, &[one(), one()]);
    assert_eq!([cost, low, high], [1400.0, 0.0, 2800.0]);
    assert_eq!((report.escalations.unknown, report.cascades.after), (2, 2));
}

/// A model that was calibrated or set up anew is judged by what it does since.
#[test]
fn of_many_judged_answers_the_newest_count() {
    let policy = policy(CASCADE);
    let one = kept(&policy, 0);
    let escalated = |all: [bool; 2]| {
        let mut replay = Replay::new(again(&policy));
        for was in all {
            let judged = judged(one.clone(), (None, was), None);
            (0..2000).for_each(|_| replay.hear(&judged));
        }
        replay.add(&one);
        replay.report(1).escalations.value
    };
    let near = |was: f64, want: f64| assert!((was - want).abs() < 1e-6, "{was} is not {want}");
    near(escalated([false, true]), 0.5 / 2001.0);
    near(escalated([true, false]), 2000.5 / 2001.0);
}

#[test]
fn what_was_judged_is_judged_anew_at_the_new_limit() {
    let policy = policy(CASCADE);
    let most = kept(&policy, 0).made.unwrap().decision.cascade.unwrap().most_error;
    let escalated = |policy: &Policy, (error, was), check| {
        let kept = judged(kept(policy, 0), (error, was), check);
        costs(policy, &[kept]).1.escalations.value
    };
    for (error, was, want) in [(most - 0.01, false, 0.0), (most + 0.01, true, 1.0)] {
        assert_eq!(escalated(&policy, (Some(error), was), None), want);
    }
    // What a program found counts where the alias has one, and what it would find is not known.
    let failed = (None, false);
    assert_eq!(escalated(&policy, failed, Some("failed")), 0.0);
    let checked = format!("{CASCADE}[models.auto]\ncheck = [\"judge\"]\n");
    let checked = Policy::parse(&format!("{POLICY}{checked}")).unwrap();
    assert_eq!(escalated(&checked, failed, Some("failed")), 1.0);
    assert_eq!(escalated(&checked, (None, true), Some("passed")), 0.0);
    assert_eq!(escalated(&checked, (None, true), None), 0.0);
}

#[test]
fn escalations_are_paid_from_the_budget() {
    let old = policy(CASCADE);
    // As above, the second escalation leaves no room to reserve a third; those that are kept take none.
    let names = |was| {
        let mut again = again(&policy(&format!("{CASCADE}[[budget]]\nday = 0.0040\n")));
        [0, 1, 2].map(|at| {
            let kept = judged(kept(&old, at), (None, was), None);
            let anew = again.decide(&kept, kept.made.as_ref().unwrap());
            anew.decision.tries.len()
        })
    };
    assert_eq!(names(true), [2, 2, 2]);
    assert_eq!(names(false), [2, 2, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_policy_that_was_in_force_changes_nothing_and_none_lets_nothing_leave(
        policy in a_policy(), asked in a_request(), candidates in candidates()
    ) {
        let filed = filed(&policy, &asked, &candidates);
        let kept = Kept::read(&row(&filed)).unwrap();
        let made = kept.made.as_ref().unwrap();
        prop_assert_eq!(again(&policy).same(made), Some(true));
        let other = Policy { digest: tieline_types::Digest([9; 32]), ..Policy::default() };
        prop_assert_eq!(again(&other).same(made), None);
        let mut replay = Replay::new(again(&policy));
        replay.add(&kept);
        let report = replay.report(1);
        prop_assert_eq!((report.changed, report.leave.count, report.stay.count), (0, 0, 0));
        let mut replay = Replay::new(again(&other));
        replay.add(&kept);
        let report = replay.report(1);
        prop_assert_eq!((report.leave.count, report.might_leave.count), (0, 0));
    }

    #[test]
    fn a_decision_that_was_changed_is_not_the_same(
        policy in a_policy(), asked in a_request(), candidates in candidates()
    ) {
        let filed = filed(&policy, &asked, &candidates);
        let mut made = Kept::read(&row(&filed)).unwrap().made.unwrap();
        prop_assume!(!made.decision.scores.is_empty());
        let quality = &mut made.decision.scores[0].quality;
        *quality = f64::from_bits(quality.to_bits() ^ 1);
        prop_assert_eq!(again(&policy).same(&made), Some(false));
    }
}
