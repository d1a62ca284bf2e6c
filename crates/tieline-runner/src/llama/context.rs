//! A model at work: its KV cache, its buffers and its threads.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use llama_cpp_sys_2 as sys;
use tieline_types::{FlashAttention, KvType, LoadParams, Pooling};

use super::Adapter;
use super::Model;
use super::accelerator;
use super::batch::Batch;
use super::threads::ThreadPool;
use crate::process;

/// Pools kept: the one in use, the one before it, which llama.cpp may still know, and one more.
const POOLS: usize = 3;

/// Several sequences of tokens and what was computed of them, in one KV cache that they share.
#[derive(Debug)]
pub(crate) struct Context<'m> {
    // Dropped in this order: llama.cpp must be done with the threads and the flag first.
    context: Handle,
    /// What it computes with: kept as long as it does.
    adapters: Vec<(Rc<Adapter<'m>>, f32)>,
    /// The last ones used, in this order: llama.cpp pauses one only when it computes with the next.
    pools: Vec<Rc<ThreadPool>>,
    _abort: Arc<AtomicBool>,
    model: &'m Model,
    settings: Settings,
    rows_are_held: bool,
}

/// Frees the context.
#[derive(Debug)]
struct Handle(NonNull<sys::llama_context>, PhantomData<*mut ()>);

/// Settings of a context, worked out of [`LoadParams`] and the model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Most tokens of one request.
    pub(crate) context: u32,
    /// Tokens that the KV cache holds.
    pub(crate) kv: u32,
    pub(crate) batch: u32,
    pub(crate) ubatch: u32,
    /// Sequences that the KV cache tells apart.
    pub(crate) sequences: u16,
    /// Most rows of logits of one batch.
    pub(crate) outputs: u32,
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

/// How much of a sequence is saved and restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatePart {
    /// All of it.
    Whole,
    /// What cannot be cut: the recurrent state, and what layers with a sliding window hold. Attention's
    /// cells, which the sequence must hold already, are left out.
    Rigid,
}

impl StatePart {
    fn flags(self) -> sys::llama_state_seq_flags {
        // `LLAMA_STATE_SEQ_FLAGS_NONE` and `_PARTIAL_ONLY` of llama.h: macros have no bindings.
        match self {
            Self::Whole => 0,
            Self::Rigid => 1,
        }
    }
}

