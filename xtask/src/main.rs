//! Checks that run on a laptop and in CI alike: `cargo xtask tidy | licences | ci`.
//!
//! Reads the tree and `cargo metadata`; changes nothing.

mod ci;
mod licences;
mod metadata;
mod policy;
mod spdx;
mod tidy;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

const USAGE: &str = "\
usage: cargo xtask <command>

  tidy      shape of the tree: edges between crates, sizes, rooms, the code map
  licences  every dependency: its licence, its source, the crates that are denied
  ci        format, lints, tidy, licences and tests, in this order";

fn main() -> Result<ExitCode> {
    let root = root()?;
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => report("tidy", &tidy::check(&root)?),
        Some("licences") => report("licences", &licences::check(&root)?),
        Some("ci") => ci::run(&root),
        _ => {
            writeln!(io::stderr(), "{USAGE}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The workspace's folder: the parent of this crate's.
fn root() -> Result<PathBuf> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(parent.context("xtask lies in no workspace")?.to_path_buf())
}

/// One line per fault on stdout; fails where there is one.
fn report(check: &str, faults: &[String]) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    for fault in faults {
        writeln!(out, "{fault}")?;
    }
    if faults.is_empty() {
        writeln!(out, "{check}: ok")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{check}: {} faults", faults.len())?;
    Ok(ExitCode::FAILURE)
}
