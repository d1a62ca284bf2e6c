//! A decision for people.

use std::fmt::{self, Write};

use tieline_types::{Source, Tokens};

use super::Calibrated;
use super::decision::{Cascade, Decision, Pinned, Reason, RefusalCode, Rejection, Score, TaskHow};
use crate::policy::ClassSource;

/// The widest column of names: what comes from a file may be of any length.
const WIDEST: usize = 80;

/// The decision as plain text: one sentence, who may answer, who may not, and why.
pub fn explain(decision: &Decision) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = write(decision, &mut text);
    text
}

fn write(decision: &Decision, text: &mut String) -> fmt::Result {
    writeln!(text, "{}", sentence(decision))?;
    writeln!(text, "class {}: {}", decision.class, class_why(decision))?;
    let how = match decision.task_how {
        TaskHow::Declared => "the caller said so".to_owned(),
        TaskHow::Alias => "the alias is for it".to_owned(),
        TaskHow::Tool => "the policy has it of a tool that is offered".to_owned(),
        TaskHow::Guessed => {
            format!("it looks so, {:.2} sure", decision.task_sure.unwrap_or_default())
        }
        TaskHow::Default => "nobody knows".to_owned(),
    };
    writeln!(text, "task {}: {how}", decision.task)?;
    if let Some(cascade) = &decision.cascade {
        let (first, then) = (&cascade.first, &cascade.escalate_to);
        let gate = match cascade.calibrated {
            Some(Calibrated { answers, ece }) => format!(
                "calibrated on {answers} answers, calibration error {ece:.3}{}; kept where P(error) is at most {:.3}",
                sampled(cascade),
                cascade.most_error
            ),
            None => "uncalibrated: a cautious rule judges".to_owned(),
        };
        writeln!(text, "cascade: {first} is tried first, and {then} if it is not sure ({gate})")?;
    }
    if !decision.scores.is_empty() {
        writeln!(text, "\nmay answer")?;
        scores(&decision.scores, text)?;
    }
    if !decision.rejections.is_empty() {
        writeln!(text, "\nmay not answer")?;
        let width =
            decision.rejections.iter().map(|one| one.name.chars().count().min(WIDEST)).max();
        for rejection in &decision.rejections {
            write!(text, "  {:width$}  ", rejection.name, width = width.unwrap_or(0))?;
            reason(rejection, text)?;
        }
    }
    writeln!(text, "\npolicy {}", decision.policy.short())
}

fn sampled(cascade: &Cascade) -> String {
    let told = |temperature| format!(" (greedy, and this is asked at temperature {temperature})");
    cascade.sampled_at.map(told).unwrap_or_default()
}

fn sentence(decision: &Decision) -> String {
    let Some(first) = decision.tries.first() else {
        let nearest = decision.refusal.and_then(|refusal| refusal.nearest);
        let why = nearest.map_or("nobody has that name, or this key may not use it", meaning);
        return match decision.refusal.map(|refusal| refusal.code) {
            Some(RefusalCode::NotEligible) => {
                format!(
                    "{} may not answer, and nobody else is asked in its place: {why}",
                    decision.asked
                )
            }
            Some(RefusalCode::NoneEligible | RefusalCode::UnknownModel) | None => {
                format!("nobody may answer {:?}: {why}", decision.asked)
            }
        };
    };
    let (name, zone, treatment, rule) =
        (&first.name, first.zone, first.treatment.as_str(), &first.rule);
    let way = format!("({zone}, {treatment}, rule {rule:?})");
    if decision.cascade.is_some() {
        let why = match decision.scores.first().is_some_and(|best| best.name == *name) {
            true => "its utility is the highest",
            false => "it is of this machine, and its utility is near the highest",
        };
        return format!("{name} is asked first {way}: {why}");
    }
    let why = match (decision.pinned, decision.scores.len()) {
        (Some(Pinned::ToolLoop), _) => "it called the tool whose result comes now",
        (Some(Pinned::Margin), _) => "it answered last, and nobody is better by the margin",
        (None, 1) => "nobody else may",
        (None, _) => "its utility is the highest",
    };
    format!("{name} answers {way}: {why}")
}

/// What asked for the decision's class, in words.
pub fn class_why(decision: &Decision) -> String {
    let highest = decision.class_why.iter().filter(|why| why.class == decision.class);
    let word = |why: &crate::policy::ClassWhy| match why.source {
        ClassSource::Default => "the policy's default".to_owned(),
        ClassSource::Declared => "the caller said so".to_owned(),
        ClassSource::Found => format!("{} in the text", why.rule),
        ClassSource::Rule => format!("rule {:?}", why.rule),
    };
    highest.map(word).collect::<Vec<_>>().join(", ")
}

