//! What a Unix has: descriptors that the parent opened, and what the system counts.
#![expect(unsafe_code, reason = "the standard library has no dup2, getrusage or _exit")]

#[cfg(target_os = "linux")]
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
#[cfg(target_os = "linux")]
use std::ptr::NonNull;

use tieline_types::Bytes;
use tieline_types::wire::{CACHE_FD, DRAFT_FD, MODEL_FD};

/// Takes standard output for frames, and sends whatever else is written to it to standard error.
///
/// llama.cpp and its libraries print to standard output here and there; one such line between two
/// frames would end the conversation.
pub(crate) fn take_stdout() -> io::Result<File> {
    let frames = io::stdout().as_raw_fd();
    // SAFETY: dup takes any number and reports a bad one by -1.
    let copy = unsafe { libc::dup(frames) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are open descriptors of this process, and nothing else was written yet.
    if unsafe { libc::dup2(io::stderr().as_raw_fd(), frames) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `copy` was just made by dup and belongs to nobody else.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(copy) }))
}

/// Takes the model's file, which the parent opened at [`MODEL_FD`].
pub(crate) fn take_model_file() -> io::Result<File> {
    take(MODEL_FD).map(File::from)
}

/// Takes the folder of the cache, which the parent opened at [`CACHE_FD`].
pub(crate) fn take_cache_folder() -> io::Result<OwnedFd> {
    let folder = File::from(take(CACHE_FD)?);
    // Where there is no cache, the parent puts something else there: what it has itself may be anything.
    match folder.metadata()?.is_dir() {
        true => Ok(folder.into()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// Takes the draft model's file, which the parent opened at [`DRAFT_FD`].
pub(crate) fn take_draft_file() -> io::Result<File> {
    let file = File::from(take(DRAFT_FD)?);
    // As for the cache.
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("what is open there is no file")),
    }
}

/// Takes what the parent opened at `descriptor`. Each is taken once, before anything else is opened.
fn take(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD takes any number and reports a bad one by -1.
    if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, the parent put it there for us, and nobody else has taken it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Grows while this process reads from a disk; where it loads, also while what it holds grows: one call maps a
/// whole model, and tells nothing of how far it is.
pub(crate) fn brought_in(loads: bool) -> u64 {
    let Some(usage) = usage() else { return 0 };
    let held = if loads { usage.ru_maxrss } else { 0 };
    let grown = [usage.ru_inblock, usage.ru_majflt, held];
    grown.into_iter().fold(0, |sum: u64, one| sum.wrapping_add(u64::try_from(one).unwrap_or(0)))
}

/// The most memory that this process has held, code and mapped weights included.
pub(crate) fn peak_memory() -> Option<Bytes> {
    let peak = u64::try_from(usage()?.ru_maxrss).ok()?;
    // Linux counts kibibytes, macOS bytes.
    Some(Bytes(if cfg!(target_os = "macos") { peak } else { peak * 1024 }))
}

/// Seconds that processors worked for this process.
#[cfg(target_os = "linux")]
pub(crate) fn processor_seconds() -> Option<f64> {
    let usage = usage()?;
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    Some(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

fn usage() -> Option<libc::rusage> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a writable rusage.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: getrusage succeeded and filled it; all-zero was valid before too.
    Some(unsafe { usage.assume_init() })
}

/// Ends the process at once, without destructors: for when llama.cpp does not come back, or another thread may be
/// in it.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: _exit runs no code of ours and cannot fail.
    unsafe { libc::_exit(code.into()) }
}

/// Gives whole pages of zeroed memory back to the system, which gives them again, zeroed, when they are next touched.
///
/// # Safety
/// `bytes` from `start` are the caller's own, private to this process, backed by no file, and all zero.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn give_back(start: NonNull<c_void>, bytes: usize) {
    // SAFETY: only asks.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0).max(1);
    let skipped = start.as_ptr().align_offset(page);
    let Some(whole) = bytes.checked_sub(skipped).map(|left| left / page * page) else { return };
    // SAFETY: within what the caller says, of which nothing is lost. If it fails, the memory stays.
    unsafe { libc::madvise(start.as_ptr().byte_add(skipped), whole, libc::MADV_DONTNEED) };
}
