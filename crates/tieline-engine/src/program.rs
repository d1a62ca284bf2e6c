//! Which program a runner is started from, and how: where it was opened and verified, that very file.

use std::fmt;
use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, OwnedFd};
#[cfg(target_os = "linux")]
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::supervisor::Failed;

/// A program to start runners from.
#[derive(Debug)]
pub struct Program {
    /// Where it lies.
    pub path: PathBuf,
    /// The verified file, where somebody verified it: on Linux this is executed, whatever lies at the path by
    /// then.
    pub file: Option<File>,
    /// What the user can do where it does not begin as a runner does.
    pub fallback: Option<String>,
}

/// Says which program the next runner is started from. Asked before each start, on a thread that may wait.
#[derive(Clone)]
pub struct ProgramSource(Arc<dyn Fn() -> Result<Program, Failed> + Send + Sync>);

impl ProgramSource {
    /// Asks `source`.
    pub fn new(source: impl Fn() -> Result<Program, Failed> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    pub(crate) async fn program(&self) -> Result<Program, Failed> {
        let source = Arc::clone(&self.0);
        let found = tokio::task::spawn_blocking(move || source()).await;
        found.unwrap_or_else(|lost| {
            Err(Failed {
                kind: tieline_types::ErrorKind::Internal,
                message: format!("cannot find the runner: {lost}"),
                hint: None,
            })
        })
    }
}

impl fmt::Debug for ProgramSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgramSource")
    }
}

/// How a program is started, and what must stay open until it is.
pub(crate) struct Start {
    pub(crate) command: Command,
    #[cfg(target_os = "linux")]
    pub(crate) held: Option<OwnedFd>,
}

/// Descriptors below are given to the runner as something else.
#[cfg(target_os = "linux")]
const ABOVE: i32 = 32;

/// The command that starts `program`.
#[cfg(target_os = "linux")]
pub(crate) fn start(program: &Program) -> io::Result<Start> {
    let Some(file) = &program.file else {
        return Ok(Start { command: Command::new(&program.path), held: None });
    };
    // Closed when it is executed: the system has looked it up by then.
    let held = rustix::io::fcntl_dupfd_cloexec(file, ABOVE)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", held.as_raw_fd()));
    command.arg0(&program.path);
    Ok(Start { command, held: Some(held) })
}

/// The command that starts `program`. Only Linux can execute an open file.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
pub(crate) fn start(program: &Program) -> io::Result<Start> {
    Ok(Start { command: Command::new(&program.path) })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_executed_is_the_file_that_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::copy("/bin/echo", &path).unwrap();
        let program =
            Program { path: path.clone(), file: Some(File::open(&path).unwrap()), fallback: None };
        // Swapped between the check and the start.
        std::fs::remove_file(&path).unwrap();
        std::fs::copy("/bin/false", &path).unwrap();
        let mut start = start(&program).unwrap();
        let output = start.command.arg("verified").output().unwrap();
        drop(start.held);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "verified\n");
    }
}
