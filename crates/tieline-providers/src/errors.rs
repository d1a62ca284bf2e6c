//! Vendors' failures in our words. None of them repeats a vendor's text: it may hold the prompt.

use std::time::Duration;

use serde_json::Value;
use tieline_types::{BackendError, ErrorKind, Origin, Retry};

/// The longest wait that is believed of a vendor that asks for one.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What a refusal says besides its status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) said: Said,
}

/// What the text of an error object says, where vendors have no code for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The prompt does not fit.
    pub(crate) too_long: bool,
    /// The vendor's moderation holds the prompt back.
    pub(crate) flagged: bool,
    /// The account may not use this model.
    pub(crate) no_access: bool,
    /// The key is none, or its account has no money.
    pub(crate) no_account: bool,
}

impl Said {
    /// Only the beginning is read, where the vendor's own words stand before any that it repeats.
    pub(crate) fn of(body: &Value) -> Self {
        let error = body.get("error").or_else(|| body.pointer("/0/error")).unwrap_or(body);
        let text = error.as_str().or_else(|| error.get("message")?.as_str()).unwrap_or_default();
        let start: String = text.chars().take(160).collect::<String>().to_ascii_lowercase();
        let says = |all: &[&str]| all.iter().any(|words| start.contains(words));
        Self {
            too_long: says(&TOO_LONG),
            flagged: says(&FLAGGED) || error.pointer("/metadata/flagged_input").is_some(),
            no_access: says(&NO_ACCESS),
            no_account: says(&NO_ACCOUNT),
        }
    }
}

/// What vendors say of a prompt that their moderation holds back.
const FLAGGED: [&str; 5] = [
    // OpenRouter.
    "requires moderation",
    "input was flagged",
    // xAI.
    "violates usage guidelines",
    // Azure and others.
    "content policy",
    "content management policy",
];

/// The same as parts of a code.
const FLAGGED_CODES: [&str; 4] = ["moderation", "content_policy", "content_filter", "flagged"];

/// What vendors say of a model that the account may not use. Groq has a code for it.
const NO_ACCESS: [&str; 3] =
    // OpenAI, Bedrock, LiteLLM.
    ["access to model", "access to the model", "authorized to access model"];

/// What vendors say of a key or an account with status 400, where others have 401 or 402 for it.
const NO_ACCOUNT: [&str; 4] = [
    // Anthropic.
    "credit balance is too low",
    // Gemini.
    "api key not valid",
    "api key expired",
    // xAI.
    "incorrect api key provided",
];

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
        let why =
            if kind == ErrorKind::Denied { ": its moderation flagged the request" } else { "" };
        let message = format!("{backend} refused with status {}{said}{why}", self.status);
        let error = BackendError::new(kind, message).of(origin, retry);
        match hint {
            Some(hint) => error.with_hint(format!("{hint} of the backend {backend}")),
            None => error,
        }
    }

    fn fault(&self, code: &str) -> (ErrorKind, Origin, Retry, Option<&'static str>) {
        let account = |hint| (ErrorKind::Upstream, Origin::Here, Retry::Elsewhere, Some(hint));
        match self.status {
            // Neither the account nor the model is at fault, and another vendor judges by its own rules.
            400 | 403 | 422 if self.is_flagged(code) => {
                (ErrorKind::Denied, Origin::Caller, Retry::Elsewhere, None)
            }
            // Others may have a longer context, or words for what this one has none for.
            400 | 413 | 422 if self.is_too_long(code) => {
                (ErrorKind::ContextExceeded, Origin::Caller, Retry::Elsewhere, None)
            }
            400 | 422 if UNSUPPORTED.contains(&code) => {
                (ErrorKind::Unsupported, Origin::Caller, Retry::Elsewhere, None)
            }
            400 if self.said.no_account || code == "API_KEY_INVALID" => {
                account("check the key and the credit")
            }
            // The request is at fault: it would be refused again.
            400 | 413 | 422 => (ErrorKind::InvalidRequest, Origin::Caller, Retry::No, None),
            // The account is at fault, not the request: another vendor may answer it.
            401 => account("check the key"),
            402 => account("check the credit"),
            // The key is good for other models.
            403 if self.is_about_model(code) => {
                let hint = Some("check whether the key may use the model");
                (ErrorKind::NotFound, Origin::Here, Retry::Elsewhere, hint)
            }
            403 => account("check what the key may do, and the region,"),
            404 => {
                let hint = Some("check the model's name and the URL");
                (ErrorKind::NotFound, Origin::Here, Retry::Elsewhere, hint)
            }
            429 if code == "insufficient_quota" => account("check the credit"),
            429 => (ErrorKind::Busy, Origin::Upstream, self.wait(), None),
            // Who says when to come again is busy; who does not has failed.
            503 | 529 if self.retry_after.is_some() => {
                (ErrorKind::Busy, Origin::Upstream, self.wait(), None)
            }
            408 | 504 => (ErrorKind::Timeout, Origin::Upstream, Retry::Elsewhere, None),
            300..=399 => account("check the URL, which leads elsewhere,"),
            409 | 425 | 500.. => (ErrorKind::Upstream, Origin::Upstream, Retry::Elsewhere, None),
            _ => (ErrorKind::Upstream, Origin::Upstream, Retry::No, None),
        }
    }

    fn is_too_long(&self, code: &str) -> bool {
        let coded = code.contains("context_length") || code == "exceed_context_size_error";
        coded || self.said.too_long || self.status == 413
    }

    fn is_flagged(&self, code: &str) -> bool {
        self.said.flagged || FLAGGED_CODES.iter().any(|word| code.contains(word))
    }

    fn is_about_model(&self, code: &str) -> bool {
        let coded = code.contains("model_permission") || code == "model_not_found";
        coded || self.said.no_access
    }

    fn wait(&self) -> Retry {
        match self.retry_after {
            Some(wait) => Retry::After(wait.min(LONGEST_WAIT)),
            None => Retry::Elsewhere,
        }
    }
}

