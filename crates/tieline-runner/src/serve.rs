//! Takes orders until there are no more.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use tieline_types::wire::{self, Failure, FailureKind, FrameError, FromRunner, Reply, Work};
use tieline_types::{Event, LoadParams, RequestId};

use crate::control::Control;
use crate::embed::embed;
use crate::generate::{Ended, generate};
use crate::llama::{self, Llama};
use crate::measure::measure;
use crate::pipe::{self, Order, Writer};
use crate::process;
use crate::prompt;
use crate::session::{self, Session, failure};

/// Why the runner gave up.
#[derive(Debug)]
pub(crate) enum ServeError {
    NoModel(io::Error),
    Start(io::Error),
    Pipe(FrameError),
    Panicked,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoModel(_) => {
                "no model is open at file descriptor 3; this program is started by tieline, not by hand"
            }
            Self::Start(_) => "cannot start",
            Self::Pipe(_) => "cannot talk to the engine",
            Self::Panicked => "a defect in the runner",
        })
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoModel(error) | Self::Start(error) => Some(error),
            Self::Pipe(error) => Some(error),
            Self::Panicked => None,
        }
    }
}

impl From<FrameError> for ServeError {
    fn from(error: FrameError) -> Self {
        Self::Pipe(error)
    }
}

/// Serves one engine from hello to the end of its input.
pub(crate) fn serve() -> Result<(), ServeError> {
    let file = process::take_model_file().map_err(ServeError::NoModel)?;
    let writer = Writer::new(process::take_stdout().map_err(ServeError::Start)?);
    process::no_debugger();
    let llama = Llama::start();
    writer.send(&FromRunner::Hello { version: wire::VERSION, build: llama::build(&llama) })?;
    let control = Arc::new(Control::default());
    let orders =
        pipe::read_orders(Arc::clone(&control), writer.clone()).map_err(ServeError::Start)?;
    let server = Server { llama, writer, control, orders };
    match server.orders.recv() {
        Ok(Order::Load(params)) => server.load_and_work(file, *params),
        Ok(Order::Work { id, .. }) => {
            let failure = failure(FailureKind::Internal, "work was sent before a model was loaded");
            Ok(server.writer.reply(id, Reply::Failed(failure))?)
        }
        // The engine left.
        Err(_) => Ok(()),
    }
}

struct Server {
    llama: Llama,
    writer: Writer,
    control: Arc<Control>,
    orders: Receiver<Order>,
}

impl Server {
    fn load_and_work(&self, file: File, params: LoadParams) -> Result<(), ServeError> {
        let started = Instant::now();
        let model =
            session::load_model(&self.llama, file, &params, &mut |share| self.progress(share));
        let model = match model {
            Ok(model) => model,
            Err(failure) => return Ok(self.writer.send(&FromRunner::LoadFailed(failure))?),
        };
        let mut session = match Session::new(&model, params, self.control.abort_flag()) {
            Ok(session) => session,
            Err(failure) => return Ok(self.writer.send(&FromRunner::LoadFailed(failure))?),
        };
        self.writer.send(&FromRunner::Loaded(Box::new(session.describe(started))))?;
        while let Ok(order) = self.orders.recv() {
            if let Order::Work { id, work, arrived } = order {
                self.control.begin(id);
                let result = self.work(&mut session, id, work, arrived);
                self.control.end();
                result?;
            }
        }
        Ok(())
    }

    /// Tells the engine how far loading is; says whether to go on.
    fn progress(&self, share: f32) -> bool {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1000 by the clamp"
        )]
        let thousandths = (share.clamp(0.0, 1.0) * 1000.0) as u16;
        let sent = self.writer.send(&FromRunner::Loading(thousandths)).is_ok();
        sent && !self.control.is_aborted()
    }

    fn work(
        &self,
        session: &mut Session<'_>,
        id: RequestId,
        work: Work,
        arrived: Instant,
    ) -> Result<(), FrameError> {
        let reply = match work {
            Work::Generate(request) => {
                let mut emit = |event| self.writer.reply(id, Reply::Event(event));
                match generate(session, *request, arrived, &self.control, &mut emit) {
                    Ok(finished) => Ok(Reply::Event(Event::Finished(Box::new(finished)))),
                    Err(Ended::Failed(failure)) => Err(failure),
                    Err(Ended::Pipe(error)) => return Err(error),
                }
            }
            Work::Embed { texts, normalise } => embed(session, &texts, normalise, &self.control),
            Work::Measure { prefill, decode } => measure(session, prefill, decode, &self.control),
            text => text_work(session, text),
        };
        match self.writer.reply(id, reply.unwrap_or_else(Reply::Failed)) {
            // Nothing of it was written.
            Err(FrameError::TooLong(bytes)) => {
                let text =
                    format!("the answer has {bytes} bytes, and {} is the limit", wire::MAX_FRAME);
                self.writer.reply(id, Reply::Failed(failure(FailureKind::InvalidRequest, text)))
            }
            sent => sent,
        }
    }
}

/// Work that computes nothing.
fn text_work(session: &Session<'_>, work: Work) -> Result<Reply, Failure> {
    let model = session.model;
    match work {
        Work::Tokenize { text, add_special, parse_special } => {
            let tokens = prompt::tokenize(model, text.expose(), add_special, parse_special)?;
            Ok(Reply::Tokens(tokens.into_iter().map(i32::cast_unsigned).collect()))
        }
        Work::Detokenize { tokens, special } => {
            let tokens = prompt::known_tokens(model, &tokens)?;
            let bytes = model.detokenize(&tokens, special).unwrap_or_default();
            Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned().into()))
        }
        Work::Render { messages, .. } => {
            prompt::render(model, session.template.as_ref(), &messages)
                .map(|text| Reply::Text(text.into()))
        }
        Work::Rank { .. } => Err(failure(FailureKind::Unsupported, "this version ranks no texts")),
        Work::Generate(_) | Work::Embed { .. } | Work::Measure { .. } => {
            Err(failure(FailureKind::Internal, "this work computes"))
        }
    }
}
