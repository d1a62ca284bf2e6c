//! What an answer will probably take: tokens, money, time, energy.

use tieline_privacy::Treatment;
use tieline_types::{MicroUsd, Price, Source, Tokens, Usage};

use super::decision::Forecast;
use super::facts::{Asked, Candidate, Figure, OutputForecast};
use crate::policy::MachinePolicy;
use crate::prices::Tariff;

/// How long answers are where nobody knows. Estimated, from no measurement: chats answer in a few paragraphs.
const OUTPUT: OutputForecast = OutputForecast { p50: Tokens(400), p90: Tokens(1600) };

/// What counts for a vendor whose price nobody knows: about that of a dear model, so that the unknown is not
/// preferred.
const ASSUMED: Price = Price {
    input: MicroUsd(5_000_000),
    cached_input: MicroUsd(5_000_000),
    cache_write: MicroUsd(5_000_000),
    output: MicroUsd(25_000_000),
    request: MicroUsd::ZERO,
};

/// Speeds that nobody measured, on the slow side.
struct Slow {
    prefill_tps: f64,
    decode_tps: f64,
    first_token_s: f64,
    load_s: f64,
}

const LOCAL: Slow = Slow { prefill_tps: 100.0, decode_tps: 8.0, first_token_s: 0.05, load_s: 20.0 };
const REMOTE: Slow =
    Slow { prefill_tps: 2000.0, decode_tps: 30.0, first_token_s: 1.5, load_s: 0.0 };

fn output(asked: &Asked, candidate: &Candidate) -> OutputForecast {
    let OutputForecast { p50, p90 } = asked.output.unwrap_or(OUTPUT);
    let cut = |tokens: Tokens| {
        let most = asked.max_tokens.unwrap_or(tokens);
        tokens.min(most).min(candidate.max_output.unwrap_or(tokens))
    };
    OutputForecast { p50: cut(p50), p90: cut(p90.max(p50)) }
}

/// The price, where it is known. A model of this machine costs nothing unless the policy says so.
fn tariff(candidate: &Candidate) -> Option<Tariff> {
    candidate.tariff().or_else(|| candidate.local.then(Tariff::default))
}

/// The most that a request may cost, and for how many tokens of an answer. Without a limit of the caller's, that
/// is what nine of ten answers take, and no less than where nobody knows: answers are cut there, so that what was
/// learned of them would make them ever shorter. Nothing is taken to be cached, and of two prices the one that can be
/// the dearer counts.
pub(super) fn reserve(
    asked: &Asked,
    candidate: &Candidate,
    treatment: Treatment,
) -> Option<(MicroUsd, Tokens)> {
    let tariff = tariff(candidate)?;
    let usual = output(asked, candidate).p90.max(OUTPUT.p90);
    let wanted = asked.max_tokens.unwrap_or(usual);
    let tokens = wanted.min(candidate.max_output.unwrap_or(wanted));
    let prompt = asked.longest_prompt(treatment);
    // A price below nothing must not make room in a budget.
    Some((tariff.worst(prompt, tokens).max(MicroUsd::ZERO), tokens))
}

/// The figure where it can be used, else the slow default.
pub(super) fn known(figure: Option<Figure>, default: f64) -> (f64, Source) {
    match figure {
        Some(Figure { value, source }) if value.is_finite() && value > 0.0 => (value, source),
        Some(_) | None => (default, Source::Unknown),
    }
}

/// Tokens of a prompt that a candidate reads in a second.
pub(super) fn prefill_tps(candidate: &Candidate) -> (f64, Source) {
    let slow = if candidate.local { LOCAL } else { REMOTE };
    known(candidate.profile.prefill_tps, slow.prefill_tps)
}

/// `first = load + queue + overhead + (prompt − cached) ÷ prefill rate`; `total = first + output ÷ decode rate`.
pub(super) fn forecast(machine: &MachinePolicy, asked: &Asked, candidate: &Candidate) -> Forecast {
    let slow = if candidate.local { LOCAL } else { REMOTE };
    let OutputForecast { p50, p90 } = output(asked, candidate);
    let prompt = asked.prompt_tokens;
    let cached = candidate.state.cached_tokens.min(prompt);
    let fresh = f64::from(prompt.0 - cached.0);
    let profile = &candidate.profile;
    let (prefill, prefill_source) = prefill_tps(candidate);
    let (decode, decode_source) = known(profile.decode_tps, slow.decode_tps);
    let (overhead, overhead_source) = match profile.first_token_s {
        // A model of this machine may well answer at once.
        Some(Figure { value: 0.0, source }) => (0.0, source),
        other => known(other, slow.first_token_s),
    };
    let (load, load_source) = match candidate.state.loaded {
        true => (0.0, Source::Measured),
        false => known(profile.load_s, slow.load_s),
    };
    let queue = f64::from(candidate.state.queue_ms) / 1000.0;
    let first_token_s = load + queue + overhead + fresh / prefill;
    let cost = |completion_tokens| {
        let usage = Usage {
            prompt_tokens: prompt,
            cached_tokens: cached,
            completion_tokens,
            ..Usage::default()
        };
        tariff(candidate).map(|tariff| tariff.cost(&usage))
    };
    let joules = profile.joules_per_token.map(|each| {
        let reading = profile.joules_per_prompt_token.map_or(0.0, |each| each.value);
        each.value * f64::from(p50.0) + reading * fresh
    });
    let total_s = first_token_s + f64::from(p50.0) / decode;
    // Who waits in the queue keeps nobody busy.
    // Energy of which a part was not measured is no measured cost.
    let whole = joules.filter(|_| profile.joules_per_prompt_token.is_some());
    let here = candidate.local.then(|| machine.dollars(whole, total_s - queue)).flatten();
    Forecast {
        tokens_p50: p50,
        tokens_p90: p90,
        cost_p50: cost(p50),
        cost_p90: cost(p90),
        first_token_s,
        total_s,
        joules,
        here_usd: here.map(|(dollars, _)| dollars),
        here_usd_source: here.map(|(_, source)| source),
        times: prefill_source.max(decode_source).max(overhead_source).max(load_source),
        queue_s: queue,
        cached_tokens: cached,
    }
}

/// Dollars that count for a forecast: an unknown price counts as a dear one, what nobody knows of this machine as nothing.
pub(super) fn dollars(asked: &Asked, forecast: &Forecast) -> f64 {
    let assumed = || {
        let usage = Usage {
            prompt_tokens: asked.prompt_tokens,
            completion_tokens: forecast.tokens_p50,
            ..Usage::default()
        };
        ASSUMED.cost(&usage)
    };
    in_dollars(forecast.cost_p50.unwrap_or_else(assumed)) + forecast.here_usd.unwrap_or(0.0)
}

/// What it costs to have so many tokens read again that were cached.
pub(super) fn lost_dollars(candidate: &Candidate, tokens: Tokens) -> f64 {
    let price = tariff(candidate).map_or(ASSUMED, |tariff| tariff.of_prompt(tokens));
    let usage = |cached| Usage { prompt_tokens: tokens, cached_tokens: cached, ..Usage::default() };
    in_dollars(price.cost(&usage(Tokens(0))) - price.cost(&usage(tokens))).max(0.0)
}

fn in_dollars(money: MicroUsd) -> f64 {
    money.0 as f64 / 1e6
}
