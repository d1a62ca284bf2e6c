//! What the runner asks of its own process.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::OnceLock;
use std::thread;

use sha2::{Digest as _, Sha256};
use tieline_types::Digest;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

pub(crate) use system::{
    brought_in, exit_now, peak_memory, take_cache_folder, take_draft_file, take_model_file,
    take_stdout,
};
#[cfg(target_os = "linux")]
pub(crate) use system::{give_back, processor_seconds};

/// Keeps ggml from starting a debugger when it gives up: the runner starts no programs.
#[expect(unsafe_code, reason = "another thread could read the environment meanwhile")]
pub(crate) fn no_debugger() {
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("GGML_NO_BACKTRACE", "1") };
}

/// This program's own file, open for reading.
pub(crate) fn own_program() -> io::Result<File> {
    File::open(std::env::current_exe()?)
}

/// SHA-256 of what is left to read of a file.
pub(crate) fn digest(mut file: File) -> io::Result<Digest> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(hasher.finalize().into())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Processors that this process may use. Asked first before the jail, in which the system's files that tell
/// of a container's share cannot be read.
pub(crate) fn processors() -> u32 {
    static COUNT: OnceLock<u32> = OnceLock::new();
    *COUNT.get_or_init(|| {
        thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
    })
}

/// Says on standard error why the runner gives up; the engine keeps the last lines.
pub(crate) fn complain(error: &dyn std::error::Error) {
    let mut stderr = io::stderr().lock();
    // Nobody is left to tell if this fails.
    let _ = write!(stderr, "tieline-runner: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(stderr, ": {error}");
        cause = error.source();
    }
    let _ = writeln!(stderr);
}
