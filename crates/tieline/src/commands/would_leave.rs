//! `tieline would-leave`

mod about;
mod text;

use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_json::json;
use tieline_privacy::{Egress, Preview, Treatment, would_leave as preview};
use tieline_router::choose::{RefusalCode, Try, class_why};
use tieline_router::policy::{Classify, Policy};
use tieline_router::switch;
use tieline_types::{BackendError, DataClass, MicroUsd, Zone};

pub(super) use self::about::{Foreseen, foresee};
use crate::app::App;
use crate::args::{About, WouldLeave};
use crate::failure::Failure;

/// The longest text that is looked through, in bytes.
const MOST: u64 = 16 << 20;

/// When somebody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum When {
    First,
    /// Where the first is not sure of its answer.
    Escalation,
    /// Where those before it are slow or fail: the policy lets two be asked at once.
    Hedge,
    /// Where those before it fail.
    Fallback,
    /// Where others are busy, fail or cannot be asked.
    OthersFail,
}

/// A way out: where to, how, and by which rule.
struct Way<'f> {
    when: When,
    one: &'f Try,
    /// All who are reached so.
    names: Vec<&'f str>,
    /// What would leave, or why nothing does.
    shown: Result<Preview, BackendError>,
}

pub(super) fn would_leave(app: &App, args: &WouldLeave) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let foreseen = foresee(app, &args.about, text)?;
    let unknown = foreseen.decision.refusal.map(|refusal| refusal.code);
    if unknown == Some(RefusalCode::UnknownModel) && !foreseen.policy().concerns(&args.about.model)
    {
        let name = &args.about.model;
        return Err(Failure::user(format!("no model or alias of the name {name:?} may be asked"))
            .with_hint("`tieline list` shows the models here, `tieline policy check` the others"));
    }
    let untold = untold(foreseen.policy(), &args.about);
    if !untold.is_empty() {
        app.output.warn(&format!(
            "the policy goes by more than the text, and this is of a client that tells none of it: {}",
            untold.join(", ")
        ));
    }
    let mut ways = ways(&foreseen);
    if ways.is_empty() {
        return stays(app, &foreseen, &untold);
    }
    if ways.iter().all(|way| way.shown.is_err())
        && let Err(error) = ways.remove(0).shown
    {
        return Err(error.into());
    }
    if app.output.is_json() {
        return app.output.value(&value((&foreseen, &untold), &ways));
    }
    text::show(&app.output, &foreseen, &ways)
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::user(format!("cannot read {}: {error}", file.display()));
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(MOST + 1).read_to_string(&mut text).map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(MOST + 1).read_to_string(&mut text).map_err(failed)?;
    }
    match text.len() as u64 > MOST {
        true => Err(Failure::user("the text is longer than 16 MiB")),
        false => Ok(text),
    }
}

/// Every way out, the likeliest first.
fn ways(foreseen: &Foreseen) -> Vec<Way<'_>> {
    let mut ways: Vec<Way<'_>> = Vec::new();
    for (when, one) in foreseen.order().into_iter().filter(|(_, one)| one.zone > Zone::Host) {
        let same = |way: &&mut Way<'_>| {
            let other = way.one;
            way.when == when
                && (other.zone, other.treatment, &other.rule)
                    == (one.zone, one.treatment, &one.rule)
        };
        if let Some(way) = ways.iter_mut().find(same) {
            way.names.push(&one.name);
            continue;
        }
        let release = switch::release(one, "would-leave");
        let shown = preview(&foreseen.request, &release, &foreseen.setup.guard);
        ways.push(Way { when, one, names: vec![&one.name], shown });
    }
    ways
}

impl Foreseen {
    /// All who may answer, in the order in which they are asked.
    fn order(&self) -> Vec<(When, &Try)> {
        let tries = self.decision.tries.len();
        let (tried, others) = self.everybody.split_at(tries.min(self.everybody.len()));
        let escalates = usize::from(self.decision.cascade.is_some());
        let hedges = self.policy().hedge.day > MicroUsd::ZERO;
        let when = |at: usize| match at {
            0 => When::First,
            1 if escalates == 1 => When::Escalation,
            // Of those left the first two are asked at once.
            at if hedges && at == 1 + escalates => When::Hedge,
            _ => When::Fallback,
        };
        let tried = tried.iter().enumerate().map(|(at, one)| (when(at), one));
        tried.chain(others.iter().map(|one| (When::OthersFail, one))).collect()
    }
}

