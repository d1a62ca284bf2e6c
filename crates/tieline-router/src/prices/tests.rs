use proptest::prelude::*;
use tieline_types::Bytes;

use super::*;

const NOW: i64 = 1_795_867_200; // 2026-11-28

fn target<'a>(vendor: &'a str, model: &'a str) -> Target<'a> {
    Target { backend: "mine", vendor, model }
}

fn usage(prompt: u32, cached: u32, written: u32, completion: u32, reasoning: u32) -> Usage {
    Usage {
        prompt_tokens: Tokens(prompt),
        cached_tokens: Tokens(cached),
        cache_write_tokens: Tokens(written),
        completion_tokens: Tokens(completion),
        reasoning_tokens: Tokens(reasoning),
        ..Usage::default()
    }
}

#[track_caller]
fn check(vendor: &str, model: &str, usage: Usage, want: i64) {
    let prices = Prices::builtin().unwrap();
    assert_eq!(prices.find(target(vendor, model)).unwrap().cost(&usage), MicroUsd(want));
}

#[test]
fn answers_cost_what_the_vendors_say_to_the_micro_dollar() {
    // 1000 · $2.50 + 100 · $10, by the million.
    check("openai", "gpt-4o", usage(1000, 0, 0, 100, 0), 3500);
    // 600 cached at half the price; thoughts are among the 100 and paid once.
    check("openai", "gpt-4o", usage(1000, 600, 0, 100, 80), 400 * 5 / 2 + 600 * 5 / 4 + 1000);
    // Fresh, read from the cache, written to it: each token has one of three prices.
    check("anthropic", "claude-sonnet-4-5", usage(1000, 500, 300, 10, 0), 600 + 150 + 1125 + 150);
    check("anthropic", "claude-haiku-4-5-20251001", usage(10, 10, 0, 1, 0), 6);
    check("mistral", "mistral-large-2512", usage(1000, 400, 0, 100, 0), 300 + 20 + 150);
    check("google", "gemini-2.5-pro", usage(0, 0, 0, 0, 0), 0);
    check("groq", "llama-3.1-8b-instant", usage(1, 0, 0, 0, 0), 0);
    check("groq", "llama-3.1-8b-instant", usage(10, 0, 0, 0, 0), 1);
}

#[test]
fn a_long_prompt_pays_the_higher_price_for_all_of_it() {
    check("google", "gemini-2.5-pro", usage(200_000, 0, 0, 1000, 0), 250_000 + 10_000);
    check("google", "gemini-2.5-pro", usage(200_001, 0, 0, 1000, 0), 500_003 + 15_000);
    check("google", "gemini-2.5-pro", usage(300_000, 200_000, 0, 0, 0), 250_000 + 50_000);
    check("anthropic", "claude-sonnet-4-5", usage(200_001, 0, 200_001, 0, 0), 1_500_008);
}

#[test]
fn what_no_row_names_has_no_price() {
    let prices = Prices::builtin().unwrap();
    for (vendor, model) in [
        ("openai", "gpt-4o-audio-preview"),
        ("openai", "gpt-5.7"),
        ("anthropic", "claude-opus-9"),
        ("mistral", "gpt-4o"),
        ("", ""),
    ] {
        assert_eq!(prices.find(target(vendor, model)), None, "{vendor} {model}");
    }
}

#[test]
fn each_row_of_the_table_is_found_dated_and_not_hidden_by_another() {
    let prices = Prices::builtin().unwrap();
    for row in row::read(TABLE).unwrap() {
        let want = Compiled::of_table(&row).unwrap().priced;
        assert!(want.price.cached_input <= want.price.input, "{row:?}");
        assert!(want.above.is_none_or(|(_, above)| above.input > want.price.input), "{row:?}");
        assert!(row.source.unwrap().starts_with("https://"));
        for model in row.models {
            let name = model.replace('*', "26-01-01");
            assert_eq!(prices.find(target(&row.vendor, &name)), Some(&want), "{name}");
        }
    }
}

#[test]
fn the_table_is_the_one_that_was_looked_at() {
    let prices = Prices::builtin().unwrap();
    assert_eq!(
        prices.digest().hex(),
        "11578eb6a6e4c3d13d59df964ae9c9d6a32e242f8706c698cba1a69e278ecd48"
    );
    assert_eq!(prices.edition(), "prices as of 2026-08-02, digest 11578eb6a6e4");
}

