//! Runs the quick stages of CI in order and stops at the first that fails.
//!
//! `make test` adds what needs the C++ runner.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

type Stage = (&'static str, &'static [&'static str]);

const BEFORE_TESTS: &[Stage] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--all-targets", "--", "-D", "warnings"]),
    ("tidy", &["xtask", "tidy"]),
    ("licences", &["xtask", "licences"]),
];
const NEXTEST: Stage = ("tests", &["nextest", "run"]);
const CARGO_TEST: Stage = ("tests", &["test", "--lib", "--bins", "--tests"]);
const DOC_TESTS: Stage = ("doc tests", &["test", "--doc"]);

pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    for (name, args) in stages(has_nextest()) {
        writeln!(io::stdout(), "== {name}: cargo {}", args.join(" "))?;
        let start = Instant::now();
        let status = cargo().args(args).current_dir(root).status().context("cannot start cargo")?;
        writeln!(io::stdout(), "== {name}: {:.1} s", start.elapsed().as_secs_f64())?;
        if !status.success() {
            writeln!(io::stdout(), "== {name} failed")?;
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn stages(nextest: bool) -> Vec<Stage> {
    let tests = if nextest { NEXTEST } else { CARGO_TEST };
    BEFORE_TESTS.iter().copied().chain([tests, DOC_TESTS]).collect()
}

fn has_nextest() -> bool {
    let mut command = cargo();
    command.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_cheap_stages_come_first_and_tests_are_always_run() {
        for nextest in [true, false] {
            let names: Vec<_> = super::stages(nextest).iter().map(|stage| stage.0).collect();
            assert_eq!(names, ["format", "lints", "tidy", "licences", "tests", "doc tests"]);
        }
    }
}
