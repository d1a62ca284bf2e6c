//! The words of OpenTelemetry's conventions for generative AI: metrics and spans say the same.

use tieline_router::{Record, Tried};

/// Who answers, whatever model does.
pub(crate) const PROVIDER: &str = "tieline";

/// The conventions' name of an operation; ours where they have none.
pub(crate) fn operation(ours: &str) -> &str {
    match ours {
        "completion" | "generate" | "infill" => "text_completion",
        "embedding" | "embed" => "embeddings",
        "responses" | "messages" => "chat",
        other => other,
    }
}

/// Who answered: a model that was loaded here, or one that a policy knows. `None` where there was no answer.
pub(crate) fn answered(record: &Record) -> Option<&str> {
    if record.digest.is_some() {
        return Some(&record.decision.model);
    }
    let gave = |tried: &&Tried| tried.ended == "answered" || tried.ended == "kept";
    record.tried.iter().rev().find(gave).map(|tried| tried.name.as_str())
}

/// The model that was asked for. A name that nobody has is `unknown`.
pub(crate) fn requested(record: &Record) -> &str {
    record.plan.as_ref().map_or(&record.decision.model, |plan| &plan.asked)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tieline_router::choose::{Asked, decide};
    use tieline_router::{AskedFor, Decision, Outcome, Policy};

    use super::*;

    /// A request for the alias `code`, which nobody answered.
    fn record() -> Record {
        let policy = Policy::parse("[models.code]\ntask = \"code\"").unwrap();
        let asked = Asked { asked: "code".to_owned(), ..Asked::default() };
        Record {
            id: "r".to_owned(),
            at_unix_ms: 5,
            key: String::new(),
            dialect: "openai",
            operation: "chat",
            decision: Decision { model: "cloud/big".to_owned(), reason: "chosen" },
            plan: Some(Arc::new(decide(&policy, &asked, &[]))),
            asked: Some(asked),
            tried: Vec::new(),
            cached: false,
            saved_micro_usd: None,
            hedge: None,
            digest: None,
            outcome: Outcome::Failed,
            error: None,
            usage: None,
            first_token_us: None,
            total_us: 2,
            asked_for: AskedFor::default(),
            finish: None,
            trace_parent: None,
        }
    }

    #[test]
    fn an_alias_is_what_was_asked_for_and_who_answered_is_another() {
        let refused = record();
        assert_eq!((requested(&refused), answered(&refused)), ("code", None));
        let here = Record { plan: None, digest: Some(tieline_types::Digest([1; 32])), ..refused };
        assert_eq!((requested(&here), answered(&here)), ("cloud/big", Some("cloud/big")));
    }
}
