//! Ways out of the jail: each is tried by a runner that was shut in, before it reads a model and after it
//! has loaded one, and by one that was not, where it must work or at least reach the kernel.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use tieline_types::wire::{self, CACHE_FD, MODEL_FD, ToRunner};
use tieline_types::{Bytes, Digest, LoadParams, Tokens};

/// A descriptor that is left open for the runner and of which it is told nothing.
const FOREIGN_FD: i32 = 9;
/// Whom to be when not root.
const NOBODY: u32 = 65534;

/// What a jailed runner must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// It dies and says that it tried this call.
    Dies(&'static str),
    /// It dies at once.
    DiesSilently,
    /// The call fails with one of these.
    Fails(&'static [i32]),
}

/// What the same attack comes to where nothing forbids it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Real {
    /// It works for everybody.
    Works,
    /// It works for root; for others the kernel has its own reasons against it.
    ForRoot,
    /// It reaches the kernel, and what that says depends on the machine, or the attack is made so that
    /// nothing comes of it: nobody's machine is restarted by a test.
    Reaches,
}

use Real::{ForRoot, Reaches, Works};
use Want::{Dies, DiesSilently, Fails};

const DENIED: Want = Fails(&[libc::EACCES]);
const UNKNOWN: Want = Fails(&[libc::ENOSYS]);

