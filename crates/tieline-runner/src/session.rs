//! A loaded model with its context and what the context holds.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tieline_types::wire::{Failure, FailureKind};
use tieline_types::{
    Bytes, FlashAttention, Jail, KvType, LoadParams, LoadedModel, MemoryPlan, MemoryUse, Pooling,
    Tokens,
};

use crate::llama::{self, ActualPooling, Context, Llama, LoadError, Model, Settings};
use crate::{plan, process};

/// The longest context for embeddings taken without being asked for one: all of it is one batch.
const DEFAULT_EMBEDDING_CONTEXT: u32 = 2048;

/// Sequences for cached prefixes, beside those for requests at work.
const CACHED: u32 = 15;

/// Rows of logits of a step, at least: for answers and what is guessed ahead of them.
const OUTPUTS: u32 = 32;

/// As many, where they fit into [`SCORES`]: of a prompt that is scored each token has one, and so many tokens
/// are what attention on a processor takes together.
const MOST_OUTPUTS: u32 = 64;

/// Bytes for rows beyond [`OUTPUTS`]. llama.cpp makes room for the most that are allowed in what it computes
/// with, and the plan counts them again as its output, whether a prompt is ever scored or not. So models with
/// a large vocabulary, whose rows are long, read such prompts in shorter pieces rather than hold more.
const SCORES: u32 = 32 * 1024 * 1024;

/// What a text model's rows of logits are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Answers, what is guessed ahead of them, and prompts that are scored.
    Answers,
    /// Guesses alone, a token of each sequence at a time.
    Guesses,
}

/// Texts that are embedded together.
const TEXTS: u16 = 16;

/// A loaded model with a context to work in.
#[derive(Debug)]
pub(crate) struct Session<'m> {
    pub(crate) model: &'m Model,
    pub(crate) context: Context<'m>,
    pub(crate) params: LoadParams,
    pub(crate) settings: Settings,
}

/// A failure with its kind and what was tried.
pub(crate) fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into(), hint: None, retry_after: None }
}