#[test]
fn the_table_is_what_the_programs_key_signed() {
    let prices = Prices::builtin().unwrap();
    assert!(prices.is_by_program());
    assert_eq!(prices.key(), Some("RWRgSlrOaHqxjc6v1FNa5k7LufLgytluJRWiQDdZcfWrOaf5VwgZC3oC"));
    // One price more, less or other, or another key.
    let spoiled = [TABLE.replacen("input = \"5\"", "input = \"4\"", 1), format!("{TABLE} ")];
    for text in spoiled {
        assert_ne!(text, TABLE);
        let error = Prices::signed(&text, SIGNATURE, KEY).unwrap_err();
        assert!(matches!(error, PriceError::Signature(SignatureError::Other(_))), "{error}");
    }
    let other = include_str!("../../../tieline/tests/it/prices/other.pub");
    let error = Prices::signed(TABLE, SIGNATURE, other).unwrap_err();
    assert!(matches!(error, PriceError::Signature(SignatureError::Other(_))), "{error}");
    // What nobody signed is by nobody.
    let bare = Prices::of_table(TABLE).unwrap();
    assert_eq!((bare.key(), bare.is_by_program()), (None, false));
}

#[test]
fn a_price_that_nobody_looked_at_for_a_season_is_old() {
    let prices = Prices::builtin().unwrap();
    assert_eq!(prices.stale_days(NOW), Some(118));
    assert_eq!(prices.stale_days(NOW - 28 * 86_400), None);
    assert_eq!(prices.stale_days(0), None);
    let old = prices.find(target("openai", "gpt-4o")).unwrap();
    assert_eq!((old.stale_days(NOW), old.source.as_str()), (Some(512), "table"));
}

#[test]
fn a_prompt_has_no_more_tokens_than_its_text_has_bytes_and_what_is_written_around_it() {
    assert_eq!(most_prompt_tokens(Bytes(0), 0, 0), Tokens(1024));
    assert_eq!(most_prompt_tokens(Bytes(1000), 0, 0), Tokens(2024));
    assert_eq!(most_prompt_tokens(Bytes(1000), 2, 0), Tokens(2024 + 2 * 48_169));
    assert_eq!(most_prompt_tokens(Bytes(1000), 0, 1000), Tokens(2024 + 8000));
    assert_eq!(most_prompt_tokens(Bytes(u64::MAX), u32::MAX, u32::MAX), Tokens(u32::MAX));
}

fn policy(text: &str) -> Result<Prices, PriceError> {
    Prices::builtin().unwrap().with_policy(&row::read(text).unwrap())
}

#[test]
fn the_policy_has_the_last_word_by_backend_or_vendor() {
    let text = r#"
        [[price]]
        vendor = "work"
        models = ["gpt-*"]
        input = "1"
        output = "2"
        request = "0.01"
        [[price]]
        vendor = "*"
        models = ["llama*"]
        input = "0.5"
        output = "0.5"
        known = "2026-11-01"
    "#;
    let prices = policy(text).unwrap();
    let find = |backend, vendor, model| prices.find(Target { backend, vendor, model });
    let work = find("work", "openai", "gpt-4o").unwrap();
    assert_eq!(work.source, PriceSource::Policy { date: None });
    assert_eq!((work.cost(&usage(1, 0, 0, 0, 0)), work.stale_days(NOW)), (MicroUsd(10_001), None));
    assert_eq!(find("home", "openai", "gpt-4o").unwrap().source.as_str(), "table");
    let llama = find("lan", "", "llama-9b").unwrap();
    assert_eq!(llama.source.date(), Some("2026-11-01".parse().unwrap()));
    assert_eq!(llama.source.as_str(), "policy");
}

#[test]
fn a_price_that_cannot_be_read_is_said_with_its_model() {
    let row = |input: &str, rest: &str| {
        format!(
            "[[price]]\nvendor = \"v\"\nmodels = [\"m\"]\ninput = \"{input}\"\noutput = \"1\"\n{rest}"
        )
    };
    let error = policy(&row("1,5", "")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the price of \"v\" for \"m\"");
    assert!(matches!(policy(&row("1", "known = \"today\"")), Err(PriceError::Date { .. })));
    assert!(row::read(&row("1", "inptu = \"2\"")).is_err());
    let none = PriceRow { vendor: "v".to_owned(), ..PriceRow::default() };
    assert!(matches!(none.check(), Err(PriceError::NoModel { .. })));
}

proptest! {
    /// What is reserved is never less than what it costs, however the prompt was cached.
    #[test]
    fn no_answer_costs_more_than_its_worst(
        which in any::<prop::sample::Index>(),
        (prompt, completion) in (0..400_000u32, 0..100_000u32),
        shares in (0..=100u32, 0..=100u32, 0..=100u32, 0..=100u32),
    ) {
        let prices = Prices::builtin().unwrap();
        let priced = &which.get(&prices.table).priced;
        let part = |whole: u32, share: u32| whole / 100 * share;
        let used = usage(
            part(prompt, shares.0),
            part(prompt, shares.1),
            part(prompt, shares.2),
            part(completion, shares.3),
            completion,
        );
        let worst = priced.worst(Tokens(prompt), Tokens(completion));
        prop_assert!(priced.cost(&used) <= worst, "{:?}", used);
    }
}
