//! Takes orders until there are no more.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use tieline_types::wire::{self, FailureKind, FrameError, FromRunner, Reply};
use tieline_types::{Jail, LoadParams};

use crate::control::Control;
use crate::desk::{Desk, Line};
use crate::embed;
use crate::grammar::Grammar;
use crate::jail;
use crate::keeper;
use crate::kv::Kv;
use crate::llama::{self, Llama};
use crate::pipe::{self, Order, Writer};
use crate::plan;
use crate::process;
use crate::prompt::Prompts;
use crate::session::{self, Session, failure};
use crate::template::Template;

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

/// What the runner has before it talks to anybody: all that needs a path, or reads what the system says of
/// itself.
#[derive(Debug)]
pub(crate) struct Given {
    file: File,
    folder: io::Result<OwnedFd>,
    frames: File,
    llama: Llama,
}

impl Given {
    /// Takes the open files, and starts llama.cpp.
    pub(crate) fn take() -> Result<Self, ServeError> {
        let file = process::take_model_file().map_err(ServeError::NoModel)?;
        // Before anything else is opened, which would get the number of a folder that is not there.
        let folder = process::take_cache_folder();
        let frames = process::take_stdout().map_err(ServeError::Start)?;
        process::no_debugger();
        process::processors();
        Ok(Self { file, folder, frames, llama: Llama::start() })
    }

    /// Gives up what only this needed.
    pub(crate) fn lock(&self, jail: &mut Jail) {
        jail::lock(jail, self.folder.as_ref().ok());
    }
}

/// Serves one engine from hello to the end of its input.
pub(crate) fn serve(given: Given, jail: Jail) -> Result<(), ServeError> {
    let Given { file, folder, frames, llama } = given;
    let writer = Writer::new(frames);
    let build = llama::build(&llama);
    writer.send(&FromRunner::Hello { version: wire::VERSION, build, jail: jail.clone() })?;
    let control = Arc::new(Control::default());
    let orders =
        pipe::read_orders(Arc::clone(&control), writer.clone()).map_err(ServeError::Start)?;
    let server = Server { llama, writer, control, orders, jail };
    match server.orders.recv() {
        Ok(Order::Load(params)) => server.load_and_work(file, folder, *params),
        Ok(Order::Plan(params)) => {
            llama::switch_own_kernels(params.own_kernels);
            let Server { llama, writer, control, orders, jail: _ } = &server;
            plan::serve(llama, &file, &plan::Line { orders, control, writer }, *params)
        }
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
    jail: Jail,
}

impl Server {
    fn load_and_work(
        &self,
        file: File,
        folder: io::Result<OwnedFd>,
        params: LoadParams,
    ) -> Result<(), ServeError> {
        let started = Instant::now();
        llama::switch_own_kernels(params.own_kernels);
        #[cfg(all(feature = "attacks", target_os = "linux"))]
        jail::attacks::attack("loading");
        let model =
            session::load_model(&self.llama, file, &params, &mut |share| self.progress(share));
        let model = match model {
            Ok(model) => model,
            Err(failure) => return Ok(self.writer.send(&FromRunner::LoadFailed(failure))?),
        };
        let session = match Session::new(&model, params, self.control.abort_flag()) {
            Ok(session) => session,
            Err(failure) => return Ok(self.writer.send(&FromRunner::LoadFailed(failure))?),
        };
        let mut loaded = session.describe(started);
        let has_cache = folder.is_ok();
        let line = Line { orders: &self.orders, control: &self.control, writer: &self.writer };
        if session.params.embeddings.is_some() {
            loaded.jail = self.sealed(has_cache);
            self.writer.send(&FromRunner::Loaded(Box::new(loaded)))?;
            return Ok(embed::serve(session, line)?);
        }
        let desk = self.desk(session, folder);
        loaded.jail = self.sealed(has_cache);
        self.writer.send(&FromRunner::Loaded(Box::new(loaded)))?;
        Ok(desk.serve(line)?)
    }

    /// Nothing is loaded any more: what is left is to answer.
    fn sealed(&self, has_cache: bool) -> Jail {
        let mut jail = self.jail.clone();
        jail::seal(&mut jail, has_cache);
        #[cfg(all(feature = "attacks", target_os = "linux"))]
        jail::attacks::attack("sealed");
        jail
    }

    fn desk<'m>(&self, session: Session<'m>, folder: io::Result<OwnedFd>) -> Desk<'m> {
        let Session { model, context, params, settings } = session;
        let build = llama::build(&self.llama);
        let disk = keeper::open(folder, &params, &build, model, settings.kv);
        let kv = Kv::new(context, settings.sequences, model, disk);
        let template = model.chat_template().map(Template::new);
        Desk::new(
            Prompts { model, template, grammar: Grammar::default() },
            kv,
            settings,
            params,
            build,
        )
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
}
