//! What runs, what ends it, and what it leaves behind.

use std::fs;
use std::io::{PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tieline_types::Bytes;

use super::home::{Home, check, keys};

/// A `tieline run` that goes on until somebody ends it.
struct Background {
    child: Child,
    stdout: PipeReader,
}

impl Background {
    /// Starts it and waits for the first byte of its answer.
    fn start(home: &Home, runner: &Path, args: &[&str]) -> Self {
        let (stdout, writer) = std::io::pipe().unwrap();
        let mut background = Self { child: spawn(home, runner, args, writer.into()), stdout };
        background.stdout.read_exact(&mut [0]).unwrap();
        background
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id().into()), signal).unwrap();
    }

    /// Waits for its end, which must come.
    fn end(mut self) -> Output {
        let status = wait(&mut self.child);
        let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
        self.stdout.read_to_end(&mut output.stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_end(&mut output.stderr).unwrap();
        output
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A test that failed leaves nothing running either.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(home: &Home, runner: &Path, args: &[&str], stdout: Stdio) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
    command.args(["run", "smollm2", "Tell me a long story.", "--greedy", "--ignore-end"]);
    command.args(["--threads", "1", "--ctx", "4096"]).args(args);
    command.envs(home.environment()).env("TIELINE_RUNNER", runner);
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap()
}

fn pid(number: i64) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// Waits until `what` gives something; fails after half a minute.
#[track_caller]
fn until<T>(hope: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < deadline, "{hope} never happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    until("the end", || child.try_wait().unwrap())
}

/// Whether the process computes or could: one that is dead and only not yet waited for does not count.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
        !matches!(state, Some("Z" | "X"))
    })
}

/// The only row of `ps`.
fn row(home: &Home) -> Value {
    let rows = home.tieline(["ps", "--json"]).json();
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    rows[0].clone()
}

fn runner_of(row: &Value) -> Pid {
    pid(row["runner_pid"].as_i64().unwrap())
}

fn session_files(home: &Home) -> Vec<PathBuf> {
    let folder = fs::read_dir(home.path().join("sessions")).unwrap();
    folder.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn an_interrupt_ends_all() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let background = Background::start(&home, &runner, &[]);
    let row = row(&home);
    insta::assert_snapshot!(keys(&row).join(" "), @"pid runner_pid model digest context_tokens jail started_at_unix_s planned_bytes devices adapters memory_bytes allocated_bytes limit_bytes engine");
    assert_eq!(row["pid"], background.child.id());
    assert_eq!((&row["model"], &row["context_tokens"]), (&"smollm2".into(), &4096.into()));
    assert!(row["memory_bytes"].as_u64().unwrap() > 50_000_000);
    assert_eq!(row["engine"]["why"], "named");
    let table = home.tieline(["ps"]).text();
    let first = table.lines().next().unwrap();
    assert_eq!(
        first.split_whitespace().collect::<Vec<_>>().join(" "),
        "MODEL DIGEST CONTEXT MEMORY PLANNED ALLOCATED JAIL PID RUNNER ENGINE"
    );
    // The bound that the engine set, and what there is of it.
    let bytes = |name: &str| row[name].as_u64().unwrap();
    let (has, most) = (bytes("allocated_bytes"), bytes("limit_bytes"));
    assert!(has > 0 && most > has + (1 << 29) && most < has + (2 << 30), "{has} of {most}");
    assert!(table.contains(&format!(" of {}", Bytes(most))), "{table}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", row["runner_pid"])).unwrap();
    assert!(
        limits.lines().any(|line| {
            line.starts_with("Max data size") && line.contains(&format!(" {most} "))
        })
    );
    let report = home.tieline(["doctor", "--json"]).runner(&runner).json();
    let check = report.as_array().unwrap().iter().find(|check| check["name"] == "running").unwrap();
    let detail = check["detail"].as_str().unwrap();
    assert!(detail.starts_with("smollm2 allocated ") && detail.ends_with(&Bytes(most).to_string()));
    assert!(lives(runner_of(&row)));
    assert_eq!(session_files(&home).len(), 1);

    background.signal(Signal::INT);
    let output = background.end();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: interrupted\n");
    assert!(output.stdout.ends_with(b"\n"));
    assert!(!lives(runner_of(&row)));
    assert!(session_files(&home).is_empty());
    assert_eq!(home.tieline(["ps", "--json"]).text(), "[]\n");
}

