//! `tieline cost` over rows that a server could have written.

use serde_json::Value;
use tieline_store::budget::{Period, Scope, ScopeKind};
use tieline_store::{RequestRow, Store, UsageSources};
use tieline_types::{MicroUsd, Source, Zone};

use super::home::Home;

const DAY_MS: i64 = 86_400_000;
/// 2026-11-01.
const START_MS: i64 = 1_793_491_200_000;

fn local(day: i64, prompt: u32, completion: u32) -> RequestRow {
    RequestRow {
        id: "l".to_owned(),
        at_unix_ms: START_MS + day * DAY_MS,
        model: "smollm2".to_owned(),
        outcome: "answered".to_owned(),
        prompt_tokens: Some(prompt),
        completion_tokens: Some(completion),
        total_us: 3_600_000_000,
        sources: UsageSources::all(Source::Measured),
        ..RequestRow::default()
    }
}

fn remote(day: i64, model: &str, prompt: Option<u32>, completion: Option<u32>) -> RequestRow {
    RequestRow {
        id: "r".to_owned(),
        key: "k1".to_owned(),
        model: model.to_owned(),
        backend: "work".to_owned(),
        vendor: "openai".to_owned(),
        zone: Zone::Cloud,
        project: "tie".to_owned(),
        prompt_tokens: prompt,
        cached_tokens: Some(0),
        completion_tokens: completion,
        price_source: Some("table".to_owned()),
        price_date: Some("2025-01-01".to_owned()),
        cost: Some(MicroUsd(1)),
        sent_bytes: Some(100),
        redacted: Some(2),
        sources: UsageSources::all(Source::Reported),
        ..local(day, 0, 0)
    }
}

fn home() -> Home {
    let home = Home::empty();
    let store = Store::open(&home.path()).unwrap();
    let rows = [
        local(0, 1_000_000, 100_000),
        remote(0, "gpt-4o", Some(1000), Some(100)),
        local(1, 1000, 0),
        remote(1, "gpt-4o", Some(1000), None),
        remote(2, "gpt-unheard-of", Some(5), Some(5)),
        remote(-90, "gpt-4o", Some(1_000_000), Some(0)),
    ];
    store.record_requests(&rows).unwrap();
    home
}

#[test]
fn nothing_on_record_is_said() {
    let home = Home::empty();
    let output = home.tieline(["cost"]).output();
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no requests are on record since 20"));
    let json = home.tieline(["cost", "--json"]).json();
    assert_eq!(json["total"]["cost_micro_usd"], 0);
    assert_eq!(json["baselines"]["all_cloud"], Value::Null);
}

