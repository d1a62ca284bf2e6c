//! Reads `deny.toml`: the licences that are allowed and the crates that are not.
//!
//! cargo-deny reads the same file, so there is one list and not two.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The tables of `deny.toml` that we apply.
#[derive(Debug, Deserialize)]
pub(crate) struct Policy {
    pub(crate) licenses: Licenses,
    pub(crate) bans: Bans,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Licenses {
    pub(crate) allow: Vec<String>,
    #[serde(default)]
    pub(crate) exceptions: Vec<Exception>,
}

/// Licences that one package alone may have.
#[derive(Debug, Deserialize)]
pub(crate) struct Exception {
    #[serde(rename = "crate")]
    pub(crate) name: String,
    pub(crate) allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Bans {
    pub(crate) deny: Vec<Ban>,
}

/// A package that only its `wrappers` may use; nobody, where there are none.
#[derive(Debug, Deserialize)]
pub(crate) struct Ban {
    #[serde(rename = "crate")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) wrappers: Vec<String>,
}

pub(crate) fn read(root: &Path) -> Result<Policy> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    toml::from_str(&text).context("cannot read deny.toml")
}
