//! What is kept of decisions, and what another policy would have made of it.

use std::sync::Arc;

use serde_json::{Value, json};
use tieline_router::choose::{Asked, Candidate, State, decide};
use tieline_router::replay::Keeper;
use tieline_router::{AskedFor, Decision, Filed, Outcome, Policy, Record, Tried};
use tieline_store::{DecisionRow, Store};
use tieline_types::{Source, Tokens, Usage};

use super::daemon::Daemon;
use super::home::{Home, QUESTION, check};
use super::http::Said;
use super::switch::{CARD, POLICY, Town, script};

const BEFORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/policies/before.toml");
const AFTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/policies/after.toml");

/// The span of what [`keep`] keeps.
const SPAN: [&str; 4] = ["--since", "2026-09-21", "--until", "2026-09-22"];

/// Twelve requests that were decided by the policy before, a minute apart, and one that none decided.
fn keep(home: &Home) -> Vec<DecisionRow> {
    let policy = Policy::parse(&std::fs::read_to_string(BEFORE).unwrap()).unwrap();
    let mut keeper = Keeper::default();
    let mut rows: Vec<DecisionRow> = (0..12)
        .map(|at| {
            let (asked, candidates) = (asked(at), candidates(&policy));
            let decision = decide(&policy, &asked, &candidates);
            let tried = decision.tries.first().map(|first| tried(at, &first.name, &decision));
            let record = record(at, Some((decision, asked)), tried);
            let candidates = Some(Arc::new(candidates));
            keeper.row(&Filed { record: Arc::new(record), candidates }).unwrap()
        })
        .collect();
    let named = Filed { record: Arc::new(record(12, None, None)), candidates: None };
    rows.push(keeper.row(&named).unwrap());
    Store::open(&home.path()).unwrap().record(&[], &rows).unwrap();
    rows
}

/// By turns work, open work, a letter, and open work that only the laboratory is asked.
fn asked(at: u32) -> Asked {
    let name = if at % 4 == 3 { "near" } else { "auto" };
    let mut asked = Asked { asked: name.to_owned(), prompt_bytes: 4000, ..Asked::default() };
    asked.prompt_tokens = Tokens(1000 + at);
    asked.path = (at % 2 == 1).then(|| "open/readme.md".to_owned());
    asked.found.extend((at % 4 == 2).then_some((tieline_privacy::Entity::Email, 1)));
    asked
}

fn candidates(policy: &Policy) -> Vec<Candidate> {
    let mut all = policy.remote_candidates();
    let mut local = all[0].clone();
    local = Candidate { name: "smollm2".to_owned(), local: true, ..local };
    local.zone = tieline_types::Zone::Host;
    (local.price, local.context) = (None, Some(Tokens(8192)));
    (local.profile, local.state) =
        (Default::default(), State { verified: true, ..State::default() });
    all.push(policy.with_local(local));
    all
}

fn tried(at: u32, name: &str, decision: &tieline_router::choose::Decision) -> Tried {
    let usage = Usage {
        prompt_tokens: Tokens(1000),
        completion_tokens: Tokens(100 + at),
        ..Usage::default()
    };
    let first = &decision.tries[0];
    Tried {
        reservation: None,
        name: name.to_owned(),
        zone: first.zone,
        vendor: String::new(),
        ended: "answered",
        error: None,
        first_token_us: Some(400_000),
        total_us: 2_000_000,
        usage: Some(usage),
        source: Source::Reported,
        cost_micro_usd: Some(if name == "cloud/big" { 2800 } else { 0 }),
        cost_at_least: false,
        reserved_micro_usd: None,
        price: None,
        data_class: decision.class,
        rule: first.rule.clone(),
        sent_bytes: 4000,
        redacted: 0,
        unrestored: 0,
        egress: None,
        saved_micro_usd: None,
        judged: None,
    }
}

