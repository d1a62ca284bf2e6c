//! The runner as a process: how it starts, what it refuses, how it ends.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tieline_types::wire::{FailureKind, FromRunner, Reply, ToRunner, Work};
use tieline_types::{
    Event, FlashAttention, JailLayer, JailLevel, KvType, LoadParams, Prompt, Request, Tokens,
};

use crate::peer::{Peer, long_text, question};

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn hello_says_what_the_runner_is_made_of() {
    let peer = Peer::start(testkit::smollm2());
    assert_eq!(peer.build.version, env!("CARGO_PKG_VERSION"));
    assert!(!peer.build.llama_cpp.is_empty());
    assert!(peer.build.devices.contains(&"CPU".to_owned()), "{:?}", peer.build.devices);
    assert!(!peer.build.kernels.is_empty());
}

#[test]
fn it_is_shut_in_before_it_reads_a_model_and_says_how() {
    let mut peer = Peer::start(testkit::smollm2());
    assert!(peer.jail.level() >= JailLevel::Sealed, "{:?}", peer.jail);
    let loaded = peer.load(LoadParams::default()).unwrap();
    assert_eq!(loaded.jail.level(), peer.jail.level());
    assert!(!peer.generate(question("Hello")).text.is_empty());
}

#[test]
#[cfg(target_os = "linux")]
fn it_ends_before_others_where_memory_lacks() {
    let peer = Peer::start(testkit::smollm2());
    let weight = |process: &str| -> i32 {
        let path = format!("/proc/{process}/oom_score_adj");
        std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
    };
    assert!(weight(&peer.child.id().to_string()) > weight("self"));
    let limits = peer.jail.held.iter().find(|note| note.layer == JailLayer::Limits);
    assert!(limits.is_some_and(|note| note.detail.contains("ends first")), "{:?}", peer.jail);
}

#[test]
fn a_file_that_is_no_model_is_refused_with_llama_cpps_words() {
    for bytes in [&b""[..], b"no model", b"GGUF\x03\x00\x00\x00"] {
        let file = file(bytes);
        let failure = Peer::start(file.path()).load(LoadParams::default()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::BadModel);
        assert!(
            failure.message.starts_with("llama.cpp refuses the model: "),
            "{}",
            failure.message
        );
    }
}

#[test]
fn half_a_model_is_refused() {
    let whole = std::fs::read(testkit::smollm2()).unwrap();
    let half = file(&whole[..whole.len() / 2]);
    let failure = Peer::start(half.path()).load(LoadParams::default()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadModel);
}

#[test]
fn senseless_parameters_are_refused() {
    for params in [
        LoadParams { threads: Some(0), ..LoadParams::default() },
        LoadParams { threads: Some(100_000), ..LoadParams::default() },
        LoadParams { context: Some(Tokens(0)), ..LoadParams::default() },
        LoadParams { context: Some(Tokens(8193)), ..LoadParams::default() },
        LoadParams {
            type_v: KvType::Q8_0,
            flash_attention: FlashAttention::Off,
            ..LoadParams::default()
        },
    ] {
        let failure = Peer::start(testkit::smollm2()).load(params).unwrap_err();
        assert_eq!(failure.kind, FailureKind::InvalidRequest, "{}", failure.message);
    }
}

#[test]
fn work_before_loading_is_refused() {
    let mut peer = Peer::start(testkit::smollm2());
    let failure = peer.failure(Work::Generate(Box::new(question("Hi"))));
    assert_eq!(failure.message, "work was sent before a model was loaded");
}

#[test]
fn it_ends_when_its_input_ends() {
    assert!(Peer::start(testkit::smollm2()).hang_up().success());
    assert!(Peer::ready().hang_up().success());
}

