//! What was typed after `tieline prices`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

/// What to do about the table of prices.
#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// Say which table is in use, and who signed it
    Show,
    /// Use a newer table, signed with minisign: by the program's key, or one that you trust
    Update(Update),
    /// Go back to the program's own table, and forget the key
    Reset,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Update {
    /// The table
    pub(crate) file: PathBuf,
    /// Its signature [default: the table's name and .minisig]
    #[arg(long, value_name = "FILE")]
    pub(crate) signature: Option<PathBuf>,
    /// The public key, or its file; kept for the next time [default: the one that was kept, or the program's]
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Take an older table, or another key than the one that was kept
    #[arg(long)]
    pub(crate) force: bool,
}
