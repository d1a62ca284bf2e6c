//! Who calls.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue};
use tieline_router::{Again, Hints};
use tieline_types::{DataClass, Owner};

use crate::wishes::Wishes;

/// The key that asks, as the door found it; without one, this machine's user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Principal {
    /// The key's id; empty: this machine's user.
    pub(crate) id: String,
    /// What its owner calls the key.
    pub(crate) label: Option<String>,
    /// The models that it may ask; `None`: all.
    pub(crate) models: Option<Arc<[String]>>,
    /// A key that may have models answer, and may not say which of them are in memory.
    pub(crate) guest: bool,
}

/// Tells a call apart from all others. Given to it before its handler, so that errors have it too.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// A new one.
    pub(crate) fn new() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("none"))
    }

    /// The call's own; a new one where it has none yet.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_else(Self::new)
    }
}

/// A call's own facts.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    /// Tells this call apart from all others, in the answer's header, the log and the ledger.
    pub(crate) request_id: String,
    /// What it says of itself for the choice of who answers.
    pub(crate) hints: Hints,
    /// What it asks of any answer.
    pub(crate) wishes: Wishes,
}

impl Caller {
    /// Whose work it is.
    pub(crate) fn owner(&self) -> Owner {
        Owner(self.principal.id.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let principal = parts.extensions.get::<Principal>().cloned().unwrap_or_default();
        let request_id = RequestId::of(&parts.extensions).0;
        let wishes = Wishes::of(&parts.headers);
        Ok(Self { principal, request_id, hints: hints(&parts.headers), wishes })
    }
}

/// Headers of ours, and the client's name: what policies may read. The longest that is read, in bytes.
const HINT: usize = 1024;
/// The longest `traceparent`: those of later versions may be longer than today's.
const TRACE: usize = 128;

fn hints(headers: &HeaderMap) -> Hints {
    let mut hints = Hints::default();
    for (name, value) in headers {
        let name = name.as_str();
        let ours = name.strip_prefix("x-tieline-");
        let Ok(value) = value.to_str() else {
            // What cannot be read declares something all the same: the router refuses it.
            if ours == Some("data-class") {
                hints.data_class = Some(String::new());
            }
            continue;
        };
        if name == "cache-control" {
            hints.again = hints.again.max(again(value));
        }
        if name == "traceparent" && value.len() <= TRACE {
            hints.trace_parent = Some(value.to_owned());
        }
        if ours == Some("data-class") {
            hints.data_class = Some(strictest(hints.data_class.take(), value));
        }
        if (ours.is_none() && name != "user-agent") || value.len() > HINT {
            continue;
        }
        let kept = || Some(value.to_owned());
        match ours {
            Some("task") => hints.task = kept(),
            Some("project") => hints.project = kept(),
            Some("path") => hints.path = kept(),
            Some("session") => hints.session = kept(),
            Some("first-token") => hints.first_token = kept(),
            Some("deadline") => hints.deadline = kept(),
            _ => {}
        }
        hints.headers.push((name.to_owned(), value.to_owned()));
    }
    hints
}

/// What several words for the class come to: the strictest class, or a word that is none, which the router refuses.
fn strictest(before: Option<String>, word: &str) -> String {
    // What is too long to be read is no class.
    let word = if word.len() > HINT { "" } else { word };
    let Some(before) = before else { return word.to_owned() };
    match (before.parse::<DataClass>(), word.parse()) {
        (Ok(one), Ok(other)) => one.max(other).as_str().to_owned(),
        (Ok(_), Err(_)) => word.to_owned(),
        (Err(_), _) => before,
    }
}

/// What a caller wants of kept answers, in HTTP's own words.
fn again(value: &str) -> Again {
    let words = value.split(',').map(str::trim);
    let all = words.map(|word| match word {
        _ if word.eq_ignore_ascii_case("no-store") => Again::Never,
        _ if word.eq_ignore_ascii_case("no-cache") => Again::Fresh,
        _ => Again::Welcome,
    });
    all.max().unwrap_or_default()
}

impl Caller {
    /// Whether the caller may ask this model.
    pub(crate) fn may_ask(&self, model: &str) -> bool {
        self.principal.models.as_ref().is_none_or(|all| all.iter().any(|name| name == model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &[&str], want: Option<&str>) {
        let mut headers = HeaderMap::new();
        for word in words {
            headers.append("x-tieline-data-class", HeaderValue::from_str(word).unwrap());
        }
        assert_eq!(hints(&headers).data_class.as_deref(), want, "{words:?}");
    }

    #[test]
    fn of_several_classes_the_strictest_counts() {
        check(&[], None);
        check(&["public"], Some("public"));
        check(&["secret", "public"], Some("secret"));
        check(&["public", "private", "internal"], Some("private"));
    }

    #[test]
    fn what_is_no_class_is_not_overheard() {
        let long = "x".repeat(HINT + 1);
        check(&[&long], Some(""));
        check(&[&long, "public"], Some(""));
        check(&["public", &long], Some(""));
        check(&["nonsense", "secret"], Some("nonsense"));
        check(&["secret", "nonsense"], Some("nonsense"));
        check(&["public, secret"], Some("public, secret"));
    }
}
