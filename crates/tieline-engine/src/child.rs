//! One runner process and its pipes.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tieline_types::wire::{self, FrameError, FromRunner, ToRunner};
use tieline_types::{Digest, ModelFile};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::choices;
use crate::config::EngineConfig;
use crate::environment;
use crate::given::Given;
use crate::program::{self, Program};
use crate::starter;
use crate::supervisor::Failed;

/// Lines of standard error kept for an error message.
const KEPT_LINES: usize = 12;
/// How long to wait for the last words of a dead process.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Frames that may wait between the pipe and the supervisor.
const FRAMES: usize = 64;
/// Orders that may wait to be written: more than a runner takes at once.
const ORDERS: usize = 256;
/// Frames of an adapter that may wait to be written: each is a megabyte.
const BULK: usize = 2;
/// How long a full queue of orders may stay full: a runner's reader thread does nothing but read.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// How long its files may take to be opened.
const OPENING: Duration = Duration::from_secs(30);

/// SIGSYS: how the jail ends a runner.
const FORBIDDEN: i32 = 31;
/// What a runner says before, and then the call's name.
const FORBIDDEN_CALL: &str = "tieline-runner: forbidden system call: ";

/// A running runner.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    orders: Option<mpsc::Sender<Vec<u8>>>,
    /// Frames that give way to all others.
    bulk: Option<mpsc::Sender<Vec<u8>>>,
    frames: mpsc::Receiver<Result<FromRunner, FrameError>>,
    stderr: LastLines,
    stderr_reader: Option<JoinHandle<()>>,
    fallback: Option<String>,
    /// The program's content, where somebody wants to know.
    content: Option<JoinHandle<io::Result<Digest>>>,
}

/// Why a runner was not started.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// There is no program that may be started.
    Program(Failed),
    /// The system refused.
    Start(io::Error),
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> Self {
        Self::Start(error)
    }
}

/// Opens what a runner gets, by a thread of its own: a disk that does not answer keeps it for ever, and nobody
/// waits for it.
async fn open(config: &EngineConfig, model: &ModelFile) -> io::Result<Given> {
    let model = model.path.clone();
    let folder = config.cache.as_ref().map(|cache| cache.folder.clone());
    let draft = config.draft.as_ref().map(|draft| draft.path.clone());
    on_a_thread(OPENING, move || Given::open(&model, folder.as_deref(), draft.as_deref())).await
}

