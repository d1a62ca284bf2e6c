//! `tieline route show`

use std::time::Duration;

use tieline_router::choose;
use tieline_router::replay::kept::{self, Attempt, Kept};
use tieline_types::{MicroUsd, Zone};

use crate::app::App;
use crate::failure::{Failure, with_causes};

/// The widest column of names: what comes from a file may be of any length.
const WIDEST: usize = 80;

pub(super) fn show(app: &App, id: &str) -> Result<(), Failure> {
    let found = app.store.decisions_of(id).map_err(|error| Failure::ours(with_causes(&error)))?;
    if found.is_empty() {
        return Err(Failure::user(format!("nothing is on record of a request {id:?}")).with_hint(
            "an answer's header x-tieline-request-id says its id; records are kept for 90 days",
        ));
    }
    let unreadable = |why: kept::Unreadable| {
        Failure::ours(format!("what is on record of request {id} cannot be read: {why}"))
    };
    let rows: Result<Vec<_>, _> = found.into_iter().collect();
    let rows = rows.map_err(|damaged| Failure::ours(damaged.to_string()))?;
    if app.output.is_json() {
        let records: Result<Vec<_>, _> = rows.iter().map(kept::record).collect();
        let mut records = records.map_err(unreadable)?;
        let mut record = records.remove(0);
        if !records.is_empty() {
            record["others"] = records.into();
        }
        return app.output.value(&record);
    }
    // Of several answers to one call the first comes first.
    let texts = rows.iter().rev().map(|row| Kept::read(row).map(|kept| text(&kept)));
    let texts: Vec<String> = texts.collect::<Result<_, _>>().map_err(unreadable)?;
    app.output.line(texts.join("\n\n").trim_end())
}

/// What `tieline route explain` says, and what came of it.
fn text(kept: &Kept) -> String {
    let end = &kept.end;
    let mut lines = match &kept.made {
        Some(made) => vec![choose::explain(&made.decision), "what happened".to_owned()],
        None => vec![
            format!("{} was asked for by its own name: no policy decided", end.decision.model),
            "\nwhat happened".to_owned(),
        ],
    };
    let at = jiff::Timestamp::from_millisecond(kept.at_unix_ms).unwrap_or_default();
    let at = at.strftime("%Y-%m-%d %H:%M:%S UTC");
    lines.push(format!("  {at}, {} ({}), tieline {}", end.operation, end.dialect, kept.program));
    let width = end.tried.iter().map(|one| one.name.chars().count()).max().unwrap_or(0).min(WIDEST);
    lines.extend(end.tried.iter().map(|one| format!("  {}", attempt(one, width))));
    let error = end.error.as_ref().map_or(String::new(), |error| format!(" ({error})"));
    let first = end.first_token_us.map(|first| format!(", first token after {}", seconds(first)));
    let (outcome, total) = (&end.outcome, seconds(end.total_us));
    lines.push(format!("  {outcome}{error} after {total}{}", first.unwrap_or_default()));
    lines.join("\n")
}

fn attempt(one: &Attempt, width: usize) -> String {
    let mut words = vec![format!("{:width$}  {}", one.name, one.ended)];
    words.extend(one.error.clone());
    words.push(seconds(one.total_us));
    if let Some(usage) = one.usage {
        let (read, written) = (usage.prompt_tokens.0, usage.completion_tokens.0);
        words.push(format!("{read} tokens read, {written} written"));
        let cost = one.cost_micro_usd.map(|cost| MicroUsd(cost).to_string());
        let cost = cost.unwrap_or_else(|| "cost unknown".to_owned());
        words.push(format!("{cost} ({})", one.source.as_str()));
    }
    if one.zone > Zone::Host {
        words.push(format!("{} bytes left to {}", one.sent_bytes, one.zone));
        words.push(format!("{} values replaced", one.redacted));
    }
    words.join(", ")
}

fn seconds(micros: u64) -> String {
    format!("{:.3} s", Duration::from_micros(micros).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use tieline_router::replay::Kept;
    use tieline_store::{DecisionRow, Grounds};

    use super::*;

    #[test]
    fn what_no_policy_decided_says_so() {
        let facts = r#"{"dialect":"openai","operation":"chat","decision":{"model":"mock","reason":"named"},
            "plan":null,"asked":null,"tried":[],"outcome":"failed","error":"Timeout","usage":null,
            "first_token_us":null,"total_us":1500000,"now":[]}"#;
        let grounds = Grounds {
            policy: None,
            program: "1.2.3".to_owned(),
            format: 1,
            candidates: "[]".to_owned(),
        };
        let row = DecisionRow {
            id: "1".to_owned(),
            at_unix_ms: 1_790_000_000_000,
            key: String::new(),
            grounds: grounds.into(),
            facts: facts.to_owned(),
        };
        insta::assert_snapshot!(text(&Kept::read(&row).unwrap()), @r"
        mock was asked for by its own name: no policy decided

        what happened
          2026-09-21 14:13:20 UTC, chat (openai), tieline 1.2.3
          failed (Timeout) after 1.500 s
        ");
    }
}