/// Every attack, what must come of it, and what would.
#[rustfmt::skip] // One attack a line, as a table.
const TABLE: &[(&str, Want, Real)] = &[
    ("open an absolute path", DENIED, Works),
    ("open a relative path", DENIED, Works),
    ("open an absolute path from the cache", DENIED, Works),
    ("open beside the cache", DENIED, Works),
    ("follow a link out of the cache", DENIED, Works),
    ("list the root", DENIED, Works),
    ("take a path without rights", DENIED, Works),
    ("read its own environment", DENIED, Works),
    ("write its own memory as a file", DENIED, Works),
    ("read the parent's memory as a file", DENIED, ForRoot),
    ("read the parent's environment", DENIED, ForRoot),
    ("write beside the cache", DENIED, Works),
    ("make a file beside the cache", DENIED, Works),
    ("make shared memory", DENIED, Reaches),
    ("open a terminal", DENIED, Reaches),
    ("rename out of the cache", Fails(&[libc::EACCES, libc::EXDEV]), Works),
    ("remove beside the cache", DENIED, Works),
    ("link to a file outside", Dies("linkat"), Works),
    ("make a symbolic link", Dies("symlinkat"), Works),
    ("make a folder", Dies("mkdirat"), Works),
    ("make a pipe with a name", Dies("mknodat"), Works),
    ("change a file's mode", Dies("fchmodat"), ForRoot),
    ("change a file's owner", Dies("fchownat"), Reaches),
    ("cut a file", Dies("truncate"), Works),
    ("change a file's times", Dies("utimensat"), Works),
    ("ask whether a file exists", UNKNOWN, Works),
    ("ask more about a file", UNKNOWN, Works),
    ("open by another call", Dies("openat2"), Works),
    #[cfg(target_arch = "x86_64")]
    ("open by the oldest call", Dies("open"), Works),
    ("name a file by its handle", Dies("name_to_handle_at"), Reaches),
    ("open a file by its handle", Dies("open_by_handle_at"), Reaches),
    ("watch files", Dies("inotify_init1"), Works),
    ("watch all files", Dies("fanotify_init"), Reaches),
    ("connect by TCP", Dies("socket"), Works),
    ("send by UDP", Dies("socket"), Works),
    ("connect to a socket by its path", Dies("socket"), Works),
    ("connect to an abstract socket", Dies("socket"), Works),
    ("ask the kernel by netlink", Dies("socket"), Works),
    ("open a raw socket", Dies("socket"), ForRoot),
    ("open a socket to the host", Dies("socket"), Reaches),
    ("make a pair of sockets", Dies("socketpair"), Works),
    ("run a program", Dies("execve"), Works),
    ("run a program another way", Dies("execveat"), Works),
    ("make a file in memory", Dies("memfd_create"), Works),
    ("make secret memory", Dies("memfd_secret"), Reaches),
    ("fork", Dies("clone"), Works),
    ("fork by the new call", UNKNOWN, Works),
    ("fork into namespaces", Dies("clone"), Reaches),
    ("signal the parent", Dies("kill"), ForRoot),
    ("signal a thread of the parent", Dies("tgkill"), ForRoot),
    ("queue a signal for the parent", Dies("rt_sigqueueinfo"), Reaches),
    ("hold the parent", Dies("pidfd_open"), Works),
    ("take a descriptor of the parent", Dies("pidfd_open"), ForRoot),
    ("debug the parent", Dies("ptrace"), ForRoot),
    ("read the parent's memory", Dies("process_vm_readv"), ForRoot),
    ("write the parent's memory", Dies("process_vm_writev"), Reaches),
    ("compare with the parent", Dies("kcmp"), Reaches),
    ("read a descriptor that was left open", Fails(&[libc::EBADF]), Works),
    ("map memory that runs", Dies("mmap"), Works),
    ("map memory that runs and is written", Dies("mmap"), Works),
    ("take memory that no limit counts", Dies("mmap"), Works),
    ("make memory run", Dies("mprotect"), Works),
    ("make memory run another way", Dies("pkey_mprotect"), Works),
    ("make reading run", Dies("personality"), Works),
    ("share memory", Dies("shmget"), Works),
    ("share a queue", Dies("msgget"), Works),
    ("start a ring of calls", Dies("io_uring_setup"), Reaches),
    ("load a kernel program", Dies("bpf"), Reaches),
    ("read the kernel's keys", Dies("keyctl"), Reaches),
    ("add a key", Dies("add_key"), Reaches),
    ("handle page faults", Dies("userfaultfd"), Reaches),
    ("count events", Dies("perf_event_open"), Reaches),
    ("make namespaces", Dies("unshare"), Reaches),
    ("enter a namespace", Dies("setns"), Reaches),
    ("mount", Dies("mount"), Reaches),
    ("mount the new way", Dies("fsopen"), Reaches),
    ("change the root", Dies("chroot"), ForRoot),
    ("swap the root", Dies("pivot_root"), Reaches),
    ("load a module", Dies("init_module"), Reaches),
    ("restart the machine", Dies("reboot"), Reaches),
    ("read the kernel's messages", Dies("syslog"), Reaches),
    ("control a device", Dies("ioctl"), Reaches),
    ("become dumpable", Dies("prctl"), Works),
    ("outlive the parent", Dies("prctl"), Works),
    ("raise a limit", Dies("prlimit64"), Works),
    ("read the parent's limits", Dies("prlimit64"), ForRoot),
    ("take other processors", Dies("sched_setaffinity"), ForRoot),
    ("become more urgent", Dies("setpriority"), ForRoot),
    ("change the user", Dies("setresuid"), Works),
    ("take rights", Dies("capset"), Works),
    ("handle the signal of the jail", Dies("rt_sigaction"), Works),
    ("block the signal of the jail and go on", DiesSilently, Works),
    // The number with the mark of that set.
    #[cfg(target_arch = "x86_64")]
    ("call by another set of numbers", Dies("1073741934"), Reaches),
    #[cfg(target_arch = "x86_64")]
    ("call by the old door", DiesSilently, Reaches),
];

/// What an attack came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Came {
    Done,
    Failed(i32),
    /// Killed by the jail, with the call that it named.
    Died(Option<String>),
    /// Anything else: the test is broken.
    Otherwise(String),
}

impl Want {
    fn is(self, came: &Came) -> bool {
        match (self, came) {
            (Dies(want), Came::Died(Some(call))) => want == call,
            (DiesSilently, Came::Died(None)) => true,
            (Fails(want), Came::Failed(errno)) => want.contains(errno),
            _ => false,
        }
    }
}

