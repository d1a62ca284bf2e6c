//! One file for each command.

mod bench;
mod calibrate;
mod certify;
mod chat;
mod choices;
mod cost;
mod doctor;
pub(crate) mod draft;
mod engine;
mod key;
pub(crate) mod kv_cost;
mod launch;
mod list;
mod load_params;
mod made;
mod plan;
mod policy;
pub(crate) mod prices;
mod ps;
mod pull;
mod push;
mod quarantine;
mod receipt;
mod reference;
mod replay;
mod rm;
mod route;
mod rule;
mod run;
mod serve;
mod show;
mod turn;
mod would_leave;

use clap::CommandFactory;

use crate::app::App;
use crate::args::{Args, Command};
use crate::failure::Failure;
use crate::output::Output;

/// Does what the user asked.
pub(crate) fn dispatch(args: Args, output: &Output) -> Result<(), Failure> {
    match args.command {
        // These need no store.
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "tieline", &mut text);
            output.data(&String::from_utf8_lossy(&text))
        }
        Command::Man => output.data(&reference::manual()?),
        Command::Reference => output.data(&reference::markdown()),
        command => {
            let app = App::new(args.global, *output)?;
            let result = match command {
                Command::Pull(args) => pull::pull(&app, args),
                Command::Push(args) => push::push(&app, &args),
                Command::List => list::list(&app),
                Command::Show(args) => show::show(&app, &args),
                Command::Rm(args) => rm::rm(&app, &args),
                Command::Run(args) => run::run(&app, &args),
                Command::Serve(args) => serve::serve(&app, &args),
                Command::Key { command } => key::key(&app, &command),
                Command::Launch(args) => launch::launch(&app, &args),
                Command::Replay(args) => replay::replay(&app, &args),
                Command::Certify(args) => certify::certify(&app, &args),
                Command::Plan(args) => plan::plan(&app, &args),
                Command::Quarantine { command } => quarantine::quarantine(&app, &command),
                Command::Prices { command } => prices::prices(&app, &command),
                Command::Policy { command } => policy::policy(&app, &command),
                Command::WouldLeave(args) => would_leave::would_leave(&app, &args),
                Command::Route { command } => route::route(&app, &command),
                Command::Engine { command } => engine::engine(&app, &command),
                Command::Ps { left: false } => ps::ps(&app),
                Command::Ps { left: true } => ps::left(&app),
                Command::Cost(args) => cost::cost(&app, args),
                Command::Doctor => doctor::doctor(&app),
                Command::Bench(args) => bench::bench(&app, &args),
                Command::Calibrate(args) => calibrate::calibrate(&app, &args),
                Command::Completions { .. } | Command::Man | Command::Reference => Ok(()),
            };
            app.end();
            result
        }
    }
}
