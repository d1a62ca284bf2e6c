//! Vendors' failures in our words. None of them repeats a vendor's text: it may hold the prompt.

use std::time::Duration;

use serde_json::Value;
use tieline_types::{BackendError, ErrorKind, Origin, Retry};

/// The longest wait that a vendor can ask for; beyond it, somebody else is asked.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What a refusal says besides its status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// Its text says that the prompt is too long.
    pub(crate) too_long: bool,
}

/// Whether an error object says in words that the prompt does not fit: most vendors have no code for it. Only the
/// beginning is read, where the vendor's own words stand before any that it repeats.
pub(crate) fn says_too_long(body: &Value) -> bool {
    let error = body.get("error").or_else(|| body.pointer("/0/error")).unwrap_or(body);
    let text = error.as_str().or_else(|| error.get("message")?.as_str()).unwrap_or_default();
    let start: String = text.chars().take(160).collect::<String>().to_ascii_lowercase();
    TOO_LONG.iter().any(|words| start.contains(words))
}

/// What vendors and hosts say of a prompt that is too long.
const TOO_LONG: [&str; 14] = [
    // Anthropic.
    "prompt is too long",
    // Gemini.
    "exceeds the maximum number of tokens allowed",
    // OpenAI, vLLM, DeepSeek, OpenRouter, NIM.
    "maximum context length",
    "exceeds the context window",
    // Ollama.
    "exceeded max context length",
    "exceeds the context length",
    // llama-server, Tieline.
    "exceeds the available context size",
    "exceed context size",
    // LM Studio.
    "greater than the context length",
    // Groq.
    "reduce the length of the messages",
    // Together.
    "`inputs` tokens + `max_new_tokens` must be",
    // xAI.
    "maximum prompt length",
    // Kimi, MiniMax.
    "exceeded model token limit",
    "context window exceeds limit",
];

impl Refusal {
    /// The refusal of `backend`.
    pub(crate) fn error(&self, backend: &str) -> BackendError {
        let code = self.code.as_deref().and_then(word);
        let (kind, origin, retry, hint) = self.fault(code.unwrap_or_default());
        let said = code.map(|code| format!(" ({code})")).unwrap_or_default();
        let message = format!("{backend} refused with status {}{said}", self.status);
        let error = BackendError::new(kind, message).of(origin, retry);
        match hint {
            Some(hint) => error.with_hint(format!("{hint} of the backend {backend}")),
            None => error,
        }
    }

    fn fault(&self, code: &str) -> (ErrorKind, Origin, Retry, Option<&'static str>) {
        let account = |hint| (ErrorKind::Upstream, Origin::Here, Retry::Elsewhere, Some(hint));
        match self.status {
            // The request is at fault: it would be refused again.
            400 | 413 | 422 => {
                let long = code.contains("context_length") || code == "exceed_context_size_error";
                let long = long || self.too_long || self.status == 413;
                let kind =
                    if long { ErrorKind::ContextExceeded } else { ErrorKind::InvalidRequest };
                (kind, Origin::Caller, Retry::No, None)
            }
            // The account is at fault, not the request: another vendor may answer it.
            401 => account("check the key"),
            402 => account("check the credit"),
            403 => account("check what the key may do, and the region,"),
            404 => {
                let hint = Some("check the model's name and the URL");
                (ErrorKind::NotFound, Origin::Here, Retry::Elsewhere, hint)
            }
            429 if code == "insufficient_quota" => account("check the credit"),
            429 | 503 | 529 => (ErrorKind::Busy, Origin::Upstream, self.wait(), None),
            408 | 504 => (ErrorKind::Timeout, Origin::Upstream, Retry::Elsewhere, None),
            300..=399 => account("check the URL, which leads elsewhere,"),
            409 | 425 | 500.. => (ErrorKind::Upstream, Origin::Upstream, Retry::Elsewhere, None),
            _ => (ErrorKind::Upstream, Origin::Upstream, Retry::No, None),
        }
    }

    fn wait(&self) -> Retry {
        match self.retry_after {
            Some(wait) if wait <= LONGEST_WAIT => Retry::After(wait),
            Some(_) | None => Retry::Elsewhere,
        }
    }
}

/// A code, where it is one: a vendor's free text is none, for it may repeat the prompt.
pub(crate) fn word(code: &str) -> Option<&str> {
    let fits = (1..=64).contains(&code.len());
    let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    (fits && plain).then_some(code)
}

/// An answer that is none, or that broke off.
pub(crate) fn upstream(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorKind::Upstream, message)
}

/// What the vendor said while it answered: it failed.
pub(crate) fn failed(code: Option<&str>) -> BackendError {
    match code.and_then(word) {
        Some(code) => upstream(format!("the vendor failed while it answered ({code})")),
        None => upstream("the vendor failed while it answered"),
    }
}

/// What a vendor has no word for, where leaving it out would make the answer wrong.
pub(crate) fn unsupported(what: &str, vendor: &str) -> BackendError {
    BackendError::new(ErrorKind::Unsupported, format!("{vendor} cannot be asked for {what}"))
}

/// The wait that a `Retry-After` asks for, in seconds or until a date. `now`: seconds since 1970.
pub(crate) fn retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    Some(Duration::from_secs(seconds_of(value)?.saturating_sub(now)))
}