#[test]
fn an_interrupted_answer_has_no_figures() {
    let Some(runner) = testkit::runner() else { return };
    let background = Background::start(Home::shared(), &runner, &["--stats"]);
    background.signal(Signal::INT);
    let output = background.end();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: interrupted\n");

    // The report comes at the end, so nothing but `ps` says that the model was asked.
    let home = Home::with_model();
    let mut child = spawn(&home, &runner, &["--json"], Stdio::piped());
    let rows = || home.tieline(["ps", "--json"]).json();
    until("a model that runs", || rows().get(0).map(|_| ()));
    let status = until("the end", || {
        kill_process(pid(child.id().into()), Signal::INT).unwrap();
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(130));
    let report: Value = serde_json::from_reader(child.stdout.take().unwrap()).unwrap();
    assert_eq!(report["finish_reason"], "cancelled");
    for name in ["usage", "timing", "seed"] {
        assert!(report[name].is_null(), "{report}");
    }
}

/// The first child of a process.
pub(crate) fn child_of(pid: u32) -> Option<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let children = threads.flatten().filter_map(|thread| {
        fs::read_to_string(thread.path().join("children"))
            .ok()?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    children.map(self::pid).next()
}

#[test]
fn an_interrupt_ends_a_certification() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
    command.args(["certify", "smollm2", "--tokens", "512", "--threads", "1"]);
    command.envs(home.environment()).env("TIELINE_RUNNER", runner);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let runner = until("a runner", || child_of(child.id()));
    kill_process(pid(child.id().into()), Signal::INT).unwrap();
    assert_eq!(wait(&mut child).code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "error: interrupted while measuring\n");
    until("the runner's end", || (!lives(runner)).then_some(()));
}

/// The number of the system call `write`.
const WRITE: u8 = if cfg!(target_arch = "x86_64") { 1 } else { 64 };

#[test]
fn an_interrupt_while_nobody_reads_the_answer_counts() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    // A pipe that is full already: the first piece of the answer waits.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let full = fill(&writer);
    let mut child = spawn(home, &runner, &[], writer.into());
    let writes_to_stdout = || {
        let call = fs::read_to_string(format!("/proc/{}/syscall", child.id())).ok()?;
        call.starts_with(&format!("{WRITE} 0x1 ")).then_some(())
    };
    until("the wait for a reader", writes_to_stdout);
    kill_process(pid(child.id().into()), Signal::INT).unwrap();
    reader.read_exact(&mut vec![0; full]).unwrap();
    let rest = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()).unwrap());
    assert_eq!(wait(&mut child).code(), Some(130));
    // Not the whole context of it.
    assert!(rest.join().unwrap() < 1000);
}

/// Fills a pipe; says how much it holds.
fn fill(writer: &std::io::PipeWriter) -> usize {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(writer).unwrap();
    fcntl_setfl(writer, flags | OFlags::NONBLOCK).unwrap();
    let mut full = 0;
    while let Ok(written) = rustix::io::write(writer, &[b'.'; 4096]) {
        full += written;
    }
    fcntl_setfl(writer, flags).unwrap();
    full
}

#[test]
fn a_killed_program_leaves_no_runner() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let background = Background::start(&home, &runner, &[]);
    let row = row(&home);
    background.signal(Signal::KILL);
    assert_eq!(background.end().status.code(), None);
    until("the runner's end", || (!lives(runner_of(&row))).then_some(()));
    // What it left is swept up, and keeps nobody from removing the model.
    assert_eq!(session_files(&home).len(), 1);
    assert_eq!(home.tieline(["ps", "--json"]).text(), "[]\n");
    assert!(session_files(&home).is_empty());
    check!(home, home.tieline(["rm", "smollm2"]), @"
    exit 0
    --- stderr
    removed smollm2; 98.3 MB are free
    ");
}

