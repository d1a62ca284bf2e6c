//! The other end of the pipe.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use sha2::{Digest as _, Sha256};
use tieline_types::wire::{self, AdapterPiece, Failure, FromRunner, Reply, ToRunner, Work};
use tieline_types::{
    Bytes, Digest, Event, FinishReason, Finished, FlashAttention, HeldAdapter, Jail, KvType,
    LoadParams, LoadedModel, Message, Private, Prompt, Request, RequestId, Role, RunnerBuild,
    Sampling, Started, TokenLogprob, Tokens, Usage,
};

/// A runner and its pipes.
pub(crate) struct Peer {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub(crate) build: RunnerBuild,
    pub(crate) jail: Jail,
    next: u64,
    /// What copies of states take, as it said last.
    pub(crate) copies: Bytes,
    /// What was dropped before it could be written, as it said last.
    pub(crate) unwritten: u64,
    /// Ends the watch when dropped.
    _watch: SyncSender<()>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The places in the queue that were told before it started.
    pub(crate) queued: Vec<u32>,
    /// `None` where it ended before it started.
    pub(crate) started: Option<Started>,
    /// Those of the prompt's tokens.
    pub(crate) scores: Vec<TokenLogprob>,
    pub(crate) text: String,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) finished: Finished,
}

impl Answer {
    pub(crate) fn usage(&self) -> Usage {
        self.finished.usage
    }

    /// Tokens of its prompt that were cached, as both of its events say.
    pub(crate) fn cached(&self) -> u32 {
        let cached = self.usage().cached_tokens;
        assert_eq!(self.started.as_ref().map(|started| started.cached_tokens), Some(cached));
        cached.0
    }

    /// Whether it is the same answer to its end. Where they part, both tokens must be as likely within `tie`:
    /// then rounding decides. Both must have log-probabilities.
    #[track_caller]
    pub(crate) fn is_equal(&self, want: &Self, tie: f32) -> bool {
        assert!(!want.logprobs.is_empty(), "nothing to compare");
        for (at, (got, want)) in self.logprobs.iter().zip(&want.logprobs).enumerate() {
            let apart = (got.logprob - want.logprob).abs();
            assert!(apart < tie, "token {at}: {got:?} and not {want:?}");
            if got.token != want.token {
                return false;
            }
        }
        assert_eq!(self.text, want.text);
        assert_eq!(self.finished.reason, want.finished.reason);
        assert_eq!(self.usage().completion_tokens, want.usage().completion_tokens);
        true
    }

    /// It ended at its limit, with so many tokens.
    #[track_caller]
    pub(crate) fn is_whole(&self, tokens: u32) {
        assert_eq!(self.finished.reason, FinishReason::MaxTokens);
        assert_eq!(self.usage().completion_tokens, Tokens(tokens));
    }
}

/// An answer that has not come to its end.
#[derive(Debug, Default)]
struct Growing {
    queued: Vec<u32>,
    started: Option<Started>,
    scores: Vec<TokenLogprob>,
    /// Something of the answer came.
    begun: bool,
    text: String,
    logprobs: Vec<TokenLogprob>,
}

impl Growing {
    /// Takes an event; the last one makes the answer whole.
    fn hear(&mut self, event: Event) -> Option<Answer> {
        match event {
            Event::Queued { position, .. } => {
                assert!(self.started.is_none(), "queued after it started");
                self.queued.push(position);
            }
            Event::Started(started) => {
                assert!(self.started.is_none(), "started twice");
                self.started = Some(started);
            }
            Event::PromptLogprobs(scores) => {
                assert!(self.started.is_some() && !self.begun, "the prompt is not told in time");
                assert!(!scores.is_empty(), "an event that says nothing");
                self.scores.extend(scores);
            }
            Event::Piece(piece) => {
                assert!(self.started.is_some(), "a piece before the start");
                self.begun = true;
                self.text += piece.text.expose();
                self.logprobs.extend(piece.logprobs);
            }
            Event::Finished(finished) => {
                let Self { queued, started, scores, text, logprobs, .. } = std::mem::take(self);
                let finished = *finished;
                return Some(Answer { queued, started, scores, text, logprobs, finished });
            }
            Event::ToolCall(_) => assert!(self.started.is_some(), "a call before the start"),
            other => panic!("unexpected in an answer: {other:?}"),
        }
        None
    }
}

