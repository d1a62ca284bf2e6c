//! Receipts as files. They hold the tokens of a prompt and its answer: for this user alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use tieline_types::Receipt;

use crate::failure::Failure;

/// The longest receipt read: some millions of tokens.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Writes `receipt` to `path`, whole or not at all, in place of what is there.
pub(super) fn write(path: &Path, receipt: &Receipt) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(receipt)
        .map_err(|error| Failure::ours(format!("cannot write a receipt as JSON: {error}")))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = replace(&new, path, &text);
    written.map_err(|error| {
        // What is half written is of no use.
        let _ = fs::remove_file(&new);
        Failure::user(format!("cannot write the receipt to {}: {error}", path.display()))
    })
}

fn replace(new: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(new)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// Whether a receipt can be written there, told before the answer is computed.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    if path.is_dir() || path.file_name().is_none() {
        return Err(Failure::user(format!("{} is a folder, not a file", path.display())));
    }
    if !folder.is_dir() {
        let problem = format!("cannot write the receipt: no folder {}", folder.display());
        return Err(Failure::user(problem));
    }
    Ok(())
}

/// Reads a receipt.
pub(super) fn read(path: &Path) -> Result<Receipt, Failure> {
    let unreadable = |why: String| {
        Failure::user(format!("cannot read the receipt {}: {why}", path.display()))
            .with_hint("tieline run MODEL PROMPT --deterministic --receipt FILE writes one")
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unreadable(format!("it is longer than {MAX_BYTES} bytes")));
    }
    serde_json::from_slice(&text).map_err(|error| {
        // The position alone: a message of serde's may quote what it read.
        unreadable(format!("line {} column {} is not as expected", error.line(), error.column()))
    })
}