#[test]
fn a_killed_runner_is_our_fault_and_named() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let background = Background::start(&home, &runner, &[]);
    kill_process(runner_of(&row(&home)), Signal::KILL).unwrap();
    let mut output = background.end();
    output.stdout.clear();
    insta::assert_snapshot!(home.said(&output), @"
    exit 2
    --- stderr
    error: the runner was killed by signal 9 (SIGKILL) while it worked
    hint: the system may have run out of memory: try a shorter context or a smaller model
    ");
    assert_eq!(home.tieline(["ps", "--json"]).text(), "[]\n");
}

#[test]
fn a_model_in_use_is_not_removed() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let background = Background::start(&home, &runner, &[]);
    check!(home, home.tieline(["rm", "smollm2"]), @r#"
    exit 1
    --- stderr
    error: model "smollm2" is in use by a running process
    hint: stop what runs it, then try again
    "#);
    assert_eq!(home.tieline(["list", "--json"]).json()[0]["missing"], false);
    background.signal(Signal::INT);
    background.end();
    assert!(home.tieline(["rm", "smollm2", "-q"]).output().status.success());
}

#[test]
fn a_closed_pipe_is_no_error() {
    let home = Home::shared();
    let closed = |args: &[&str], environment: &[(&str, &Path)]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
        command.args(args).envs(home.environment()).envs(environment.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let status = wait(&mut child);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""), "{args:?}");
    };
    for args in
        [&["list"][..], &["show", "smollm2"], &["man"], &["completions", "bash"], &["--help"]]
    {
        closed(args, &[]);
    }
    let Some(runner) = testkit::runner() else { return };
    closed(
        &["run", "smollm2", "hi", "--ignore-end", "--threads", "1"],
        &[("TIELINE_RUNNER", &runner)],
    );
}

#[test]
fn a_full_disk_behind_stdout_is_an_error() {
    let home = Home::shared();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
    let output = command.arg("list").envs(home.environment()).stdout(full).output().unwrap();
    insta::assert_snapshot!(home.said(&output), @"
    exit 2
    --- stderr
    error: cannot write to standard output: No space left on device (os error 28)
    ");
}

#[test]
fn a_model_that_keeps_crashing_is_quarantined_until_that_is_lifted() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    for _ in 0..3 {
        let background = Background::start(&home, &runner, &[]);
        let killed = row(&home)["runner_pid"].as_i64().unwrap();
        kill_process(pid(killed), Signal::KILL).unwrap();
        assert_eq!(background.end().status.code(), Some(2));
    }
    let ask =
        || home.tieline(["run", "smollm2", "Hi", "-n", "1", "--threads", "1"]).runner(&runner);
    let output = ask().output();
    assert_eq!(output.status.code(), Some(1));
    let said = home.said(&output);
    assert!(
        said.contains("smollm2 is quarantined: the runner died 3 times within a minute"),
        "{said}"
    );
    assert!(said.contains("hint: tieline quarantine lift smollm2"), "{said}");
    let rows = home.tieline(["quarantine", "list", "--json"]).json();
    assert_eq!(rows[0]["models"][0], "smollm2");
    let table = home.tieline(["quarantine", "list"]).text();
    assert!(table.starts_with("MODEL") && table.contains("SIGKILL"), "{table}");
    let lifted = home.tieline(["quarantine", "lift", "smollm2"]).output();
    assert_eq!(home.said(&lifted).trim_end(), "exit 0\n--- stderr\nsmollm2 may be started again");
    assert_eq!(home.tieline(["quarantine", "list", "--json"]).text(), "[]\n");
    ask().text();
}
