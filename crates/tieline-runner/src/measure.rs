//! Times prefill and decode alone, as llama-bench does: random tokens, no sampler, no text.

use std::time::{Duration, Instant};

use tieline_types::Tokens;
use tieline_types::wire::{Failure, FailureKind, Reply};

use crate::control::Control;
use crate::session::{Session, failure, failure_with};

/// Prefills `prefill` tokens into an empty context, then decodes `decode` into another empty one.
pub(crate) fn measure(
    session: &mut Session<'_>,
    prefill: Tokens,
    decode: Tokens,
    control: &Control,
) -> Result<Reply, Failure> {
    let longest = prefill.0.max(decode.0);
    if usize::try_from(longest).is_ok_and(|longest| longest > session.length()) {
        return Err(failure_with(
            FailureKind::ContextExceeded,
            format!("{longest} tokens do not fit the context of {}", session.length()),
            format!("ask for a context of at least {longest} tokens"),
        ));
    }
    let batch = usize::try_from(session.settings.batch).unwrap_or(1);
    let prefill = time(session, prefill, batch, control)?;
    let decode = time(session, decode, 1, control)?;
    session.clear();
    Ok(Reply::Measured { prefill_us: micros(prefill), decode_us: micros(decode) })
}

fn time(
    session: &mut Session<'_>,
    count: Tokens,
    batch: usize,
    control: &Control,
) -> Result<Duration, Failure> {
    session.clear();
    let mut tokens = random_tokens(session, count);
    let started = Instant::now();
    for chunk in tokens.chunks_mut(batch) {
        if control.is_aborted() {
            return Err(failure(FailureKind::Busy, "cancelled"));
        }
        session.context.decode(chunk).map_err(|error| {
            failure(FailureKind::Internal, format!("llama.cpp failed to decode: {error:?}"))
        })?;
        session.context.synchronize();
    }
    Ok(started.elapsed())
}

/// Tokens drawn evenly from the vocabulary, BOS first where the model has one. Always the same ones.
fn random_tokens(session: &Session<'_>, count: Tokens) -> Vec<i32> {
    let vocabulary = session.model.vocabulary().max(1).cast_unsigned();
    let mut state = 0x2545_f491u32;
    let mut next = || {
        // Marsaglia's xorshift32.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state % vocabulary).cast_signed()
    };
    let mut tokens: Vec<i32> = (0..count.0).map(|_| next()).collect();
    if let (Some(first), Some(bos), true) =
        (tokens.first_mut(), session.model.bos(), session.model.adds_bos())
    {
        *first = bos;
    }
    tokens
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