impl Peer {
    /// Starts a runner on `model` and reads its hello.
    pub(crate) fn start(model: &Path) -> Self {
        Self::start_with(model, None)
    }

    /// As [`start`](Self::start), with `cache` open for the runner to keep what it computed.
    pub(crate) fn start_with(model: &Path, cache: Option<&Path>) -> Self {
        Self::start_by(|_| {}, model, cache)
    }

    /// As [`start_with`](Self::start_with), after `prepare` has changed what is started.
    pub(crate) fn start_by(
        prepare: impl FnOnce(&mut Command),
        model: &Path,
        cache: Option<&Path>,
    ) -> Self {
        Self::start_all(prepare, model, cache, None)
    }

    /// As [`start_with`](Self::start_with), with `draft` open to guess.
    pub(crate) fn start_drafting(model: &Path, cache: Option<&Path>, draft: Option<&Path>) -> Self {
        Self::start_all(|_| {}, model, cache, draft)
    }

    fn start_all(
        prepare: impl FnOnce(&mut Command),
        model: &Path,
        cache: Option<&Path>,
        draft: Option<&Path>,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tieline-runner"));
        prepare(&mut command);
        command.env_clear().envs(gpus()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let open = |path: &Path| File::open(path).unwrap().into();
        let mut mappings = vec![FdMapping { parent_fd: open(model), child_fd: wire::MODEL_FD }];
        let folder =
            cache.map(|path| FdMapping { parent_fd: open(path), child_fd: wire::CACHE_FD });
        mappings.extend(folder);
        let draft = draft.map(|path| FdMapping { parent_fd: open(path), child_fd: wire::DRAFT_FD });
        mappings.extend(draft);
        command.fd_mappings(mappings).unwrap();
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let Some(FromRunner::Hello { version: wire::VERSION, build, jail }) =
            wire::read(&mut stdout).unwrap()
        else {
            panic!("no hello");
        };
        Self {
            _watch: watch(child.id()),
            child,
            stdin,
            stdout,
            build,
            jail,
            next: 1,
            copies: Bytes(0),
            unwritten: 0,
        }
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

    /// A runner with float weights, a float cache and plain attention, whose answers can be compared whatever
    /// the shape of its batches: flash attention sums in another order where a step is long.
    pub(crate) fn exact() -> Self {
        let mut peer = Self::start(testkit::smollm2_f16());
        let params = LoadParams {
            type_k: KvType::F32,
            type_v: KvType::F32,
            flash_attention: FlashAttention::Off,
            ..exact()
        };
        peer.load(params).unwrap();
        peer
    }

    /// As [`exact`](Self::exact), keeping what it computed in `folder`.
    pub(crate) fn with_cache(folder: &Path) -> Self {
        Self::with_cache_and(folder, exact())
    }

    /// As [`with_cache`](Self::with_cache), loaded otherwise.
    pub(crate) fn with_cache_and(folder: &Path, params: LoadParams) -> Self {
        let mut peer = Self::start_with(testkit::smollm2_f16(), Some(folder));
        peer.load(keeping(params)).unwrap();
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
        loop {
            match wire::read(&mut self.stdout).unwrap() {
                Some(FromRunner::Copies(bytes)) => self.copies = bytes,
                Some(FromRunner::Unwritten(tokens)) => self.unwritten = tokens,
                frame => return frame,
            }
        }
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
        self.rest(id)
    }

    /// Orders an answer.
    pub(crate) fn begin(&mut self, request: Request) -> RequestId {
        self.order(Work::Generate(Box::new(request)))
    }

    /// Everything up to the end of an answer.
    pub(crate) fn rest(&mut self, id: RequestId) -> Answer {
        // Its start was perhaps read already.
        let mut growing = Growing { started: Some(Started::default()), ..Growing::default() };
        loop {
            let Reply::Event(event) = self.reply(id) else { panic!("no answer") };
            if let Event::Started(started) = event {
                growing.started = Some(started);
            } else if let Some(answer) = growing.hear(event) {
                return answer;
            }
        }
    }

    /// All of these answers, which come side by side, in the order of `ids`.
    pub(crate) fn all(&mut self, ids: &[RequestId]) -> Vec<Answer> {
        let mut growing: HashMap<RequestId, Growing> =
            ids.iter().map(|id| (*id, Growing::default())).collect();
        let mut done = HashMap::new();
        while done.len() < ids.len() {
            let (id, event) = self.event();
            let heard = growing.get_mut(&id).expect("an event after the end, or of nobody");
            if let Some(answer) = heard.hear(event) {
                growing.remove(&id);
                done.insert(id, answer);
            }
        }
        ids.iter().map(|id| done.remove(id).unwrap()).collect()
    }

    /// Answers to requests that are sent at once, in their order.
    pub(crate) fn together(&mut self, requests: impl IntoIterator<Item = Request>) -> Vec<Answer> {
        let ids: Vec<RequestId> = requests.into_iter().map(|request| self.begin(request)).collect();
        self.all(&ids)
    }

    /// The next event, whosever it is.
    pub(crate) fn event(&mut self) -> (RequestId, Event) {
        match self.frame().expect("the runner went away") {
            FromRunner::Reply(id, Reply::Event(event)) => (id, event),
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// Reads events until `want` has one that is `wanted`.
    pub(crate) fn until(&mut self, want: RequestId, wanted: impl Fn(&Event) -> bool) {
        loop {
            let (id, event) = self.event();
            if id == want && wanted(&event) {
                return;
            }
        }
    }

    /// Brings an adapter's file to the runner, in pieces of so many bytes.
    pub(crate) fn bring(&mut self, file: &[u8], piece: usize) -> Result<Digest, Failure> {
        let digest = Digest(Sha256::digest(file).into());
        let bytes = Bytes(file.len() as u64);
        self.send(&ToRunner::BeginAdapter(HeldAdapter { digest, bytes }));
        for bytes in file.chunks(piece) {
            self.send(&ToRunner::AdapterPiece(AdapterPiece { digest, bytes: bytes.to_vec() }));
        }
        self.brought(digest)
    }

    /// What became of an adapter that was sent.
    pub(crate) fn brought(&mut self, want: Digest) -> Result<Digest, Failure> {
        match self.frame().expect("the runner went away") {
            FromRunner::Adapter(digest, result) if digest == want => result.map(|()| digest),
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// Ends the runner as nobody can prepare for.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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
        if test.recv_timeout(Duration::from_secs(600)) == Err(RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    });
    alive
}

/// Which GPUs a runner may see, and that their drivers keep nothing, as the engine tells it.
pub(crate) fn gpus() -> impl Iterator<Item = (&'static str, String)> {
    const VISIBLE: &str = "GGML_VK_VISIBLE_DEVICES";
    let visible = std::env::var(VISIBLE).ok().map(|value| (VISIBLE, value));
    visible.into_iter().chain([("MESA_SHADER_CACHE_DISABLE", "true".to_owned())])
}

/// How runners with float weights are loaded.
pub(crate) fn exact() -> LoadParams {
    LoadParams { context: Some(Tokens(1024)), ..LoadParams::default() }
}

/// `params` of a runner that keeps what it computed on disk.
pub(crate) fn keeping(mut params: LoadParams) -> LoadParams {
    params.model.get_or_insert(Digest([1; 32]));
    params.disk_cache.get_or_insert(Bytes(1 << 30));
    params
}

/// A greedy answer of exactly so many tokens to a prompt of tokens.
pub(crate) fn going_on(prompt: Vec<u32>, answer: u32) -> Request {
    Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(answer)),
        ignore_eog: true,
        ..Request::new(Prompt::Tokens(prompt))
    }
}

/// `count` tokens of text, others for another `seed`.
pub(crate) fn some_tokens(seed: u32, count: u32) -> Vec<u32> {
    let mut random = Random(u64::from(seed) + 1);
    (0..count).map(|_| 1000 + random.below(30_000)).collect()
}

/// Numbers that look random and are the same each time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(end)).unwrap()
    }
}

/// A greedy question.
pub(crate) fn question(text: &str) -> Request {
    let mut request = Request::new(Prompt::Chat(vec![
        Message::new(Role::System, "You answer in one short English sentence."),
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
