//! `tieline pull`

use serde::Serialize;
use tieline_types::{Digest, ModelRef};

use super::list::{Row, trust};
use crate::app::App;
use crate::args::Pull;
use crate::failure::Failure;

#[derive(Serialize)]
struct Report {
    already_here: bool,
    #[serde(flatten)]
    model: Row,
}

pub(super) fn pull(app: &App, args: Pull) -> Result<(), Failure> {
    let reference: ModelRef = args.model.parse()?;
    let expected = args.digest.as_deref().map(str::parse::<Digest>).transpose();
    let expected = expected.map_err(|error| Failure::user(error.to_string()))?;
    let pulled = app.pull(&reference, args.name, expected)?;
    let model = pulled.model;
    if app.output.is_json() {
        return app
            .output
            .value(&Report { already_here: pulled.already_here, model: Row::from(&model) });
    }
    let done = if pulled.already_here { "is already here" } else { "pulled" };
    app.output.talk(&format!(
        "{} {done}: {}, {}, {}",
        model.name,
        model.size,
        trust(model.trust),
        model.source
    ));
    Ok(())
}
