//! Ways out, tried: for tests alone, and never in a release.
//!
//! A runner built with the feature `attacks` plays one that a model has taken over: told so, it tries one
//! way out at the moment that its test names, says on standard error what came of it, and ends. Started
//! with `jail=no` it shows that the same attack would work where nothing forbids it.

use std::ffi::CString;
use std::sync::OnceLock;

use super::calls::{Call, Stage, profile};

/// What a test asks for, and what it prepared: `attack=NAME when=loading|sealed jail=no outside=FOLDER
/// tcp=PORT udp=PORT`.
#[derive(Debug, Default)]
struct Asked {
    attack: String,
    when: String,
    unjailed: bool,
    outside: String,
    tcp: u16,
    udp: u16,
    parent: usize,
}

static ASKED: OnceLock<Asked> = OnceLock::new();

/// Reads the arguments; the first thing that the program does. True if they ask for a list only, which is
/// written to standard output.
pub(crate) fn asked() -> bool {
    // SAFETY: takes no arguments.
    let parent = unsafe { libc::getppid() };
    let mut asked = Asked { parent: usize::try_from(parent).unwrap_or(0), ..Asked::default() };
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("attack", name)) => name.clone_into(&mut asked.attack),
            Some(("when", when)) => when.clone_into(&mut asked.when),
            Some(("jail", "no")) => asked.unjailed = true,
            Some(("outside", folder)) => folder.clone_into(&mut asked.outside),
            Some(("tcp", port)) => asked.tcp = port.parse().unwrap_or(0),
            Some(("udp", port)) => asked.udp = port.parse().unwrap_or(0),
            _ => return list(&argument),
        }
    }
    // Set once, here.
    let _ = ASKED.set(asked);
    false
}

/// Whether this runner is to do without its jail.
pub(crate) fn is_unjailed() -> bool {
    ASKED.get().is_some_and(|asked| asked.unjailed)
}

/// Tries what was asked for, if now is the time.
pub(crate) fn attack(when: &str) {
    let Some(asked) = ASKED.get().filter(|asked| asked.when == when) else { return };
    let Some((name, attack)) = ATTACKS.iter().find(|(name, _)| *name == asked.attack) else {
        return tell(&format!("attack: no such attack: {}", asked.attack));
    };
    let told = match attack(asked) {
        Ok(()) => format!("attack: {name}: done"),
        Err(errno) => format!("attack: {name}: failed {errno}"),
    };
    tell(&told);
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) };
}

fn tell(text: &str) {
    let text = format!("{text}\n");
    // SAFETY: reads `text` alone.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// The names of all attacks, or the list of calls, a line each.
fn list(what: &str) -> bool {
    let lines: Vec<String> = match what {
        "--attacks" => ATTACKS.iter().map(|(name, _)| (*name).to_owned()).collect(),
        "--calls" => profile()
            .map(|call| {
                let Call { name, number, why, .. } = call;
                let while_loading = call.until == Stage::Load;
                format!("{name}\t{number}\t{while_loading}\t{}\t{why}", call.unseen.unwrap_or(""))
            })
            .collect(),
        _ => vec![format!("unknown argument: {what}")],
    };
    let text = lines.join("\n") + "\n";
    // SAFETY: reads `text` alone.
    unsafe { libc::write(libc::STDOUT_FILENO, text.as_ptr().cast(), text.len()) };
    true
}

/// What the kernel answered: an error by its number.
type Outcome = Result<(), i32>;
type Attack = fn(&Asked) -> Outcome;

/// Asks the kernel directly, as injected code would.
fn sys<const N: usize>(number: libc::c_long, given: [usize; N]) -> Result<usize, i32> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&given);
    let [a, b, c, d, e, f] = all;
    // SAFETY: that it is not safe is the point. Pointers lead to memory of ours that lives through the
    // call, or nowhere, which the kernel notices.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    match usize::try_from(result) {
        Ok(result) => Ok(result),
        Err(_) => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