/// What `look` finds, or an error where it takes longer than `most`.
async fn on_a_thread<T: Send + 'static>(
    most: Duration,
    look: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (told, found) = oneshot::channel();
    // Where nobody waits for it any more, it was given up.
    let looking = move || drop(told.send(look()));
    thread::Builder::new().name("open".to_owned()).spawn(looking)?;
    match timeout(most, found).await {
        Ok(found) => found.unwrap_or_else(|lost| Err(io::Error::other(lost))),
        Err(_) => {
            let text =
                format!("a file could not be opened within {most:?}: its disk does not answer");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}

/// The program to start now.
async fn program(config: &EngineConfig) -> Result<Program, Failed> {
    match &config.source {
        Some(source) => source.program().await,
        None => Ok(Program { path: config.runner.clone(), file: None, fallback: None }),
    }
}

/// The last lines of a stream.
type LastLines = Arc<Mutex<VecDeque<String>>>;

impl Child {
    /// Starts the runner with `model`, its draft model and the cache's folder open, an environment that says which GPUs it
    /// may see and no more, and its own process group, so that a Ctrl-C at the terminal does not reach it.
    pub(crate) async fn spawn(
        config: &EngineConfig,
        model: &ModelFile,
        tasks: &TaskTracker,
    ) -> Result<Self, SpawnError> {
        let program = program(config).await.map_err(SpawnError::Program)?;
        // Found out while it starts: it takes some tens of milliseconds.
        let keeps = config.kernel_choices.is_some() || config.paces.is_some();
        let content = keeps.then(|| {
            let (file, path) = (program.file.as_ref().map(File::try_clone), program.path.clone());
            tasks.spawn_blocking(move || {
                choices::content(match file {
                    Some(file) => file?,
                    None => File::open(path)?,
                })
            })
        });
        let open = open(config, model).await?;
        let mut start = program::start(&program)?;
        let command = &mut start.command;
        command.env_clear().envs(environment::variables()).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        open.give(command)?;
        let mut command = Command::from(start.command);
        command.kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let started = starter::start(command).await;
        // The file that is executed had to be open until now.
        #[cfg(target_os = "linux")]
        drop(start.held);
        let mut process = started?;
        let (sender, frames) = mpsc::channel(FRAMES);
        let (orders, to_write) = mpsc::channel(ORDERS);
        let (bulk, bulk_to_write) = mpsc::channel(BULK);
        if let Some(stdin) = process.stdin.take() {
            tasks.spawn(write_orders(stdin, to_write, bulk_to_write));
        }
        if let Some(stdout) = process.stdout.take() {
            tasks.spawn(read_frames(stdout, sender));
        }
        let stderr = LastLines::default();
        let stream = process.stderr.take();
        let stderr_reader =
            stream.map(|stream| tasks.spawn(keep_last_lines(stream, Arc::clone(&stderr))));
        let (orders, bulk) = (Some(orders), Some(bulk));
        let fallback = program.fallback;
        Ok(Self { process, orders, bulk, frames, stderr, stderr_reader, fallback, content })
    }

    /// The content of the program, once. `None` where nobody wanted to know, or it could not be read.
    pub(crate) async fn content(&mut self) -> Option<Digest> {
        self.content.take()?.await.ok()?.ok()
    }

    /// What the user can do where it does not begin as a runner does.
    pub(crate) fn fallback(&self) -> Option<String> {
        self.fallback.clone()
    }

    /// The process id, until the process was waited for.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Sends one frame. It is written by a task of its own, so that frames can be read meanwhile.
    pub(crate) async fn send(&mut self, frame: &ToRunner) -> Result<(), FrameError> {
        let bytes = wire::encode(frame)?;
        let gone = || FrameError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        match timeout(WRITE_DEADLINE, orders.send(bytes)).await {
            Ok(sent) => sent.map_err(|_| gone()),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }

    /// Where to put encoded frames that may wait for all others: few at a time. What was sent before is written
    /// before.
    pub(crate) fn bulk(&self) -> Option<mpsc::Sender<Vec<u8>>> {
        self.bulk.clone()
    }

    /// The next frame; `None` when the runner closed its end.
    pub(crate) async fn frame(&mut self) -> Option<Result<FromRunner, FrameError>> {
        self.frames.recv().await
    }

    /// Tells the runner how long it has, closes its input, waits for its end, and kills it after `patience`.
    pub(crate) async fn end(mut self, patience: Duration) -> Ending {
        if let Some(orders) = self.orders.take()
            && let Ok(bytes) = wire::encode(&ToRunner::Shutdown(patience))
        {
            // Where there is no room for it, the end of its input says to end as well.
            let _ = orders.try_send(bytes);
        }
        drop(self.bulk.take());
        let status = match timeout(patience, self.process.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                // Fails only where the process is gone already.
                let _ = self.process.start_kill();
                self.process.wait().await.ok()
            }
        };
        self.ending(status).await
    }

    /// How it ended, after it has closed its end.
    pub(crate) async fn ended(&mut self) -> Ending {
        let status = timeout(LAST_WORDS, self.process.wait()).await;
        self.ending(status.ok().and_then(Result::ok)).await
    }

    async fn ending(&mut self, status: Option<ExitStatus>) -> Ending {
        // The pipe of standard error closes with the process; its reader needs a moment to see it.
        if let Some(reader) = self.stderr_reader.take() {
            let _ = timeout(LAST_WORDS, reader).await;
        }
        let lines = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        Ending { status, stderr: lines.iter().cloned().collect() }
    }
}

/// How a runner ended.
#[derive(Debug)]
pub(crate) struct Ending {
    status: Option<ExitStatus>,
    stderr: Vec<String>,
}

impl Ending {
    /// For a message: `was killed by signal 9 (SIGKILL)`.
    pub(crate) fn describe(&self) -> String {
        let end = match (self.status, self.signal()) {
            (_, Some(FORBIDDEN)) if self.forbidden().is_some() => {
                return format!(
                    "tried a forbidden system call ({}) and was killed",
                    self.forbidden().unwrap_or_default()
                );
            }
            (_, Some(signal)) => match signal_name(signal) {
                Some(name) => format!("was killed by signal {signal} ({name})"),
                None => format!("was killed by signal {signal}"),
            },
            (Some(status), None) => match status.code() {
                Some(code) => format!("exited with code {code}"),
                None => "ended".to_owned(),
            },
            (None, None) => "ended".to_owned(),
        };
        // Which is not the last thing that is said then.
        let memory = self.stderr.iter().find(|line| lacks_memory(line));
        match memory.or(self.stderr.last()) {
            Some(line) => format!("{end}, saying: {line}"),
            None => end,
        }
    }

    /// The system call for which it was killed.
    fn forbidden(&self) -> Option<&str> {
        self.stderr.iter().find_map(|line| line.strip_prefix(FORBIDDEN_CALL))
    }

    /// What the user can do, where the way it ended tells.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self.signal()? {
            9 => Some(
                "the system may have run out of memory: try a shorter context or a smaller model",
            ),
            6 if self.stderr.iter().any(|line| lacks_memory(line)) => Some(
                "the runner came to the bound of its memory, and nothing else did: ask for less at once, or for a \
                 shorter context",
            ),
            4 => Some(
                "the runner was built for another processor: build it on this machine (make runner)",
            ),
            FORBIDDEN => Some(
                "the model's file may be made to attack: remove it, unless you trust where it is from; \
                 then the jail lacks a call that the runner needs here, which is a defect to report",
            ),
            _ => None,
        }
    }

    #[cfg(unix)]
    fn signal(&self) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&self.status?)
    }

    #[cfg(not(unix))]
    fn signal(&self) -> Option<i32> {
        None
    }
}