fn stays(app: &App, foreseen: &Foreseen, untold: &[&str]) -> Result<(), Failure> {
    let decision = &foreseen.decision;
    if app.output.is_json() {
        let value = json!({ "leaves": false, "class": decision.class, "untold": untold,
            "offline": foreseen.setup.offline, "decision": decision });
        return app.output.value(&value);
    }
    let (class, why) = (decision.class, class_why(decision));
    let offline = if foreseen.setup.offline { "; nobody else is asked while offline" } else { "" };
    app.output.line(&format!(
        "nothing would leave: the text is {class} ({why}), and stays on this machine{offline}"
    ))?;
    app.output.talk("hint: `tieline route explain` says of each model why it may not have it");
    Ok(())
}

/// What the policy goes by that was not said, as options of this command.
fn untold(policy: &Policy, about: &About) -> Vec<&'static str> {
    let any = |has: fn(&Classify) -> bool| policy.classify.iter().any(has);
    let keyed =
        any(|one| !one.key.is_empty()) || policy.rules.iter().any(|one| !one.keys.is_empty());
    let all = [
        ("--key", about.key.is_none() && keyed),
        ("--label", about.label.is_empty() && any(|one| !one.label.is_empty())),
        ("--path", about.path.is_none() && any(|one| !one.path.is_empty())),
        ("--project", about.project.is_none() && any(|one| !one.project.is_empty())),
    ];
    all.into_iter().filter(|(_, lacks)| *lacks).map(|(option, _)| option).collect()
}

/// One surface of a text, as it would leave.
#[derive(Serialize)]
struct Shown {
    surface: String,
    text: String,
}

/// A way out, for programs.
#[derive(Serialize)]
struct WayOut<'w> {
    when: When,
    to: &'w [&'w str],
    /// Those of them whose key cannot be read here.
    no_key_here: Vec<&'w str>,
    zone: Zone,
    #[serde(rename = "as")]
    treatment: Treatment,
    rule: &'w str,
    surfaces: Vec<Shown>,
    egress: Option<&'w Egress>,
    /// Why nothing leaves by it.
    refused: Option<String>,
}

/// The first way that lets something leave, as members of its own.
#[derive(Serialize)]
struct Leaving<'w> {
    leaves: bool,
    to: &'w str,
    zone: Zone,
    class: DataClass,
    #[serde(rename = "as")]
    treatment: Treatment,
    surfaces: Vec<Shown>,
    egress: &'w Egress,
    /// What the policy goes by that was not said.
    untold: &'w [&'static str],
    ways: Vec<WayOut<'w>>,
}

fn value<'w>(
    (foreseen, untold): (&'w Foreseen, &'w [&'static str]),
    ways: &'w [Way<'_>],
) -> Option<Leaving<'w>> {
    let open = ways.iter().find_map(|way| Some((way.one, way.shown.as_ref().ok()?)));
    open.map(|(one, shown)| Leaving {
        leaves: true,
        to: &one.name,
        zone: one.zone,
        class: foreseen.decision.class,
        treatment: one.treatment,
        surfaces: surfaces(shown),
        egress: &shown.egress,
        untold,
        ways: ways.iter().map(|way| way_out(foreseen, way)).collect(),
    })
}

fn way_out<'w>(foreseen: &'w Foreseen, way: &'w Way<'_>) -> WayOut<'w> {
    let shown = way.shown.as_ref();
    WayOut {
        when: way.when,
        to: &way.names,
        no_key_here: foreseen.without_key(&way.names),
        zone: way.one.zone,
        treatment: way.one.treatment,
        rule: &way.one.rule,
        surfaces: shown.map(surfaces).unwrap_or_default(),
        egress: shown.ok().map(|shown| &shown.egress),
        refused: shown.err().map(ToString::to_string),
    }
}

fn surfaces(shown: &Preview) -> Vec<Shown> {
    let all = shown.surfaces.iter();
    all.map(|(surface, text)| Shown {
        surface: surface.to_string(),
        text: text.expose().to_owned(),
    })
    .collect()
}
