//! The list of system calls against what a runner really calls: each call is stopped and written down by a
//! tracer, as a debugger would.
#![expect(unsafe_code, reason = "a tracer looks into another process")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use command_fds::{CommandFdExt, FdMapping};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tieline_types::wire::{self, CACHE_FD, FromRunner, MODEL_FD, Reply, ToRunner, Work};
use tieline_types::{Bytes, Digest, Event, LoadParams, RequestId, Tokens};

use crate::peer::{going_on, gpus};

/// One line of the runner's own list.
#[derive(Debug)]
struct Listed {
    name: String,
    while_loading: bool,
    unseen: bool,
}

fn listed() -> BTreeMap<i64, Listed> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tieline-runner")).arg("--calls").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, number, while_loading, unseen, why] = fields[..] else { panic!("{line}") };
            assert!(!why.is_empty(), "{name} has no reason");
            let (name, unseen) = (name.to_owned(), !unseen.is_empty());
            let while_loading = while_loading == "true";
            (number.parse().unwrap(), Listed { name, while_loading, unseen })
        })
        .collect()
}

/// Calls after the first filters and before the seal, and calls after the seal.
#[derive(Debug, Default)]
struct Called {
    loading: BTreeSet<i64>,
    sealed: BTreeSet<i64>,
}

impl Called {
    /// Of one run, in order.
    fn note(&mut self, calls: &[i64]) {
        let filters: Vec<usize> =
            (0..calls.len()).filter(|&at| calls[at] == libc::SYS_seccomp).collect();
        let [.., lock, seal] = filters[..] else { panic!("{} filters", filters.len()) };
        // The seal is installed in the last moment of loading.
        self.loading.extend(&calls[lock + 1..=seal]);
        self.sealed.extend(&calls[seal + 1..]);
    }
}

/// Runs the runner on `model` under a tracer, talks to it, and gives every call it made, in order.
fn traced(
    model: &Path,
    cache: &Path,
    talk: impl FnOnce(ChildStdin, ChildStdout) + Send,
) -> Vec<i64> {
    thread::scope(|scope| {
        let (pipes, given) = sync_channel(1);
        // A process is traced by the thread that started it.
        let tracer = scope.spawn(move || trace(model, cache, &pipes));
        let (stdin, stdout) = given.recv().unwrap();
        talk(stdin, stdout);
        tracer.join().unwrap()
    })
}

fn trace(model: &Path, cache: &Path, pipes: &SyncSender<(ChildStdin, ChildStdout)>) -> Vec<i64> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tieline-runner"));
    command.env_clear().envs(gpus()).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
    let open = |path: &Path| File::open(path).unwrap().into();
    let model = FdMapping { parent_fd: open(model), child_fd: MODEL_FD };
    let cache = FdMapping { parent_fd: open(cache), child_fd: CACHE_FD };
    command.fd_mappings(vec![model, cache]).unwrap();
    // SAFETY: asks the kernel for one thing and allocates nothing.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    #[expect(clippy::zombie_processes, reason = "the tracer waits for it, and for its threads")]
    let mut child = command.spawn().unwrap();
    let runner = Pid::from_raw(child.id().cast_signed());
    assert!(matches!(waitpid(runner, None).unwrap(), WaitStatus::Stopped(_, Signal::SIGTRAP)));
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(runner, options).unwrap();
    ptrace::syscall(runner, None).unwrap();
    pipes.send((child.stdin.take().unwrap(), child.stdout.take().unwrap())).unwrap();
    follow()
}

/// Follows what this thread traces to its end.
fn follow() -> Vec<i64> {
    let mut calls = Vec::new();
    // Threads too, and nobody else's children.
    let mine = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        let (thread, signal) = match waitpid(None, Some(mine)) {
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                calls.extend(entered(thread));
                (thread, None)
            }
            Ok(WaitStatus::Stopped(thread, Signal::SIGSTOP)) => (thread, None),
            Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
            Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
            Ok(_) => continue,
            Err(Errno::ECHILD) => return calls,
            Err(error) => panic!("{error}"),
        };
        // It may have been killed meanwhile, which the next wait tells.
        let _ = ptrace::syscall(thread, signal);
    }
}

