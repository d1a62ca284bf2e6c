//! What Windows has: paths that the parent names, and what the system counts. Compiled and never run.
#![expect(unsafe_code, reason = "the standard library counts nothing and sets no standard handle")]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::windows::io::{AsHandle, AsRawHandle};
use std::path::PathBuf;

use tieline_decode::disk::OpenFolder;
use tieline_types::Bytes;
use windows_sys::Win32::System::Console::{STD_OUTPUT_HANDLE, SetStdHandle};
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetProcessIoCounters, IO_COUNTERS, TerminateProcess,
};

/// What the parent names where there is none.
const NOTHING: &str = "NUL";

/// Takes standard output for frames, and sends whatever else is written to it to standard error.
///
/// As on other systems: llama.cpp and its libraries print to standard output here and there.
pub(crate) fn take_stdout() -> io::Result<File> {
    let copy = io::stdout().as_handle().try_clone_to_owned()?;
    // SAFETY: standard error's handle stays open for as long as the process lives.
    if unsafe { SetStdHandle(STD_OUTPUT_HANDLE, io::stderr().as_raw_handle()) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the C library opened both as the process started; it reports by -1 where it did not.
    if unsafe { libc::dup2(2, 1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(File::from(copy))
}

/// Opens the model's file, which the parent names first.
pub(crate) fn take_model_file() -> io::Result<File> {
    File::open(named(1)?)
}

/// There is no cache here: nothing could be opened below an open folder.
pub(crate) fn take_cache_folder() -> io::Result<OpenFolder> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens the draft model's file, which the parent names second.
pub(crate) fn take_draft_file() -> io::Result<File> {
    match named(2)? {
        path if path == NOTHING => Err(io::ErrorKind::NotFound.into()),
        path => File::open(PathBuf::from(path)),
    }
}

fn named(index: usize) -> io::Result<OsString> {
    std::env::args_os().nth(index).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Grows while this process reads from a disk; where it loads, also while what it holds grows.
pub(crate) fn brought_in(loads: bool) -> u64 {
    let mut read = MaybeUninit::<IO_COUNTERS>::zeroed();
    // SAFETY: `read` is writable, and the handle of this process is always valid.
    let told = unsafe { GetProcessIoCounters(GetCurrentProcess(), read.as_mut_ptr()) } != 0;
    // SAFETY: all-zero is valid, and the call filled it if it told.
    let read = if told { unsafe { read.assume_init() }.ReadTransferCount } else { 0 };
    let Some(memory) = memory() else { return read };
    let held = if loads { memory.PeakWorkingSetSize as u64 } else { 0 };
    read.wrapping_add(u64::from(memory.PageFaultCount)).wrapping_add(held)
}

/// The most memory that this process has held, code and mapped weights included.
pub(crate) fn peak_memory() -> Option<Bytes> {
    Some(Bytes(memory()?.PeakWorkingSetSize as u64))
}

fn memory() -> Option<PROCESS_MEMORY_COUNTERS> {
    let mut memory = MaybeUninit::<PROCESS_MEMORY_COUNTERS>::zeroed();
    let size = u32::try_from(mem::size_of::<PROCESS_MEMORY_COUNTERS>()).ok()?;
    // SAFETY: `memory` is writable and as large as is said; the handle is this process's.
    if unsafe { K32GetProcessMemoryInfo(GetCurrentProcess(), memory.as_mut_ptr(), size) } == 0 {
        return None;
    }
    // SAFETY: the call succeeded and filled it; all-zero was valid before too.
    Some(unsafe { memory.assume_init() })
}

/// Ends the process at once, without destructors: for when llama.cpp does not come back, or another thread may be
/// in it.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: ends this process and runs no code of ours.
    unsafe { TerminateProcess(GetCurrentProcess(), code.into()) };
    std::process::abort()
}