/// How the runner's languages say that there is no memory for it.
fn lacks_memory(line: &str) -> bool {
    line.starts_with("memory allocation of ") || line.contains("std::bad_alloc")
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// Writes orders until there are no more, then closes the pipe. After a failure nobody reads it any more.
async fn write_orders(
    mut stdin: ChildStdin,
    mut orders: mpsc::Receiver<Vec<u8>>,
    mut bulk: mpsc::Receiver<Vec<u8>>,
) {
    loop {
        let next = tokio::select! {
            biased;
            order = orders.recv() => order,
            Some(bytes) = bulk.recv() => Some(bytes),
        };
        let Some(bytes) = next else { return };
        if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn read_frames(stdout: ChildStdout, frames: mpsc::Sender<Result<FromRunner, FrameError>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let frame = match read_frame(&mut stdout).await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let last = frame.is_err();
        if frames.send(frame).await.is_err() || last {
            return;
        }
    }
}

async fn read_frame(stdout: &mut BufReader<ChildStdout>) -> Result<Option<FromRunner>, FrameError> {
    if stdout.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let mut prefix = [0; 4];
    stdout.read_exact(&mut prefix).await?;
    let mut body = vec![0; wire::body_length(prefix)?];
    stdout.read_exact(&mut body).await?;
    wire::decode(&body).map(Some)
}

async fn keep_last_lines(stream: ChildStderr, kept: LastLines) {
    /// A line longer than this is cut into several.
    const LONGEST: u64 = 1000;
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut stream).take(LONGEST).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        line.clear();
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        if !text.is_empty() {
            kept.push_back(text);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[track_caller]
    fn check(status: i32, stderr: &[&str], want: &str) {
        let stderr = stderr.iter().map(ToString::to_string).collect();
        let ending = Ending { status: Some(ExitStatus::from_raw(status)), stderr };
        assert_eq!(ending.describe(), want);
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_is_given_up() {
        let (_never, waits) = std::sync::mpsc::sync_channel::<()>(1);
        let hangs = move || waits.recv().map_err(io::Error::other);
        let error = on_a_thread(Duration::from_millis(1), hangs).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let missing = on_a_thread(OPENING, || File::open("/nowhere")).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_end_is_told_in_words() {
        check(0, &[], "exited with code 0");
        check(9, &["one", "two"], "was killed by signal 9 (SIGKILL), saying: two");
        check(
            FORBIDDEN,
            &["tieline-runner: forbidden system call: ptrace"],
            "tried a forbidden system call (ptrace) and was killed",
        );
        // The jail's old or foreign doors say nothing.
        check(FORBIDDEN, &[], "was killed by signal 31 (SIGSYS)");
    }

    #[test]
    fn only_the_jails_end_tells_of_an_attack() {
        let said = "tieline-runner: forbidden system call: ptrace".to_owned();
        let hint = |status| {
            Ending { status: Some(ExitStatus::from_raw(status)), stderr: vec![said.clone()] }.hint()
        };
        assert!(hint(FORBIDDEN).is_some_and(|hint| hint.contains("made to attack")));
        assert_eq!(hint(11), None);
        let ending = |said: &str| {
            let stderr = vec![said.to_owned(), "and more".to_owned()];
            Ending { status: Some(ExitStatus::from_raw(6)), stderr }
        };
        let out = ending("memory allocation of 9 bytes failed");
        assert!(out.describe().ends_with("(SIGABRT), saying: memory allocation of 9 bytes failed"));
        assert!(out.hint().is_some_and(|hint| hint.contains("bound of its memory")));
        assert_eq!(ending("a defect").hint(), None);
    }
}
