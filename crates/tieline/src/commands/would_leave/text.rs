//! What would leave, for people.

use tieline_privacy::Preview;

use super::{Foreseen, Way, When};
use crate::failure::Failure;
use crate::output::Output;

/// Each text once, and below it whom it could reach.
pub(super) fn show(output: &Output, foreseen: &Foreseen, ways: &[Way<'_>]) -> Result<(), Failure> {
    let mut treatments = Vec::new();
    for way in ways {
        if !treatments.contains(&way.one.treatment) {
            treatments.push(way.one.treatment);
        }
    }
    if let Some((When::First, first)) = foreseen.order().first()
        && ways.iter().all(|way| way.when != When::First)
    {
        output.talk(&format!("{} of this machine is asked first", first.name));
    }
    for treatment in treatments {
        let same = || ways.iter().filter(move |way| way.one.treatment == treatment);
        if let Some(shown) = same().find_map(|way| way.shown.as_ref().ok()) {
            surfaces(output, shown)?;
        }
        for way in same() {
            output.talk(&reach(foreseen, way));
        }
    }
    Ok(())
}

fn surfaces(output: &Output, shown: &Preview) -> Result<(), Failure> {
    for (surface, text) in &shown.surfaces {
        output.talk(&format!("{surface}:"));
        output.line(text.expose())?;
    }
    Ok(())
}

fn reach(foreseen: &Foreseen, way: &Way<'_>) -> String {
    let (zone, rule, when) = (way.one.zone, &way.one.rule, words(way.when));
    let names: Vec<String> = way.names.iter().map(|name| named(foreseen, name)).collect();
    let names = names.join(", ");
    let shown = match &way.shown {
        Ok(shown) => shown,
        Err(error) => {
            return format!(
                "{when}: nothing would leave to {names} ({zone}) by rule {rule:?}: {error}"
            );
        }
    };
    let egress = &shown.egress;
    let replaced: Vec<String> =
        egress.replaced.iter().map(|(entity, count)| format!("{count} {entity}")).collect();
    let replaced = if replaced.is_empty() { "nothing".to_owned() } else { replaced.join(", ") };
    format!(
        "{when}: {} bytes would leave to {names} ({zone}) by rule {rule:?}; the text is {}; replaced: {replaced}",
        egress.bytes, foreseen.decision.class
    )
}

fn named(foreseen: &Foreseen, name: &str) -> String {
    match foreseen.no_key.contains(name) {
        true => format!("{name} (its key cannot be read here)"),
        false => name.to_owned(),
    }
}

fn words(when: When) -> &'static str {
    match when {
        When::First => "first",
        When::Escalation => "where the first is not sure",
        When::Hedge => "where the first is slow or fails",
        When::Fallback => "where the first fails",
        When::OthersFail => "only if others fail",
    }
}