/// As [`sys`], where only success counts.
fn call<const N: usize>(number: libc::c_long, given: [usize; N]) -> Outcome {
    sys(number, given).map(drop)
}

/// A number that is negative, as an argument.
const fn minus(number: isize) -> usize {
    number.cast_unsigned()
}

const HERE: usize = minus(libc::AT_FDCWD as isize);
const CACHE: usize = tieline_types::wire::CACHE_FD as usize;
/// A descriptor that the test leaves open and names to nobody.
const FOREIGN: usize = 9;

fn text(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).unwrap_or_default()
}

fn open(folder: usize, path: &str, flags: i32) -> Outcome {
    let path = text(path);
    call(libc::SYS_openat, [folder, path.as_ptr() as usize, flags.cast_unsigned() as usize, 0o600])
}

/// A path outside the cache, from its folder.
fn beside(name: &str) -> CString {
    text(format!("../{name}"))
}

/// A new socket, and what connecting it to `address` gives.
fn connect(family: i32, kind: i32, address: &[u8]) -> Outcome {
    let socket =
        sys(libc::SYS_socket, [family.cast_unsigned() as usize, kind.cast_unsigned() as usize])?;
    call(libc::SYS_connect, [socket, address.as_ptr() as usize, address.len()])
}

/// A `sockaddr_in` of this machine.
fn local(port: u16) -> Vec<u8> {
    let mut address = libc::AF_INET.to_ne_bytes()[..2].to_vec();
    address.extend(port.to_be_bytes());
    address.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    address
}

/// A `sockaddr_un`.
fn unix(path: &[u8]) -> Vec<u8> {
    let mut address = libc::AF_UNIX.to_ne_bytes()[..2].to_vec();
    address.extend(path);
    address
}

/// A page of memory with these rights.
fn page(rights: i32) -> Result<usize, i32> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    sys(
        libc::SYS_mmap,
        [0, 4096, rights.cast_unsigned() as usize, flags.cast_unsigned() as usize, minus(-1), 0],
    )
}

/// What a process does that should not be.
fn child(result: Result<usize, i32>) -> Outcome {
    if result? == 0 {
        // SAFETY: the child of an attack that worked; ends it.
        unsafe { libc::_exit(0) };
    }
    Ok(())
}

