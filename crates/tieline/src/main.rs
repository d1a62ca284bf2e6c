//! Tieline's command line, and the one place where its parts are put together.
//!
//! It alone reads arguments and environment variables, prints, and decides the exit code: 0 done, 1 the
//! user must act, 2 our fault or the machine's, 130 interrupted.

mod answer;
mod app;
mod args;
mod bars;
mod commands;
mod composed;
mod crashes;
mod env;
mod failure;
mod log;
mod names;
mod output;
mod plain;
mod planning;
mod prompts;
mod runner;
mod screen;
mod serving;
mod sessions;
mod switching;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;

use args::Args;
use failure::Failure;
use output::Output;

/// A request's memory is taken by one thread and often given back by another, which this allocator is made for: the
/// processor time of a busy server for a request is a fifth less than with glibc's (bench/RESULTS.md).
#[cfg(target_os = "linux")]
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a defect says: where it is, and not the message, which may repeat a prompt.
fn say_where(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr().lock(), "error: a defect of ours at {place}");
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(say_where));
    let args = match Args::read(std::env::args_os().collect()) {
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
    // Nobody is left to tell if one of these fails.
    let _ = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        _ if std::env::args_os().any(|arg| arg == "--json") => {
            Output::new(true, false).failure(&misused(error));
            Ok(())
        }
        // Where a variable stands for a flag, clap takes that for arguments and shows no help.
        ErrorKind::MissingSubcommand => {
            write!(io::stderr().lock(), "{}", Args::command().render_help())
        }
        _ => error.print(),
    };
    ExitCode::from(Failure::USER)
}

/// What is wrong with the arguments, without the usage that clap shows to people.
fn misused(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let problem = text.split("\n\n").next().unwrap_or_default();
    let problem: Vec<&str> = problem.lines().map(str::trim).collect();
    let problem = problem.join(" ");
    Failure::user(problem.trim_start_matches("error: ")).with_hint("--help shows what is expected")
}
