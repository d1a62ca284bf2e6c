//! Says what a model would take of memory, without loading it.
//!
//! llama.cpp itself plans: the model's outline and a context are made in which nothing is allocated, and
//! the context is asked what it would have been. Nothing here guesses at a buffer.

use std::fs::File;
use std::io;
use std::mem;
use std::sync::mpsc::Receiver;

use tieline_decode::checkpoints::MOST;
use tieline_types::wire::{Failure, FailureKind, FromRunner};
use tieline_types::{Bytes, LoadParams, MemoryPlan, MemoryUse, PlannedSettings, Tokens};

use crate::control::Control;
use crate::drafter;
use crate::llama::{self, Context, Llama, Model, Settings};
use crate::pipe::{Order, Writer};
use crate::serve::ServeError;
use crate::session::{self, Rows, failure};

/// Where plans are asked for and said.
pub(crate) struct Line<'l> {
    pub(crate) orders: &'l Receiver<Order>,
    pub(crate) control: &'l Control,
    pub(crate) writer: &'l Writer,
}

/// Plans until there are no more orders to plan.
pub(crate) fn serve(
    llama: &Llama,
    files: (&File, &io::Result<File>),
    line: &Line<'_>,
    first: LoadParams,
) -> Result<(), ServeError> {
    let mut params = first;
    loop {
        // Outlines are of one number of layers on the GPU.
        let outlines = match Outlines::new(llama, files, &params) {
            Ok(outlines) => outlines,
            Err(failure) => return Ok(line.writer.send(&FromRunner::Planned(Err(failure)))?),
        };
        match plan_with(&outlines, line, params)? {
            Some(next) => params = next,
            None => {
                // The process ends, and to free a vocabulary word by word takes a tenth of the whole plan.
                mem::forget(outlines);
                return Ok(());
            }
        }
    }
}

/// The model without its weights, and the draft model where there is to be one.
struct Outlines {
    model: Model,
    draft: Option<Model>,
}

impl Outlines {
    fn new(
        llama: &Llama,
        (file, draft): (&File, &io::Result<File>),
        params: &LoadParams,
    ) -> Result<Self, Failure> {
        drafter::refuse_senseless(params)?;
        let model = outline(llama, file, params)?;
        if params.draft.is_none() {
            return Ok(Self { model, draft: None });
        }
        let file = draft.as_ref().map_err(drafter::not_open)?;
        let draft = outline(llama, file, params).map_err(drafter::of_the_draft)?;
        drafter::refuse_stranger(&model, &draft, params)?;
        Ok(Self { model, draft: Some(draft) })
    }

    /// The plan of both, and their contexts, which hold what the process has really taken.
    fn plan(
        &self,
        params: &LoadParams,
        control: &Control,
    ) -> Result<(MemoryPlan, Vec<Context<'_>>), Failure> {
        let what = (params.clone(), Rows::Answers);
        let (mut plan, context) = session::plan(&self.model, what, control.abort_flag())?;
        let mut contexts = vec![context];
        if let Some(draft) = &self.draft {
            let tokens = (plan.settings.context, plan.settings.kv_tokens);
            let what = (drafter::settings(draft, tokens, params), Rows::Guesses);
            let planned = session::plan(draft, what, control.abort_flag());
            let (other, context) = planned.map_err(drafter::of_the_draft)?;
            plan.copied.0 = plan.copied.0.saturating_add(other.copied.0);
            plan.allocated.0 = plan.allocated.0.saturating_add(other.allocated.0);
            plan.memory.draft = Some(Box::new(other.memory));
            contexts.push(context);
        }
        Ok((plan, contexts))
    }
}

