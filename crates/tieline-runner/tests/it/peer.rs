//! The other end of the pipe.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tieline_types::wire::{self, Failure, FromRunner, Reply, ToRunner, Work};
use tieline_types::{
    Event, Finished, LoadParams, LoadedModel, Message, Private, Prompt, Request, RequestId, Role,
    RunnerBuild, Sampling, TokenLogprob, Tokens,
};

/// A runner and its pipes.
pub(crate) struct Peer {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub(crate) build: RunnerBuild,
    next: u64,
    /// Ends the watch when dropped.
    _watch: SyncSender<()>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) finished: Finished,
}

impl Peer {
    /// Starts a runner on `model` and reads its hello.
    pub(crate) fn start(model: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tieline-runner"));
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let file = File::open(model).unwrap();
        command
            .fd_mappings(vec![FdMapping { parent_fd: file.into(), child_fd: wire::MODEL_FD }])
            .unwrap();
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let Some(FromRunner::Hello { version: wire::VERSION, build }) =
            wire::read(&mut stdout).unwrap()
        else {
            panic!("no hello");
        };
        Self { _watch: watch(child.id()), child, stdin, stdout, build, next: 1 }
    }

    /// A runner with the test model and a context of 512 tokens on one thread.
    pub(crate) fn ready() -> Self {
        Self::ready_with(LoadParams { context: Some(Tokens(512)), ..LoadParams::default() })
    }

    pub(crate) fn ready_with(params: LoadParams) -> Self {
        let mut peer = Self::start(testkit::smollm2());
        peer.load(params).unwrap();
        peer
    }

    pub(crate) fn load(&mut self, mut params: LoadParams) -> Result<LoadedModel, Failure> {
        // Tests run beside each other, and threads that spin for each other on shared cores crawl.
        params.threads.get_or_insert(1);
        self.send(&ToRunner::Load(Box::new(params)));
        let mut last = 0;
        loop {
            match self.frame().expect("the runner went away") {
                FromRunner::Loading(now) => {
                    assert!(last <= now && now <= 1000, "progress went from {last} to {now}");
                    last = now;
                }
                FromRunner::Loaded(loaded) => return Ok(*loaded),
                FromRunner::LoadFailed(failure) => return Err(failure),
                other => panic!("unexpected while loading: {other:?}"),
            }
        }
    }

    pub(crate) fn send(&mut self, frame: &ToRunner) {
        wire::write(self.stdin.as_mut().unwrap(), frame).unwrap();
    }

    pub(crate) fn frame(&mut self) -> Option<FromRunner> {
        wire::read(&mut self.stdout).unwrap()
    }

    /// Orders some work.
    pub(crate) fn order(&mut self, work: Work) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.send(&ToRunner::Work(id, work));
        id
    }

    pub(crate) fn reply(&mut self, want: RequestId) -> Reply {
        match self.frame().expect("the runner went away") {
            FromRunner::Reply(id, reply) if id == want => reply,
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// Work with one reply.
    pub(crate) fn ask(&mut self, work: Work) -> Reply {
        let id = self.order(work);
        self.reply(id)
    }

    pub(crate) fn failure(&mut self, work: Work) -> Failure {
        match self.ask(work) {
            Reply::Failed(failure) => failure,
            other => panic!("no failure: {other:?}"),
        }
    }

    pub(crate) fn generate(&mut self, request: Request) -> Answer {
        let id = self.order(Work::Generate(Box::new(request)));
        assert!(matches!(self.reply(id), Reply::Event(Event::Started(_))));
        self.rest(id)
    }

    /// Everything up to the end of an answer.
    pub(crate) fn rest(&mut self, id: RequestId) -> Answer {
        let (mut text, mut logprobs) = (String::new(), Vec::new());
        loop {
            match self.reply(id) {
                Reply::Event(Event::Piece(piece)) => {
                    text += piece.text.expose();
                    logprobs.extend(piece.logprobs);
                }
                Reply::Event(Event::Finished(finished)) => {
                    return Answer { text, logprobs, finished: *finished };
                }
                other => panic!("unexpected in an answer: {other:?}"),
            }
        }
    }

    /// Closes the runner's input and waits for its end.
    pub(crate) fn hang_up(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills a runner that a test waits for in vain, so that the test fails and does not hang.
fn watch(pid: u32) -> SyncSender<()> {
    let (alive, test) = sync_channel(0);
    thread::spawn(move || {
        if test.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    });
    alive
}

/// A greedy question.
pub(crate) fn question(text: &str) -> Request {
    let mut request = Request::new(Prompt::Chat(vec![
        Message::new(Role::System, "You are a helpful assistant."),
        Message::new(Role::User, text),
    ]));
    request.sampling = Sampling::greedy();
    request.max_tokens = Some(Tokens(48));
    request
}

/// A prompt of about this many tokens.
pub(crate) fn long_text(tokens: usize) -> Private {
    " word".repeat(tokens).into()
}