/// Makes a program run where it can: it says itself that it is done.
fn shell(number: libc::c_long, before: &[usize], path: &str, after: &[usize]) -> Outcome {
    let (path, dash, script) = (text(path), text("-c"), text("echo attack: a program: done >&2"));
    let arguments = [path.as_ptr(), dash.as_ptr(), script.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    let mut given = before.to_vec();
    given.extend([
        path.as_ptr() as usize,
        arguments.as_ptr() as usize,
        environment.as_ptr() as usize,
    ]);
    given.extend(after);
    given.resize(6, 0);
    let given: [usize; 6] = given.try_into().unwrap_or_default();
    call(number, given)
}

extern "C" fn shrug(_: libc::c_int) {}

/// The old way into the kernel, with other numbers.
#[cfg(target_arch = "x86_64")]
fn old_door() -> Outcome {
    let mut result: i64 = 20; // getpid, there
    // SAFETY: the kernel takes the number in rax and changes r8 to r11 besides.
    unsafe {
        std::arch::asm!(
            "int 0x80", inout("rax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _
        );
    };
    if result > 0 { Ok(()) } else { Err(i32::try_from(-result).unwrap_or(0)) }
}

/// Every way out that is tried.
const ATTACKS: &[(&str, Attack)] = &[
    // Paths.
    ("open an absolute path", |_| open(HERE, "/etc/passwd", libc::O_RDONLY)),
    ("open a relative path", |_| open(HERE, "etc/passwd", libc::O_RDONLY)),
    ("open an absolute path from the cache", |_| open(CACHE, "/etc/passwd", libc::O_RDONLY)),
    ("open beside the cache", |_| open(CACHE, "../secret", libc::O_RDONLY)),
    ("follow a link out of the cache", |_| open(CACHE, "link", libc::O_RDONLY)),
    ("list the root", |_| open(CACHE, "/", libc::O_RDONLY | libc::O_DIRECTORY)),
    ("take a path without rights", |_| open(CACHE, "/etc", libc::O_PATH)),
    ("read its own environment", |_| open(CACHE, "/proc/self/environ", libc::O_RDONLY)),
    ("write its own memory as a file", |_| open(CACHE, "/proc/self/mem", libc::O_RDWR)),
    ("read the parent's memory as a file", |asked| {
        open(CACHE, &format!("/proc/{}/mem", asked.parent), libc::O_RDONLY)
    }),
    ("read the parent's environment", |asked| {
        open(CACHE, &format!("/proc/{}/environ", asked.parent), libc::O_RDONLY)
    }),
    ("write beside the cache", |_| open(CACHE, "../victim", libc::O_WRONLY)),
    ("make a file beside the cache", |_| open(CACHE, "../new", libc::O_WRONLY | libc::O_CREAT)),
    ("make shared memory", |asked| {
        let path = format!("/dev/shm/tieline-attack-{}", asked.parent);
        let made = open(CACHE, &path, libc::O_RDWR | libc::O_CREAT);
        let path = text(path);
        let _ = made.is_ok().then(|| call(libc::SYS_unlinkat, [HERE, path.as_ptr() as usize]));
        made
    }),
    ("open a terminal", |_| open(CACHE, "/dev/ptmx", libc::O_RDWR)),
    ("rename out of the cache", |_| {
        let (from, to) = (text("file"), beside("stolen"));
        call(libc::SYS_renameat, [CACHE, from.as_ptr() as usize, CACHE, to.as_ptr() as usize])
    }),
    ("remove beside the cache", |_| {
        call(libc::SYS_unlinkat, [CACHE, beside("victim").as_ptr() as usize, 0])
    }),
    ("link to a file outside", |_| {
        let (from, to) = (beside("victim"), text("hard"));
        call(libc::SYS_linkat, [CACHE, from.as_ptr() as usize, CACHE, to.as_ptr() as usize])
    }),
    ("make a symbolic link", |_| {
        let (to, from) = (text("/etc"), text("soft"));
        call(libc::SYS_symlinkat, [to.as_ptr() as usize, CACHE, from.as_ptr() as usize])
    }),
    ("make a folder", |_| {
        call(libc::SYS_mkdirat, [CACHE, text("folder").as_ptr() as usize, 0o700])
    }),
    ("make a pipe with a name", |_| {
        let mode = libc::S_IFIFO as usize | 0o600;
        call(libc::SYS_mknodat, [CACHE, text("fifo").as_ptr() as usize, mode])
    }),
    ("change a file's mode", |_| {
        call(libc::SYS_fchmodat, [CACHE, beside("victim").as_ptr() as usize, 0o644])
    }),
    ("change a file's owner", |_| {
        let (keep, path) = (minus(-1), beside("victim"));
        call(libc::SYS_fchownat, [CACHE, path.as_ptr() as usize, keep, keep, 0])
    }),
    ("cut a file", |asked| {
        call(libc::SYS_truncate, [text(format!("{}/victim", asked.outside)).as_ptr() as usize, 0])
    }),
    ("change a file's times", |_| {
        call(libc::SYS_utimensat, [CACHE, beside("victim").as_ptr() as usize, 0, 0])
    }),
    ("ask whether a file exists", |_| {
        let mut room = [0u64; 64];
        let path = beside("victim");
        let room = room.as_mut_ptr() as usize;
        call(libc::SYS_newfstatat, [CACHE, path.as_ptr() as usize, room, 0])
    }),
    ("ask more about a file", |_| {
        let mut room = [0u64; 64];
        let path = beside("victim");
        let room = room.as_mut_ptr() as usize;
        call(libc::SYS_statx, [CACHE, path.as_ptr() as usize, 0, 0x7ff, room])
    }),
    ("open by another call", |_| {
        let how = [0u64; 3];
        let path = beside("secret");
        call(libc::SYS_openat2, [CACHE, path.as_ptr() as usize, how.as_ptr() as usize, 24])
    }),
    #[cfg(target_arch = "x86_64")]
    ("open by the oldest call", |_| {
        call(libc::SYS_open, [text("/etc/passwd").as_ptr() as usize, 0])
    }),
    ("name a file by its handle", |asked| {
        let mut handle = [
            128u32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0,
        ];
        let mut mount = 0i32;
        let path = text(format!("{}/secret", asked.outside));
        let (handle, mount) = (handle.as_mut_ptr() as usize, (&raw mut mount) as usize);
        call(libc::SYS_name_to_handle_at, [HERE, path.as_ptr() as usize, handle, mount, 0])
    }),
    ("open a file by its handle", |_| {
        let handle = [8u32, 1, 0, 0];
        call(libc::SYS_open_by_handle_at, [CACHE, handle.as_ptr() as usize, 0])
    }),
    ("watch files", |_| call(libc::SYS_inotify_init1, [0])),
    ("watch all files", |_| call(libc::SYS_fanotify_init, [0, 0])),
    // The network.
    ("connect by TCP", |asked| connect(libc::AF_INET, libc::SOCK_STREAM, &local(asked.tcp))),
    ("send by UDP", |asked| {
        let kind = libc::SOCK_DGRAM.cast_unsigned() as usize;
        let socket = sys(libc::SYS_socket, [libc::AF_INET.cast_unsigned() as usize, kind])?;
        let to = local(asked.udp);
        call(
            libc::SYS_sendto,
            [socket, b"x".as_ptr() as usize, 1, 0, to.as_ptr() as usize, to.len()],
        )
    }),
    ("connect to a socket by its path", |asked| {
        let path = format!("{}/socket", asked.outside);
        connect(libc::AF_UNIX, libc::SOCK_STREAM, &unix(path.as_bytes()))
    }),
    ("connect to an abstract socket", |asked| {
        let name = format!("\0tieline-attack-{}", asked.tcp);
        connect(libc::AF_UNIX, libc::SOCK_STREAM, &unix(name.as_bytes()))
    }),
    ("ask the kernel by netlink", |_| {
        connect(libc::AF_NETLINK, libc::SOCK_RAW, &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }),
    ("open a raw socket", |_| {
        let kind = libc::SOCK_RAW.cast_unsigned() as usize;
        call(libc::SYS_socket, [libc::AF_INET.cast_unsigned() as usize, kind, 1])
    }),
    ("open a socket to the host", |_| {
        let kind = libc::SOCK_STREAM.cast_unsigned() as usize;
        call(libc::SYS_socket, [libc::AF_VSOCK.cast_unsigned() as usize, kind])
    }),
    ("make a pair of sockets", |_| {
        let mut pair = [0i32; 2];
        let family = libc::AF_UNIX.cast_unsigned() as usize;
        call(libc::SYS_socketpair, [family, 1, 0, pair.as_mut_ptr() as usize])
    }),
    // Programs and processes.
    ("run a program", |_| shell(libc::SYS_execve, &[], "/bin/sh", &[])),
    ("run a program another way", |_| shell(libc::SYS_execveat, &[HERE], "/bin/sh", &[])),
    ("make a file in memory", |_| call(libc::SYS_memfd_create, [text("x").as_ptr() as usize, 0])),
    ("make secret memory", |_| call(libc::SYS_memfd_secret, [0])),
    ("fork", |_| child(sys(libc::SYS_clone, [libc::SIGCHLD.cast_unsigned() as usize]))),
    ("fork by the new call", |_| {
        let arguments = [0u64, 0, 0, 0, libc::SIGCHLD.cast_unsigned().into(), 0, 0, 0];
        child(sys(libc::SYS_clone3, [arguments.as_ptr() as usize, 64]))
    }),
    ("fork into namespaces", |_| {
        let flags = libc::SIGCHLD | libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
        child(sys(libc::SYS_clone, [flags.cast_unsigned() as usize]))
    }),
    ("signal the parent", |asked| call(libc::SYS_kill, [asked.parent, 0])),
    ("signal a thread of the parent", |asked| {
        call(libc::SYS_tgkill, [asked.parent, asked.parent, 0])
    }),
    ("queue a signal for the parent", |asked| {
        let info = [0u64; 16];
        call(libc::SYS_rt_sigqueueinfo, [asked.parent, 0, info.as_ptr() as usize])
    }),
    ("hold the parent", |asked| call(libc::SYS_pidfd_open, [asked.parent, 0])),
    ("take a descriptor of the parent", |asked| {
        let parent = sys(libc::SYS_pidfd_open, [asked.parent, 0])?;
        call(libc::SYS_pidfd_getfd, [parent, 0, 0])
    }),
    ("debug the parent", |asked| {
        /// Attaches without stopping; ends with this process.
        const SEIZE: usize = 0x4206;
        call(libc::SYS_ptrace, [SEIZE, asked.parent, 0, 0])
    }),
    ("read the parent's memory", |asked| {
        // What lies at an address of ours lies at some of the parent's, or the kernel says that it does
        // not: either way it looked.
        let mut room = 0u64;
        let vector = [(&raw mut room) as usize, 8];
        let vector = vector.as_ptr() as usize;
        match call(libc::SYS_process_vm_readv, [asked.parent, vector, 1, vector, 1, 0]) {
            Err(libc::EFAULT) => Ok(()),
            read => read,
        }
    }),
    ("write the parent's memory", |asked| {
        // Nothing of nothing.
        call(libc::SYS_process_vm_writev, [asked.parent, 0, 0, 0, 0, 0])
    }),
    ("compare with the parent", |asked| {
        call(libc::SYS_kcmp, [asked.parent, asked.parent, 0, 0, 0])
    }),
    ("read a descriptor that was left open", |_| {
        let mut byte = 0u8;
        call(libc::SYS_read, [FOREIGN, (&raw mut byte) as usize, 1])
    }),
    // Memory that runs.
    ("map memory that runs", |_| page(libc::PROT_READ | libc::PROT_EXEC).map(drop)),
    ("map memory that runs and is written", |_| {
        page(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).map(drop)
    }),
    ("take memory that no limit counts", |_| {
        let rights = (libc::PROT_READ | libc::PROT_WRITE).cast_unsigned() as usize;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let flags = flags.cast_unsigned() as usize;
        sys(libc::SYS_mmap, [0, 40 << 30, rights, flags, minus(-1), 0]).map(drop)
    }),
    ("make memory run", |_| {
        let page = page(libc::PROT_READ | libc::PROT_WRITE)?;
        let rights = (libc::PROT_READ | libc::PROT_EXEC).cast_unsigned() as usize;
        call(libc::SYS_mprotect, [page, 4096, rights])
    }),
    ("make memory run another way", |_| {
        let page = page(libc::PROT_READ | libc::PROT_WRITE)?;
        let rights = (libc::PROT_READ | libc::PROT_EXEC).cast_unsigned() as usize;
        call(libc::SYS_pkey_mprotect, [page, 4096, rights, minus(-1)])
    }),
    ("make reading run", |_| call(libc::SYS_personality, [0x0040_0000])),
    ("share memory", |_| {
        let segment = sys(libc::SYS_shmget, [0, 4096, 0o600])?;
        call(libc::SYS_shmctl, [segment, 0, 0])
    }),
    ("share a queue", |_| {
        let queue = sys(libc::SYS_msgget, [0, 0o600])?;
        call(libc::SYS_msgctl, [queue, 0, 0])
    }),
    // Doors to more of the kernel.
    ("start a ring of calls", |_| {
        let mut room = [0u64; 32];
        call(libc::SYS_io_uring_setup, [1, room.as_mut_ptr() as usize])
    }),
    ("load a kernel program", |_| call(libc::SYS_bpf, [0, 0, 0])),
    ("read the kernel's keys", |_| call(libc::SYS_keyctl, [0, minus(-3), 0])),
    ("add a key", |_| {
        let (kind, name) = (text("user"), text("tieline"));
        let (kind, name) = (kind.as_ptr() as usize, name.as_ptr() as usize);
        call(libc::SYS_add_key, [kind, name, name, 7, minus(-1)])
    }),
    ("handle page faults", |_| call(libc::SYS_userfaultfd, [1])),
    ("count events", |_| {
        let mut room = [0u64; 17];
        room[0] = (112 << 32) | 1;
        call(libc::SYS_perf_event_open, [room.as_ptr() as usize, 0, minus(-1), minus(-1), 0])
    }),
    ("make namespaces", |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWUSER.cast_unsigned() as usize])
    }),
    ("enter a namespace", |_| call(libc::SYS_setns, [minus(-1), 0])),
    ("mount", |_| {
        let empty = text("");
        let empty = empty.as_ptr() as usize;
        call(libc::SYS_mount, [empty, empty, empty, 0, 0])
    }),
    ("mount the new way", |_| call(libc::SYS_fsopen, [text("tmpfs").as_ptr() as usize, 0])),
    ("change the root", |_| call(libc::SYS_chroot, [text("/").as_ptr() as usize])),
    ("swap the root", |_| {
        let empty = text("");
        call(libc::SYS_pivot_root, [empty.as_ptr() as usize, empty.as_ptr() as usize])
    }),
    ("load a module", |_| call(libc::SYS_init_module, [0, 0, text("").as_ptr() as usize])),
    ("restart the machine", |_| call(libc::SYS_reboot, [0, 0, 0])),
    ("read the kernel's messages", |_| call(libc::SYS_syslog, [10])),
    ("control a device", |_| {
        let byte = 0u8;
        call(libc::SYS_ioctl, [0, 0x5412, (&raw const byte) as usize])
    }),
    // What holds it.
    ("become dumpable", |_| {
        call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.cast_unsigned() as usize, 1, 0, 0, 0])
    }),
    ("outlive the parent", |_| {
        call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.cast_unsigned() as usize, 0, 0, 0, 0])
    }),
    ("raise a limit", |_| {
        let limit = [4096u64, 4096];
        call(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, limit.as_ptr() as usize, 0])
    }),
    ("read the parent's limits", |asked| {
        let mut limit = [0u64; 2];
        let limit = limit.as_mut_ptr() as usize;
        call(libc::SYS_prlimit64, [asked.parent, libc::RLIMIT_NOFILE as usize, 0, limit])
    }),
    ("take other processors", |asked| {
        let mut set = [0u64; 16];
        let set = set.as_mut_ptr() as usize;
        sys(libc::SYS_sched_getaffinity, [asked.parent, 128, set])?;
        call(libc::SYS_sched_setaffinity, [asked.parent, 128, set])
    }),
    ("become more urgent", |_| call(libc::SYS_setpriority, [0, 0, 0])),
    ("change the user", |_| call(libc::SYS_setresuid, [minus(-1), minus(-1), minus(-1)])),
    ("take rights", |_| {
        let header = [0x2008_0522u32, 0];
        let none = [0u32; 6];
        call(libc::SYS_capset, [header.as_ptr() as usize, none.as_ptr() as usize])
    }),
    ("handle the signal of the jail", |_| {
        let action = [shrug as *const () as usize, 0, 0, 0];
        let signal = libc::SIGSYS.cast_unsigned() as usize;
        call(libc::SYS_rt_sigaction, [signal, action.as_ptr() as usize, 0, 8])
    }),
    ("block the signal of the jail and go on", |_| {
        let all = u64::MAX;
        call(libc::SYS_rt_sigprocmask, [0, (&raw const all) as usize, 0, 8])?;
        call(libc::SYS_getppid, [])
    }),
    ("call by another set of numbers", |_| {
        /// Marks the numbers of programs with pointers of 32 bits.
        const X32: libc::c_long = 0x4000_0000;
        call(libc::SYS_getppid | X32, [])
    }),
    #[cfg(target_arch = "x86_64")]
    ("call by the old door", |_| old_door()),
];
