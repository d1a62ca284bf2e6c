//! A model at work: its KV cache, its buffers and its threads.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use llama_cpp_sys_2 as sys;
use tieline_types::{FlashAttention, KvType, LoadParams, Pooling};

use super::Model;
use super::threads::ThreadPool;

/// One sequence of tokens and what was computed of it.
#[derive(Debug)]
pub(crate) struct Context<'m> {
    // Dropped in this order: llama.cpp must be done with the threads and the flag first.
    context: Handle,
    _threads: Option<ThreadPool>,
    _abort: Arc<AtomicBool>,
    model: &'m Model,
    batch: u32,
}

/// Frees the context.
#[derive(Debug)]
struct Handle(NonNull<sys::llama_context>, PhantomData<*mut ()>);

/// Settings of a context, worked out of [`LoadParams`] and the model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) context: u32,
    pub(crate) batch: u32,
    pub(crate) ubatch: u32,
    pub(crate) threads: i32,
    pub(crate) threads_batch: i32,
}

/// What a text's token vectors become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActualPooling {
    /// They stay apart.
    None,
    /// One vector.
    Vector,
    /// A score: the model is a reranker.
    Rank,
}

/// Why tokens were not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// No room is left in the KV cache.
    Full,
    /// The abort flag was set.
    Aborted,
    /// More tokens than a batch holds: a defect of the caller.
    TooLong,
    /// llama.cpp failed with this code.
    Failed(i32),
}

impl<'m> Context<'m> {
    /// Makes a context; `None` where llama.cpp refuses, which its log explains.
    pub(crate) fn new(
        model: &'m Model,
        params: &LoadParams,
        settings: Settings,
        abort: Arc<AtomicBool>,
    ) -> Option<Self> {
        let raw = raw_params(params, settings, &abort);
        // SAFETY: the model is valid and outlives the context; `abort` is kept beside it.
        let context = NonNull::new(unsafe { sys::llama_init_from_model(model.as_ptr(), raw) })?;
        let context = Handle(context, PhantomData);
        let threads = ThreadPool::start(settings.threads.max(settings.threads_batch));
        if let Some(pool) = &threads {
            // SAFETY: both are valid; the pool is dropped after the context. One pool serves both kinds
            // of batch: each graph says how many of its threads it wants.
            unsafe {
                sys::llama_attach_threadpool(context.0.as_ptr(), pool.as_ptr(), ptr::null_mut());
            }
        }
        Some(Self { context, _threads: threads, _abort: abort, model, batch: settings.batch })
    }

    fn as_ptr(&self) -> *mut sys::llama_context {
        self.context.0.as_ptr()
    }

    pub(super) fn as_sampling_ptr(&mut self) -> *mut sys::llama_context {
        self.as_ptr()
    }

    /// The effective context length, in tokens.
    pub(crate) fn length(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { sys::llama_n_ctx_seq(self.as_ptr()) }
    }

    /// Computes `tokens` after those already held. Afterwards the last one's logits can be read.
    pub(crate) fn decode(&mut self, tokens: &mut [i32]) -> Result<(), DecodeError> {
        let count = i32::try_from(tokens.len()).map_err(|_| DecodeError::Full)?;
        // llama.cpp aborts the process at a longer one.
        if count.cast_unsigned() > self.batch {
            return Err(DecodeError::TooLong);
        }
        // SAFETY: fills a plain struct that borrows `tokens`; positions follow on by themselves.
        let batch = unsafe { sys::llama_batch_get_one(tokens.as_mut_ptr(), count) };
        // SAFETY: `tokens` outlives the call, which does not keep the batch. Unknown tokens are refused.
        match unsafe { sys::llama_decode(self.as_ptr(), batch) } {
            0 => Ok(()),
            1 => Err(DecodeError::Full),
            2 => Err(DecodeError::Aborted),
            code => Err(DecodeError::Failed(code)),
        }
    }

    /// Waits until all is computed. Reading logits does so by itself.
    pub(crate) fn synchronize(&mut self) {
        // SAFETY: the context is valid.
        unsafe { sys::llama_synchronize(self.as_ptr()) };
    }

    /// The raw logits of the last token computed, one per token of the vocabulary.
    pub(crate) fn logits(&mut self) -> Option<&[f32]> {
        let length = usize::try_from(self.model.vocabulary()).ok()?;
        // SAFETY: null where there are none.
        let row = NonNull::new(unsafe { sys::llama_get_logits_ith(self.as_ptr(), -1) })?;
        // SAFETY: a row is as long as the vocabulary and lives until the next call with &mut self.
        Some(unsafe { std::slice::from_raw_parts(row.as_ptr(), length) })
    }

