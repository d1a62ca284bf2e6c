//! What a caller asks of any answer by headers, whatever the dialect.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use tieline_router::policy::amount;
use tieline_types::{Class, Overflow, Prompt, Request, Speculation};

use crate::error::ApiError;
use crate::words::{OVERFLOWS, one_of};

const CLASS: &str = "x-tieline-class";
const SPECULATION: &str = "x-tieline-speculation";
const OVERFLOW: &str = "x-tieline-overflow";
const DEADLINE: &str = "x-tieline-deadline";

/// The headers as they came: they are read where there is something to answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    class: Option<HeaderValue>,
    speculation: Option<HeaderValue>,
    overflow: Option<HeaderValue>,
    deadline: Option<HeaderValue>,
}

impl Wishes {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let named = |name: &str| headers.get(name).cloned();
        Self {
            class: named(CLASS),
            speculation: named(SPECULATION),
            overflow: named(OVERFLOW),
            deadline: named(DEADLINE),
        }
    }

    /// Whether a person waits.
    fn class(&self) -> Result<Option<Class>, ApiError> {
        let words = [("interactive", Class::Interactive), ("batch", Class::Batch)];
        one_of(word(&self.class), CLASS, &words)
    }

    /// Puts what is wished into a request, before what its body says of the same.
    ///
    /// # Errors
    /// A header is none of its words.
    pub(crate) fn apply(&self, request: &mut Request) -> Result<(), ApiError> {
        let words = [
            ("auto", Speculation::Auto),
            ("always", Speculation::Always),
            ("off", Speculation::Off),
        ];
        request.speculation =
            one_of(word(&self.speculation), SPECULATION, &words)?.unwrap_or(request.speculation);
        request.class = self.class()?.unwrap_or(request.class);
        request.deadline = request.deadline.into_iter().chain(self.deadline()?).min();
        match one_of(word(&self.overflow), OVERFLOW, &OVERFLOWS)? {
            // A header of every request: what no summary can be made of stays an error.
            Some(Overflow::Compact) if !matches!(request.prompt, Prompt::Chat(_)) => {}
            Some(overflow) if !matches!(request.prompt, Prompt::Texts(_)) => {
                if overflow != Overflow::Error && request.prompt_logprobs.is_some() {
                    let text = format!("echo needs the whole prompt: {OVERFLOW} must be error");
                    return Err(ApiError::invalid(OVERFLOW, text));
                }
                request.overflow = overflow;
            }
            _ => {}
        }
        Ok(())
    }

    /// How long all of it may take.
    fn deadline(&self) -> Result<Option<Duration>, ApiError> {
        let Some(header) = &self.deadline else { return Ok(None) };
        let time = header.to_str().ok().and_then(|text| amount::time(text.trim()).ok());
        // Not the caller's word: it may be anything.
        time.filter(|time| !time.is_zero()).map(Some).ok_or_else(|| {
            let text = format!("{DEADLINE} is no time: expected one such as 500ms, 2s or 5m");
            ApiError::invalid(DEADLINE, text)
        })
    }
}

fn word(header: &Option<HeaderValue>) -> Option<&[u8]> {
    header.as_ref().map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use tieline_types::Texts;

    use super::*;

    fn applied(pairs: &[(&'static str, &'static str)], prompt: Prompt) -> Result<Request, String> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let mut request = Request { class: Class::Batch, ..Request::new(prompt) };
        request.deadline = Some(Duration::from_secs(10));
        Wishes::of(&headers.collect()).apply(&mut request).map_err(|error| format!("{error:?}"))?;
        Ok(request)
    }

    fn text() -> Prompt {
        Prompt::Text("a".into())
    }

    #[test]
    fn headers_go_before_the_body() {
        let none = applied(&[], text()).unwrap();
        assert_eq!((none.class, none.overflow), (Class::Batch, Overflow::Error));
        let pairs = [(CLASS, "interactive"), (OVERFLOW, "compact"), (SPECULATION, "off")];
        let all = applied(&pairs, Prompt::Chat(Vec::new())).unwrap();
        let want = (Class::Interactive, Overflow::Compact, Speculation::Off);
        assert_eq!((all.class, all.overflow, all.speculation), want);
        // A text has no middle to sum up.
        assert_eq!(applied(&pairs, text()).unwrap().overflow, Overflow::Error);
        let dropped = applied(&[(OVERFLOW, "drop_oldest")], text()).unwrap();
        assert_eq!(dropped.overflow, Overflow::DropOldest);
    }

    #[test]
    fn the_earliest_deadline_holds() {
        let deadline = |text_of| applied(&[(DEADLINE, text_of)], text()).unwrap().deadline;
        assert_eq!(deadline("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(deadline("1h"), Some(Duration::from_secs(10)));
    }

    #[test]
    fn other_words_are_refused() {
        for (name, word) in [
            (CLASS, "Batch"),
            (SPECULATION, ""),
            (OVERFLOW, "drop"),
            (DEADLINE, "2"),
            (DEADLINE, "0s"),
        ] {
            let error = applied(&[(name, word)], text()).unwrap_err();
            assert!(error.contains(name) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn what_needs_the_whole_prompt_keeps_it() {
        let mut request = Request { prompt_logprobs: Some(0), ..Request::new(text()) };
        let headers = HeaderMap::from_iter([(
            OVERFLOW.parse().unwrap(),
            HeaderValue::from_static("drop_oldest"),
        )]);
        assert!(Wishes::of(&headers).apply(&mut request).is_err());
        // Vectors have a member of their own for it, or none.
        let texts = applied(&[(OVERFLOW, "drop_oldest")], Prompt::Texts(Texts::new(["a"])));
        assert_eq!(texts.unwrap().overflow, Overflow::Error);
    }
}
