//! The files of one build: which belong to it, their common digest, and whether they are still the same.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tieline_types::{Bytes, Digest};

use crate::files::{Stamp, files_of_mode, hash, sync_dir};

/// What the program is called in every build.
pub(super) const RUNNER: &str = "tieline-runner";
/// More libraries than any build has.
const MOST_FILES: usize = 256;
/// More bytes than any build has: those for several GPUs take a few GB.
const MOST_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// A build's files, all open.
#[derive(Debug)]
pub(super) struct Tree {
    files: Vec<(String, File, Stamp)>,
}

/// How a build's files looked when they were hashed. As long as they look so they are not hashed again.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen(Vec<(String, [i64; 5])>);

impl Tree {
    /// Opens everything in `folder`. What is no plain file is an error: nothing of a build is.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.file_type()?.is_file() {
                return Err(io::Error::other(format!("{name} is no plain file")));
            }
            if files.len() == MOST_FILES {
                return Err(io::Error::other(format!("it has more than {MOST_FILES} files")));
            }
            let file = File::open(entry.path())?;
            let stamp = Stamp::of(&file)?;
            files.push((name, file, stamp));
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { files })
    }

    /// Opens the files that would be copied if the program at `runner` were added, by the names that they would
    /// have.
    pub(super) fn around(runner: &Path) -> io::Result<Self> {
        let found = belonging(runner)?;
        if found.len() > MOST_FILES {
            return Err(io::Error::other(format!("{} files are too many", found.len())));
        }
        let mut files = Vec::new();
        for (path, name) in found {
            let file = File::open(path)?;
            let stamp = Stamp::of(&file)?;
            files.push((name, file, stamp));
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { files })
    }

    /// SHA-256 over each file's name, size and SHA-256, by name.
    pub(super) fn digest(&self) -> io::Result<Digest> {
        let mut all = Sha256::new();
        for (name, file, stamp) in &self.files {
            all.update(name.len().to_le_bytes());
            all.update(name);
            all.update(stamp.size.to_le_bytes());
            let mut file: &File = file;
            all.update(hash(file, &mut |_| {})?.0);
            // Whoever reads it next begins at its beginning.
            file.rewind()?;
        }
        Ok(Digest(all.finalize().into()))
    }

    pub(super) fn seen(&self) -> Seen {
        let look =
            |stamp: &Stamp| [stamp.device, stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns];
        Seen(self.files.iter().map(|(name, _, stamp)| (name.clone(), look(stamp))).collect())
    }

    pub(super) fn size(&self) -> Bytes {
        Bytes(self.files.iter().map(|(_, _, stamp)| stamp.size.cast_unsigned()).sum())
    }

    /// The open program.
    pub(super) fn runner(self) -> Option<File> {
        self.files.into_iter().find(|(name, ..)| name == RUNNER).map(|(_, file, _)| file)
    }
}

/// The program and the libraries beside it that a portable build loads.
fn belonging(runner: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut found = vec![(runner.to_owned(), RUNNER.to_owned())];
    let folder = runner.parent().unwrap_or(Path::new("/"));
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // A link to a library is one: its content is copied.
        if is_library(&name) && entry.path().is_file() {
            found.push((entry.path(), name));
        }
    }
    Ok(found)
}

/// Of ggml and llama.cpp alone: other programs' libraries may lie there too.
fn is_library(name: &str) -> bool {
    let ours = ["libggml", "ggml-", "libllama", "libmtmd"];
    let ends = |part: &str| part == "so" || part == "dylib";
    ours.iter().any(|start| name.starts_with(start)) && name.split('.').any(ends)
}

/// Copies a build into `folder`, which is there and empty, and brings it to disk.
pub(super) fn copy(runner: &Path, folder: &Path) -> io::Result<()> {
    let files = belonging(runner)?;
    let mut bytes = 0_u64;
    for (from, _) in &files {
        bytes = bytes.saturating_add(from.metadata()?.len());
    }
    if files.len() > MOST_FILES || bytes > MOST_BYTES {
        return Err(io::Error::other(format!(
            "{} files of {bytes} bytes are too many",
            files.len()
        )));
    }
    for (from, name) in files {
        let mut options = OpenOptions::new();
        files_of_mode(options.write(true).create_new(true), 0o500);
        let mut to = options.open(folder.join(name))?;
        io::copy(&mut File::open(from)?, &mut to)?;
        to.sync_all()?;
    }
    sync_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_names_and_bytes() {
        let root = tempfile::tempdir().unwrap();
        let digest = |files: &[(&str, &str)]| {
            let folder = tempfile::tempdir_in(root.path()).unwrap();
            files
                .iter()
                .for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
            Tree::open(folder.path()).unwrap().digest().unwrap()
        };
        let one = digest(&[("a", "xy"), ("b", "z")]);
        assert_eq!(one, digest(&[("b", "z"), ("a", "xy")]));
        for other in [&[("a", "x"), ("b", "yz")][..], &[("a", "xy"), ("c", "z")], &[("a", "xy")]] {
            assert_ne!(one, digest(other), "{other:?}");
        }
    }

    #[test]
    fn only_llama_cpps_libraries_belong_to_a_build() {
        let yes = ["libggml-base.so.0", "libggml-cpu-haswell.so", "libllama.dylib", "ggml-cuda.so"];
        assert!(yes.iter().all(|name| is_library(name)));
        let no = ["libserde_derive.so", "libggml.a", "tieline", "libllama.txt"];
        assert!(!no.iter().any(|name| is_library(name)));
    }

    #[test]
    fn what_is_no_plain_file_is_no_part_of_a_build() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/true", root.path().join(RUNNER)).unwrap();
        assert!(Tree::open(root.path()).unwrap_err().to_string().contains("no plain file"));
    }
}
