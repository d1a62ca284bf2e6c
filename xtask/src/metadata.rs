//! The part of `cargo metadata` that the checks read.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What cargo knows of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
}

/// One package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    /// Where it is from; `None` for a package of the workspace.
    pub(crate) source: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a manifest's dependencies.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The package's own name, also where the manifest renames it.
    pub(crate) name: String,
    /// `None` is a normal dependency.
    pub(crate) kind: Option<Kind>,
}

/// What a dependency is for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Dev,
    Build,
}

/// The packages of the workspace alone.
pub(crate) fn workspace(root: &Path) -> Result<Metadata> {
    read(root, &["--no-deps"])
}

/// The workspace and all that it depends on, for every platform and feature.
pub(crate) fn everything(root: &Path) -> Result<Metadata> {
    read(root, &["--all-features"])
}

fn read(root: &Path, extra: &[&str]) -> Result<Metadata> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1"])
        .args(extra)
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    let talk = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata failed: {talk}");
    serde_json::from_slice(&output.stdout).context("cannot read what cargo metadata said")
}