/// When a runner attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Unjailed,
    Loading,
    Sealed,
}

/// All that an attack wants to get at: a secret, a victim, listeners; and the folder of a cache among them.
struct Ground {
    folder: tempfile::TempDir,
    runner: PathBuf,
    tcp: TcpListener,
    udp: UdpSocket,
    _listeners: (UnixListener, UnixListener),
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let open =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        open(folder.path(), 0o777);
        fs::create_dir(at("cache")).unwrap();
        open(&at("cache"), 0o777);
        fs::write(at("secret"), "a secret").unwrap();
        symlink("../secret", at("cache/link")).unwrap();
        fs::write(at("model"), testkit::tiny()).unwrap();
        // Where everybody can reach it.
        let runner = at("runner");
        fs::copy(env!("CARGO_BIN_EXE_tieline-runner"), &runner).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let by_path = UnixListener::bind(at("socket")).unwrap();
        open(&at("socket"), 0o777);
        let name = format!("tieline-attack-{}", tcp.local_addr().unwrap().port());
        let hidden = SocketAddr::from_abstract_name(name).unwrap();
        let hidden = UnixListener::bind_addr(&hidden).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        Self { folder, runner, tcp, udp, _listeners: (by_path, hidden) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As it was before anybody attacked.
    fn tidy(&self) {
        for name in ["new", "stolen", "cache/hard", "cache/soft", "cache/fifo"] {
            let _ = fs::remove_file(self.at(name));
        }
        let _ = fs::remove_dir(self.at("cache/folder"));
        for name in ["victim", "cache/file"] {
            let _ = fs::remove_file(self.at(name));
            fs::write(self.at(name), "precious").unwrap();
            fs::set_permissions(self.at(name), Permissions::from_mode(0o666)).unwrap();
        }
    }

    fn is_unharmed(&self) -> bool {
        let precious = |name| fs::read(self.at(name)).is_ok_and(|bytes| bytes == b"precious");
        let new = ["new", "stolen", "cache/hard", "cache/soft", "cache/fifo", "cache/folder"];
        precious("victim") && new.iter().all(|name| self.at(name).symlink_metadata().is_err())
    }

    fn attack(&self, name: &str, when: When, user: Option<u32>) -> Came {
        self.tidy();
        let mut command = Command::new(&self.runner);
        command.arg(format!("attack={name}"));
        command.args(match when {
            When::Unjailed => &["when=loading", "jail=no"][..],
            When::Loading => &["when=loading"],
            When::Sealed => &["when=sealed"],
        });
        command.arg(format!("outside={}", self.folder.path().display()));
        command.arg(format!("tcp={}", self.tcp.local_addr().unwrap().port()));
        command.arg(format!("udp={}", self.udp.local_addr().unwrap().port()));
        command.env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let file = |name: &str| File::open(self.at(name)).unwrap().into();
        let mappings = [("model", MODEL_FD), ("cache", CACHE_FD), ("secret", FOREIGN_FD)];
        let mappings =
            mappings.map(|(name, child_fd)| FdMapping { parent_fd: file(name), child_fd });
        command.fd_mappings(mappings.into()).unwrap();
        let mut child = command.spawn().unwrap();
        let params = LoadParams {
            context: Some(Tokens(64)),
            threads: Some(2),
            model: Some(Digest([1; 32])),
            disk_cache: Some(Bytes(1 << 20)),
            ..LoadParams::default()
        };
        // Kept open to the end: a runner ends with its input. One that died already says so below.
        let mut stdin = child.stdin.take().unwrap();
        let _ = wire::write(&mut stdin, &ToRunner::Load(Box::new(params)));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        came(&said, child.wait().unwrap().signal())
    }
}

fn came(said: &str, signal: Option<i32>) -> Came {
    let line =
        |start: &str| said.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned);
    if signal == Some(libc::SIGSYS) {
        return Came::Died(line("tieline-runner: forbidden system call: "));
    }
    let told =
        line("attack: ").and_then(|told| told.rsplit_once(": ").map(|(_, what)| what.to_owned()));
    match (told.as_deref(), signal) {
        (Some("done"), None) => Came::Done,
        (Some(failed), None) => match failed.strip_prefix("failed ").map(str::parse) {
            Some(Ok(errno)) => Came::Failed(errno),
            _ => Came::Otherwise(said.to_owned()),
        },
        _ => Came::Otherwise(format!("{said:?}, signal {signal:?}")),
    }
}