#[test]
fn it_ends_at_once_in_the_middle_of_a_prefill() {
    let mut peer =
        Peer::ready_with(LoadParams { context: Some(Tokens(8192)), ..LoadParams::default() });
    let id = peer.order(Work::Generate(Box::new(Request::new(Prompt::Text(long_text(8000))))));
    peer.reply(id);
    let started = Instant::now();
    peer.hang_up();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_shutdown_is_obeyed() {
    let mut peer = Peer::ready();
    peer.send(&ToRunner::Shutdown(Duration::from_secs(5)));
    assert_eq!(peer.frame(), None);
    assert!(peer.child.wait().unwrap().success());
}

#[test]
fn it_does_not_outlive_a_parent_that_was_killed() {
    // A shell starts the runner with a pipe that the shell alone holds open, and is killed.
    let script = r#"mkfifo "$2/pipe"; "$1" <"$2/pipe" >/dev/null 3<"$3" & echo $!; exec 4>"$2/pipe"; sleep 60"#;
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_tieline-runner")])
        .arg(folder.path())
        .arg(testkit::smollm2())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(shell.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}/exe", line.trim()));
    let until = Instant::now() + Duration::from_secs(10);
    while process.read_link().is_ok_and(|exe| !exe.ends_with("tieline-runner"))
        && Instant::now() < until
    {
        thread::sleep(Duration::from_millis(10));
    }
    // The sleeping child of the shell holds the pipe too.
    Command::new("pkill").args(["-KILL", "-P", &shell.id().to_string(), "sleep"]).status().unwrap();
    shell.kill().unwrap();
    shell.wait().unwrap();
    while process.read_link().is_ok() {
        assert!(Instant::now() < until, "the runner lives on");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_ping_is_answered_in_the_middle_of_a_prefill() {
    let mut peer =
        Peer::ready_with(LoadParams { context: Some(Tokens(8192)), ..LoadParams::default() });
    let id = peer.order(Work::Generate(Box::new(Request::new(Prompt::Text(long_text(8000))))));
    peer.reply(id);
    // It is asked while it reads: it works, and says that it gets on with it. Between two steps it rests.
    let mut seen = HashSet::new();
    for number in 0..1000 {
        peer.send(&ToRunner::Ping(number));
        let pong = loop {
            match peer.frame().expect("the runner went away") {
                FromRunner::Pong { number: same, working, progress } => {
                    assert_eq!(same, number);
                    break working.then_some(progress);
                }
                FromRunner::Reply(..) => {}
                other => panic!("{other:?}"),
            }
        };
        seen.extend(pong);
        if seen.len() > 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let moved = seen.len() > 1;
    assert!(moved, "no progress");
}

/// Pings until `last` comes; what pongs said meanwhile of those in which something went on.
fn pinged(peer: &mut Peer, last: impl Fn(&FromRunner) -> bool) -> HashSet<u64> {
    let mut seen = HashSet::new();
    for number in 0.. {
        peer.send(&ToRunner::Ping(number));
        loop {
            match peer.frame().expect("the runner went away") {
                FromRunner::Pong { working, progress, .. } => {
                    seen.extend(working.then_some(progress));
                    break;
                }
                frame if last(&frame) => return seen,
                FromRunner::Loading(_) => {}
                other => panic!("{other:?}"),
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    seen
}

#[test]
fn loading_and_preparing_are_watched_as_computing_is() {
    let mut peer = Peer::start(testkit::smollm2());
    let params =
        LoadParams { context: Some(Tokens(512)), threads: Some(1), ..LoadParams::default() };
    peer.send(&ToRunner::Load(Box::new(params)));
    let seen = pinged(&mut peer, |frame| matches!(frame, FromRunner::Loaded(_)));
    assert!(seen.len() > 1, "a load that stands still would not be seen: {seen:?}");
    let (add_special, parse_special) = (false, false);
    let text = "some words of a long text ".repeat(100_000).into();
    peer.order(Work::Tokenize { text, add_special, parse_special });
    let last = |frame: &FromRunner| matches!(frame, FromRunner::Reply(_, Reply::Tokens(_)));
    let seen = pinged(&mut peer, last);
    assert!(!seen.is_empty(), "a tokeniser that hangs would not be seen");
    // At rest it is not at work.
    let deadline = Instant::now() + Duration::from_secs(10);
    let rests =
        |frame: Option<FromRunner>| matches!(frame, Some(FromRunner::Pong { working: false, .. }));
    loop {
        peer.send(&ToRunner::Ping(0));
        if rests(peer.frame()) {
            return;
        }
        assert!(Instant::now() < deadline, "it never rests");
    }
}

#[test]
fn a_flood_of_work_is_refused_politely() {
    let mut peer = Peer::ready();
    let mut long = question("Tell me a long story.");
    long.ignore_eog = true;
    let id = peer.order(Work::Generate(Box::new(long)));
    // Running, so that it takes no place in the queue.
    assert!(matches!(peer.reply(id), Reply::Event(Event::Started(_))));
    let short = || Request { max_tokens: Some(Tokens(1)), ..question("Hi") };
    for _ in 0..400 {
        peer.order(Work::Generate(Box::new(short())));
    }
    let (mut done, mut busy) = (0, 0);
    while done + busy < 401 {
        match peer.frame().unwrap() {
            FromRunner::Reply(_, Reply::Event(Event::Finished(_))) => done += 1,
            FromRunner::Reply(_, Reply::Failed(failure)) => {
                assert_eq!(failure.kind, FailureKind::Busy);
                busy += 1;
            }
            _ => {}
        }
    }
    assert!(done >= 256 && busy > 0, "{done} done, {busy} refused");
}

#[test]
fn started_by_hand_it_says_so() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tieline-runner")).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("started by tieline, not by hand"), "{stderr}");
}
