//! What keeping decisions takes: `cargo run --release -p tieline-router --example kept`.
//!
//! Writes ten thousand decisions, whose requests, speeds, queues and answers all differ, among five and among twenty
//! candidates, and reads them all again. Prints the bytes of each on the disk, and the time of each step, in one thread.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use tieline_router::choose::{Asked, Candidate, Figure, Session, Try, decide};
use tieline_router::replay::{Again, Keeper, Reader, Replay};
use tieline_router::{AskedFor, Decision, Filed, Outcome, Policy, Record, Tried};
use tieline_store::Store;
use tieline_types::{DataClass, Source, Tokens, Usage};

const REQUESTS: u32 = 10_000;
/// As many as the ledger writes at once, where many wait.
const BATCH: usize = 256;

fn policy(models: u32) -> anyhow::Result<Policy> {
    let mut text = String::from(
        "[[rule]]\nname = \"daily work\"\nclass = [\"public\", \"internal\"]\nzone = [\"lan\", \"cloud\"]\nas = \"as-is\"\n",
    );
    for number in 0..models {
        text += &format!(
            "[backends.vendor{number}]\nprotocol = \"openai\"\nurl = \"https://v{number}.example/v1\"\nzone = \"cloud\"\n\
             [backends.vendor{number}.models.a-model-of-{number}]\ncontext = 128000\nmax_output = 8000\ntools = true\n\
             quality = {{ any = 0.{}, code = 0.8 }}\nprice = {{ input = {number}.5, output = 9 }}\nprefill_tps = 4000\n",
            50 + number
        );
    }
    Ok(Policy::parse(&text)?)
}

/// Spread evenly, and the same on every machine.
fn spread(number: u32, most: u32) -> u32 {
    number.wrapping_mul(2_654_435_761) % most
}

fn asked(all: &[Candidate], number: u32) -> Asked {
    Asked {
        asked: "auto".to_owned(),
        prompt_bytes: u64::from(spread(number, 60_000)),
        prompt_tokens: Tokens(spread(number, 15_000)),
        prompt_tokens_most: Some(Tokens(spread(number, 60_000) + 1000)),
        session: number.is_multiple_of(2).then(|| Session {
            previous: all[number as usize % all.len()].name.clone(),
            tool_loop: number.is_multiple_of(3),
        }),
        ..Asked::default()
    }
}

fn tried(first: &Try, usage: Usage, number: u32) -> Tried {
    Tried {
        reservation: None,
        name: first.name.clone(),
        zone: first.zone,
        vendor: "openai".to_owned(),
        ended: "answered",
        error: None,
        first_token_us: Some(u64::from(spread(number, 2_000_000))),
        total_us: u64::from(spread(number, 20_000_000)),
        usage: Some(usage),
        source: Source::Reported,
        cost_micro_usd: Some(i64::from(spread(number, 90_000))),
        cost_at_least: false,
        reserved_micro_usd: Some(i64::from(spread(number, 900_000))),
        price: Some(("policy".to_owned(), None)),
        data_class: DataClass::Internal,
        rule: first.rule.clone(),
        sent_bytes: u64::from(spread(number, 60_000)),
        redacted: 0,
        unrestored: 0,
        saved_micro_usd: None,
        judged: None,
        egress: None,
    }
}

fn filed(policy: &Policy, all: &[Candidate], number: u32) -> Filed {
    let measured = |value: f64| Some(Figure { value, source: Source::Measured });
    let mut candidates = all.to_vec();
    for (at, candidate) in (0..).zip(&mut candidates) {
        let own = f64::from(spread(number / 7 + 31 * at, 1_000_003));
        candidate.profile.decode_tps = measured(30.0 + own / 9973.0);
        candidate.profile.first_token_s = measured(0.2 + own / 2_000_003.0);
    }
    let asked = asked(all, number);
    let decision = decide(policy, &asked, &candidates);
    let usage = Usage {
        prompt_tokens: asked.prompt_tokens,
        completion_tokens: Tokens(spread(number, 900)),
        ..Usage::default()
    };
    let tried = decision.tries.iter().take(1).map(|first| tried(first, usage, number));
    let record = Record {
        id: format!(
            "019ab{:027x}",
            u128::from(spread(number, u32::MAX)) << 64 | u128::from(number)
        ),
        at_unix_ms: 1_790_000_000_000 + u64::from(number) * 977,
        key: String::new(),
        dialect: "openai",
        operation: "chat",
        decision: Decision { model: decision.asked.clone(), reason: "chosen" },
        tried: tried.collect(),
        plan: Some(Arc::new(decision)),
        asked: Some(asked),
        cached: false,
        saved_micro_usd: None,
        hedge: None,
        digest: None,
        outcome: Outcome::Answered,
        error: None,
        usage: Some(usage),
        first_token_us: Some(u64::from(spread(number, 2_100_000))),
        total_us: u64::from(spread(number, 21_000_000)),
        asked_for: AskedFor::default(),
        finish: None,
        trace_parent: None,
    };
    Filed { record: Arc::new(record), candidates: Some(Arc::new(candidates)) }
}

fn measure(models: u32) -> anyhow::Result<String> {
    let policy = policy(models)?;
    let all = policy.remote_candidates();
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path())?;
    let filed: Vec<Filed> = (0..REQUESTS).map(|number| filed(&policy, &all, number)).collect();
    let each = |since: Instant| since.elapsed() / REQUESTS;
    let mut keeper = Keeper::default();
    let since = Instant::now();
    let rows = filed.iter().map(|filed| keeper.row(filed)).collect::<Result<Vec<_>, _>>()?;
    let made = each(since);
    let since = Instant::now();
    for batch in rows.chunks(BATCH) {
        store.record(&[], batch)?;
    }
    let written = each(since);
    let text: usize = rows.iter().map(|row| row.facts.len()).sum();
    let since = Instant::now();
    let mut reader = Reader::default();
    let mut replay = Replay::new(Again::new(Policy::default(), Vec::new()));
    store.decisions_between((0, i64::MAX), |row| match row.map(|row| reader.read(&row)) {
        Ok(Ok(kept)) => replay.add(&kept),
        Ok(Err(why)) => replay.unreadable(Some(&why)),
        Err(_) => replay.unreadable(None),
    })?;
    let report = replay.report(1);
    let again = each(since);
    anyhow::ensure!(report.requests == u64::from(REQUESTS), "some could not be read");
    let packed = store.decisions_bytes()?.0 / u64::from(REQUESTS);
    // With its indexes, and half empty pages; what waits in the journal is written first.
    drop(store);
    let file = std::fs::metadata(folder.path().join("store.sqlite"))?.len() / u64::from(REQUESTS);
    let text = text / rows.len();
    Ok(format!(
        "{models} candidates: {text} bytes of JSON, {packed} counted, {file} on the disk; made in {made:?}, \
         written in {written:?}, read and decided again in {again:?}"
    ))
}

fn main() -> anyhow::Result<()> {
    for models in [5, 20] {
        writeln!(std::io::stdout(), "{}", measure(models)?)?;
    }
    Ok(())
}