fn record(
    at: u32,
    plan: Option<(tieline_router::choose::Decision, Asked)>,
    tried: Option<Tried>,
) -> Record {
    let (plan, asked) = plan.unzip();
    Record {
        id: format!("r{at:02}"),
        at_unix_ms: 1_790_000_000_000 + u64::from(at) * 60_000,
        key: String::new(),
        dialect: "openai",
        operation: "chat",
        decision: Decision { model: "smollm2".to_owned(), reason: "chosen" },
        outcome: if tried.is_some() { Outcome::Answered } else { Outcome::Failed },
        usage: tried.as_ref().and_then(|tried| tried.usage),
        plan: plan.map(Arc::new),
        asked,
        tried: tried.into_iter().collect(),
        digest: None,
        cached: false,
        saved_micro_usd: None,
        hedge: None,
        error: None,
        first_token_us: Some(500_000),
        total_us: 2_000_000 + u64::from(at) * 100_000,
        asked_for: AskedFor::default(),
        finish: None,
        trace_parent: None,
    }
}

fn replay<'a>(policy: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["--policy", policy, "route", "replay"]
        .into_iter()
        .chain(SPAN)
        .chain(more.iter().copied())
        .collect()
}

fn id(said: &Said) -> String {
    said.is(200);
    said.header("x-tieline-request-id").unwrap().to_owned()
}

