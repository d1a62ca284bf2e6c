//! Shuts a program in that judges an answer: the system's programs to read, its own folder to write, nobody to talk to.
//!
//! What a program reads was written by a model, and a program may run it. It needs no rights of the user's to do its work.

use std::io;
use std::path::Path;
use std::process::{Child, Command};

/// Where programs and what they need lie. What is not there needs no rule.
const SYSTEM: &[&str] = &[
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr",
    "/opt",
    "/nix/store",
    "/gnu/store",
];
/// What programs read of the system's settings: nothing in which a password may stand.
const SETTINGS: &[&str] = &[
    "/etc/alternatives",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
];
const DEVICES: &[&str] = &["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// Starts a command from a thread that is shut in first: what it starts is shut in too, and none of them gets out.
///
/// # Errors
/// This system cannot shut it in, or it cannot be started.
pub(super) fn spawn(command: &mut Command, folder: &Path, reads: &[&Path]) -> io::Result<Child> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("check".to_owned());
        let started = thread.spawn_scoped(scope, || {
            paths(folder, reads).map_err(|why| failed(&why))?;
            calls().map_err(|why| failed(&why))?;
            command.spawn()
        })?;
        started.join().unwrap_or_else(|_| Err(failed("the thread that starts it broke off")))
    })
}

fn failed(why: &str) -> io::Error {
    io::Error::other(format!("it cannot be shut in: {why}"))
}

/// By Landlock: all paths but these, TCP, and signals and abstract sockets of others.
fn paths(folder: &Path, reads: &[&Path]) -> Result<(), String> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
        Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    };
    const KNOWN: ABI = ABI::V6;
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let settings = AccessFs::ReadFile | AccessFs::ReadDir;
    let (read, all) = (AccessFs::from_read(KNOWN), AccessFs::from_all(KNOWN));
    let of = |paths: &'static [&'static str], access: BitFlags<AccessFs>| {
        paths.iter().map(move |path| (Path::new(*path), access))
    };
    let restrict = || {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .handle_access(AccessNet::from_all(KNOWN))?
            .scope(Scope::from_all(KNOWN))?
            .create()?;
        let system = of(SYSTEM, read).chain(of(SETTINGS, settings)).chain(of(DEVICES, device));
        let own = reads.iter().map(|path| (*path, read)).chain([(folder, all)]);
        for (path, access) in system.chain(own) {
            let Ok(open) = PathFd::new(path) else { continue };
            // A file has no rights of folders.
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
            rules = rules.add_rule(PathBeneath::new(open, access))?;
        }
        rules.restrict_self()
    };
    let status = restrict().map_err(|error: RulesetError| format!("landlock: {error}"))?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock, or it is off".to_owned()),
    }
}

/// By a filter of calls: no socket of any kind, nor the way around it.
fn calls() -> Result<(), String> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let said = |error: &dyn std::fmt::Display| format!("seccomp: {error}");
    // A pair can send to any socket that has a path, too.
    let calls = [libc::SYS_socket, libc::SYS_socketpair, libc::SYS_io_uring_setup];
    // The same calls by the numbers that x86 has for programs of 32-bit addresses.
    const NARROW: libc::c_long = 0x4000_0000;
    let all = calls.into_iter().chain(calls.map(|call| call | NARROW));
    let rules = all.map(|call| (call, Vec::new())).collect();
    let no = SeccompAction::Errno(libc::EACCES.cast_unsigned());
    let processor = std::env::consts::ARCH.try_into().map_err(|error| said(&error))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, no, processor);
    let filter = filter.map_err(|error| said(&error))?;
    let program: BpfProgram = filter.try_into().map_err(|error| said(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| said(&error))
}
