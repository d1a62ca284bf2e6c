//! A model of this machine, as the rest of Tieline sees it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tieline_types::wire::{Input, Reply, Work};
use tieline_types::{
    Asker, Backend, BackendError, Bytes, Digest, ErrorKind, EventStream, HeldAdapter, LoadParams,
    LoadedModel, Message, ModelFile, Overflow, Private, Request, RunnerBuild, Served, Tokens, Zone,
};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::client::{self, Client, Ticket};
use crate::compact::{self, Known};
use crate::config::EngineConfig;
use crate::pool::{Gone, Resident};
use crate::probe;
use crate::supervisor::{self, Phase, Running, State, Supervisor, Told};

/// A loaded model: a [`Backend`], and whatever else a runner can do.
///
/// When it is dropped its runner ends.
#[derive(Debug)]
pub struct LocalModel {
    name: String,
    client: Client,
    /// Summaries of conversations that did not fit.
    summaries: Arc<Known>,
    state: watch::Receiver<State>,
    phase: watch::Receiver<Phase>,
    held: watch::Receiver<Vec<HeldAdapter>>,
    copies: watch::Receiver<Bytes>,
    unwritten: watch::Receiver<u64>,
    to_go: watch::Sender<HashSet<Digest>>,
    tasks: TaskTracker,
    served: Arc<Served>,
    /// As the runner that works now says it, by its process id.
    now: Mutex<(u32, Arc<Served>)>,
}

/// Vectors, one for each text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// The vectors.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read.
    pub prompt_tokens: Tokens,
}

/// Times of a bare prefill and a bare decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Time for all prefill tokens.
    pub prefill: Duration,
    /// Time for all decode tokens.
    pub decode: Duration,
}