/// Why tokens were not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// No room is left in the KV cache.
    Full,
    /// The abort flag was set.
    Aborted,
    /// More tokens or rows than a batch holds, or an unknown sequence: a defect of the caller.
    BadBatch,
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
        accelerator::attend(false);
        // SAFETY: the model is valid and outlives the context; `abort` is kept beside it.
        let context = NonNull::new(unsafe { sys::llama_init_from_model(model.as_ptr(), raw) })?;
        let context = Handle(context, PhantomData);
        let (pools, adapters) = (Vec::new(), Vec::new());
        let mut this =
            Self { context, adapters, pools, _abort: abort, model, settings, rows_are_held: true };
        this.set_threads(settings.threads.max(settings.threads_batch), true);
        #[cfg(target_os = "linux")]
        if params.embeddings.is_none() {
            this.rows_are_held = !this.give_back_rows();
        }
        Some(this)
    }

    /// Whether memory is held for the rows of logits that llama.cpp has reserved, one for each sequence.
    pub(crate) fn rows_are_held(&self) -> bool {
        self.rows_are_held
    }

    /// Gives back the memory for rows of logits that llama.cpp has filled with zeros, one for each sequence: of a
    /// large vocabulary they are megabytes, and most are never used. They are zeros again when they are. `false`: they stay.
    #[cfg(target_os = "linux")]
    fn give_back_rows(&mut self) -> bool {
        // SAFETY: both need only a started llama.cpp and a valid context.
        let (may_be_pinned, rows) =
            unsafe { (sys::llama_supports_gpu_offload(), sys::llama_get_logits(self.as_ptr())) };
        let rows = NonNull::new(rows).filter(|_| !may_be_pinned);
        let row = usize::try_from(self.model.vocabulary()).unwrap_or(0) * size_of::<f32>();
        if let Some(rows) = rows {
            let bytes = row * usize::from(self.settings.sequences);
            // SAFETY: llama.cpp reserves a row for each sequence when it makes a context, of ordinary memory where there
            // is no device, and nothing was computed yet.
            unsafe { process::give_back(rows.cast(), bytes) };
        }
        rows.is_some()
    }

    fn as_ptr(&self) -> *mut sys::llama_context {
        self.context.0.as_ptr()
    }

    pub(super) fn as_raw(&self) -> *const sys::llama_context {
        self.context.0.as_ptr()
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is valid; null where the model has no memory, which all callees allow.
        unsafe { sys::llama_get_memory(self.as_ptr()) }
    }

    pub(super) fn as_sampling_ptr(&mut self) -> *mut sys::llama_context {
        self.as_ptr()
    }

    /// Lets the next steps use so many threads; `poll`: they spin while they wait for work.
    ///
    /// One pool serves both kinds of batch: each graph says how many of its threads it wants.
    pub(crate) fn set_threads(&mut self, threads: i32, poll: bool) {
        let fits = |pool: &Rc<ThreadPool>| pool.threads() == threads && pool.polls() == poll;
        if !self.pools.last().is_some_and(fits) {
            let pool = match self.pools.iter().find(|pool| fits(pool)) {
                Some(pool) => Some(Rc::clone(pool)),
                None => ThreadPool::start(threads, poll).map(Rc::new),
            };
            if let Some(pool) = pool {
                self.attach(pool);
            }
        }
        // SAFETY: the context is valid and the number positive.
        unsafe { sys::llama_set_n_threads(self.as_ptr(), threads, threads) };
    }

    /// Lets the next steps use the threads that `other` uses: two contexts that compute in turn, each with
    /// threads of its own, would have those of one spin while the other computes.
    pub(crate) fn share_threads(&mut self, other: &Context<'_>) {
        let Some(pool) = other.pools.last() else { return };
        let threads = pool.threads();
        if !self.pools.last().is_some_and(|own| Rc::ptr_eq(own, pool)) {
            self.attach(Rc::clone(pool));
        }
        // SAFETY: as in `set_threads`.
        unsafe { sys::llama_set_n_threads(self.as_ptr(), threads, threads) };
    }

    /// Lets the next steps compute with these adapters, each by its scale, and no others.
    ///
    /// Where they are others than before, llama.cpp plans its graphs anew at the next step.
    ///
    /// # Errors
    /// llama.cpp's code for its refusal; what it computed with before is kept.
    pub(crate) fn set_adapters(
        &mut self,
        adapters: Vec<(Rc<Adapter<'m>>, f32)>,
    ) -> Result<(), i32> {
        let mut pointers: Vec<_> = adapters.iter().map(|(adapter, _)| adapter.as_ptr()).collect();
        let mut scales: Vec<f32> = adapters.iter().map(|(_, scale)| *scale).collect();
        // SAFETY: the context is valid; both lists are as long as is said and read in this call only. The
        // adapters are of this context's model, or of one that its lifetime says is as good, and are kept below
        // until others take their place.
        let code = unsafe {
            sys::llama_set_adapters_lora(
                self.as_ptr(),
                pointers.as_mut_ptr(),
                pointers.len(),
                scales.as_mut_ptr(),
            )
        };
        match code {
            0 => self.adapters = adapters,
            // It may have taken some of them: both lists are kept.
            _ => self.adapters.extend(adapters),
        }
        if code == 0 { Ok(()) } else { Err(code) }
    }

    /// Makes `pool` the one that the next steps use. A step must follow: llama.cpp forgets the one before only
    /// then.
    fn attach(&mut self, pool: Rc<ThreadPool>) {
        // SAFETY: both are valid, and the pool is kept until after the context or until two others have been
        // used since.
        unsafe { sys::llama_attach_threadpool(self.as_ptr(), pool.as_ptr(), ptr::null_mut()) };
        self.pools.retain(|kept| !Rc::ptr_eq(kept, &pool));
        self.pools.push(pool);
        if self.pools.len() > POOLS {
            self.pools.remove(0);
        }
    }

    /// How many tokens the KV cache really holds.
    pub(crate) fn cells(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { sys::llama_n_ctx(self.as_ptr()) }
    }

    /// Computes a batch. Afterwards the logits of its rows that asked for it can be read.
    pub(crate) fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        let fits = |count: usize, most: u32| u32::try_from(count).is_ok_and(|n| n <= most);
        // llama.cpp aborts the process at what is refused here.
        if batch.len() == 0
            || !fits(batch.len(), self.settings.batch)
            || !fits(batch.outputs(), self.settings.outputs)
            || !batch.sequences_below(self.settings.sequences.into())
        {
            return Err(DecodeError::BadBatch);
        }
        let pool = self.pools.last().map_or(ptr::null_mut(), |pool| pool.as_ptr());
        accelerator::use_pool(pool);
        // Where weights are floats attention stays ggml's: answers are promised to be the same with and without guesses
        // and caches, and tested with its.
        accelerator::attend(self.model.is_quantised());
        // SAFETY: the context is valid; the batch lives through the call, which does not keep it. Tokens
        // and positions that make no sense are refused with an error.
        match batch.with_raw(|raw| unsafe { sys::llama_decode(self.as_ptr(), raw) }) {
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

    /// The raw logits of a row of the last batch, one per token of the vocabulary. May be changed before
    /// they are sampled. `None` where the row asked for none.
    pub(crate) fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        let length = usize::try_from(self.model.vocabulary()).ok()?;
        let row = i32::try_from(row).ok()?;
        // SAFETY: null for a row without logits.
        let row = NonNull::new(unsafe { sys::llama_get_logits_ith(self.as_ptr(), row) })?;
        // SAFETY: a row is as long as the vocabulary, is nobody else's, and lives until the next call with
        // &mut self.
        Some(unsafe { std::slice::from_raw_parts_mut(row.as_ptr(), length) })
    }

    /// The pooled vector, or scores, of a sequence of the last batch.
    pub(crate) fn embedding(&mut self, sequence: u16) -> Option<&[f32]> {
        let length = match self.pooling() {
            ActualPooling::Vector => self.model.embedding_length(),
            ActualPooling::Rank => self.model.ranks(),
            ActualPooling::None => return None,
        };
        // SAFETY: null where nothing is pooled.
        let row =
            NonNull::new(unsafe { sys::llama_get_embeddings_seq(self.as_ptr(), sequence.into()) })?;
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
        !self.memory().is_null()
    }

    /// Forgets all tokens of all sequences.
    pub(crate) fn clear(&mut self) {
        // SAFETY: an encoder has no memory, which is null and allowed.
        unsafe { sys::llama_memory_clear(self.memory(), false) };
    }

    /// Forgets a sequence's tokens from position `keep` on. `false` where this model's memory cannot;
    /// then nothing changed.
    pub(crate) fn truncate(&mut self, sequence: u16, keep: usize) -> bool {
        let Ok(keep) = i32::try_from(keep) else { return false };
        // SAFETY: the sequence is known; a negative end means all.
        self.knows(sequence)
            && unsafe { sys::llama_memory_seq_rm(self.memory(), sequence.into(), keep, -1) }
    }

    /// Lets `to` hold what `from` holds between two positions too, without a copy.
    pub(crate) fn share(&mut self, from: u16, to: u16, range: Range<usize>) {
        let (Ok(start), Ok(end)) = (i32::try_from(range.start), i32::try_from(range.end)) else {
            return;
        };
        if self.knows(from) && self.knows(to) {
            // SAFETY: both sequences are known, and the range is one of positions.
            unsafe {
                sys::llama_memory_seq_cp(self.memory(), from.into(), to.into(), start, end);
            }
        }
    }

    /// The position after a sequence's last token, and of its first.
    pub(crate) fn extent(&self, sequence: u16) -> Range<usize> {
        if !self.knows(sequence) {
            return 0..0;
        }
        // SAFETY: the sequence is known; -1 where it holds nothing.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.memory(), sequence.into()) };
        // SAFETY: as above.
        let first = unsafe { sys::llama_memory_seq_pos_min(self.memory(), sequence.into()) };
        match (usize::try_from(first), usize::try_from(last)) {
            (Ok(first), Ok(last)) => first..last + 1,
            _ => 0..0,
        }
    }

    /// What was computed of a sequence, as bytes that [`restore`](Self::restore) takes with the same `part`.
    pub(crate) fn save(&mut self, sequence: u16, part: StatePart) -> Option<Vec<u8>> {
        let size = self.state_size(sequence, part);
        let mut bytes = vec![0; size];
        if size == 0 {
            return None;
        }
        // SAFETY: the sequence is known; writes at most `size` bytes.
        let written = unsafe {
            sys::llama_state_seq_get_data_ext(
                self.as_ptr(),
                bytes.as_mut_ptr(),
                bytes.len(),
                sequence.into(),
                part.flags(),
            )
        };
        (written == size).then_some(bytes)
    }

    /// How many bytes [`save`](Self::save) would give; 0 for an unknown sequence.
    pub(crate) fn state_size(&mut self, sequence: u16, part: StatePart) -> usize {
        if !self.knows(sequence) {
            return 0;
        }
        // SAFETY: the sequence is known.
        unsafe { sys::llama_state_seq_get_size_ext(self.as_ptr(), sequence.into(), part.flags()) }
    }

    /// Makes a sequence hold what was saved. `false`: nothing is held then.
    ///
    /// The bytes must have been saved by this build from the same model and settings: llama.cpp checks
    /// their shape, not their sense.
    pub(crate) fn restore(&mut self, sequence: u16, bytes: &[u8], part: StatePart) -> bool {
        if !self.knows(sequence) {
            return false;
        }
        // SAFETY: reads at most the given length, the sequence is known.
        let read = unsafe {
            sys::llama_state_seq_set_data_ext(
                self.as_ptr(),
                bytes.as_ptr(),
                bytes.len(),
                sequence.into(),
                part.flags(),
            )
        };
        if read == 0 {
            self.truncate(sequence, 0);
            super::take_errors();
        }
        read > 0
    }

    /// llama.cpp aborts the process at others.
    fn knows(&self, sequence: u16) -> bool {
        sequence < self.settings.sequences
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
    raw.n_ctx = settings.kv;
    raw.n_batch = settings.batch;
    raw.n_ubatch = settings.ubatch;
    raw.n_seq_max = settings.sequences.into();
    // One cache for all sequences: any of them may fill it, and they share what they have in common.
    raw.kv_unified = true;
    // The default, a row of logits for each token of a batch, is 2 GB for a large vocabulary.
    raw.n_outputs_max = settings.outputs;
    raw.n_outputs_max_per_seq = 0;
    // Layers with a sliding window get as many cells as the others, so that they keep what has left the
    // window until somebody needs the cell, and a prefix can be cut earlier.
    raw.swa_full = true;
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

/// How often llama.cpp has asked whether to go on, in all contexts: before each operation on a processor.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// A number that grows while the processor computes.
pub(crate) fn progress() -> u64 {
    ASKED.load(Ordering::Relaxed)
}

extern "C" fn must_abort(data: *mut c_void) -> bool {
    ASKED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: `data` is the flag that the context keeps alive; reading it is atomic.
    unsafe { &*data.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}
