//! A conversation at a real terminal.

use std::path::Path;
use std::process::{Command, Output};

use super::home::{ANSWER, Home, QUESTION, SYSTEM};

/// Plays `steps`, each of them ("see", text) or ("type", text), with `tieline run smollm2`.
pub(crate) fn converse(home: &Home, runner: &Path, steps: &[(&str, &str)]) -> Output {
    let script = testkit::root().join("crates/tieline/tests/it/terminal.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(serde_json::to_string(steps).unwrap());
    command.arg(env!("CARGO_BIN_EXE_tieline"));
    command.args(["run", "smollm2", "--greedy", "--threads", "1", "--system", SYSTEM]);
    command.envs(home.environment()).env("TIELINE_RUNNER", runner).env("TERM", "xterm");
    command.output().unwrap()
}

#[track_caller]
fn ends_well(output: &Output) {
    let (said, transcript) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(0), "{said}\n{transcript}");
}

#[test]
fn a_question_is_answered() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let question = format!("{QUESTION}\r");
    let output = converse(
        &home,
        &runner,
        &[
            ("see", "/help lists the commands"),
            ("see", ">>> "),
            ("type", "/help\r"),
            ("see", "Ctrl-C         stop the answer"),
            ("see", ">>> "),
            ("type", &question),
            ("see", ANSWER),
            ("see", ">>> "),
            ("type", "/clear\r"),
            ("see", "forgotten"),
            ("see", ">>> "),
            ("type", "/stats\r"),
            ("see", "showing figures"),
            ("see", ">>> "),
            ("type", "\"\"\"\r"),
            ("see", "... "),
            ("type", "What is the capital\r"),
            ("see", "... "),
            ("type", "of France?\"\"\"\r"),
            ("see", ANSWER),
            ("see", "source   file:"),
            ("see", ">>> "),
            ("type", "/nonsense\r"),
            ("see", "no command /nonsense; /help lists them"),
            ("see", ">>> "),
            ("type", "/exit\r"),
        ],
    );
    ends_well(&output);
    // What was typed is kept for the next time, for this user alone.
    let history = home.path().join("history");
    assert!(std::fs::read_to_string(&history).unwrap().contains(QUESTION));
    let mode = std::os::unix::fs::PermissionsExt::mode(&history.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let question = format!("{QUESTION}\r");
    let output = converse(
        &home,
        &runner,
        &[
            ("see", ">>> "),
            ("type", "Tell me a very long story about a dog.\r"),
            ("see", " and "),
            ("type", "\u{3}"),
            ("see", "stopped"),
            ("see", ">>> "),
            ("type", "\u{3}"),
            ("see", "Ctrl-D or /exit leaves"),
            ("see", ">>> "),
            ("type", "/clear\r"),
            ("see", "forgotten"),
            ("see", ">>> "),
            ("type", &question),
            ("see", ANSWER),
            ("see", ">>> "),
            ("type", "\u{4}"),
        ],
    );
    ends_well(&output);
}