impl LocalModel {
    /// Starts a runner, loads `file` and waits until it is ready. `progress` gets the loaded share.
    ///
    /// # Errors
    /// The runner cannot be started, speaks another version, or refuses the model.
    pub async fn start(
        config: EngineConfig,
        name: String,
        file: ModelFile,
        mut params: LoadParams,
        mut progress: impl FnMut(f32) + Send,
    ) -> Result<Self, BackendError> {
        params.threads = params.threads.or_else(|| Some(probe::cores()));
        params.model = Some(file.digest);
        params.draft = config.draft.as_ref().map(|draft| draft.digest);
        params.disk_cache = config.cache.as_ref().map(|cache| cache.quota);
        let digest = file.digest;
        let tasks = TaskTracker::new();
        let (commands, receiver) = mpsc::channel(supervisor::COMMANDS);
        let (publish, mut state) = watch::channel(State::Starting);
        let (tell, phase) = watch::channel(Phase::Starting);
        let (hold, held) = watch::channel(Vec::new());
        let (to_go, going) = watch::channel(HashSet::new());
        let (copied, copies) = watch::channel(Bytes(0));
        let (dropped, unwritten) = watch::channel(0);
        let told =
            Told { state: publish, phase: tell, held: hold, copies: copied, unwritten: dropped };
        let asked = (commands.downgrade(), going);
        let supervisor = Supervisor::new(config, (file, params), tasks.clone(), asked, told);
        tasks.spawn(supervisor.run(receiver));
        tasks.close();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Ready(running) => {
                    let served = Arc::new(served(&name, digest, &running));
                    let client = Client::new(commands);
                    return Ok(Self {
                        now: Mutex::new((running.pid, Arc::clone(&served))),
                        name,
                        client,
                        summaries: Arc::default(),
                        state,
                        phase,
                        held,
                        copies,
                        unwritten,
                        to_go,
                        tasks,
                        served,
                    });
                }
                State::Failed(failed) => return Err(failed.error()),
                State::Loading(share) => progress(share),
                State::Starting | State::Restarting | State::Stopped => {}
            }
            if state.changed().await.is_err() {
                return Err(client::supervisor_gone());
            }
        }
    }

    /// What was loaded first.
    pub fn loaded(&self) -> &LoadedModel {
        &self.served.loaded
    }

    /// What the runner is made of, with the kernels that compute this model.
    pub fn build(&self) -> &RunnerBuild {
        &self.served.build
    }

    /// How the runner is doing.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// How the runner is doing, from now on.
    pub fn states(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Where the runner stands.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The adapters that the runner holds or that work waits for, and what they take beside the model. Tells whenever
    /// they change: of one that comes before any of it is there, of one that goes once the runner was told to drop it,
    /// which it does before it takes in anything else.
    pub fn adapters(&self) -> watch::Receiver<Vec<HeldAdapter>> {
        self.held.clone()
    }

    /// What the runner's copies of states take now, of what was planned for them. What a copy was made for has
    /// changed this before its answer ends.
    pub fn copies(&self) -> Bytes {
        *self.copies.borrow()
    }

    /// These adapters are to go, as soon as no work asks for them, and no others.
    pub fn shed(&self, adapters: HashSet<Digest>) {
        self.to_go.send_replace(adapters);
    }

    /// The runner's process id, while it is ready.
    pub fn pid(&self) -> Option<u32> {
        match &*self.state.borrow() {
            State::Ready(running) => Some(running.pid),
            State::Starting
            | State::Loading(_)
            | State::Restarting
            | State::Failed(_)
            | State::Stopped => None,
        }
    }

    /// Ends the runner and waits until it is gone.
    pub async fn shutdown(self) {
        self.close().await;
    }

    /// Takes no more requests, ends those that were begun, and ends the runner then.
    pub async fn drain(&self) {
        self.client.drain().await;
        self.tasks.wait().await;
    }

    /// As [`shutdown`](Self::shutdown), where others hold the model too.
    pub async fn close(&self) {
        self.client.shutdown().await;
        self.tasks.wait().await;
    }

    /// One vector for each text.
    ///
    /// # Errors
    /// The model is not loaded for embeddings, a text is empty or too long, or the runner died.
    pub async fn embed(
        &self,
        texts: Vec<Input>,
        normalise: bool,
    ) -> Result<Embeddings, BackendError> {
        let asker = Asker::default();
        match self.submit(Work::Embed { texts, normalise, asker }).await?.single().await? {
            Reply::Embeddings { vectors, prompt_tokens } => {
                Ok(Embeddings { vectors, prompt_tokens })
            }
            _ => Err(client::unexpected()),
        }
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// The runner died.
    pub async fn tokenize(
        &self,
        text: Private,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, BackendError> {
        match self
            .submit(Work::Tokenize { text, add_special, parse_special })
            .await?
            .single()
            .await?
        {
            Reply::Tokens(tokens) => Ok(tokens),
            _ => Err(client::unexpected()),
        }
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// A token is unknown, or the runner died.
    pub async fn detokenize(
        &self,
        tokens: Vec<u32>,
        special: bool,
    ) -> Result<Private, BackendError> {
        self.text(Work::Detokenize { tokens, special }).await
    }

    /// A conversation as the model's chat template writes it.
    ///
    /// # Errors
    /// The model has no template, the template refuses, or the runner died.
    pub async fn render(&self, messages: Vec<Message>) -> Result<Private, BackendError> {
        self.text(Work::Render { messages, tools: Vec::new() }).await
    }

    /// The length of a request's prompt, rendered and tokenised, whether it fits or not.
    ///
    /// # Errors
    /// The request is invalid, the model has no template for it, or the runner died.
    pub async fn count(&self, request: Request) -> Result<Tokens, BackendError> {
        check_request(&request)?;
        self.client.count(request).await
    }

    /// Times a bare prefill and a bare decode, as llama-bench does.
    ///
    /// # Errors
    /// The context is too short, or the runner died.
    pub async fn measure(&self, prefill: Tokens, decode: Tokens) -> Result<Measured, BackendError> {
        match self.submit(Work::Measure { prefill, decode }).await?.single().await? {
            Reply::Measured { prefill_us, decode_us } => Ok(Measured {
                prefill: Duration::from_micros(prefill_us),
                decode: Duration::from_micros(decode_us),
            }),
            _ => Err(client::unexpected()),
        }
    }

    async fn text(&self, work: Work) -> Result<Private, BackendError> {
        match self.submit(work).await?.single().await? {
            Reply::Text(text) => Ok(text),
            _ => Err(client::unexpected()),
        }
    }

    async fn submit(&self, work: Work) -> Result<Ticket, BackendError> {
        self.client.submit(work).await
    }
}

#[async_trait]
impl Resident for LocalModel {
    fn served(&self) -> Arc<Served> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Ready(running) = &*self.state.borrow()
            && running.pid != now.0
        {
            let served = served(&self.name, self.served.digest, running);
            *now = (running.pid, Arc::new(served));
        }
        Arc::clone(&now.1)
    }

    fn adapters(&self) -> watch::Receiver<Vec<HeldAdapter>> {
        Self::adapters(self)
    }

    fn pid(&self) -> Option<u32> {
        Self::pid(self)
    }

    fn unwritten(&self) -> u64 {
        *self.unwritten.borrow()
    }

    fn shed(&self, adapters: HashSet<Digest>) {
        Self::shed(self, adapters);
    }

    async fn work(&self, work: Work) -> Result<Reply, BackendError> {
        match &work {
            Work::Generate(request) | Work::Count(request) => check_request(request)?,
            Work::Render { messages, .. }
                if messages.iter().any(|one| !one.pictures.is_empty()) =>
            {
                return Err(blind());
            }
            _ => {}
        }
        if let Work::Generate(_) = work {
            let text = "an answer is a stream, no single reply";
            return Err(BackendError::new(ErrorKind::Internal, text));
        }
        self.submit(work).await?.single().await
    }

    fn gone(&self) -> Gone {
        let mut state = self.state.clone();
        Box::pin(async move {
            let over = |state: &State| matches!(state, State::Failed(_) | State::Stopped);
            // Its sender is gone: so is the runner.
            let _ = state.wait_for(over).await;
        })
    }

    async fn end(&self, _: &str) {
        self.close().await;
    }
}

#[async_trait]
impl Backend for LocalModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn zone(&self) -> Zone {
        Zone::Host
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        check_request(&request)?;
        if request.overflow == Overflow::Compact {
            let (client, known) = (self.client.clone(), Arc::clone(&self.summaries));
            return compact::run(client, known, request, self.served.loaded.context);
        }
        self.client.generate(request).await
    }
}

/// What a runner loaded, and what it is made of with the kernels that compute this model.
fn served(name: &str, digest: Digest, running: &Running) -> Served {
    let Running { build, loaded, .. } = running.clone();
    let build = RunnerBuild { kernels: loaded.kernels.clone(), ..build };
    Served { name: name.to_owned(), digest, build, loaded }
}

fn blind() -> BackendError {
    let text = "the models of this machine read text alone: they see no pictures";
    BackendError::new(ErrorKind::Unsupported, text)
}

/// Refuses what no model of this machine can answer.
///
/// # Errors
/// A parameter is out of its range, or there are pictures: no frame holds them, and they would be lost without a word.
pub fn check_request(request: &Request) -> Result<(), BackendError> {
    if request.pictures().next().is_some() {
        return Err(blind());
    }
    request
        .validate()
        .map_err(|invalid| BackendError::new(ErrorKind::InvalidRequest, invalid.to_string()))
}
