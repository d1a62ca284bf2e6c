//! What the process was given and does not need: descriptors, rights, a network.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use tieline_types::wire::DRAFT_FD;

/// The most descriptors open at once: frames, the models, the folder, and the files of the cache that are
/// read and written.
const DESCRIPTORS: u64 = 64;
/// The longest file that it may write: a segment of the cache is below this.
const LONGEST_FILE: u64 = tieline_decode::disk::MAX_PAYLOAD + (1 << 20);
/// Processes and threads: ggml's most for each of two pools.
const THREADS: u64 = 1100;
/// As if it held so many thousandths of all memory more than it does.
const ENDS_FIRST: &str = "500";

/// Closes every descriptor but the standard ones, the models' and the cache's.
pub(super) fn close_the_unknown() {
    let first = DRAFT_FD.cast_unsigned() + 1;
    // SAFETY: this is the first thing that the program does, so nothing in it owns one of these
    // descriptors: whoever started it left them open. A kernel older than 5.9 does nothing.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
}

/// Where memory lacks, the system is to end this process before others, which have done nothing to it.
pub(super) fn ends_first() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", ENDS_FIRST)
}

/// Moves to a network without devices, a user namespace without users, and an IPC namespace of its own.
pub(super) fn own_namespaces() -> Result<String, String> {
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    // SAFETY: there is one thread, and the flags do not unshare descriptors, which is what could leave
    // one thread with another's.
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(|error| format!("this system allows no namespaces to this user ({error})"))?;
    Ok("user, network, ipc".to_owned())
}

/// Gives up root's rights, or those over the new namespaces.
pub(super) fn no_capabilities() -> Result<String, String> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    match rustix::thread::set_capabilities(None, sets) {
        Ok(()) => Ok("none".to_owned()),
        Err(error) => Err(said("capset", error)),
    }
}

pub(super) fn no_new_privileges() -> Result<String, String> {
    match rustix::thread::set_no_new_privs(true) {
        Ok(()) => Ok("set".to_owned()),
        Err(error) => Err(said("prctl", error)),
    }
}

/// No core dump, few descriptors, bounded files, no debugger of the same user, and no life after the
/// parent's.
///
/// Memory has no limit here: the engine sets one, and raises it, from outside. Threads have one only in
/// a namespace of its own: elsewhere the system counts all that the user runs.
pub(super) fn limits(own_namespaces: bool, ends_first: &io::Result<()>) -> Result<String, String> {
    let limit = |resource, most| {
        // A limit may be lower already, and then stays so.
        let now = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let most = Some(now.min(most));
        rustix::process::setrlimit(resource, Rlimit { current: most, maximum: most })
            .map_err(|error| said("setrlimit", error))
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, DESCRIPTORS)?;
    limit(Resource::Fsize, LONGEST_FILE)?;
    if own_namespaces {
        limit(Resource::Nproc, THREADS)?;
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| said("prctl", error))?;
    // After the rights are gone: the system forgets it when they change.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| said("prctl", error))?;
    let memory = match ends_first {
        Ok(()) => "ends first where memory lacks".to_owned(),
        Err(error) => format!("not first to end where memory lacks ({error})"),
    };
    Ok(format!("core 0, files {DESCRIPTORS}, dies with its parent, not dumpable, {memory}"))
}

fn said(call: &str, error: rustix::io::Errno) -> String {
    format!("{call}: {}", io::Error::from(error))
}
