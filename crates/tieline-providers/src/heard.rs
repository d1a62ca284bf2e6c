//! What the readers of answers have in common.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tieline_types::{
    BackendError, ErrorKind, Event, FinishReason, Finished, Origin, Piece, Retry, Timing, Tokens,
    Usage,
};

use crate::errors::too_long;
use crate::protocol::{Frame, USAGE_UNKNOWN};

/// Reads a frame's JSON. The parser's own words are not passed on: they may repeat the answer.
pub(crate) fn json<T: DeserializeOwned>(frame: Frame<'_>, vendor: &str) -> Result<T, BackendError> {
    serde_json::from_str(frame.data).map_err(|_| no_frame(vendor, "no JSON of its shape"))
}

/// A frame is none of the protocol.
pub(crate) fn no_frame(vendor: &str, what: &str) -> BackendError {
    let message = format!("{vendor} sent a frame that is none of its protocol: {what}");
    BackendError::new(ErrorKind::Upstream, message)
}

/// The connection ended before the answer did.
pub(crate) fn broke_off(vendor: &str) -> BackendError {
    BackendError::new(ErrorKind::Upstream, format!("{vendor} ended the answer before its end"))
}

/// The vendor says in the midst of an answer that it failed.
pub(crate) fn failed(vendor: &str, code: Option<&str>) -> BackendError {
    let said = code.unwrap_or("no code");
    let message = format!("{vendor} broke off the answer: {said}");
    // Of an overload or an outage no key is at fault: as of status 529 and 503, it is the model's.
    let busy = ["rate_limit", "resource_exhausted", "slow_down"];
    let slow = ["timeout", "deadline_exceeded"];
    let says = |words: &[&str]| {
        let lower = said.to_ascii_lowercase();
        words.iter().any(|word| lower.contains(word))
    };
    if says(&["context_length"]) {
        return too_long(message);
    }
    let kind = match () {
        () if says(&busy) => ErrorKind::Busy,
        () if says(&slow) => ErrorKind::Timeout,
        () => ErrorKind::Upstream,
    };
    BackendError::new(kind, message).of(Origin::Upstream, Retry::Elsewhere)
}

/// A vendor's code, where it looks like one: anything else may be text, and text may repeat the prompt.
pub(crate) fn code(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    is_code(&text).then_some(text)
}

/// Whether a text is a word of a protocol.
pub(crate) fn is_code(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

/// A count that the vendor tells. One that is too great for us is as great as can be, rather than small.
pub(crate) fn tokens(count: Option<u64>) -> Tokens {
    Tokens(u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX))
}

/// Adds a piece of the answer's text, where there is any.
pub(crate) fn piece(text: String, events: &mut Vec<Event>) {
    if !text.is_empty() {
        events.push(Event::Piece(Piece { text: text.into(), logprobs: Vec::new() }));
    }
}

/// Adds a piece of what the model thinks, where there is any.
pub(crate) fn thought(text: String, events: &mut Vec<Event>) {
    if !text.is_empty() {
        events.push(Event::Reasoning(Piece { text: text.into(), logprobs: Vec::new() }));
    }
}

/// Whether a frame is there to keep the connection open and says nothing.
pub(crate) fn is_silent(frame: Frame<'_>) -> bool {
    frame.data.trim().is_empty()
}

/// The vendor left out how many tokens were used: what was used is not nothing, but unknown.
pub(crate) fn warn_no_counts(counts: [Option<u64>; 2], events: &mut Vec<Event>) {
    if counts.iter().any(Option::is_none) {
        events.push(Event::Warning(USAGE_UNKNOWN.to_owned()));
    }
}

/// The end. Whoever holds the clock fills in the times; a vendor's seed is unknown.
pub(crate) fn finished(reason: FinishReason, usage: Usage) -> Event {
    let timing = Timing { queue: Duration::ZERO, prefill: Duration::ZERO, decode: Duration::ZERO };
    let finished = Finished { reason, usage, timing, seed: 0, peak_memory: None, receipt: None };
    Event::Finished(Box::new(finished))
}

/// The answer ended in a way that is new to us.
pub(crate) fn unknown_end(said: &str, events: &mut Vec<Event>) -> FinishReason {
    let word = if is_code(said) { said } else { "a word that is no code" };
    events.push(Event::Warning(format!(
        "the vendor ended the answer for a reason of its own: {word}"
    )));
    FinishReason::EndOfTurn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, want: ErrorKind) {
        let error = failed("v", Some(code));
        assert_eq!((error.kind, error.retry), (want, Retry::Elsewhere), "{code}");
    }

    #[test]
    fn codes_tell_the_kind() {
        check("rate_limit_error", ErrorKind::Busy);
        check("rate_limit_exceeded", ErrorKind::Busy);
        check("RESOURCE_EXHAUSTED", ErrorKind::Busy);
        check("timeout_error", ErrorKind::Timeout);
        check("DEADLINE_EXCEEDED", ErrorKind::Timeout);
        check("overloaded_error", ErrorKind::Upstream);
        check("UNAVAILABLE", ErrorKind::Upstream);
        check("api_error", ErrorKind::Upstream);
        check("server_error", ErrorKind::Upstream);
    }

    #[test]
    fn a_prompt_too_long_is_the_callers() {
        let error = failed("v", Some("context_length_exceeded"));
        assert_eq!(error.kind, ErrorKind::ContextExceeded);
        assert_eq!((error.origin, error.retry), (Origin::Caller, Retry::Elsewhere));
    }

    #[test]
    fn a_text_is_no_code() {
        assert_eq!(code(&"rate_limit".into()).as_deref(), Some("rate_limit"));
        assert_eq!(code(&429.into()).as_deref(), Some("429"));
        assert_eq!(code(&"your prompt said".into()), None);
        assert_eq!(code(&"x".repeat(65).into()), None);
        assert_eq!(code(&Value::Null), None);
    }

    #[test]
    fn a_count_too_great_is_the_greatest() {
        assert_eq!(tokens(Some(u64::MAX)), Tokens(u32::MAX));
        assert_eq!(tokens(None), Tokens(0));
    }
}