/// As [`failure`], with what the user can do.
pub(crate) fn failure_with(
    kind: FailureKind,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Failure {
    Failure { hint: Some(hint.into()), ..failure(kind, message) }
}

/// Loads the weights.
pub(crate) fn load_model(
    llama: &Llama,
    file: File,
    params: &LoadParams,
    progress: &mut dyn FnMut(f32) -> bool,
) -> Result<Model, Failure> {
    Model::load(llama, file, params.mmap, params.gpu_layers, progress).map_err(load_failure)
}

/// Why a model did not load, for the engine.
pub(crate) fn load_failure(error: LoadError) -> Failure {
    match error {
        LoadError::Stream(error) => {
            failure(FailureKind::Internal, format!("cannot read the model's open file: {error}"))
        }
        LoadError::Refused(log) if ran_out(&log) => failure_with(
            FailureKind::OutOfMemory,
            with_log("there is no memory for the model", &log),
            "end other programs, or use a smaller model",
        ),
        LoadError::Refused(log) => {
            failure(FailureKind::BadModel, with_log("llama.cpp refuses the model", &log))
        }
        LoadError::Stopped => failure(FailureKind::Internal, "loading was stopped"),
    }
}

/// Whether it was memory that lacked. llama.cpp says so in words alone.
fn ran_out(log: &[String]) -> bool {
    let words = ["cannot allocate memory", "unable to allocate", "failed to allocate"];
    log.iter().any(|line| words.iter().any(|words| line.to_ascii_lowercase().contains(words)))
}

/// Plans the context that these settings ask for. The model must be an outline; the context computes
/// nothing.
pub(crate) fn plan(
    model: &Model,
    (params, rows): (LoadParams, Rows),
    abort: Arc<AtomicBool>,
) -> Result<(MemoryPlan, Context<'_>), Failure> {
    let (params, settings, context) = make_context(model, (params, rows), abort)?;
    refuse_unfit(model, &params, &context)?;
    Ok((plan::describe(model, &params, &settings, &context), context))
}

impl<'m> Session<'m> {
    /// Makes the context.
    pub(crate) fn new(
        model: &'m Model,
        (params, rows): (LoadParams, Rows),
        abort: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let (params, settings, context) = make_context(model, (params, rows), abort)?;
        refuse_unfit(model, &params, &context)?;
        Ok(Self { model, context, params, settings })
    }

    /// Chooses by which kernels is multiplied, for this and all other contexts of the process. Nothing was computed yet.
    pub(crate) fn choose_kernels(&mut self) {
        let params = &mut self.params;
        params.kernel_choices =
            llama::choose_kernels(&params.kernel_choices, params.measure_kernels);
        // From here on they say by what was computed: receipts are made of them.
        params.measure_kernels = false;
    }

    /// What its model takes.
    pub(crate) fn memory_use(&self) -> MemoryUse {
        plan::memory_use(self.model, &self.params, &self.settings, &self.context)
    }

    /// What was loaded.
    pub(crate) fn describe(&self, started: Instant) -> LoadedModel {
        let model = self.model;
        LoadedModel {
            description: model.description(),
            parameters: model.parameters(),
            weights: Bytes(model.size()),
            context: Tokens(self.settings.context),
            trained_context: Tokens(model.trained_context()),
            vocabulary: Tokens(model.vocabulary().cast_unsigned()),
            embedding_length: u32::try_from(model.embedding_length()).unwrap_or(0),
            has_chat_template: model.chat_template().is_some(),
            kv_tokens: Tokens(self.context.cells()),
            kv_token_size: Bytes(whole(kv_token_bytes(model, &self.params))),
            parallel: if self.params.embeddings.is_some() { 1 } else { self.params.parallel },
            kernels: llama::kernels(),
            kernel_choices: self.params.kernel_choices.clone(),
            paces: Vec::new(),
            paces_disturbed: false,
            threads: self.settings.threads.cast_unsigned(),
            threads_batch: self.settings.threads_batch.cast_unsigned(),
            load_time: started.elapsed(),
            peak_memory: process::peak_memory(),
            architecture: model.architecture(),
            memory: self.memory_use(),
            jail: Jail::default(),
        }
    }
}

fn make_context(
    model: &Model,
    (mut params, rows): (LoadParams, Rows),
    abort: Arc<AtomicBool>,
) -> Result<(LoadParams, Settings, Context<'_>), Failure> {
    let settings = settings(model, &params, rows)?;
    let context = new_context(model, &params, settings, Arc::clone(&abort))?;
    if params.embeddings == Some(Pooling::Model) && context.pooling() == ActualPooling::None {
        drop(context);
        params.embeddings = Some(Pooling::Mean);
        let context = new_context(model, &params, settings, abort)?;
        return Ok((params, settings, context));
    }
    Ok((params, settings, context))
}

fn new_context<'m>(
    model: &'m Model,
    params: &LoadParams,
    settings: Settings,
    abort: Arc<AtomicBool>,
) -> Result<Context<'m>, Failure> {
    Context::new(model, params, settings, abort).ok_or_else(|| {
        let what = format!("cannot make a context of {} tokens", settings.context);
        failure_with(
            FailureKind::OutOfMemory,
            with_log(&what, &llama::take_errors()),
            "ask for a shorter context or a smaller KV type",
        )
    })
}

fn settings(model: &Model, params: &LoadParams, rows: Rows) -> Result<Settings, Failure> {
    refuse_quantised_values(params)?;
    let context = context_length(model, params)?;
    let threads = thread_count(params.threads)?;
    let threads_batch = params.threads_batch.map_or(Ok(threads), |n| thread_count(Some(n)))?;
    if params.embeddings.is_some() {
        // A pooled text must be one batch, and each of its tokens is a row of output.
        return Ok(Settings {
            context,
            kv: context,
            batch: context,
            ubatch: context,
            sequences: TEXTS,
            outputs: context.max(TEXTS.into()),
            threads,
            threads_batch,
        });
    }
    let sequences = u16::try_from(parallel(params)? + CACHED + 1).unwrap_or(u16::MAX);
    let outputs = match rows {
        Rows::Answers => outputs(model).max(sequences.into()),
        Rows::Guesses => sequences.into(),
    };
    let ubatch = params.ubatch.0.clamp(1, context);
    // All prompts' pieces, and all answers' tokens and guesses.
    let kv = kv_tokens(model, params, context);
    let batch = params.batch.0.max(ubatch + outputs).min(kv);
    Ok(Settings { context, kv, batch, ubatch, sequences, outputs, threads, threads_batch })
}

/// Rows of logits of a step, but for those of many answers at once.
fn outputs(model: &Model) -> u32 {
    let row = model.vocabulary().max(1).cast_unsigned().saturating_mul(4);
    (SCORES / row).clamp(OUTPUTS, MOST_OUTPUTS)
}