/// Seconds since 1970 of an HTTP date, RFC 9110 §5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds_of(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.split_once(", ")?.1.strip_suffix(" GMT")?.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = u64::try_from(MONTHS.iter().position(|&month| month == name)?).ok()? + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = words.next()?.split(':').map(str::parse::<u64>);
    let (hours, minutes, seconds) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    if !(1..=31).contains(&day) || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    // Days from the civil date, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(status: u16, code: Option<&str>, retry_after: Option<Duration>) -> Refusal {
        Refusal { status, code: code.map(str::to_owned), retry_after, too_long: false }
    }

    /// The words as vendors' documentation and users' reports have them.
    #[test]
    fn a_prompt_that_is_too_long_is_told_in_words() {
        let long = [
            json!({"type": "error", "error": {"type": "invalid_request_error",
                "message": "prompt is too long: 212121 tokens > 200000 maximum"}}),
            json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "The input token \
                count (1196265) exceeds the maximum number of tokens allowed (1048575)."}}),
            json!([{"error": {"code": 400, "message": "The input token count exceeds the maximum \
                number of tokens allowed (1048576)."}}]),
            json!({"error": "prompt too long; exceeded max context length by 4096 tokens"}),
            json!({"object": "error", "type": "BadRequestError", "code": 400, "message": "This \
                model's maximum context length is 4096 tokens. However, you requested 5048 tokens"}),
            json!({"object": "error", "message": "Prompt contains 40000 tokens, too large for model \
                with 32768 maximum context length"}),
            json!({"error": "Trying to keep the first 5000 tokens when context the overflows. The \
                number of tokens is greater than the context length"}),
        ];
        for body in long {
            assert!(says_too_long(&body), "{body}");
        }
        let far = format!("{}prompt is too long", "x".repeat(200));
        for body in [
            json!({"error": {"message": "max_tokens is too large"}}),
            json!({"error": {"message": far}}),
            json!({"prompt": "prompt is too long"}),
            json!(null),
        ] {
            assert!(!says_too_long(&body), "{body}");
        }
        let error = Refusal { too_long: true, ..refusal(400, None, None) }.error("v/m");
        assert_eq!(error.kind, ErrorKind::ContextExceeded);
        let error = Refusal { too_long: true, ..refusal(429, None, None) }.error("v/m");
        assert_eq!(error.kind, ErrorKind::Busy);
    }

    #[track_caller]
    fn check(status: u16, code: &str, want: (ErrorKind, Origin, Retry)) {
        let error = refusal(status, Some(code), None).error("v/m");
        assert_eq!((error.kind, error.origin, error.retry), want);
    }

    #[test]
    fn whose_fault_it_is_decides_who_is_asked_next() {
        use ErrorKind::{Busy, ContextExceeded, InvalidRequest, NotFound, Timeout, Upstream};
        use Retry::{Elsewhere, No};
        check(400, "invalid_value", (InvalidRequest, Origin::Caller, No));
        check(400, "context_length_exceeded", (ContextExceeded, Origin::Caller, No));
        check(413, "", (ContextExceeded, Origin::Caller, No));
        check(422, "x", (InvalidRequest, Origin::Caller, No));
        check(401, "invalid_api_key", (Upstream, Origin::Here, Elsewhere));
        check(403, "", (Upstream, Origin::Here, Elsewhere));
        check(404, "model_not_found", (NotFound, Origin::Here, Elsewhere));
        check(429, "insufficient_quota", (Upstream, Origin::Here, Elsewhere));
        check(429, "rate_limit_exceeded", (Busy, Origin::Upstream, Elsewhere));
        check(302, "", (Upstream, Origin::Here, Elsewhere));
        check(418, "", (Upstream, Origin::Upstream, No));
        check(500, "", (Upstream, Origin::Upstream, Elsewhere));
        check(504, "", (Timeout, Origin::Upstream, Elsewhere));
        check(529, "overloaded_error", (Busy, Origin::Upstream, Elsewhere));
    }

    #[test]
    fn a_long_wait_is_no_wait() {
        for (seconds, want) in [(7, Retry::After(Duration::from_secs(7))), (7200, Retry::Elsewhere)]
        {
            let retry_after = Some(Duration::from_secs(seconds));
            let error = refusal(429, None, retry_after).error("v/m");
            assert_eq!(error.retry, want);
        }
    }

    #[test]
    fn free_text_is_no_code() {
        let error = refusal(400, Some("my secret"), None);
        assert_eq!(error.error("v/m").to_string(), "v/m refused with status 400");
    }

    #[test]
    fn a_wait_is_in_seconds_or_until_a_date() {
        let second = Duration::from_secs;
        assert_eq!(retry_after("120", 0), Some(second(120)));
        assert_eq!(retry_after("0.5", 0), Some(Duration::from_millis(500)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after(date, 784_111_777 - 30), Some(second(30)));
        assert_eq!(retry_after(date, 784_111_999), Some(second(0)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:09 GMT", 0), Some(second(9)));
        for nonsense in [
            "",
            "soon",
            "-1",
            "nan",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 99 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(retry_after(nonsense, 0), None, "{nonsense}");
        }
    }
}