#[test]
fn sums_are_reckoned_anew_and_say_what_they_lack() {
    let json = home().tieline(["cost", "--since", "2026-11-01", "--by", "model", "--json"]).json();
    let total = &json["total"];
    // gpt-4o: 3500 for the whole one, 2500 for what was read by the one that broke off; the other has no price, so
    // its recorded cost of 1 stands.
    assert_eq!(total["cost_micro_usd"], 3500 + 2500 + 1);
    assert_eq!((&total["at_least"], &total["attempts_at_least"]), (&true.into(), &1.into()));
    assert_eq!(total["recorded_micro_usd"], 3);
    assert_eq!((&total["sent_bytes"], &total["redacted"]), (&300.into(), &6.into()));
    let sources = serde_json::json!({"measured": 2, "reported": 2, "estimated": 0, "unknown": 1});
    assert_eq!(total["attempts_by_source"], sources);
    let names: Vec<&str> = json["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["gpt-4o", "gpt-unheard-of", "smollm2"]);
    // All of it at gpt-4o's price, the first that was asked: $2.50 and $1.00 for the local one.
    let cloud = &json["baselines"]["all_cloud"];
    assert_eq!((&cloud["vendor"], &cloud["model"]), (&"openai".into(), &"gpt-4o".into()));
    assert_eq!(cloud["cost_micro_usd"], 2_500_000 + 1_000_000 + 2500 + 3500 + 2500 + 1);
    assert_eq!(cloud["at_least"], true);
}

#[test]
fn the_policys_own_prices_count_before_the_tables() {
    let home = home();
    let policy =
        "[[price]]\nvendor = \"work\"\nmodels = [\"gpt-*\"]\ninput = \"1\"\noutput = \"2\"\n";
    let policy = home.file("p.toml", policy);
    let run = |more: &[&str]| {
        let args = ["--policy", policy.to_str().unwrap(), "cost", "--since", "2026-11-01"];
        home.tieline(args).args(more)
    };
    let json = run(&["--json"]).json();
    // 1,000 and 100 tokens, 1,000 and nobody knows how many, 5 and 5.
    assert_eq!(json["total"]["cost_micro_usd"], 1000 + 200 + 1000 + 5 + 10);
    assert_eq!(
        (&json["prices"]["attempts_by_policy"], &json["prices"]["by_program"]),
        (&3.into(), &true.into())
    );
    let text = run(&["--quiet"]).text();
    assert!(text.contains("your policy's own prices count for 3 attempts"), "{text}");
    // A policy with a fault hides no bill.
    std::fs::write(&policy, "prise = 1\n").unwrap();
    let output = run(&[]).output();
    let said = home.said(&output);
    assert!(output.status.success() && said.contains("cannot be used"), "{said}");
    assert!(said.contains("total: at least $0.006001"), "{said}");
}

/// A proxy of one's own vendor's name, priced by the policy for its backend.
#[test]
fn what_the_policy_prices_by_its_backend_is_what_the_rest_is_compared_with() {
    let home = Home::empty();
    let store = Store::open(&home.path()).unwrap();
    let asked = |vendor: &str, zone| RequestRow {
        vendor: vendor.to_owned(),
        zone,
        ..remote(0, "gpt-4o", Some(1000), Some(0))
    };
    let near = RequestRow { backend: "near".to_owned(), ..asked("vllm", Zone::Lan) };
    let rows = [near, asked("vllm", Zone::Cloud), local(1, 1000, 0)];
    store.record_requests(&rows).unwrap();
    let price = |backend: &str, input: u32| {
        format!(
            "[[price]]\nvendor = \"{backend}\"\nmodels = [\"*\"]\ninput = \"{input}\"\noutput = \"1\"\n"
        )
    };
    let policy = home.file("p.toml", price("work", 7) + &price("near", 1));
    let args = ["--policy", policy.to_str().unwrap(), "cost", "--since", "2026-11-01", "--json"];
    let cloud = |json: &Value| json["baselines"]["all_cloud"].clone();
    let json = home.tieline(args).json();
    assert_eq!(cloud(&json)["vendor"], "vllm", "{json}");
    // 7 for a thousand of what ran here and of the cloud's, 1 for the near one's.
    assert_eq!(cloud(&json)["cost_micro_usd"], 7000 + 7000 + 1000);
    // A server of one's own is no vendor to compare with.
    let policy = home.file("near.toml", price("near", 1));
    let args = ["--policy", policy.to_str().unwrap(), "cost", "--since", "2026-11-01", "--json"];
    assert_eq!(cloud(&home.tieline(args).json()), Value::Null);
}

#[test]
fn people_read_a_table_with_bars_and_two_bills() {
    let home = home();
    let args = ["cost", "--quiet", "--since", "2026-11-01", "--watts", "65", "--tariff", "0.30"];
    let text = home.tieline(args).args(&["--compare", "anthropic/claude-haiku-4-5"]).text();
    insta::assert_snapshot!(text, @r"
    DAY                     COST                            ATTEMPTS     READ  WRITTEN
    2026-11-01           $0.0035  ████████████████████████         2  1001000   100100
    2026-11-02  at least $0.0025  █████████████████▏               2     2000        0
    2026-11-03         $0.000001  ▏                                1        5        5

    total: at least $0.006001 for 5 attempts
    tokens: measured in 2 attempts, reported by a vendor in 2, estimated in 0, unknown in 1
    by the prices of their time: $0.000003
    the sums are of vendors' prices: the energy of 2 attempts here is below
    all in the cloud: at least $1.507001 with anthropic/claude-haiku-4-5 for what ran here (estimated)
    all here: $0.00 to vendors; electricity of what ran here: about $0.039 (estimated)
    prices as of 2026-08-02 (the oldest used: 2025-07-04), digest 11578eb6a6e4, signed by the program's key, in US dollars; days are those of UTC
    ");
    let machine = ["--tariff", "0.30", "--hardware", "1200", "--life", "10000"];
    let text = home.tieline(["cost", "--quiet", "--since", "2026-11-01"]).args(&machine).text();
    insta::assert_snapshot!(text.lines().nth(10).unwrap(), @"all here: $0.00 to vendors; electricity of 2 attempts unknown: `tieline bench` measures it where the processor counts it, or give --watts; the machine's own price: about $0.24 (estimated)");
    // The policy says it once for all; what is typed goes before it.
    let policy = home.file("machine.toml", "[machine]\ntariff = 0.60\nwatts = 65\n");
    let args = ["--policy", policy.to_str().unwrap(), "cost", "--quiet", "--since", "2026-11-01"];
    let here = |args: &[&str]| {
        let text = home.tieline(args).text();
        text.lines().find(|line| line.starts_with("all here")).unwrap().to_owned()
    };
    let want = "all here: $0.00 to vendors; electricity of what ran here: about ";
    assert_eq!(here(&args), format!("{want}$0.078 (estimated)"));
    let typed = [&args[..], &["--tariff", "0.30"]].concat();
    assert_eq!(here(&typed), format!("{want}$0.039 (estimated)"));
    let typed = [&args[..], &["--watts", "6.5"]].concat();
    assert_eq!(here(&typed), format!("{want}$0.0078 (estimated)"));
    for by in ["key", "project", "zone", "backend"] {
        let text = home.tieline(["cost", "--quiet", "--since", "2026-11-01", "--by", by]).text();
        assert!(text.contains("total: at least $0.006001 for 5 attempts"), "{text}");
    }
}

#[test]
fn what_nobody_saw_the_end_of_is_shown_beside_its_budget() {
    let home = home();
    let store = Store::open(&home.path()).unwrap();
    let cap = MicroUsd(1_000_000);
    let scope = Scope { kind: ScopeKind::Key, id: "k1".to_owned(), period: Period::Total, cap };
    let dead = store.budgets().unwrap();
    dead.reserve(&[scope], MicroUsd(170_000), "1", 0).unwrap();
    drop(dead);
    store.budgets().unwrap().recover(0).unwrap();
    let text = home.tieline(["cost", "--quiet", "--since", "2026-11-01"]).text();
    let want =
        "budget of key k1, total: $0.17 of the $0.17 spent is of requests whose end nobody saw";
    assert!(text.contains(want), "{text}");
    let json = home.tieline(["cost", "--json"]).json();
    assert_eq!(json["budgets"][0]["uncertain_micro_usd"], 170_000);
}

#[test]
fn what_cannot_be_reckoned_is_refused() {
    let home = home();
    for (args, want) in [
        (&["--compare", "openai/gpt-9"][..], "no price of openai/gpt-9 is known"),
        (&["--since", "soon"][..], "expected a time such as 7d"),
        (&["--watts", "65"][..], "--tariff"),
        (&["--hardware", "1200"][..], "--life"),
        (&["--hardware", "1200", "--life", "0"][..], "1..=1000000"),
    ] {
        let output = home.tieline(["cost"]).args(args).output();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(want), "{said}");
    }
}
