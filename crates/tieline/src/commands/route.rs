//! `tieline route`

mod evaluate;
mod explain;
mod learn;
mod replay;
mod show;

use crate::app::App;
use crate::args::RouteCommand;
use crate::failure::Failure;

pub(super) fn route(app: &App, command: &RouteCommand) -> Result<(), Failure> {
    match command {
        RouteCommand::Explain(args) => explain::explain(app, args),
        RouteCommand::Learn(args) => learn::learn(app, args),
        RouteCommand::Show { id } => show::show(app, id),
        RouteCommand::Replay(args) => replay::replay(app, args),
        RouteCommand::Evaluate(args) => evaluate::evaluate(&app.output, args),
    }
}
