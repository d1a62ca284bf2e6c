//! Draft models, of `tieline run` and of `tieline serve`.

use tieline_store::Model;

use crate::app::App;
use crate::args::{Answer, Speculation};
use crate::failure::Failure;
use crate::output::Output;

/// The model that is to guess for `model`, pulled where it is not here.
pub(super) fn chosen(app: &App, args: &Answer, model: &Model) -> Result<Option<Model>, Failure> {
    let Some(name) = &args.draft else { return Ok(None) };
    if matches!(args.speculation, Speculation::Off) {
        return Err(Failure::user("a draft model guesses, and --speculation off forbids to")
            .with_hint("leave out one of --draft and --speculation off"));
    }
    let draft = app.installed_or_pulled(name)?;
    check(app.output, model, &draft)?;
    Ok(Some(draft))
}

/// Refuses a model as its own draft model, and warns of one that is no smaller.
pub(crate) fn check(output: Output, model: &Model, draft: &Model) -> Result<(), Failure> {
    if draft.digest == model.digest {
        let problem =
            format!("{} cannot guess for itself: it would cost as much as answering", draft.name);
        return Err(Failure::user(problem)
            .with_hint("take a smaller model of the same family, or leave out --draft"));
    }
    if draft.size >= model.size {
        output.warn(&format!(
            "the draft model is no smaller than the model ({} and {}): guessing will hardly pay",
            draft.size, model.size
        ));
    }
    Ok(())
}
