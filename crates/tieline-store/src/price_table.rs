//! A table of prices that took the place of the program's own, as it was given: with its signature and the key.
//!
//! Only kept here. Whoever reads it checks the signature again, so that a file that was changed is no price.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tieline_types::Hint;

use crate::files::{private_file, sync_dir};
use crate::store::Store;

/// A signed table of prices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceTable {
    /// The table's text.
    pub table: String,
    /// Its signature, as minisign writes it.
    pub signature: String,
    /// The public key, as minisign writes it.
    pub key: String,
    /// Whether it counts though the program's own is newer.
    pub forced: bool,
}

/// Why the table could not be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the table of prices {}", path.display())]
pub struct PriceTableError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Hint for PriceTableError {
    fn hint(&self) -> Option<String> {
        match self.action {
            "read" => Some("`tieline prices reset` goes back to the program's own".to_owned()),
            _ => Some("see whether the store's folder can be written".to_owned()),
        }
    }
}

impl Store {
    /// The table that was kept; `None`: the program's own counts.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn price_table(&self) -> Result<Option<PriceTable>, PriceTableError> {
        let path = self.price_path();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
        .map_err(|source| PriceTableError { action: "read", path, source })
    }

    /// Tells one state of the kept table from another, without reading it; `None`: none is kept, or nobody can say.
    pub fn price_table_version(&self) -> Option<(SystemTime, u64)> {
        let metadata = fs::metadata(self.price_path()).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    /// Keeps a table in place of any before, or none.
    ///
    /// # Errors
    /// The store's folder cannot be written; then nothing changed.
    pub fn keep_price_table(&self, table: Option<&PriceTable>) -> Result<(), PriceTableError> {
        let path = self.price_path();
        let write = |table: &PriceTable| {
            let new = path.with_extension("new");
            let mut file = private_file().open(&new)?;
            file.set_len(0)?;
            file.write_all(&serde_json::to_vec(table)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            sync_dir(self.root())
        };
        let kept = match table {
            Some(table) => write(table),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        };
        kept.map_err(|source| PriceTableError { action: "write", path, source })
    }

    fn price_path(&self) -> PathBuf {
        self.root().join("prices.json")
    }
}
