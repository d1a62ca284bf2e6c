//! Tieline's command line, and the one place where its parts are put together.
//!
//! It alone reads arguments and environment variables, prints, and decides the exit code: 0 done, 1 the
//! user must act, 2 our fault or the machine's, 130 interrupted.

mod answer;
mod app;
mod args;
mod bars;
mod commands;
mod env;
mod failure;
mod output;
mod sessions;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::Args;
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return unparsed(&error),
    };
    let output = Output::new(args.global.json, args.global.quiet);
    match commands::dispatch(args, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// Help and version are answers; anything else is for the user to mend, which is exit code 1.
fn unparsed(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell if this fails.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(Failure::USER),
    }
}
