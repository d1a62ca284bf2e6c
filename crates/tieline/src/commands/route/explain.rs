//! `tieline route explain`

use tieline_router::choose;

use crate::app::App;
use crate::args::Explain;
use crate::commands::would_leave::decided;
use crate::failure::Failure;

pub(super) fn explain(app: &App, args: &Explain) -> Result<(), Failure> {
    let (setup, decision, _) = decided(app, &args.about, args.prompt.clone())?;
    if app.output.is_json() {
        return app.output.value(&decision);
    }
    app.output.line(choose::explain(&decision).trim_end())?;
    let check = setup.policy.aliases.get(&decision.asked).and_then(|alias| alias.check.as_ref());
    if let Some((cascade, check)) = decision.cascade.as_ref().zip(check) {
        let program = check.words.first().map_or("", String::as_str);
        let time = check.time.as_secs_f64();
        let first = &cascade.first;
        app.output.line(&format!("what {first} says is judged by {program}, within {time} s"))?;
    }
    Ok(())
}
