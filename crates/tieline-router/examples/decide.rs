//! How long a decision takes: `cargo run --release -p tieline-router --example decide`.
//!
//! Twenty backends under ten rules, requests of different lengths and findings, in one thread. Prints the median
//! and the 99th hundredth of single decisions, which hold the clock's own cost.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tieline_privacy::Entity;
use tieline_router::choose::{AUTO, Asked, Session, decide};
use tieline_router::policy::Policy;
use tieline_types::Tokens;

const BACKENDS: usize = 20;
const WARM: usize = 10_000;
const MEASURED: usize = 200_000;

fn policy_text() -> anyhow::Result<String> {
    let mut text = String::new();
    for number in 0..BACKENDS {
        let zone = ["lan", "cloud-zero-retention", "cloud"][number % 3];
        writeln!(text, "[backends.b{number}]\nprotocol = \"openai\"\nzone = \"{zone}\"")?;
        writeln!(text, "url = \"https://b{number}.example/v1\"")?;
        writeln!(text, "[backends.b{number}.models.m]\ncontext = 128000\nmax_output = 8000")?;
        writeln!(text, "tools = true\nquality = {{ any = 0.{0}, code = 0.{0} }}", 50 + number)?;
        writeln!(text, "price = {{ input = {number}, output = {} }}", number * 4)?;
        writeln!(text, "prefill_tps = {}\ndecode_tps = 60", 1000 + 100 * number)?;
    }
    for number in 0..10 {
        let zone = ["lan", "cloud-zero-retention", "cloud"][number % 3];
        writeln!(text, "[[rule]]\nname = \"r{number}\"\nclass = \"any\"\nzone = \"{zone}\"")?;
        writeln!(text, "to = \"b*/*\"\nas = \"redacted\"")?;
    }
    writeln!(text, "[[classify]]\nentity = [\"email\", \"iban\"]\nclass = \"private\"")?;
    writeln!(text, "[[classify]]\npath = \"/home/*/tax/**\"\nclass = \"secret\"")?;
    Ok(text)
}

fn asked(number: u32) -> Asked {
    Asked {
        asked: AUTO.to_owned(),
        path: Some(format!("/home/kim/code/{number}/main.rs")),
        found: number.is_multiple_of(3).then_some((Entity::Email, 1)).into_iter().collect(),
        prompt_tokens: Tokens(100 + number % 50_000),
        session: Some(Session { previous: "b7/m".to_owned(), tool_loop: false }),
        ..Asked::default()
    }
}

fn main() -> anyhow::Result<()> {
    let policy = Policy::parse(&policy_text()?)?;
    let candidates = policy.remote_candidates();
    anyhow::ensure!(candidates.len() == BACKENDS);
    let requests: Vec<Asked> = (0..1000).map(|number| asked(number * 37)).collect();
    // What is rejected costs less: everybody must be scored.
    let scored = decide(&policy, &requests[0], &candidates).scores.len();
    anyhow::ensure!(scored == BACKENDS, "only {scored} were scored");
    let mut times: Vec<Duration> = Vec::with_capacity(MEASURED);
    for (number, asked) in requests.iter().cycle().take(WARM + MEASURED).enumerate() {
        let since = Instant::now();
        black_box(decide(&policy, black_box(asked), &candidates));
        let took = since.elapsed();
        if number >= WARM {
            times.push(took);
        }
    }
    times.sort_unstable();
    let at = |hundredth: usize| times.get(times.len() * hundredth / 100).copied();
    let (median, high) = (at(50).context("no times")?, at(99).context("no times")?);
    writeln!(std::io::stdout(), "{BACKENDS} backends: p50 {median:?}, p99 {high:?}")?;
    Ok(())
}
