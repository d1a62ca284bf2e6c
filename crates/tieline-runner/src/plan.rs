//! Says what a model would take of memory, without loading it.
//!
//! llama.cpp itself plans: the model's outline and a context are made in which nothing is allocated, and
//! the context is asked what it would have been. Nothing here guesses at a buffer.

use std::fs::File;
use std::mem;
use std::sync::mpsc::Receiver;

use tieline_decode::checkpoints::MOST;
use tieline_types::wire::{Failure, FailureKind, FromRunner};
use tieline_types::{Bytes, LoadParams, MemoryPlan, MemoryUse, PlannedSettings, Tokens};

use crate::control::Control;
use crate::llama::{self, Context, Llama, Model, Settings};
use crate::pipe::{Order, Writer};
use crate::serve::ServeError;
use crate::session::{self, failure};

/// Where plans are asked for and said.
pub(crate) struct Line<'l> {
    pub(crate) orders: &'l Receiver<Order>,
    pub(crate) control: &'l Control,
    pub(crate) writer: &'l Writer,
}

/// Plans until there are no more orders to plan.
pub(crate) fn serve(
    llama: &Llama,
    file: &File,
    line: &Line<'_>,
    first: LoadParams,
) -> Result<(), ServeError> {
    let mut params = first;
    loop {
        // An outline is of one number of layers on the GPU.
        let model = match outline(llama, file, &params) {
            Ok(model) => model,
            Err(failure) => return Ok(line.writer.send(&FromRunner::Planned(Err(failure)))?),
        };
        match plan_with(&model, line, params)? {
            Some(next) => params = next,
            None => {
                // The process ends, and to free a vocabulary word by word takes a tenth of the whole plan.
                mem::forget(model);
                return Ok(());
            }
        }
    }
}

/// Plans with one outline; returns the first order that needs another.
fn plan_with(
    model: &Model,
    line: &Line<'_>,
    mut params: LoadParams,
) -> Result<Option<LoadParams>, ServeError> {
    let layers = params.gpu_layers;
    loop {
        let planned = session::plan(model, params.clone(), line.control.abort_flag());
        // The context lives until the next order: the engine looks at what this process holds meanwhile.
        let (planned, _context) = match planned {
            Ok((plan, context)) => (Ok(Box::new(plan)), Some(context)),
            Err(failure) => (Err(failure), None),
        };
        line.writer.send(&FromRunner::Planned(planned))?;
        match line.orders.recv() {
            Ok(Order::Plan(next)) if next.gpu_layers == layers => params = *next,
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
    // The state of recurrent models is allocated even so, and rows for one token of each sequence. Where a
    // state stands beside keys and values nobody tells them apart: it counts twice then, rather than not.
    let state = if !model.has_attention() { memory.sum(|buffer| buffer.kv) } else { Bytes(0) };
    let allocated = Bytes(state.0 + rows(model, params, settings.sequences.into()).0);
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
