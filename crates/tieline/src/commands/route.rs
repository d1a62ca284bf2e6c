//! `tieline route`

mod evaluate;

use crate::args::RouteCommand;
use crate::failure::Failure;
use crate::output::Output;

pub(super) fn route(output: &Output, command: &RouteCommand) -> Result<(), Failure> {
    match command {
        RouteCommand::Evaluate(args) => evaluate::evaluate(output, args),
    }
}