/// Plans with the same outlines; returns the first order that needs others.
fn plan_with(
    outlines: &Outlines,
    line: &Line<'_>,
    mut params: LoadParams,
) -> Result<Option<LoadParams>, ServeError> {
    let needs = |params: &LoadParams| (params.gpu_layers, params.draft);
    let has = needs(&params);
    loop {
        // The contexts live until the next order: the engine looks at what this process holds meanwhile.
        let (planned, _contexts) = match outlines.plan(&params, line.control) {
            Ok((plan, contexts)) => (Ok(Box::new(plan)), contexts),
            Err(failure) => (Err(failure), Vec::new()),
        };
        line.writer.send(&FromRunner::Planned(planned))?;
        match line.orders.recv() {
            Ok(Order::Plan(next)) if needs(&next) == has => params = *next,
            Ok(Order::Plan(next)) => return Ok(Some(*next)),
            Ok(Order::Load(_)) => {
                let failure = failure(FailureKind::Internal, "a runner that plans loads nothing");
                line.writer.send(&FromRunner::LoadFailed(failure))?;
                return Ok(None);
            }
            Ok(_) => {}
            Err(_) => return Ok(None),
        }
    }
}

fn outline(llama: &Llama, file: &File, params: &LoadParams) -> Result<Model, Failure> {
    let file = file.try_clone().map_err(|error| {
        failure(FailureKind::Internal, format!("cannot read the model's open file: {error}"))
    })?;
    Model::outline(llama, file, params.gpu_layers).map_err(session::load_failure)
}

/// What the model of `context` takes, or would take.
pub(crate) fn memory_use(
    model: &Model,
    params: &LoadParams,
    settings: &Settings,
    context: &Context<'_>,
) -> MemoryUse {
    let memory = MemoryUse {
        buffers: context.memory_use(),
        output: rows(model, params, settings.outputs),
        ..MemoryUse::default()
    };
    let state = memory.sum(|buffer| buffer.kv);
    MemoryUse { copies: copies(model, params, state, context.cells()), ..memory }
}

/// What copies of the state may take: as much as was allowed, or as all that are ever kept would take if each
/// held all of it.
fn copies(model: &Model, params: &LoadParams, state: Bytes, cells: u32) -> Bytes {
    if params.embeddings.is_some() || model.can_be_cut() {
        return Bytes(0);
    }
    // A copy comes with its tokens, and llama.cpp's positions of them.
    let one = state.0.saturating_add(16 * u64::from(cells));
    params.copies.min(Bytes(one.saturating_mul(MOST as u64)))
}

/// The plan of a context in which nothing was allocated.
pub(crate) fn describe(
    model: &Model,
    params: &LoadParams,
    settings: &Settings,
    context: &Context<'_>,
) -> MemoryPlan {
    let memory = memory_use(model, params, settings, context);
    // One buffer is the mapped file; what is in others on this machine was copied out of it.
    let copies = |name: &str| params.mmap && name != "CPU" && name != "CPU_Mapped";
    let copied = memory.sum(|buffer| {
        if buffer.device.is_none() && copies(&buffer.name) { buffer.weights } else { Bytes(0) }
    });
    // The state of recurrent models is allocated even so, and rows for one token of each sequence, which may have gone back.
    // Where a state stands beside keys and values nobody tells them apart: it counts twice then, rather than not.
    let state = if !model.has_attention() { memory.sum(|buffer| buffer.kv) } else { Bytes(0) };
    let held = if context.rows_are_held() { settings.sequences } else { 0 };
    let allocated = Bytes(state.0 + rows(model, params, held.into()).0);
    MemoryPlan {
        architecture: model.architecture(),
        trained_context: Tokens(model.trained_context()),
        layers: model.layers().saturating_add(1),
        settings: PlannedSettings {
            context: Tokens(settings.context),
            kv_tokens: Tokens(context.cells()),
            type_k: params.type_k,
            type_v: params.type_v,
            parallel: if params.embeddings.is_some() { 1 } else { params.parallel },
            ubatch: Tokens(settings.ubatch),
            mmap: params.mmap,
        },
        copied,
        allocated,
        memory,
        devices: llama::device_memory(),
    }
}

/// Bytes of so many rows of output: of logits, and of embeddings where they are asked for.
fn rows(model: &Model, params: &LoadParams, rows: u32) -> Bytes {
    const FLOAT: u64 = 4;
    let logits = u64::from(model.vocabulary().max(0).cast_unsigned());
    let embedding = if params.embeddings.is_some() { model.embedding_length() as u64 } else { 0 };
    Bytes((logits + embedding) * FLOAT * u64::from(rows))
}
