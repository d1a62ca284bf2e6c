//! `tieline route explain`

use std::collections::BTreeSet;

use serde::Serialize;
use tieline_router::choose::{self, Decision};

use crate::app::App;
use crate::args::Explain;
use crate::commands::would_leave::{Foreseen, foresee};
use crate::failure::Failure;

/// A decision, for programs.
#[derive(Serialize)]
struct Told<'d> {
    #[serde(flatten)]
    decision: &'d Decision,
    /// Models whose keys cannot be read here.
    no_key_here: &'d BTreeSet<String>,
}

pub(super) fn explain(app: &App, args: &Explain) -> Result<(), Failure> {
    let foreseen = foresee(app, &args.about, args.prompt.clone())?;
    let Foreseen { setup, decision, no_key, .. } = &foreseen;
    if app.output.is_json() {
        return app.output.value(&Told { decision, no_key_here: no_key });
    }
    app.output.line(choose::explain(decision).trim_end())?;
    if !no_key.is_empty() {
        let names: Vec<&str> = no_key.iter().map(String::as_str).collect();
        app.output.line(&format!(
            "no key here: {}; a server that can read it decides as above",
            names.join(", ")
        ))?;
    }
    let check = setup.policy.aliases.get(&decision.asked).and_then(|alias| alias.check.as_ref());
    if let Some((cascade, check)) = decision.cascade.as_ref().zip(check) {
        let program = check.words.first().map_or("", String::as_str);
        let time = check.time.as_secs_f64();
        let first = &cascade.first;
        app.output.line(&format!("what {first} says is judged by {program}, within {time} s"))?;
    }
    Ok(())
}
