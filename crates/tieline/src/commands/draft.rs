//! The draft model of `tieline run`.

use tieline_store::Model;

use crate::app::App;
use crate::args::{Answer, Speculation};
use crate::failure::Failure;

/// The model that is to guess for `model`, pulled where it is not here.
pub(super) fn chosen(app: &App, args: &Answer, model: &Model) -> Result<Option<Model>, Failure> {
    let Some(name) = &args.draft else { return Ok(None) };
    if matches!(args.speculation, Speculation::Off) {
        return Err(Failure::user("a draft model guesses, and --speculation off forbids to")
            .with_hint("leave out one of --draft and --speculation off"));
    }
    let draft = app.installed_or_pulled(name)?;
    if draft.digest == model.digest {
        let problem = format!("{name} cannot guess for itself: it would cost as much as answering");
        return Err(Failure::user(problem)
            .with_hint("take a smaller model of the same family, or leave out --draft"));
    }
    if draft.size >= model.size {
        app.output.warn(&format!(
            "the draft model is no smaller than the model ({} and {}): guessing will hardly pay",
            draft.size, model.size
        ));
    }
    Ok(Some(draft))
}
