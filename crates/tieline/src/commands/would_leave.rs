//! `tieline would-leave` and what it shares with `tieline route explain`

use std::io::Read;
use std::path::Path;

use serde_json::json;
use tieline_privacy::{Preview, would_leave as preview};
use tieline_router::choose::{Decision, Try, class_why};
use tieline_router::{Call, Hints, Setup, switch};
use tieline_types::{Message, Prompt, Request, Role, Tokens, Wanted, Zone};

use crate::app::App;
use crate::args::{About, WouldLeave};
use crate::failure::{Failure, with_causes};
use crate::serving;
use crate::switching::{Place, Workshop};

/// The longest text that is looked through, in bytes.
const MOST: u64 = 16 << 20;

pub(super) fn would_leave(app: &App, args: &WouldLeave) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let (setup, decision, request) = decided(app, &args.about, text)?;
    let away = decision.tries.iter().find(|one| one.zone > Zone::Host);
    let Some(away) = away else { return stays(app, &decision) };
    let release = switch::release(away, "would-leave");
    let shown = preview(&request, &release, &setup.guard)?;
    show(app, away, &decision, &shown)
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

/// What the policy decides about this text.
pub(super) fn decided(
    app: &App,
    about: &About,
    text: String,
) -> Result<(Setup, Decision, Request), Failure> {
    let (setup, left_out) = Workshop::new(app, None)?.setup(Place::of(app).policy()?)?;
    for failure in left_out {
        app.output.warn(&failure.message);
    }
    let request = Request {
        max_tokens: about.max_tokens.map(Tokens),
        ..Request::new(Prompt::Chat(vec![Message::new(Role::User, text)]))
    };
    let call = Call {
        id: String::new(),
        key: String::new(),
        label: None,
        allowed: None,
        dialect: "cli",
        operation: "chat",
        wanted: Wanted::named(&about.model),
        hints: Hints {
            data_class: about.class.map(|class| class.as_str().to_owned()),
            task: about.task.clone(),
            project: about.project.clone(),
            path: about.path.clone(),
            ..Hints::default()
        },
    };
    let learned = app.store.learned().map_err(|error| Failure::ours(with_causes(&error)))?;
    let local = (&serving::cards(app)?[..], &learned[..]);
    let decision = switch::preview(&setup, local, (&call, &request))?;
    Ok((setup, decision, request))
}

fn stays(app: &App, decision: &Decision) -> Result<(), Failure> {
    if app.output.is_json() {
        let value = json!({ "leaves": false, "class": decision.class, "decision": decision });
        return app.output.value(&value);
    }
    let (class, why) = (decision.class, class_why(decision));
    app.output.line(&format!(
        "nothing would leave: the text is {class} ({why}), and stays on this machine"
    ))?;
    app.output.talk("hint: `tieline route explain` says of each model why it may not have it");
    Ok(())
}

fn show(app: &App, away: &Try, decision: &Decision, shown: &Preview) -> Result<(), Failure> {
    let egress = &shown.egress;
    if app.output.is_json() {
        let surfaces: Vec<_> = shown
            .surfaces
            .iter()
            .map(|(surface, text)| json!({ "surface": surface.to_string(), "text": text.expose() }))
            .collect();
        return app.output.value(&json!({
            "leaves": true, "to": away.name, "zone": away.zone, "class": decision.class,
            "as": away.treatment, "surfaces": surfaces, "egress": egress,
        }));
    }
    for (surface, text) in &shown.surfaces {
        app.output.talk(&format!("{surface}:"));
        app.output.line(text.expose())?;
    }
    let replaced: Vec<String> =
        egress.replaced.iter().map(|(entity, count)| format!("{count} {entity}")).collect();
    let replaced = if replaced.is_empty() { "nothing".to_owned() } else { replaced.join(", ") };
    app.output.talk(&format!(
        "{} bytes would leave to {} ({}) by rule {:?}; the text is {}; replaced: {replaced}",
        egress.bytes, away.name, away.zone, egress.rule, decision.class
    ));
    Ok(())
}