    /// The pooled embedding of all tokens held.
    pub(crate) fn embedding(&mut self) -> Option<&[f32]> {
        // A row of another pooling is shorter.
        if self.pooling() != ActualPooling::Vector {
            return None;
        }
        let length = self.model.embedding_length();
        // SAFETY: null where nothing is pooled.
        let row = NonNull::new(unsafe { sys::llama_get_embeddings_seq(self.as_ptr(), 0) })?;
        // SAFETY: a pooled row has this length and lives until the next call with &mut self.
        Some(unsafe { std::slice::from_raw_parts(row.as_ptr(), length) })
    }

    /// How embeddings are pooled, by the file or by the caller.
    pub(crate) fn pooling(&self) -> ActualPooling {
        // SAFETY: the context is valid.
        match unsafe { sys::llama_pooling_type(self.as_ptr()) } {
            sys::LLAMA_POOLING_TYPE_MEAN
            | sys::LLAMA_POOLING_TYPE_CLS
            | sys::LLAMA_POOLING_TYPE_LAST => ActualPooling::Vector,
            sys::LLAMA_POOLING_TYPE_RANK => ActualPooling::Rank,
            _ => ActualPooling::None,
        }
    }

    /// Whether the model remembers tokens. One that does not is no generator of text.
    pub(crate) fn has_memory(&self) -> bool {
        // SAFETY: the context is valid; null where there is no memory.
        !unsafe { sys::llama_get_memory(self.as_ptr()) }.is_null()
    }

    /// Forgets all tokens.
    pub(crate) fn clear(&mut self) {
        // SAFETY: the context is valid; an encoder has no memory, which is null and allowed.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.as_ptr()), false) };
    }

    /// Forgets all tokens from position `keep` on. `false` where this model's memory cannot; then
    /// nothing changed.
    pub(crate) fn truncate(&mut self, keep: usize) -> bool {
        let Ok(keep) = i32::try_from(keep) else { return false };
        // SAFETY: as above; a negative end means all.
        unsafe { sys::llama_memory_seq_rm(sys::llama_get_memory(self.as_ptr()), 0, keep, -1) }
    }

    /// How many tokens are held.
    pub(crate) fn held(&self) -> usize {
        // SAFETY: as above; -1 where there are none.
        let last =
            unsafe { sys::llama_memory_seq_pos_max(sys::llama_get_memory(self.as_ptr()), 0) };
        usize::try_from(last + 1).unwrap_or(0)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { sys::llama_free(self.0.as_ptr()) };
    }
}

fn raw_params(
    params: &LoadParams,
    settings: Settings,
    abort: &Arc<AtomicBool>,
) -> sys::llama_context_params {
    // SAFETY: fills a plain struct.
    let mut raw = unsafe { sys::llama_context_default_params() };
    raw.n_ctx = settings.context;
    raw.n_batch = settings.batch;
    raw.n_ubatch = settings.ubatch;
    raw.n_seq_max = 1;
    // One row of logits is ever read. The default, a row per token of a batch, is 2 GB for a large
    // vocabulary. Pooling needs a row per token.
    raw.n_outputs_max = if params.embeddings.is_some() { settings.ubatch } else { 1 };
    raw.n_threads = settings.threads;
    raw.n_threads_batch = settings.threads_batch;
    raw.type_k = kv_type(params.type_k);
    raw.type_v = kv_type(params.type_v);
    raw.flash_attn_type = match params.flash_attention {
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    raw.embeddings = params.embeddings.is_some();
    raw.pooling_type = match params.embeddings {
        None | Some(Pooling::Model) => sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
        Some(Pooling::Mean) => sys::LLAMA_POOLING_TYPE_MEAN,
        Some(Pooling::Cls) => sys::LLAMA_POOLING_TYPE_CLS,
        Some(Pooling::Last) => sys::LLAMA_POOLING_TYPE_LAST,
    };
    raw.abort_callback = Some(must_abort);
    raw.abort_callback_data = Arc::as_ptr(abort).cast_mut().cast();
    raw.no_perf = true;
    raw
}

fn kv_type(kv: KvType) -> sys::ggml_type {
    match kv {
        KvType::F32 => sys::GGML_TYPE_F32,
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Bf16 => sys::GGML_TYPE_BF16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q5_1 => sys::GGML_TYPE_Q5_1,
        KvType::Q5_0 => sys::GGML_TYPE_Q5_0,
        KvType::Q4_1 => sys::GGML_TYPE_Q4_1,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
    }
}

extern "C" fn must_abort(data: *mut c_void) -> bool {
    // SAFETY: `data` is the flag that the context keeps alive; reading it is atomic.
    unsafe { &*data.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}
