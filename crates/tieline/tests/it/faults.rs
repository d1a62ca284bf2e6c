//! Whatever a vendor does wrong, through the whole daemon: the right end in the client's dialect, the right circuit,
//! no text twice, no charge twice.

mod protocols;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::vendor::{Fault, Script, Truth};
use tieline_store::RequestRow;
use tieline_store::spend::usage;
use tieline_types::{MicroUsd, Source};

use super::home::Home;
use super::http::{Said, post};
use super::market::{Market, Stall, price, used};

const TRUTH: Truth =
    Truth { prompt: 900, cached: 0, cache_write: 0, completion: 700, reasoning: 0 };

fn says(fault: Fault) -> Script {
    Script { usage: TRUTH, ..Script::text(&["From ", "afar"]) }.failing(fault)
}

/// Frames: the role, `From `, `afar`, the end, the usage, `[DONE]`.
const MIDST: usize = 2;

const POLICY: &str = r#"
[deadlines]
first_token = "1s"
idle = "1s"
[models.sure]
candidates = ["limited/m", "spare/m"]
[[budget]]
month = 100
"#;

fn stalls() -> Vec<Stall> {
    let status = |status, after: Option<&str>| Fault::Status {
        status,
        retry_after: after.map(str::to_owned),
        code: "mock".to_owned(),
    };
    let small = Truth { prompt: 3, completion: 1, ..Truth::default() };
    let huge = Truth { prompt: 4_000_000_000, completion: 4_000_000_000, ..Truth::default() };
    let faults = [
        ("limited", status(429, Some("120"))),
        ("ill", status(500, None)),
        ("deaf", Fault::HangBeforeHead),
        ("mute", Fault::HangAfter(0)),
        ("halts", Fault::HangAfter(MIDST)),
        ("cut", Fault::CutAfter(MIDST)),
        ("broken", Fault::BrokenAfter(MIDST)),
        ("sorry", Fault::ErrorAfter(MIDST)),
        ("endless", Fault::NoEnd),
        ("small", Fault::WrongUsage(small)),
        ("negative", Fault::NegativeUsage),
        ("huge", Fault::WrongUsage(huge)),
    ];
    let mut all: Vec<Stall> = faults.map(|(name, fault)| (name, "0.9", says(fault))).into();
    all.push(("spare", "0.3", says(Fault::None)));
    all
}

/// Clients of three dialects, who want a stream or all at once.
fn each(market: &Market, name: &str) -> Vec<(&'static str, bool, Said)> {
    let model = format!("{name}/m");
    let messages = json!([{ "role": "user", "content": "Say it" }]);
    let mut said = Vec::new();
    for (path, stream) in [
        ("/v1/chat/completions", false),
        ("/v1/chat/completions", true),
        ("/v1/messages", true),
        ("/api/chat", true),
    ] {
        let body = json!({ "model": model, "messages": messages, "stream": stream, "max_tokens": 800,
            "options": { "num_predict": 800 } });
        let since = Instant::now();
        said.push((path, stream, post(market.daemon().address, path, &body)));
        // A second of silence is what the policy allows; the usual deadlines are no shorter than a minute.
        assert!(since.elapsed() < Duration::from_secs(30), "{name} {path}: {:?}", since.elapsed());
    }
    said
}

/// What of the answer's text is in a stream.
fn text(body: &str) -> (usize, usize) {
    (body.matches("From ").count(), body.matches("afar").count())
}

/// Whether a stream says that it ended well.
fn ends_well(path: &str, body: &str) -> bool {
    match path {
        "/v1/chat/completions" => body.contains("\"finish_reason\":\"stop\""),
        "/v1/messages" => body.contains("message_stop"),
        _ => body.contains("\"done\":true"),
    }
}

/// An answer that breaks off: an error object once, no good end, and no text twice.
#[track_caller]
fn check_broken(market: &Market, name: &str, seen: (usize, usize)) {
    for (path, stream, said) in each(market, name) {
        let what = format!("{name} {path} {stream}: {} {}", said.status, said.body);
        assert!(!said.body.contains(testkit::vendor::CANARY), "{what}");
        if stream && said.status == 200 {
            assert_eq!(text(&said.body), seen, "{what}");
            assert!(said.body.contains("error") && !ends_well(path, &said.body), "{what}");
        } else {
            assert!(said.status >= 500 && text(&said.body) == (0, 0), "{what}");
        }
    }
}

