//! Takes orders until there are no more.

use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tieline_decode::disk::OpenFolder;
use tieline_types::wire::{self, Failure, FailureKind, FrameError, FromRunner, Reply};
use tieline_types::{Digest, Jail, LoadParams};

use crate::control::Control;
use crate::crew::Crew;
use crate::desk::{Desk, Line};
use crate::drafter::{self, Drafter};
use crate::embed;
use crate::grammar::Grammar;
use crate::jail;
use crate::keeper;
use crate::kv::Kv;
use crate::llama::{self, Llama, Model};
use crate::others::Others;
use crate::pipe::{self, Order, Writer};
use crate::plan;
use crate::preparer::{self, Serves};
use crate::process;
use crate::prompt::Prompts;
use crate::session::{self, Rows, Session, failure};
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
    opened: Opened,
    frames: File,
    llama: Llama,
}

impl Given {
    /// Takes the open files, and starts llama.cpp.
    pub(crate) fn take() -> Result<Self, ServeError> {
        let model = process::take_model_file().map_err(ServeError::NoModel)?;
        // Before anything else is opened, which would get the number of what is not there.
        let (folder, draft) = (process::take_cache_folder(), process::take_draft_file());
        let program = folder.as_ref().ok().map(|_| process::own_program());
        let opened = Opened { model, folder, draft, program, others: Others::open() };
        let frames = process::take_stdout().map_err(ServeError::Start)?;
        process::no_debugger();
        process::processors();
        Ok(Self { opened, frames, llama: Llama::start() })
    }

    /// Gives up what only this needed.
    pub(crate) fn lock(&self, jail: &mut Jail) {
        jail::lock(jail, self.opened.folder.as_ref().ok());
    }
}

/// Serves one engine from hello to the end of its input.
pub(crate) fn serve(given: Given, jail: Jail) -> Result<(), ServeError> {
    let Given { opened, frames, llama } = given;
    let writer = Writer::new(frames);
    let build = llama::build(&llama);
    writer.send(&FromRunner::Hello { version: wire::VERSION, build, jail: jail.clone() })?;
    let control = Arc::new(Control::default());
    let orders =
        pipe::read_orders(Arc::clone(&control), writer.clone()).map_err(ServeError::Start)?;
    let server = Server { llama, writer, control, jail };
    match orders.recv() {
        Ok(Order::Load(params)) => server.load_and_work(opened, *params, orders),
        Ok(Order::Plan(params)) => {
            let Server { llama, writer, control, jail: _ } = &server;
            let line = plan::Line { orders: &orders, control, writer };
            plan::serve(llama, (&opened.model, &opened.draft), &line, *params)
        }
        Ok(Order::Work { id, .. }) => {
            let failure = failure(FailureKind::Internal, "work was sent before a model was loaded");
            Ok(server.writer.reply(id, Reply::Failed(failure))?)
        }
        // No adapter is of use yet, and the engine sends none.
        Ok(Order::Answer(_) | Order::Vectors(_) | Order::Adapter(_) | Order::DropAdapter(_)) => {
            let failure = failure(FailureKind::Internal, "an adapter was sent before a model");
            Ok(server.writer.send(&FromRunner::LoadFailed(failure))?)
        }
        // The engine left.
        Err(_) => Ok(()),
    }
}

/// What the parent opened.
#[derive(Debug)]
struct Opened {
    model: File,
    folder: io::Result<OpenFolder>,
    draft: io::Result<File>,
    /// This program, where what it computes is kept.
    program: Option<io::Result<File>>,
    others: Option<Others>,
}

/// What names this build beside others of its version, found out beside the loading: its file takes some tens
/// of milliseconds to read.
struct Program(Option<JoinHandle<io::Result<Digest>>>);

impl Program {
    fn of(file: Option<io::Result<File>>, params: &LoadParams) -> Self {
        let file = file.filter(|_| params.disk_cache.is_some() && params.embeddings.is_none());
        let named = thread::Builder::new().name("digest".to_owned());
        Self(file.and_then(|file| named.spawn(|| process::digest(file?)).ok()))
    }

    /// `None`: nothing is kept, since nobody could tell what computed it.
    fn digest(self) -> Option<Digest> {
        match self.0?.join().ok()? {
            Ok(digest) => Some(digest),
            Err(error) => {
                process::complain(&error);
                None
            }
        }
    }
}

struct Server {
    llama: Llama,
    writer: Writer,
    control: Arc<Control>,
    jail: Jail,
}