fn parallel(params: &LoadParams) -> Result<u32, Failure> {
    const MOST: u32 = LoadParams::MOST_PARALLEL;
    match params.parallel {
        parallel @ 1..=MOST => Ok(parallel),
        parallel => {
            let message = format!("parallel is {parallel}: expected a number from 1 to {MOST}");
            Err(failure(FailureKind::InvalidRequest, message))
        }
    }
}

/// Tokens of the KV cache: one context at least, and more only where that is asked for.
fn kv_tokens(model: &Model, params: &LoadParams, context: u32) -> u32 {
    /// llama.cpp rounds up to this.
    const LEAST: u32 = 256;
    let tokens = params.kv_tokens.map_or(context, |tokens| tokens.0.max(context));
    // Such a model is another beyond this length: the cache's, not the prompt's, decides.
    match model.short_rope() {
        Some(short) if context <= short => tokens.min(short.max(context)),
        _ => tokens,
    }
    .max(LEAST)
}

fn kv_token_bytes(model: &Model, params: &LoadParams) -> f64 {
    model.kv_token_bytes(params.type_k.bits(), params.type_v.bits())
}

fn whole(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and sizes are positive"
    )]
    let whole = number.max(0.0) as u64;
    whole
}

fn context_length(model: &Model, params: &LoadParams) -> Result<u32, Failure> {
    let trained = model.trained_context().max(1);
    // Longer, and models with learned positions would read past their tables.
    let (default, most) = match params.embeddings {
        None => (LoadParams::DEFAULT_CONTEXT.0, trained),
        Some(_) => (DEFAULT_EMBEDDING_CONTEXT, trained.min(longest_embedding(model))),
    };
    match params.context.map(|tokens| tokens.0) {
        None => Ok(default.min(most)),
        Some(context) if (1..=most).contains(&context) => Ok(context),
        Some(context) => {
            let message = format!(
                "the context is {context} tokens: expected from 1 to {most} for this model"
            );
            Err(failure(FailureKind::InvalidRequest, message))
        }
    }
}

/// llama.cpp keeps a row of logits for each token of an embedded text; this is what fits the memory that
/// they get.
fn longest_embedding(model: &Model) -> u32 {
    const BUDGET: u32 = 512 * 1024 * 1024;
    let row = model.vocabulary().max(1).cast_unsigned().saturating_mul(4);
    (BUDGET / row).max(1)
}

/// Flash attention is what can read a quantised V cache.
fn refuse_quantised_values(params: &LoadParams) -> Result<(), Failure> {
    let plain = matches!(params.type_v, KvType::F32 | KvType::F16 | KvType::Bf16);
    if plain || params.flash_attention != FlashAttention::Off {
        return Ok(());
    }
    let message =
        format!("a KV cache of {} needs flash attention, which is off", params.type_v.as_str());
    Err(failure(FailureKind::InvalidRequest, message))
}

/// Refuses what llama.cpp would abort on at the first text.
fn refuse_unfit(model: &Model, params: &LoadParams, context: &Context<'_>) -> Result<(), Failure> {
    let refuse =
        |message: &str, hint: &str| Err(failure_with(FailureKind::Unsupported, message, hint));
    if !model.has_tokenizer() {
        return refuse(
            "the model's file has no tokeniser",
            "this version works with text models only",
        );
    }
    match params.embeddings {
        None if !context.has_memory() || model.has_encoder() || !model.has_decoder() => {
            refuse("this model has an encoder and generates no text here", "load it for embeddings")
        }
        Some(_) if model.has_encoder() => refuse(
            "this version cannot embed with an encoder-decoder model",
            "use an embedding model",
        ),
        _ => Ok(()),
    }
}

fn thread_count(asked: Option<u32>) -> Result<i32, Failure> {
    /// ggml's own limit.
    const MOST: u32 = 512;
    match asked.unwrap_or_else(process::processors) {
        threads @ 1..=MOST => Ok(threads.cast_signed()),
        threads => {
            let message = format!("threads is {threads}: expected a number from 1 to {MOST}");
            Err(failure(FailureKind::InvalidRequest, message))
        }
    }
}

fn with_log(what: &str, log: &[String]) -> String {
    if log.is_empty() { what.to_owned() } else { format!("{what}: {}", log.join("; ")) }
}
