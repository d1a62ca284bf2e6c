//! The manual page and the command reference, both made of the arguments' own definitions.

use clap::{Command, CommandFactory};

use crate::args::Args;
use crate::env;
use crate::failure::Failure;

/// The manual page, in roff: the program, then each command.
pub(super) fn manual() -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::ours(format!("cannot write the manual page: {error}"));
    let mut command = Args::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let man = clap_mangen::Man::new(sub.clone());
        man.render_name_section(&mut page).map_err(failed)?;
        man.render_synopsis_section(&mut page).map_err(failed)?;
        man.render_options_section(&mut page).map_err(failed)?;
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The command reference: the help of each command, the environment, the exit codes.
pub(super) fn markdown() -> String {
    let mut command = Args::command().term_width(96);
    command.build();
    let mut text = "# Command reference\n\nMade by `tieline reference`; do not edit.\n".to_owned();
    text += &section("tieline", &mut command.clone());
    let is_shown = |sub: &Command| !sub.is_hide_set() && sub.get_name() != "help";
    for sub in command.get_subcommands_mut().filter(|sub| is_shown(sub)) {
        let name = format!("tieline {}", sub.get_name());
        text += &section(&name, &mut sub.clone().term_width(96));
    }
    text += "\n## Environment\n\n| variable | meaning |\n|---|---|\n";
    for (name, meaning) in env::ALL {
        text += &format!("| `{name}` | {meaning} |\n");
    }
    text += "\n## Exit codes\n\n| code | meaning |\n|---|---|\n| 0 | done |\n| 1 | you must act: the message says what to do |\n| 2 | our fault or the machine's |\n| 130 | interrupted by Ctrl-C |\n";
    text
}

fn section(name: &str, command: &mut Command) -> String {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end())
}
