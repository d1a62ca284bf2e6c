//! Times prefill and decode alone, as llama-bench does: random tokens, no sampler, no text.

use std::time::{Duration, Instant};

use tieline_types::wire::{Failure, FailureKind, Reply};
use tieline_types::{Adapters, Tokens};

use crate::control::Control;
use crate::desk::Desk;
use crate::llama::Batch;
use crate::session::{failure, failure_with};

/// Prefills `prefill` tokens into an empty context, then decodes `decode` into another empty one.
///
/// Forgets all that is cached; nothing else may be at work.
pub(crate) fn measure(
    desk: &mut Desk<'_>,
    prefill: Tokens,
    decode: Tokens,
    control: &Control,
) -> Result<Reply, Failure> {
    let longest = prefill.0.max(decode.0);
    if longest > desk.settings.context {
        return Err(failure_with(
            FailureKind::ContextExceeded,
            format!("{longest} tokens do not fit the context of {}", desk.settings.context),
            format!("ask for a context of at least {longest} tokens"),
        ));
    }
    desk.kv.drop_cached();
    desk.shelf.bring(&Adapters::default(), desk.kv.context())?;
    let batch = usize::try_from(desk.settings.batch.min(desk.settings.ubatch)).unwrap_or(1);
    desk.kv.context().set_threads(desk.settings.threads_batch, true);
    let prefill = time(desk, prefill, batch, control);
    desk.kv.context().set_threads(desk.settings.threads, true);
    let decode = time(desk, decode, 1, control);
    desk.kv.clear();
    Ok(Reply::Measured { prefill_us: micros(prefill?), decode_us: micros(decode?) })
}

fn time(
    desk: &mut Desk<'_>,
    count: Tokens,
    batch: usize,
    control: &Control,
) -> Result<Duration, Failure> {
    desk.kv.clear();
    let tokens = random_tokens(desk, count);
    let started = Instant::now();
    let mut position = 0;
    for chunk in tokens.chunks(batch) {
        if control.is_aborted() {
            return Err(failure(FailureKind::Busy, "cancelled"));
        }
        let mut step = Batch::default();
        for (at, &token) in chunk.iter().enumerate() {
            step.push(token, position + at, 0, at + 1 == chunk.len());
        }
        position += chunk.len();
        desk.kv.decode(&mut step).map_err(|error| {
            failure(FailureKind::Internal, format!("llama.cpp failed to decode: {error:?}"))
        })?;
        desk.kv.context().synchronize();
    }
    Ok(started.elapsed())
}

/// Tokens drawn evenly from the vocabulary, BOS first where the model has one. Always the same ones.
fn random_tokens(desk: &Desk<'_>, count: Tokens) -> Vec<i32> {
    let model = desk.model;
    let vocabulary = model.vocabulary().max(1).cast_unsigned();
    let mut state = 0x2545_f491u32;
    let mut next = || {
        // Marsaglia's xorshift32.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state % vocabulary).cast_signed()
    };
    let mut tokens: Vec<i32> = (0..count.0).map(|_| next()).collect();
    if let (Some(first), Some(bos), true) = (tokens.first_mut(), model.bos(), model.adds_bos()) {
        *first = bos;
    }
    tokens
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
