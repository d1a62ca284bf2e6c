//! Checks the shape of the tree. One line per fault; no rule that could not fail.

mod code_map;
mod edges;
mod rooms;
mod size;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::metadata::{self, Package};
use crate::policy;

/// Folders that hold our Rust.
const CODE: &[&str] = &["crates", "xtask", "fuzz", "testkit"];
/// Where `unsafe` may stand: what the last one fuzzes is called so.
const UNSAFE_ROOMS: [&str; 3] =
    ["crates/tieline-runner/", "crates/tieline-kernels/", "fuzz/fuzz_targets/products.rs"];

pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let policy = policy::read(root)?;
    let packages = metadata::workspace(root)?.packages;
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    let mut faults = edges::faults(&packages);
    faults.extend(rooms::faults(&packages, &policy.bans.deny));
    faults.extend(code_map::faults(&crate_names(&packages, root), &map));
    for path in rust_files(root)? {
        let text = fs::read_to_string(root.join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        faults.extend(file_faults(&path.to_string_lossy(), &text));
    }
    Ok(faults)
}

fn file_faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = size::faults(path, text);
    if !UNSAFE_ROOMS.iter().any(|room| path.starts_with(room)) {
        faults.extend(tokens::unsafe_faults(path, text));
    }
    faults
}

/// Names of the packages that lie in `crates/`.
fn crate_names(packages: &[Package], root: &Path) -> Vec<String> {
    let folder = root.join("crates");
    let inside = packages.iter().filter(|package| package.manifest_path.starts_with(&folder));
    inside.map(|package| package.name.clone()).collect()
}

/// All `.rs` files of ours, relative to the root, sorted.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = CODE.iter().map(|name| root.join(name)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                if name != "target" {
                    folders.push(entry.path());
                }
            } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
                files.push(entry.path().strip_prefix(root)?.to_path_buf());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::file_faults;

    #[test]
    fn the_runner_alone_may_be_unsafe() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(file_faults("crates/tieline-runner/src/ffi.rs", text), [""; 0]);
        for path in ["crates/tieline-store/src/lib.rs", "crates/tieline-runner2/src/lib.rs"] {
            assert_eq!(file_faults(path, text).len(), 1, "{path}");
        }
    }
}