#[test]
fn a_vendor_that_breaks_off_ends_in_the_clients_own_words() {
    let Some(mut market) = Market::open(Home::empty(), stalls(), POLICY) else { return };
    let breaks = [
        ("mute", (0, 0)),
        ("halts", (1, 0)),
        ("cut", (1, 0)),
        ("broken", (1, 0)),
        ("sorry", (1, 0)),
        ("endless", (1, 1)),
    ];
    std::thread::scope(|scope| {
        for (name, seen) in breaks {
            let market = &market;
            scope.spawn(move || check_broken(market, name, seen));
        }
    });
    market.end();
    let rows = market.rows();
    for (name, _) in breaks {
        let own: Vec<&RequestRow> = rows.iter().filter(|row| row.backend == name).collect();
        let asked = market.asked(name);
        let paid: Vec<_> = own.iter().filter(|row| row.cost != Some(MicroUsd::ZERO)).collect();
        assert_eq!(paid.len(), asked, "{name}: one charge for each call: {own:?}");
        for row in paid {
            assert!(row.cost.unwrap().0 >= price(TRUTH), "{name}: {row:?}");
            assert_eq!(row.sources.completion, Source::Estimated, "{name}");
        }
    }
}

#[test]
fn a_refusal_costs_nothing_and_a_limit_leaves_the_vendor_alone() {
    let Some(mut market) = Market::open(Home::empty(), stalls(), POLICY) else { return };
    let chat = |model: &str, prompt: &str| market.chat(model, prompt, &json!({}));
    // Another one answers; the circuit is open for as long as the vendor says, so it is not asked again.
    for prompt in ["one", "two"] {
        let said = chat("sure", prompt);
        assert_eq!(said.is(200)["choices"][0]["message"]["content"], "From afar");
    }
    assert_eq!(market.asked("limited"), 1);
    let said = chat("limited/m", "three");
    assert!([403, 429, 503].contains(&said.status), "{} {}", said.status, said.body);
    assert_eq!(market.asked("limited"), 1);
    // Five failures in a row open the model's; then nobody asks.
    for number in 0..9 {
        assert!(chat("ill/m", &number.to_string()).status >= 400);
    }
    assert_eq!(market.asked("ill"), 5);
    // Silence before the head may be work: the most is kept.
    assert_eq!(chat("deaf/m", "Say it").status, 504);
    market.end();
    let rows = market.rows();
    let costs = |name: &str| -> Vec<_> {
        rows.iter().filter(|row| row.backend == name).map(|row| row.cost.unwrap().0).collect()
    };
    assert!(costs("limited").iter().chain(&costs("ill")).all(|cost| *cost == 0), "{rows:?}");
    assert!(costs("deaf").iter().all(|cost| *cost >= price(TRUTH)) && !costs("deaf").is_empty());
}

#[test]
fn a_count_that_cannot_be_is_not_believed() {
    let Some(mut market) = Market::open(Home::empty(), stalls(), POLICY) else { return };
    let ask = |name: &str| market.chat(&format!("{name}/m"), "Say it", &json!({}));
    for name in ["small", "negative"] {
        assert_eq!(ask(name).is(200)["choices"][0]["message"]["content"], "From afar", "{name}");
    }
    // What a vendor says is what it bills: the budget is used up, and nothing else breaks.
    let said = ask("huge");
    assert_eq!(said.is(200)["choices"][0]["message"]["content"], "From afar");
    assert_eq!(ask("spare").status, 402);
    market.end();
    let rows = market.rows();
    let row = |name: &str| rows.iter().find(|row| row.backend == name).unwrap().clone();
    let small = row("small");
    let told = Truth { prompt: 3, completion: 1, ..Truth::default() };
    assert_eq!((usage(&small), small.sources.completion), (Some(used(told)), Source::Reported));
    let negative = row("negative");
    assert_eq!(negative.sources.completion, Source::Estimated);
    assert!(negative.cost.unwrap().0 >= price(TRUTH), "{negative:?}");
    assert_eq!(row("huge").cost, Some(MicroUsd(120_000_000_000)));
    let json: Value = market.home.tieline(["cost", "--json"]).json();
    assert!(json["total"]["cost_micro_usd"].as_i64().unwrap() > 120_000_000_000);
}

#[test]
fn a_vendor_that_says_when_to_come_back_is_asked_again_with_new_money() {
    let limited =
        Fault::Status { status: 429, retry_after: Some("1".to_owned()), code: "mock".to_owned() };
    let scripts = vec![says(limited), says(Fault::None)];
    let policy = "[[budget]]\nmonth = 1\n";
    let stalls = vec![("back", "0.9", says(Fault::None))];
    let Some(mut market) = Market::open(Home::empty(), stalls, policy) else { return };
    let vendor = market.runtime.block_on(testkit::vendor::Vendor::start_each(scripts));
    let text = std::fs::read_to_string(&market.policy).unwrap();
    let text = text.replace(&market.vendors["back"].url, &vendor.url);
    market.end();
    std::fs::write(&market.policy, text).unwrap();
    market.vendors.insert("back", vendor);
    market.start();
    let said = market.chat("back/m", "Say it", &json!({}));
    assert_eq!(said.is(200)["choices"][0]["message"]["content"], "From afar");
    market.end();
    let ends: Vec<_> = market.rows().iter().map(|row| (row.outcome.clone(), row.cost)).collect();
    let want = [("failed", MicroUsd::ZERO), ("answered", MicroUsd(price(TRUTH)))];
    assert_eq!(ends, want.map(|(end, cost)| (end.to_owned(), Some(cost))));
}