#[test]
fn what_was_decided_is_shown_when_the_daemon_is_gone_and_when_it_is_back() {
    let Some(town) = Town::new(script(), POLICY) else { return };
    let away = town.chat("auto", "Prove that there are infinitely many primes.", &json!({}));
    let redacted = town.chat("auto", &format!("Is {CARD} a card?"), &json!({}));
    let here = town.chat("smollm2", QUESTION, &json!({ "max_tokens": 4 }));
    let said = town.decision(&away);
    let ids = [&away, &redacted, &here].map(id);
    let policy = town.policy.to_str().unwrap().to_owned();
    let (home, daemon) = (town.home, town.daemon);
    daemon.end();

    let text = home.tieline(["route", "show", &ids[0]]).text();
    assert!(text.starts_with("cloud/big answers (cloud, as-is, rule \"daily work\")"), "{text}");
    let happened = text.split_once("\nwhat happened\n").unwrap().1;
    assert!(happened.contains("chat (openai), tieline "), "{happened}");
    assert!(happened.contains("1000 tokens read, 50 written, $0.00074 (reported), "), "{happened}");
    assert!(happened.contains(" bytes left to cloud, 0 values replaced"), "{happened}");
    assert!(happened.contains("  answered after "), "{happened}");
    let text = home.tieline(["route", "show", &ids[1]]).text();
    assert!(text.contains("class private: card in the text") && !text.contains("4111"), "{text}");
    assert!(text.contains(", 1 values replaced"), "{text}");
    let text = home.tieline(["route", "show", &ids[2]]).text();
    assert!(text.starts_with("smollm2 was asked for by its own name: no policy"), "{text}");
    assert_eq!(home.tieline(["route", "show", &ids[0], "--json"]).json(), said);

    let runner = testkit::runner().unwrap();
    let daemon = Daemon::start(&home, &runner, &["--policy", &policy]);
    let again = daemon.get(&format!("/tieline/v1/decisions/{}", ids[0])).is(200);
    assert_eq!(again, said);
    daemon.get("/tieline/v1/decisions/none").is(404);
    let new = id(&daemon
        .post("/v1/completions", &json!({ "model": "smollm2", "prompt": "A", "max_tokens": 1 })));
    let listed = |limit: &str| -> Vec<String> {
        let listed = daemon.get(&format!("/tieline/v1/decisions{limit}")).is(200);
        let all = listed["decisions"].as_array().unwrap();
        all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let [away, redacted, here] = ids;
    assert_eq!(listed(""), [new.as_str(), &here, &redacted, &away]);
    assert_eq!(listed("?limit=2"), [new.as_str(), &here]);
    daemon.end();

    let replayed = |policy: &str, more: &[&str]| {
        let args = ["--policy", policy, "route", "replay", "--since", "1d", "--json"];
        home.tieline(args.iter().chain(more)).json()
    };
    // As the daemon decided, byte for byte.
    let same = replayed(&policy, &["--same"]);
    assert_eq!((&same["same"], &same["by_name"]), (&json!(2), &json!(2)));
    let shut = home.file(
        "shut.toml",
        POLICY.split("[[rule]]").next().unwrap().replace("URL", "http://127.0.0.1:9"),
    );
    let stays = replayed(shut.to_str().unwrap(), &[]);
    assert_eq!((&stays["requests"], &stays["stay"]["ids"]), (&json!(2), &json!([away, redacted])));
    assert_eq!(stays["strategies"][0]["cost_usd"]["value"], 0.00148);
}

#[test]
fn what_is_not_on_record_is_said() {
    let home = Home::empty();
    check!(home, home.tieline(["route", "show", "none"]), @r#"
    exit 1
    --- stderr
    error: nothing is on record of a request "none"
    hint: an answer's header x-tieline-request-id says its id; records are kept for 90 days
    "#);
}

#[test]
fn another_policy_is_told_by_what_it_would_have_done() {
    let home = Home::empty();
    keep(&home);
    check!(home, home.tieline(replay(AFTER, &[])), @r#"
    exit 0
    --- stdout
    12 requests of [DATE] to [DATE], decided again by policy da8d94db4fed
    not among them: 1 were asked for by the name of a model of this machine: no policy decides them

    3 REQUESTS WOULD LEAVE THIS MACHINE THAT DID NOT BEFORE
      r00 r02 r04
    4 that left would stay, whoever is asked

    7 of 12 decisions change
    FROM       TO         REQUESTS
    lab/mid    refused           3
    smollm2    cloud/big         3
    cloud/big  smollm2           1
    refused: 0 as it was, 3 now
    class: public becomes internal 6 times
    zone: host becomes cloud 3 times
    zone: lan becomes refused 3 times
    zone: cloud becomes host 1 times
    treatment: as-is becomes redacted 1 times

    STRATEGY                    FIGURES   ANSWERED                                COST             FIRST TOKEN                     TOTAL               QUALITY
    as it was                   measured        12            $0.0084 [$0.00, $0.0168]     0.50 s [0.50, 0.50]       2.55 s [2.35, 2.73]                     -
    as it was                   forecast        12          $0.01563 [$0.00, $0.03126]     5.51 s [3.17, 7.84]    34.26 s [20.67, 47.43]     0.52 [0.40, 0.65]
    this policy                 forecast         9    $0.013012 [$0.005202, $0.023415]     4.92 s [1.92, 8.25]    29.92 s [12.53, 49.25]     0.66 [0.43, 0.87]
    all here                    forecast        12                $0.00 [$0.00, $0.00]  10.11 s [10.09, 10.12]    60.10 s [60.09, 60.12]     0.30 [0.30, 0.30]
    all away                    forecast        12    $0.031266 [$0.031242, $0.031288]     0.75 s [0.75, 0.75]       5.75 s [5.75, 5.75]     0.95 [0.95, 0.95]
    one for all: cloud/big      forecast        12    $0.031266 [$0.031242, $0.031288]     0.75 s [0.75, 0.75]       5.75 s [5.75, 5.75]     0.95 [0.95, 0.95]
    this policy less as it was  forecast            -$0.002618 [-$0.018244, $0.013004]  -2.06 s [-5.93, +1.56]  -12.06 s [-34.57, +9.06]  +0.16 [-0.08, +0.42]

    In brackets: 95 % intervals, by bootstrap over requests. Costs are sums over what is answered, times and qualities are means; the last line is of what both answer, its cost of what costs are known of both times.
    Quality is the lower bound that the policy or measurements give; nobody graded these answers.
    All here, all away, one for all: whoever can answer, rules, budgets and aliases aside; the one for all is the best in hindsight.
    Tokens that costs are of: reported in 12.
    Forecasts for what was decided: times reported in 6, unknown in 6; qualities reported in 12.
    Forecasts for this policy: times reported in 5, unknown in 4; qualities reported in 9.
    Budgets are taken to be full at first. Conversations are taken to be where they were.
    Where outcomes were known of a model, its quality is as it was reckoned then, with the `quality` of the policy of that time.
    "#);
}

#[test]
fn a_replay_for_programs_has_the_same_figures_each_time() {
    let home = Home::empty();
    keep(&home);
    let one = home.tieline(replay(AFTER, &["--json"])).json();
    assert_eq!(home.tieline(replay(AFTER, &["--json"])).json(), one);
    let other = home.tieline(replay(AFTER, &["--json", "--seed", "2"])).json();
    assert_eq!(
        other["strategies"][0]["cost_usd"]["value"],
        one["strategies"][0]["cost_usd"]["value"]
    );
    assert_ne!(other["strategies"][0]["total_s"], one["strategies"][0]["total_s"]);
    // The policy that was in force changes nothing, whatever it is called.
    let same = home.tieline(replay(BEFORE, &["--json"])).json();
    assert_eq!((&same["changed"], &same["requests"]), (&json!(0), &json!(12)));
    assert_eq!(same["difference"]["cost_usd"]["value"], 0.0);
    // Without any policy all stays here.
    let none = home.tieline(["route", "replay", "--json"].into_iter().chain(SPAN)).json();
    assert_eq!((&none["leave"]["count"], &none["stay"]["count"]), (&json!(0), &json!(6)));
}

#[test]
fn what_was_decided_is_decided_again_and_a_difference_is_a_failure() {
    let home = Home::empty();
    let mut rows = keep(&home);
    check!(home, home.tieline(replay(BEFORE, &["--same"])), @r#"
    exit 0
    --- stdout
    12 decisions of policy d9e4f1d6cc4d are the same again, 0 are others
    not among them: 1 were asked for by the name of a model of this machine: no policy decides them
    "#);
    check!(home, home.tieline(replay(AFTER, &["--same"])), @r#"
    exit 1
    --- stdout
    0 decisions of policy da8d94db4fed are the same again, 0 are others
    not among them: 12 of other policies
    not among them: 1 were asked for by the name of a model of this machine: no policy decides them
    --- stderr
    error: no decision of this policy is on record: nothing was checked
    "#);
    let other = rows[0].facts.replacen("\"quality\":0.3", "\"quality\":0.4", 1);
    assert_ne!(other, rows[0].facts);
    (rows[0].facts, rows[0].id) = (other, "other".to_owned());
    Store::open(&home.path()).unwrap().record(&[], &rows[..1]).unwrap();
    let said = home.said(&home.tieline(replay(BEFORE, &["--same"])).output());
    assert!(
        said.contains("are the same again, 1 are others\n  other\n  1 made by tieline "),
        "{said}"
    );
    assert!(said.contains("error: 1 decisions are others now\nhint: another version"), "{said}");
    let output = home.tieline(replay(BEFORE, &["--same", "--json"])).output();
    assert_eq!(output.status.code(), Some(2));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["different"]["ids"], json!(["other"]));
}

#[test]
fn what_cannot_be_read_is_counted_and_the_rest_is_replayed() {
    let home = Home::empty();
    let rows = keep(&home);
    let mut broken = rows[0].clone();
    broken.facts.truncate(100);
    let mut newer = rows[1].clone();
    Arc::make_mut(&mut newer.grounds).format = 99;
    Store::open(&home.path()).unwrap().record(&[], &[broken, newer]).unwrap();
    let told = home.tieline(replay(AFTER, &["--json"])).json();
    let counts =
        ["requests", "by_name", "unreadable", "newer"].map(|name| told[name].as_u64().unwrap());
    assert_eq!(counts, [12, 1, 1, 1]);
    let text = home.tieline(replay(AFTER, &[])).text();
    assert!(text.contains("not among them: 1 are on record and cannot be read\n"), "{text}");
    let output = home.tieline(["route", "show", "r01"]).output();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("it has form 99, and this program knows 1"), "{said}");
}

#[test]
fn bad_wishes_are_told() {
    let home = Home::empty();
    let checked = |args: &[&str]| home.said(&home.tieline(args.iter().copied()).output());
    let none = checked(&["route", "replay", "--policy", AFTER]);
    assert!(
        none.starts_with("exit 0") && none.contains("no decisions are on record since"),
        "{none}"
    );
    let none = checked(&["--policy", AFTER, "route", "replay", "--same"]);
    assert!(none.starts_with("exit 1") && none.contains("nothing was checked"), "{none}");
    let missing = checked(&["--policy", "/no/such/policy", "route", "replay"]);
    assert!(
        missing.starts_with("exit 1") && missing.contains("cannot read the policy"),
        "{missing}"
    );
    let faulty = home.file("p.toml", "zoen = 1\n");
    let faulty = checked(&["--policy", faulty.to_str().unwrap(), "route", "replay"]);
    assert!(faulty.starts_with("exit 1") && faulty.contains("line 1, column 1"), "{faulty}");
    let when = checked(&["route", "replay", "--since", "yesterday"]);
    assert!(when.contains("expected a time such as 7d or 12h, or a day"), "{when}");
    let order = checked(&["route", "replay", "--since", "2026-09-02", "--until", "2026-09-01"]);
    assert!(
        order.starts_with("exit 1") && order.contains("--since is not before --until"),
        "{order}"
    );
}