fn is_root() -> bool {
    // Root's own folder of processes.
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

/// As whom to try: oneself, and where that is root, also somebody without rights.
fn users() -> Vec<Option<u32>> {
    if is_root() { vec![None, Some(NOBODY)] } else { vec![None] }
}

/// Each of the table's attacks; says how many there were.
fn each(when: When, mut right: impl FnMut(&Came, Want, Real, bool) -> bool) -> usize {
    let ground = Ground::new();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for user in users() {
        for (name, want, real) in TABLE {
            let came = ground.attack(name, when, user);
            tried += 1;
            let harmed = when != When::Unjailed && !ground.is_unharmed();
            if harmed || !right(&came, *want, *real, is_root() && user.is_none()) {
                wrong.push(format!("{name} as {user:?}: {came:?}, want {want:?}, really {real:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    tried
}

#[test]
fn no_attack_escapes_while_a_model_is_loaded() {
    let tried = each(When::Loading, |came, want, _, _| want.is(came));
    println!(r#"PROOF {{"prover":"jail","stage":"loading","escapes_tried":{tried},"escaped":0}}"#);
}

#[test]
fn no_attack_escapes_once_it_is_sealed() {
    let tried = each(When::Sealed, |came, want, _, _| want.is(came));
    println!(r#"PROOF {{"prover":"jail","stage":"sealed","escapes_tried":{tried},"escaped":0}}"#);
}

#[test]
fn every_attack_is_real_where_nothing_forbids_it() {
    let mut worked = 0;
    let tried = each(When::Unjailed, |came, want, real, root| {
        worked += usize::from(*came == Came::Done);
        match real {
            Works => *came == Came::Done,
            ForRoot if root => *came == Came::Done,
            // For reasons of its own, and perhaps with the jail's error.
            ForRoot => matches!(came, Came::Done | Came::Failed(_)),
            // Else it would prove nothing.
            Reaches => matches!(came, Came::Done | Came::Failed(_)) && !want.is(came),
        }
    });
    println!(
        r#"PROOF {{"prover":"jail","stage":"unjailed","escapes_tried":{tried},"worked":{worked}}}"#
    );
}

#[test]
fn the_table_names_every_attack_once() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tieline-runner")).arg("--attacks").output().unwrap();
    let known: BTreeSet<String> =
        BufReader::new(&*output.stdout).lines().map(Result::unwrap).collect();
    let listed: BTreeSet<String> = TABLE.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(known, listed);
    assert_eq!(listed.len(), TABLE.len());
    assert!(listed.len() >= 40, "{}", listed.len());
}

#[test]
fn an_attack_that_works_would_be_noticed() {
    for (_, want, _) in TABLE {
        assert!(!want.is(&Came::Done));
        assert!(!want.is(&Came::Otherwise(String::new())));
    }
    let died = came("tieline-runner: forbidden system call: ptrace\n", Some(libc::SIGSYS));
    assert!(Dies("ptrace").is(&died) && !Dies("bpf").is(&died) && !DiesSilently.is(&died));
    assert_eq!(came("attack: fork: failed 13\n", None), Came::Failed(13));
    assert_eq!(came("attack: fork: done\n", None), Came::Done);
}
