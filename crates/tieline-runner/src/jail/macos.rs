//! The jail of macOS: its sandbox, which denies all but what a profile names. Compiled and never run.
//!
//! The sandbox asks when something is opened, so what was opened before it goes on. It is deprecated by name
//! and there is no other: browsers hold their processes with it as well.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use tieline_decode::disk::OpenFolder;
use tieline_types::wire::DRAFT_FD;
use tieline_types::{Jail, JailLayer};

/// As on Linux: frames, the models, the folder, and the files of the cache that are read and written.
const DESCRIPTORS: libc::rlim_t = 64;

unsafe extern "C" {
    // Of libSystem, which every program links. Flags of zero: what is given is the profile itself.
    fn sandbox_init(profile: *const c_char, flags: u64, error: *mut *mut c_char) -> c_int;
    fn sandbox_free_error(error: *mut c_char);
}

/// Closes what was inherited and is not ours, and sets limits. First of all: there must be one thread.
pub(crate) fn before() -> Jail {
    let mut jail = Jail::none("macOS has no such thing");
    for number in DRAFT_FD + 1..1024 {
        // SAFETY: nothing in this program owns one of these descriptors yet; a closed one is refused.
        unsafe { libc::close(number) };
    }
    jail.note(JailLayer::Limits, limits());
    jail
}

/// Forbids everything but reading and writing below `cache`, asking the system for facts, and what this
/// process does with itself.
pub(crate) fn lock(jail: &mut Jail, cache: Option<&OpenFolder>) {
    let held = cache.map(path).transpose().map_err(|error| error.to_string());
    let held = held.and_then(|cache| enter(&profile(cache)?));
    let started = held.clone().map(|()| "no program can be started".to_owned());
    jail.note(JailLayer::NoNewPrivileges, started);
    jail.note(JailLayer::Files, held.map(|()| "sandbox: no path, no network".to_owned()));
}

/// The sandbox cannot be narrowed once it holds.
pub(crate) fn seal(_: &mut Jail, _: bool) {}

fn limits() -> Result<String, String> {
    let failed = || io::Error::last_os_error().to_string();
    for (resource, most) in [(libc::RLIMIT_CORE, 0), (libc::RLIMIT_NOFILE, DESCRIPTORS)] {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: `limit` is a readable rlimit.
        if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
            return Err(failed());
        }
    }
    // SAFETY: with this request the system looks at no other argument.
    if unsafe { libc::ptrace(libc::PT_DENY_ATTACH, 0, std::ptr::null_mut(), 0) } != 0 {
        return Err(failed());
    }
    Ok(format!("core 0, files {DESCRIPTORS}, no debugger"))
}

/// Where an open folder lies. The sandbox knows paths alone.
fn path(folder: &OpenFolder) -> io::Result<PathBuf> {
    let folder: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(folder);
    let mut room = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: the descriptor is open, and the system writes at most that many bytes, the last a zero.
    let told = unsafe { libc::fcntl(folder.as_raw_fd(), libc::F_GETPATH, room.as_mut_ptr()) };
    if told < 0 {
        return Err(io::Error::last_os_error());
    }
    let path = CStr::from_bytes_until_nul(&room).map_err(io::Error::other)?;
    path.to_str().map(PathBuf::from).map_err(io::Error::other)
}

fn profile(cache: Option<PathBuf>) -> Result<CString, String> {
    let mut rules = "(version 1)\n(deny default)\n(allow sysctl-read)\n".to_owned();
    if cfg!(feature = "metal") {
        rules += "(allow iokit-open)\n\
            (allow mach-lookup (global-name \"com.apple.MTLCompilerService\"))\n\
            (allow file-read* (subpath \"/System/Library\"))\n";
    }
    if let Some(cache) = cache {
        let path = cache.to_str().ok_or("the cache's path is no text")?;
        if path.contains(['"', '\\', '\n']) {
            return Err("the cache's path cannot be written in a profile".to_owned());
        }
        rules += &format!("(allow file-read* file-write* (subpath \"{path}\"))\n");
    }
    CString::new(rules).map_err(|error| error.to_string())
}

fn enter(profile: &CStr) -> Result<(), String> {
    let mut error = std::ptr::null_mut();
    // SAFETY: the profile is terminated, and `error` is a writable pointer.
    if unsafe { sandbox_init(profile.as_ptr(), 0, &raw mut error) } == 0 {
        return Ok(());
    }
    if error.is_null() {
        return Err("sandbox_init refuses".to_owned());
    }
    // SAFETY: the system set it to a terminated text, which is ours until it is freed.
    let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: made by sandbox_init, freed once.
    unsafe { sandbox_free_error(error) };
    Err(format!("sandbox_init: {text}"))
}
