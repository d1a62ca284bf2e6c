//! What a runner is given beside its pipes: the model's file, the cache's folder, a draft model's file.

pub(crate) use system::{Given, NOTHING};

#[cfg(unix)]
mod system {
    use std::fs::{DirBuilder, File};
    use std::io;
    use std::os::unix::fs::DirBuilderExt;
    use std::path::Path;
    use std::process::Command;

    use command_fds::{CommandFdExt, FdMapping};
    use tieline_types::wire::{CACHE_FD, DRAFT_FD, MODEL_FD};

    /// What a runner finds where it has no cache or no draft model.
    pub(crate) const NOTHING: &str = "/dev/null";

    /// Open files, each at the number where a runner looks for it.
    pub(crate) struct Given(Vec<FdMapping>);

    impl Given {
        /// Opens them, which a disk may keep from ever ending. The folder is made where it is missing.
        pub(crate) fn open(
            model: &Path,
            folder: Option<&Path>,
            draft: Option<&Path>,
        ) -> io::Result<Self> {
            // Always something of ours: what this process inherited at these numbers is not for the runner.
            let folder = match folder {
                Some(folder) => open_folder(folder)?,
                None => File::open(NOTHING)?,
            };
            let draft = File::open(draft.unwrap_or(Path::new(NOTHING)))?;
            let files = [(File::open(model)?, MODEL_FD), (folder, CACHE_FD), (draft, DRAFT_FD)];
            let mapping =
                |(file, child_fd): (File, i32)| FdMapping { parent_fd: file.into(), child_fd };
            Ok(Self(files.into_iter().map(mapping).collect()))
        }

        /// The runner that `command` starts gets them.
        pub(crate) fn give(self, command: &mut Command) -> io::Result<()> {
            let given = command.fd_mappings(self.0);
            given.map(drop).map_err(|error| io::Error::other(error.to_string()))
        }
    }

    /// Opens a folder for this user alone, and makes it first where it is missing.
    fn open_folder(path: &Path) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        File::open(path)
    }
}

/// Compiled and never run. Safe code can hand no open file to a program here, so the runner is told the paths
/// and opens them first of all, before it gives up its rights.
#[cfg(not(unix))]
mod system {
    use std::ffi::OsString;
    use std::fs::File;
    use std::io;
    use std::path::Path;
    use std::process::Command;

    /// What a runner finds where it has no draft model.
    pub(crate) const NOTHING: &str = "NUL";

    /// Paths in the order in which a runner reads them.
    pub(crate) struct Given([OsString; 2]);

    impl Given {
        /// Opens them to see that it can be done, which a disk may keep from ever ending. There is no cache.
        pub(crate) fn open(
            model: &Path,
            _: Option<&Path>,
            draft: Option<&Path>,
        ) -> io::Result<Self> {
            let path = |path: &Path| -> io::Result<OsString> {
                File::open(path)?;
                // The runner works in another folder.
                let is_nothing = path == Path::new(NOTHING);
                Ok(if is_nothing { path.into() } else { std::path::absolute(path)?.into() })
            };
            Ok(Self([path(model)?, path(draft.unwrap_or(Path::new(NOTHING)))?]))
        }

        /// The runner that `command` starts is told them.
        #[expect(clippy::unnecessary_wraps, reason = "as where files are given open")]
        pub(crate) fn give(self, command: &mut Command) -> io::Result<()> {
            command.args(self.0);
            Ok(())
        }
    }
}
