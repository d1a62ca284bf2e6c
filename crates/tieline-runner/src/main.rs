//! Runs one model in a child process.
//!
//! The engine starts this program with the model open at file descriptor 3 and talks to it over
//! standard input and output in the frames of [`tieline_types::wire`]. It opens no file and no socket
//! of its own, writes nothing but frames, and ends when its input ends.

mod answer;
mod control;
mod crew;
mod desk;
mod drafter;
mod embed;
mod fetcher;
mod gap;
mod grammar;
mod jail;
mod keeper;
mod kv;
mod llama;
mod logprobs;
mod measure;
mod others;
mod parcel;
mod pipe;
mod plan;
mod preparer;
mod process;
mod prompt;
mod receipt;
mod score;
mod serve;
mod session;
mod speech;
mod stop;
mod template;
mod utf8;

use std::process::ExitCode;

use serve::ServeError;
use tieline_types::Jail;

fn main() -> ExitCode {
    #[cfg(all(feature = "attacks", target_os = "linux"))]
    if jail::attacks::asked() {
        return ExitCode::SUCCESS;
    }
    let mut jail = jail::before();
    match serve::Given::take().and_then(|given| {
        given.lock(&mut jail);
        run(given, jail)
    }) {
        // A text may still be tokenised.
        Ok(()) => process::exit_now(0),
        Err(error) => {
            process::complain(&error);
            process::exit_now(2)
        }
    }
}

/// Serves on a thread of its own for the size of its stack, of which untouched pages cost nothing.
fn run(given: serve::Given, jail: Jail) -> Result<(), ServeError> {
    let server = std::thread::Builder::new().name("server".to_owned()).stack_size(prompt::STACK);
    let served = server.spawn(|| serve::serve(given, jail)).map_err(ServeError::Start);
    // A panic has said why already.
    served.and_then(|thread| thread.join().unwrap_or(Err(ServeError::Panicked)))
}