/// Codes of what a model or host has no words for: another Tieline's, and OpenAI's.
const UNSUPPORTED: [&str; 3] = ["unsupported", "unsupported_parameter", "unsupported_value"];

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
    inexpressible(format!("{vendor} cannot be asked for {what}"))
}

/// What this vendor cannot be asked for: another one may have words for it, so the chain goes on.
pub(crate) fn inexpressible(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorKind::Unsupported, message).of(Origin::Caller, Retry::Elsewhere)
}

/// A prompt that does not fit here: another model may have a longer context.
pub(crate) fn too_long(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorKind::ContextExceeded, message).of(Origin::Caller, Retry::Elsewhere)
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
        Refusal { status, code: code.map(str::to_owned), retry_after, said: Said::default() }
    }

    const TOO_LONG_ALONE: Said =
        Said { too_long: true, flagged: false, no_access: false, no_account: false };

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
            assert_eq!(Said::of(&body), TOO_LONG_ALONE, "{body}");
        }
        let far = format!("{}prompt is too long", "x".repeat(200));
        for body in [
            json!({"error": {"message": "max_tokens is too large"}}),
            json!({"error": {"message": far}}),
            json!({"prompt": "prompt is too long"}),
            json!(null),
        ] {
            assert_eq!(Said::of(&body), Said::default(), "{body}");
        }
        let error = Refusal { said: TOO_LONG_ALONE, ..refusal(400, None, None) }.error("v/m");
        assert_eq!(error.kind, ErrorKind::ContextExceeded);
        let error = Refusal { said: TOO_LONG_ALONE, ..refusal(429, None, None) }.error("v/m");
        assert_eq!(error.kind, ErrorKind::Busy);
    }

    /// What status 403 with this code and body means.
    #[track_caller]
    fn forbidden(code: Option<&str>, body: &Value, want: (ErrorKind, Origin)) {
        let refusal = Refusal { said: Said::of(body), ..refusal(403, code, None) };
        let error = refusal.error("v/m");
        assert_eq!((error.kind, error.origin, error.retry), (want.0, want.1, Retry::Elsewhere));
        assert!(!error.to_string().contains("CANARY"));
    }

    #[test]
    fn what_is_forbidden_is_the_prompt_the_model_or_all() {
        let flagged = (ErrorKind::Denied, Origin::Caller);
        let moderated = "openai/gpt-x requires moderation on OpenAI. Your input was flagged for \
            \"violence\".";
        forbidden(Some("403"), &json!({"error": {"code": 403, "message": moderated}}), flagged);
        let metadata = json!({"reasons": ["hate"], "flagged_input": "CANARY"});
        let metadata = json!({"error": {"code": 403, "message": "x", "metadata": metadata}});
        forbidden(Some("403"), &metadata, flagged);
        let words = "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO";
        let xai = json!({"code": "The caller does not have permission", "error": words});
        forbidden(None, &xai, flagged);
        forbidden(Some("content_policy_violation"), &json!({}), flagged);
        forbidden(Some("content_filter"), &json!({}), flagged);

        let model = (ErrorKind::NotFound, Origin::Here);
        let message = "Project `proj_1` does not have access to model `gpt-x`";
        let openai = json!({"error": {"code": "model_not_found", "message": message}});
        forbidden(Some("model_not_found"), &openai, model);
        forbidden(None, &openai, model);
        forbidden(Some("model_permission_blocked_project"), &json!({}), model);
        let bedrock = "You don't have access to the model with the specified model ID.";
        forbidden(None, &json!({"message": bedrock}), model);

        let account = (ErrorKind::Upstream, Origin::Here);
        forbidden(Some("unsupported_country_region_territory"), &json!({}), account);
        let anthropic = "Your API key does not have permission to use the specified resource";
        forbidden(Some("permission_error"), &json!({"error": {"message": anthropic}}), account);
        forbidden(Some("PERMISSION_DENIED"), &json!({"error": {"message": "CANARY"}}), account);
        forbidden(None, &Value::Null, account);
    }

    #[test]
    fn a_key_or_an_account_that_is_refused_with_400_is_not_the_requests_fault() {
        let anthropic = "Your credit balance is too low to access the Anthropic API.";
        let anthropic = json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": anthropic}});
        let gemini = json!({"error": {"code": 400, "status": "INVALID_ARGUMENT",
            "message": "API key not valid. Please pass a valid API key."}});
        let xai = json!({"code": "Client specified an invalid argument",
            "error": "Incorrect API key provided: xa***ey."});
        let of = |code, body: &Value| {
            let error = Refusal { said: Said::of(body), ..refusal(400, code, None) }.error("v/m");
            (error.kind, error.origin, error.retry)
        };
        let account = (ErrorKind::Upstream, Origin::Here, Retry::Elsewhere);
        assert_eq!(of(Some("invalid_request_error"), &anthropic), account);
        assert_eq!(of(Some("INVALID_ARGUMENT"), &gemini), account);
        assert_eq!(of(Some("API_KEY_INVALID"), &Value::Null), account);
        assert_eq!(of(None, &xai), account);
        let far = format!("{}credit balance is too low", "x".repeat(200));
        let request = (ErrorKind::InvalidRequest, Origin::Caller, Retry::No);
        assert_eq!(of(None, &json!({"error": {"message": far}})), request);
    }

    #[test]
    fn who_says_when_to_come_again_is_busy_and_who_does_not_has_failed() {
        for status in [503, 529] {
            let kinds = [Some(7), Some(7200), None].map(|seconds| {
                let error = refusal(status, None, seconds.map(Duration::from_secs)).error("v/m");
                (error.kind, error.origin, error.retry)
            });
            let after = Retry::After(Duration::from_secs(7));
            let hour = Retry::After(LONGEST_WAIT);
            let want = [
                (ErrorKind::Busy, Origin::Upstream, after),
                (ErrorKind::Busy, Origin::Upstream, hour),
                (ErrorKind::Upstream, Origin::Upstream, Retry::Elsewhere),
            ];
            assert_eq!(kinds, want, "{status}");
        }
    }

    #[track_caller]
    fn check(status: u16, code: &str, want: (ErrorKind, Origin, Retry)) {
        let error = refusal(status, Some(code), None).error("v/m");
        assert_eq!((error.kind, error.origin, error.retry), want);
    }

    #[test]
    fn whose_fault_it_is_decides_who_is_asked_next() {
        use ErrorKind::{
            Busy, ContextExceeded, InvalidRequest, NotFound, Timeout, Unsupported, Upstream,
        };
        use Retry::{Elsewhere, No};
        check(400, "invalid_value", (InvalidRequest, Origin::Caller, No));
        check(400, "context_length_exceeded", (ContextExceeded, Origin::Caller, Elsewhere));
        check(413, "", (ContextExceeded, Origin::Caller, Elsewhere));
        check(400, "unsupported", (Unsupported, Origin::Caller, Elsewhere));
        check(400, "unsupported_value", (Unsupported, Origin::Caller, Elsewhere));
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
        check(529, "overloaded_error", (Upstream, Origin::Upstream, Elsewhere));
    }

    #[test]
    fn a_wait_is_believed_for_an_hour() {
        for (seconds, want) in [(7, 7), (7200, 3600), (u64::MAX, 3600)] {
            let retry_after = Some(Duration::from_secs(seconds));
            let error = refusal(429, None, retry_after).error("v/m");
            assert_eq!(error.retry, Retry::After(Duration::from_secs(want)));
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