impl Server {
    fn load_and_work(
        &self,
        opened: Opened,
        params: LoadParams,
        orders: Receiver<Order>,
    ) -> Result<(), ServeError> {
        let Opened { model, folder, draft, program, others } = opened;
        let started = Instant::now();
        let loading = self.control.load();
        let program = Program::of(program, &params);
        llama::switch_own_kernels(params.own_kernels);
        #[cfg(all(feature = "attacks", target_os = "linux"))]
        jail::attacks::attack("loading");
        let (model, draft) = match self.load(model, draft, &params) {
            Ok(models) => models,
            Err(failure) => return Ok(self.writer.send(&FromRunner::LoadFailed(failure))?),
        };
        // Until the process ends: the threads that prepare prompts are not waited for.
        let model: &'static Model = Box::leak(Box::new(model));
        let (mut session, draft) = match self.sessions(model, draft.as_ref(), params) {
            Ok(sessions) => sessions,
            Err(failure) => return Ok(self.writer.send(&FromRunner::LoadFailed(failure))?),
        };
        session.choose_kernels();
        let mut loaded = session.describe(started);
        loaded.memory.draft = draft.as_ref().map(|draft| Box::new(draft.memory_use()));
        let has_cache = folder.is_ok();
        let prompts = Prompts {
            model,
            template: model.chat_template().map(Template::new),
            grammar: Grammar::default(),
        };
        let context = usize::try_from(session.settings.context).unwrap_or(0);
        let vectors = session.params.embeddings.is_some();
        let serves = if vectors { Serves::Vectors } else { Serves::Answers(context) };
        // Threads begin before the seal.
        let orders = preparer::start(prompts, serves, orders, (&self.control, &self.writer))
            .map_err(ServeError::Start)?;
        if vectors {
            loaded.jail = self.sealed(has_cache);
            self.writer.send(&FromRunner::Loaded(Box::new(loaded)))?;
            drop(loading);
            let line = Line { orders: &orders, control: &self.control, writer: &self.writer };
            return Ok(embed::serve(session, line)?);
        }
        let drafter = draft.map(|draft| Drafter::new(draft, model));
        let desk = self.desk(session, folder, program, others).guessing_with(drafter);
        (loaded.paces, loaded.paces_disturbed) = desk.crew.paces();
        loaded.jail = self.sealed(has_cache);
        self.writer.send(&FromRunner::Loaded(Box::new(loaded)))?;
        drop(loading);
        let line = Line { orders: &orders, control: &self.control, writer: &self.writer };
        Ok(desk.serve(line)?)
    }

    /// The contexts of the model, and of the draft model where there is one.
    fn sessions<'d>(
        &self,
        model: &'static Model,
        draft: Option<&'d Model>,
        params: LoadParams,
    ) -> Result<(Session<'static>, Option<Session<'d>>), Failure> {
        let abort = || self.control.abort_flag();
        let session = Session::new(model, (params, Rows::Answers), abort())?;
        let draft = draft.map(|draft| drafter::session(draft, &session, abort())).transpose()?;
        Ok((session, draft))
    }

    /// Nothing is loaded any more: what is left is to answer.
    fn sealed(&self, has_cache: bool) -> Jail {
        let mut jail = self.jail.clone();
        jail::seal(&mut jail, has_cache);
        #[cfg(all(feature = "attacks", target_os = "linux"))]
        jail::attacks::attack("sealed");
        jail
    }

    /// Loads the weights of the model, and of the draft model where there is to be one.
    fn load(
        &self,
        file: File,
        draft: io::Result<File>,
        params: &LoadParams,
    ) -> Result<(Model, Option<Model>), Failure> {
        drafter::refuse_senseless(params)?;
        let mut told = Told::default();
        let progress = &mut |share| self.progress(share, &mut told);
        let model = session::load_model(&self.llama, file, params, progress)?;
        if params.draft.is_none() {
            return Ok((model, None));
        }
        let file = draft.map_err(|error| drafter::not_open(&error))?;
        // It is the smaller of the two, and what it takes of the time is not told apart.
        let draft = session::load_model(&self.llama, file, params, &mut |_| {
            self.progress(1.0, &mut Told::default())
        });
        let draft = draft.map_err(drafter::of_the_draft)?;
        drafter::refuse_stranger(&model, &draft, params)?;
        Ok((model, Some(draft)))
    }

    fn desk<'m>(
        &self,
        session: Session<'m>,
        folder: io::Result<OpenFolder>,
        program: Program,
        others: Option<Others>,
    ) -> Desk<'m> {
        let Session { model, context, mut params, settings } = session;
        let build = llama::build(&self.llama);
        let disk = keeper::open(folder, &params, (&build, program.digest()), model, settings.kv);
        let copies = plan::memory_use(model, &params, &settings, &context).copies;
        let mut kv = Kv::new(context, (settings.sequences, copies), model, disk);
        // No receipt names them: they change no answer.
        let known = mem::take(&mut params.paces);
        let crew = if params.adapt_threads {
            Crew::following(settings, &known, others, &mut kv)
        } else {
            Crew::fixed(settings)
        };
        Desk::new(model, kv, crew, params, build)
    }

    /// Tells the engine how far loading is; says whether to go on.
    fn progress(&self, share: f32, told: &mut Told) -> bool {
        self.control.gets_on();
        let sent = match told.next(share) {
            Some(thousandths) => self.writer.send(&FromRunner::Loading(thousandths)).is_ok(),
            None => true,
        };
        sent && !self.control.is_aborted()
    }
}

/// How far the engine knows loading to be: each tensor would be a frame, and wakes two processes.
#[derive(Debug, Default)]
struct Told(Option<u16>);

impl Told {
    /// What is worth telling: the first share, the last, and each hundredth between.
    fn next(&mut self, share: f32) -> Option<u16> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1000 by the clamp"
        )]
        let thousandths = (share.clamp(0.0, 1.0) * 1000.0) as u16;
        let worth = self.0.is_none_or(|last| {
            thousandths >= last.saturating_add(10) || thousandths == 1000 && last < 1000
        });
        worth.then(|| {
            self.0 = Some(thousandths);
            thousandths
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_of_a_thousand_tensors_is_told_in_hundred_steps() {
        let mut told = Told::default();
        let frames: Vec<u16> =
            (0..=1000u16).filter_map(|share| told.next(f32::from(share) / 1000.0)).collect();
        assert!((90..=101).contains(&frames.len()), "{}", frames.len());
        assert_eq!((frames.first(), frames.last()), (Some(&0), Some(&1000)));
        let mut few = Told::default();
        let shares = [0.4, 0.405, 0.995, 1.0, 1.0];
        let frames: Vec<u16> = shares.into_iter().filter_map(|share| few.next(share)).collect();
        assert_eq!(frames, [400, 995, 1000]);
    }
}