fn scores(scores: &[Score], text: &mut String) -> fmt::Result {
    let width =
        scores.iter().map(|score| score.name.chars().count()).max().unwrap_or(0).clamp(4, WIDEST);
    let heads = ["utility", "quality", "cost", "deadline", "wait", "switch", "energy"];
    write!(text, "  {:width$}", "name")?;
    for head in heads {
        write!(text, " {head:>8}")?;
    }
    writeln!(text, "  forecast")?;
    for score in scores {
        write!(text, "  {:width$}", score.name)?;
        let terms = [score.cost, score.deadline, score.wait, score.switch, score.energy];
        write!(text, " {:8.3} {:8.3}", score.utility, score.quality)?;
        for term in terms {
            // No minus before what shows as zero.
            write!(text, " {:8.3}", if term < 0.0005 { 0.0 } else { -term })?;
        }
        let forecast = &score.forecast;
        let cost = forecast.cost_p50.map_or("price unknown".to_owned(), |cost| cost.to_string());
        let (first, total) = (forecast.first_token_s, forecast.total_s);
        write!(text, "  {cost}, first token {first:.1} s, all {total:.1} s")?;
        if let Some((dollars, source)) = forecast.here_usd.zip(forecast.here_usd_source) {
            write!(text, ", ${dollars:.6} of power and wear here, {}", source.as_str())?;
        }
        if forecast.queue_s > 0.0 {
            write!(text, ", of it {:.1} s in the queue", forecast.queue_s)?;
        }
        if forecast.cached_tokens > Tokens(0) {
            write!(text, ", about {} of the prompt remembered", forecast.cached_tokens)?;
        }
        let doubts = [("quality", score.quality_source), ("times", forecast.times)];
        for (what, source) in doubts {
            match source {
                Source::Measured => write!(text, ", {what} measured")?,
                Source::Reported => {}
                Source::Estimated => write!(text, ", {what} estimated")?,
                Source::Unknown => write!(text, ", {what} unknown")?,
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

fn reason(rejection: &Rejection, text: &mut String) -> fmt::Result {
    let Rejection { reason, wanted, limit, .. } = rejection;
    write!(text, "{}: {}", reason.as_str(), meaning(*reason))?;
    match (wanted, limit) {
        (Some(wanted), Some(limit)) => writeln!(text, " (wanted {wanted}, there is {limit})"),
        (Some(_) | None, None) | (None, Some(_)) => writeln!(text),
    }
}

fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::NotACandidate => "the name that was asked for does not stand for it",
        Reason::NotAllowedForKey => "this key may not use it",
        Reason::Ambiguous => "two have its name",
        Reason::ClassSecret => "the request is secret, and no rule names that class",
        Reason::ZoneNotAllowed => "no rule lets this class go there",
        Reason::AliasZone => "the alias does not reach so far",
        Reason::Offline => "nothing may leave so far at the moment",
        Reason::Licence => "the policy does not want its licence",
        Reason::Unverified => "its file was not found to be what it should be",
        Reason::Quarantined => "it misbehaved, and a person must look",
        Reason::TokenPromptIsLocalOnly => "tokens mean something to a model of this machine alone",
        Reason::DeterministicIsLocalOnly => "only this machine's engine promises the same answer",
        Reason::NoEmbeddings => "it makes no vectors, as far as is known",
        Reason::EmbeddingsOnly => "it makes vectors and answers nothing",
        Reason::NoRerank => "it scores no texts, as far as is known",
        Reason::RerankOnly => "it scores texts and answers nothing",
        Reason::NoInfill => "it does not fill gaps",
        Reason::NoTools => "it calls no tools, as far as is known",
        Reason::NoVision => "it reads no pictures, as far as is known",
        Reason::NoJsonSchema => "it keeps to no JSON Schema, as far as is known",
        Reason::NoGrammar => "it keeps to no grammar, as far as is known",
        Reason::NoLogprobs => "it tells no probabilities, as far as is known",
        Reason::ContextTooSmall => "the prompt has no room, in tokens",
        Reason::OutputTooLong => "it does not write so much, in tokens",
        Reason::Memory => "it has no room in memory",
        Reason::PriceUnknown => "nobody knows what it costs, and there is a budget",
        Reason::OverBudget => "it may cost more than is left, in millionths of a dollar",
        Reason::BreakerOpen => "it failed lately, and is left alone for some milliseconds",
        Reason::SpacesDiffer => {
            "the name stands for several models whose vectors cannot be compared: name one"
        }
    }
}
