//! The same faults by vendors that speak otherwise than OpenAI's older protocol.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::vendor::{Fault, Truth};
use tieline_store::RequestRow;
use tieline_store::spend::usage;
use tieline_types::{MicroUsd, Source};

use super::{POLICY, TRUTH, check_broken, says};
use crate::home::Home;
use crate::market::{Market, Stall, price, used};

/// Who speaks so, and the frames until `From ` was said.
const OTHERS: [(&str, usize); 4] =
    [("anthropic", 4), ("responses", 5), ("gemini", 1), ("ollama", 1)];

/// What a vendor may tell that is less than it did.
const SMALL: Truth = Truth { prompt: 3, cached: 0, cache_write: 0, completion: 1, reasoning: 0 };

/// What breaks off in the midst, and how often each of the two pieces is seen in a stream.
fn breaks(midst: usize) -> [(&'static str, Fault, (usize, usize)); 6] {
    [
        ("mute", Fault::HangAfter(0), (0, 0)),
        ("halts", Fault::HangAfter(midst), (1, 0)),
        ("cut", Fault::CutAfter(midst), (1, 0)),
        ("broken", Fault::BrokenAfter(midst), (1, 0)),
        ("sorry", Fault::ErrorAfter(midst), (1, 0)),
        ("endless", Fault::NoEnd, (1, 1)),
    ]
}

fn name(protocol: &str, fault: &str) -> &'static str {
    format!("{protocol}-{fault}").leak()
}

fn open(faults: impl Fn(usize) -> Vec<(&'static str, Fault)>, policy: &str) -> Option<Market> {
    let mut stalls: Vec<Stall> = Vec::new();
    for (protocol, midst) in OTHERS {
        let own = faults(midst).into_iter();
        stalls.extend(own.map(|(fault, script)| (name(protocol, fault), "0.9", says(script))));
    }
    stalls.push(("spare", "0.3", says(Fault::None)));
    Market::open(Home::empty(), stalls, policy)
}

fn rows<'a>(all: &'a [RequestRow], name: &str) -> Vec<&'a RequestRow> {
    all.iter().filter(|row| row.backend == name).collect()
}

#[test]
fn an_answer_that_breaks_off_in_any_protocol_ends_once_and_is_charged_once() {
    let faults = |midst| breaks(midst).map(|(name, fault, _)| (name, fault)).into();
    let Some(mut market) = open(faults, POLICY) else { return };
    std::thread::scope(|scope| {
        for (protocol, midst) in OTHERS {
            for (fault, _, seen) in breaks(midst) {
                let (market, name) = (&market, name(protocol, fault));
                scope.spawn(move || check_broken(market, name, seen));
            }
        }
    });
    market.end();
    let all = market.rows();
    for (protocol, midst) in OTHERS {
        for (fault, ..) in breaks(midst) {
            let name = name(protocol, fault);
            let own = rows(&all, name);
            let paid: Vec<_> = own.iter().filter(|row| row.cost != Some(MicroUsd::ZERO)).collect();
            assert_eq!(paid.len(), market.asked(name), "{name}: one charge a call: {own:?}");
            for row in paid {
                assert!(row.cost.unwrap().0 >= price(TRUTH), "{name}: {row:?}");
                assert_eq!(row.sources.completion, Source::Estimated, "{name}");
            }
        }
    }
}

#[test]
fn refusals_silence_and_wrong_counts_are_the_same_in_any_protocol() {
    let status = |status, after: Option<&str>| Fault::Status {
        status,
        retry_after: after.map(str::to_owned),
        code: "mock".to_owned(),
    };
    let faults = |_| {
        vec![
            ("limited", status(429, Some("120"))),
            ("ill", status(500, None)),
            ("deaf", Fault::HangBeforeHead),
            ("small", Fault::WrongUsage(SMALL)),
        ]
    };
    let aliases = OTHERS.map(|(protocol, _)| {
        format!("[models.sure-{protocol}]\ncandidates = [\"{protocol}-limited/m\", \"spare/m\"]\n")
    });
    let Some(mut market) = open(faults, &format!("{POLICY}\n{}", aliases.concat())) else { return };
    std::thread::scope(|scope| {
        for (protocol, _) in OTHERS {
            let market = &market;
            scope.spawn(move || check_refusals(market, protocol));
        }
    });
    market.end();
    let all = market.rows();
    for (protocol, _) in OTHERS {
        for fault in ["limited", "ill"] {
            let own = rows(&all, name(protocol, fault));
            assert!(own.iter().all(|row| row.cost == Some(MicroUsd::ZERO)), "{own:?}");
        }
        let deaf = rows(&all, name(protocol, "deaf"));
        assert!(deaf.iter().all(|row| row.cost.unwrap().0 >= price(TRUTH)), "{deaf:?}");
        assert_eq!(deaf.len(), market.asked(name(protocol, "deaf")));
        let [small] = rows(&all, name(protocol, "small"))[..] else {
            panic!("{protocol}: {all:?}")
        };
        assert_eq!(
            (usage(small), small.sources.completion),
            (Some(used(SMALL)), Source::Reported),
            "{protocol}"
        );
    }
}

fn check_refusals(market: &Market, protocol: &str) {
    let chat = |model: &str, prompt: &str| market.chat(model, prompt, &json!({}));
    let own = |fault: &str| format!("{protocol}-{fault}/m");
    // Another one answers, and who is limited is left alone for as long as it says.
    for prompt in ["one", "two"] {
        let said = chat(&format!("sure-{protocol}"), prompt);
        assert_eq!(said.is(200)["choices"][0]["message"]["content"], "From afar", "{protocol}");
    }
    let said = chat(&own("limited"), "three");
    assert!([403, 429, 503].contains(&said.status), "{protocol}: {} {}", said.status, said.body);
    assert_eq!(market.asked(name(protocol, "limited")), 1, "{protocol}");
    // Five failures in a row open the circuit.
    for number in 0..9 {
        let said = chat(&own("ill"), &number.to_string());
        assert!(said.status >= 400 && !said.body.contains(testkit::vendor::CANARY));
    }
    assert_eq!(market.asked(name(protocol, "ill")), 5, "{protocol}");
    // Silence ends when the policy says, no sooner, and not when a longer default would.
    let since = Instant::now();
    let said = market.chat(&own("deaf"), "Say it", &json!({ "stream": true }));
    assert_eq!(said.status, 504, "{protocol}: {}", said.body);
    let took = since.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(12)).contains(&took), "{took:?}");
    let said = chat(&own("small"), "Say it");
    assert_eq!(said.is(200)["choices"][0]["message"]["content"], "From afar", "{protocol}");
}