/// The number of the call that a stopped thread is about to make; `None` where it comes back from one.
fn entered(thread: Pid) -> Option<i64> {
    let info = ptrace::syscall_info(thread).ok()?;
    // SAFETY: at an entry the kernel fills this member.
    (info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then(|| unsafe { info.u.entry.nr }.cast_signed())
}

/// Loads, answers prompts that begin with these tokens, and leaves.
fn talk(mut stdin: ChildStdin, stdout: ChildStdout, params: LoadParams, prompts: &[u32]) {
    let mut stdout = BufReader::new(stdout);
    let mut next = || wire::read::<FromRunner>(&mut stdout).unwrap().expect("the runner went away");
    wire::write(&mut stdin, &ToRunner::Load(Box::new(params))).unwrap();
    loop {
        match next() {
            FromRunner::Loaded(_) => break,
            FromRunner::LoadFailed(failure) => panic!("{failure:?}"),
            _ => {}
        }
    }
    for (number, prompt) in prompts.iter().enumerate() {
        let tokens = (0..300).map(|at| 3 + (prompt * 7 + at * prompt) % 250).collect();
        let work = Work::Generate(Box::new(going_on(tokens, 8)));
        wire::write(&mut stdin, &ToRunner::Work(RequestId(number as u64), work)).unwrap();
        while !matches!(next(), FromRunner::Reply(_, Reply::Event(Event::Finished(_)))) {}
    }
    stdin.flush().unwrap();
}

#[test]
fn what_is_called_is_listed_and_what_is_listed_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let (model, cache) = (folder.path().join("model"), folder.path().join("cache"));
    std::fs::write(&model, testkit::tiny()).unwrap();
    std::fs::create_dir(&cache).unwrap();
    let params = |quota| LoadParams {
        context: Some(Tokens(512)),
        // The pool that is made at load has as many as prompts want; answers get another, later.
        threads: Some(2),
        threads_batch: Some(3),
        adapt_threads: false,
        parallel: 2,
        model: Some(Digest([1; 32])),
        disk_cache: Some(Bytes(quota)),
        ..LoadParams::default()
    };
    let mut called = Called::default();
    // Writes to the cache, reads from it, and writes more than it may hold.
    for (quota, prompts) in [(1 << 20, &[1, 2][..]), (1 << 20, &[1, 3]), (60_000, &[4, 5, 6])] {
        let calls =
            traced(&model, &cache, |stdin, stdout| talk(stdin, stdout, params(quota), prompts));
        called.note(&calls);
    }
    let listed = listed();
    let name =
        |number: &i64| listed.get(number).map_or(number.to_string(), |call| call.name.clone());
    let unlisted: Vec<String> = called
        .loading
        .iter()
        .filter(|call| !listed.contains_key(call))
        .chain(
            called
                .sealed
                .iter()
                .filter(|call| listed.get(call).is_none_or(|call| call.while_loading)),
        )
        .map(name)
        .collect();
    assert_eq!(unlisted, [""; 0], "called and not listed");
    let uncalled: Vec<String> = listed
        .iter()
        .filter(|(number, call)| {
            let stage = if call.while_loading { &called.loading } else { &called.sealed };
            !call.unseen && !stage.contains(number)
        })
        .map(|(number, _)| name(number))
        .collect();
    assert_eq!(uncalled, [""; 0], "listed, never called, and no reason why");
    let (loading, sealed) = (called.loading.len(), called.sealed.len());
    println!(
        r#"PROOF {{"prover":"calls","listed":{},"loading":{loading},"sealed":{sealed}}}"#,
        listed.len()
    );
}
