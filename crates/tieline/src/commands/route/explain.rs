//! `tieline route explain`

use tieline_router::choose;

use crate::app::App;
use crate::args::Explain;
use crate::commands::would_leave::decided;
use crate::failure::Failure;

pub(super) fn explain(app: &App, args: &Explain) -> Result<(), Failure> {
    let (_, decision, _) = decided(app, &args.about, args.prompt.clone())?;
    if app.output.is_json() {
        return app.output.value(&decision);
    }
    app.output.line(choose::explain(&decision).trim_end())
}
