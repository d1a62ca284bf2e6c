//! A model's weights and vocabulary.

use std::ffi::{CStr, CString, c_void};
use std::fs::File;
#[cfg(unix)]
use std::os::fd::IntoRawFd;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::Llama;
use super::system::text;

/// A loaded model.
#[derive(Debug)]
pub(crate) struct Model {
    model: NonNull<sys::llama_model>,
}

// SAFETY: once loaded, its weights and its vocabulary are only read; all functions called here take them as constant
// but for the taking in of adapters, which enters each in a list that nothing but adapters and contexts reads, and
// those stay on one thread.
unsafe impl Sync for Model {}

/// Why a model did not load.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The file descriptor is no stream.
    Stream(std::io::Error),
    /// llama.cpp refused the file, with what it said.
    Refused(Vec<String>),
    /// The progress callback said stop.
    Stopped,
}

/// Called with the loaded share, 0 to 1; `false` stops loading.
type Progress<'a> = dyn FnMut(f32) -> bool + 'a;

impl Model {
    /// Loads a model from an open file.
    pub(crate) fn load(
        _: &Llama,
        file: File,
        mmap: bool,
        gpu_layers: Option<u32>,
        progress: &mut Progress<'_>,
    ) -> Result<Self, LoadError> {
        let mut stopped = false;
        let mut watch = |share: f32| {
            let go_on = progress(share);
            stopped |= !go_on;
            go_on
        };
        let mut watch: &mut Progress<'_> = &mut watch;
        // SAFETY: fills a plain struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.load_mode = if mmap { sys::LLAMA_LOAD_MODE_MMAP } else { sys::LLAMA_LOAD_MODE_NONE };
        params.n_gpu_layers = layers(gpu_layers);
        let mut none = NONE;
        if gpu_layers == Some(0) {
            params.devices = none.as_mut_ptr();
        }
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = (&raw mut watch).cast();
        // `watch` outlives the call, after which llama.cpp calls back no more.
        match Self::open(file, params)? {
            Some(model) => Ok(model),
            None if stopped => Err(LoadError::Stopped),
            None => Err(LoadError::Refused(super::take_errors())),
        }
    }

    /// Reads what a model is and allocates nothing for its weights, nor for the contexts made of it: they
    /// tell what they would take, and compute nothing.
    pub(crate) fn outline(
        _: &Llama,
        file: File,
        gpu_layers: Option<u32>,
    ) -> Result<Self, LoadError> {
        // SAFETY: fills a plain struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.no_alloc = true;
        params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
        params.n_gpu_layers = layers(gpu_layers);
        let mut none = NONE;
        if gpu_layers == Some(0) {
            params.devices = none.as_mut_ptr();
        }
        Self::open(file, params)?.ok_or_else(|| LoadError::Refused(super::take_errors()))
    }

    fn open(file: File, params: sys::llama_model_params) -> Result<Option<Self>, LoadError> {
        let stream = Stream::open(file).map_err(LoadError::Stream)?;
        // SAFETY: the stream is open and at the start; what the callback reads, if there is one, the caller
        // keeps alive through this call.
        let model =
            unsafe { sys::llama_model_load_from_file_ptr(stream.0.as_ptr().cast(), params) };
        Ok(NonNull::new(model).map(|model| Self { model }))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.model.as_ptr()
    }

    fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is valid; its vocabulary lives as long as it.
        unsafe { sys::llama_model_get_vocab(self.as_ptr()) }
    }

    /// One line: architecture, size class, type.
    pub(crate) fn description(&self) -> String {
        let mut buffer = [0u8; 256];
        // SAFETY: writes at most the given length, terminated.
        unsafe { sys::llama_model_desc(self.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        CStr::from_bytes_until_nul(&buffer)
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Number of weights.
    pub(crate) fn parameters(&self) -> u64 {
        // SAFETY: the model is valid.
        unsafe { sys::llama_model_n_params(self.as_ptr()) }
    }

    /// Bytes of all tensors.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: the model is valid.
        unsafe { sys::llama_model_size(self.as_ptr()) }
    }

    /// Bytes that a token takes of a KV cache whose keys and values have `k` and `v` bits each, by the
    /// model's own numbers: an estimate, since layers may differ.
    pub(crate) fn kv_token_bytes(&self, k: f64, v: f64) -> f64 {
        let number = |key: &str| self.metadata(key).and_then(|text| text.parse::<f64>().ok());
        let architecture = self.metadata("general.architecture").unwrap_or_default();
        // SAFETY: the model is valid.
        let (layers, heads, kv_heads, width) = unsafe {
            (
                sys::llama_model_n_layer(self.as_ptr()),
                sys::llama_model_n_head(self.as_ptr()),
                sys::llama_model_n_head_kv(self.as_ptr()),
                sys::llama_model_n_embd(self.as_ptr()),
            )
        };
        let usual = f64::from(width) / f64::from(heads.max(1));
        let key = number(&format!("{architecture}.attention.key_length")).unwrap_or(usual);
        let value = number(&format!("{architecture}.attention.value_length")).unwrap_or(usual);
        f64::from(layers) * f64::from(kv_heads) * (key * k + value * v) / 8.0
    }

    /// The architecture that the file names.
    pub(crate) fn architecture(&self) -> String {
        self.metadata("general.architecture").unwrap_or_default()
    }

    /// A value of the file's metadata, as text.
    fn metadata(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut buffer = [0u8; 256];
        // SAFETY: writes at most the given length, terminated; negative where there is no such key.
        let length = unsafe {
            sys::llama_model_meta_val_str(
                self.as_ptr(),
                key.as_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        let text = CStr::from_bytes_until_nul(&buffer).ok().filter(|_| length >= 0)?;
        Some(text.to_string_lossy().into_owned())
    }

    /// How many tokens back a layer with a sliding window looks; 0 where none has one.
    pub(crate) fn window(&self) -> usize {
        // SAFETY: the model is valid.
        usize::try_from(unsafe { sys::llama_model_n_swa(self.as_ptr()) }).unwrap_or(0)
    }

    /// Where the model turns positions by other factors once the KV cache is longer: up to which length it
    /// uses the short ones.
    pub(crate) fn short_rope(&self) -> Option<u32> {
        let architecture = self.metadata("general.architecture")?;
        let key = format!("{architecture}.rope.scaling.original_context_length");
        self.metadata(&key)?.parse().ok()
    }

    /// How many scores a reranker gives for a text.
    pub(crate) fn ranks(&self) -> usize {
        // SAFETY: the model is valid.
        usize::try_from(unsafe { sys::llama_model_n_cls_out(self.as_ptr()) }).unwrap_or(1).max(1)
    }

    /// The tokens that mark the text before a gap, the text after it, and the gap, where the model has
    /// them all.
    pub(crate) fn infill(&self) -> Option<[i32; 3]> {
        // SAFETY: the vocabulary is valid.
        let tokens = unsafe {
            [
                sys::llama_vocab_fim_pre(self.vocab()),
                sys::llama_vocab_fim_suf(self.vocab()),
                sys::llama_vocab_fim_mid(self.vocab()),
            ]
        };
        tokens.iter().all(|&token| self.known(token).is_some()).then_some(tokens)
    }

    /// Whether a token controls the conversation and is no text.
    pub(crate) fn is_control(&self, token: i32) -> bool {
        // SAFETY: the vocabulary is valid and the token known.
        self.known(token).is_some() && unsafe { sys::llama_vocab_is_control(self.vocab(), token) }
    }

    /// The context length that the model was trained for.
    pub(crate) fn trained_context(&self) -> u32 {
        // SAFETY: the model is valid.
        unsafe { sys::llama_model_n_ctx_train(self.as_ptr()) }.max(0).cast_unsigned()
    }

    /// Its layers, without that of its output.
    pub(crate) fn layers(&self) -> u32 {
        // SAFETY: the model is valid.
        unsafe { sys::llama_model_n_layer(self.as_ptr()) }.max(0).cast_unsigned()
    }

    /// Length of an embedding.
    pub(crate) fn embedding_length(&self) -> usize {
        // SAFETY: the model is valid.
        usize::try_from(unsafe { sys::llama_model_n_embd_out(self.as_ptr()) }).unwrap_or(0)
    }

    /// Whether the model generates text.
    pub(crate) fn has_decoder(&self) -> bool {
        // SAFETY: the model is valid.
        unsafe { sys::llama_model_has_decoder(self.as_ptr()) }
    }

    /// Whether the model has an encoder that must run first, as T5 has.
    pub(crate) fn has_encoder(&self) -> bool {
        // SAFETY: the model is valid.
        unsafe { sys::llama_model_has_encoder(self.as_ptr()) }
    }

    /// Whether what the model has read is a state that cannot be taken back token by token.
    pub(crate) fn is_recurrent(&self) -> bool {
        // SAFETY: the model is valid.
        unsafe {
            sys::llama_model_is_recurrent(self.as_ptr())
                || sys::llama_model_is_hybrid(self.as_ptr())
        }
    }

    /// Whether what was read can be cut anywhere: each layer keeps each token in a cell of its own.
    pub(crate) fn can_be_cut(&self) -> bool {
        !self.is_recurrent() && self.window() == 0
    }

    /// Whether any layer looks back at tokens, which it keeps in cells.
    pub(crate) fn has_attention(&self) -> bool {
        // SAFETY: the model is valid.
        unsafe { !sys::llama_model_is_recurrent(self.as_ptr()) }
    }

    /// Whether the file has a tokeniser; without one llama.cpp aborts at the first text.
    pub(crate) fn has_tokenizer(&self) -> bool {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_type(self.vocab()) != sys::LLAMA_VOCAB_TYPE_NONE }
    }

    /// The file's own chat template.
    pub(crate) fn chat_template(&self) -> Option<String> {
        // SAFETY: the model is valid; the string lives as long as it. Null where there is none.
        let template =
            unsafe { text(sys::llama_model_chat_template(self.as_ptr(), std::ptr::null())) };
        (!template.is_empty()).then_some(template)
    }

    /// Whether its weights are quantised, by what its file says of itself.
    pub(crate) fn is_quantised(&self) -> bool {
        // SAFETY: the model is valid.
        let kind = unsafe { sys::llama_model_ftype(self.as_ptr()) } & !sys::LLAMA_FTYPE_GUESSED;
        let floats =
            [sys::LLAMA_FTYPE_ALL_F32, sys::LLAMA_FTYPE_MOSTLY_F16, sys::LLAMA_FTYPE_MOSTLY_BF16];
        !floats.contains(&kind)
    }

    /// Number of tokens in the vocabulary.
    pub(crate) fn vocabulary(&self) -> i32 {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_n_tokens(self.vocab()) }
    }

    /// The token that begins a text, where the model has one.
    pub(crate) fn bos(&self) -> Option<i32> {
        // SAFETY: the vocabulary is valid.
        self.known(unsafe { sys::llama_vocab_bos(self.vocab()) })
    }

    /// The token that ends a text, where the model has one.
    pub(crate) fn eos(&self) -> Option<i32> {
        // SAFETY: the vocabulary is valid.
        self.known(unsafe { sys::llama_vocab_eos(self.vocab()) })
    }

    /// The token between two texts of a pair, where the model has one.
    pub(crate) fn separator(&self) -> Option<i32> {
        // SAFETY: the vocabulary is valid.
        self.known(unsafe { sys::llama_vocab_sep(self.vocab()) })
    }

    /// Whether the file asks to begin each text with BOS.
    pub(crate) fn adds_bos(&self) -> bool {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_get_add_bos(self.vocab()) }
    }

    /// Whether the file asks to end each text with EOS.
    pub(crate) fn adds_eos(&self) -> bool {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_get_add_eos(self.vocab()) }
    }

    /// Whether the file asks for a separator between two texts of a pair.
    pub(crate) fn adds_separator(&self) -> bool {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_get_add_sep(self.vocab()) }
    }

    /// The number of its kind of tokeniser.
    pub(crate) fn vocabulary_kind(&self) -> u32 {
        // SAFETY: the vocabulary is valid.
        unsafe { sys::llama_vocab_type(self.vocab()) }
    }

    /// The text by which the vocabulary lists `token`; `None` for an unknown one.
    pub(crate) fn entry(&self, token: i32) -> Option<&CStr> {
        let token = self.known(token)?;
        // SAFETY: the vocabulary is valid and the token known; the text lives as long as the model.
        let text = unsafe { sys::llama_vocab_get_text(self.vocab(), token) };
        // SAFETY: not null, and terminated.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
    }

    /// The name that the file gives itself.
    pub(crate) fn name(&self) -> Option<String> {
        self.metadata("general.name").filter(|name| !name.is_empty())
    }

    /// Whether `token` ends the answer.
    pub(crate) fn is_end(&self, token: i32) -> bool {
        // SAFETY: the vocabulary is valid; unknown tokens end nothing.
        self.known(token).is_some() && unsafe { sys::llama_vocab_is_eog(self.vocab(), token) }
    }

    /// All tokens that end an answer.
    pub(crate) fn ends(&self) -> Vec<i32> {
        (0..self.vocabulary()).filter(|&token| self.is_end(token)).collect()
    }

    /// `token`, where the vocabulary holds it.
    pub(crate) fn known(&self, token: i32) -> Option<i32> {
        (0..self.vocabulary()).contains(&token).then_some(token)
    }

    /// The bytes of `token`: not always whole characters. Empty for an unknown token.
    pub(crate) fn piece(&self, token: i32, special: bool) -> Vec<u8> {
        if self.known(token).is_none() {
            return Vec::new();
        }
        filled(32, |buffer: *mut u8, length| {
            // SAFETY: the token is known; writes at most `length` bytes.
            unsafe {
                sys::llama_token_to_piece(self.vocab(), token, buffer.cast(), length, 0, special)
            }
        })
    }

    /// The tokens of `text`. `None` where it is too long to count.
    pub(crate) fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Option<Vec<i32>> {
        let length = i32::try_from(text.len()).ok()?;
        Some(filled(text.len() / 3 + 8, |buffer, room| {
            // SAFETY: reads `length` bytes of `text`, writes at most `room` tokens.
            unsafe {
                sys::llama_tokenize(
                    self.vocab(),
                    text.as_ptr().cast(),
                    length,
                    buffer,
                    room,
                    add_special,
                    parse_special,
                )
            }
        }))
    }

    /// The bytes of `tokens`, which the vocabulary must hold.
    pub(crate) fn detokenize(&self, tokens: &[i32], special: bool) -> Option<Vec<u8>> {
        let count = i32::try_from(tokens.len()).ok()?;
        tokens.iter().try_for_each(|&token| self.known(token).map(drop))?;
        Some(filled(tokens.len() * 8 + 8, |buffer: *mut u8, room| {
            // SAFETY: reads `count` known tokens, writes at most `room` bytes.
            unsafe {
                sys::llama_detokenize(
                    self.vocab(),
                    tokens.as_ptr(),
                    count,
                    buffer.cast(),
                    room,
                    false,
                    special,
                )
            }
        }))
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: made by `load`, freed once; contexts borrow the model and are gone.
        unsafe { sys::llama_model_free(self.as_ptr()) };
    }
}

/// Fills a buffer by one of llama.cpp's functions that return the length written, or minus the length
/// needed.
fn filled<T: Copy + Default>(guess: usize, mut call: impl FnMut(*mut T, i32) -> i32) -> Vec<T> {
    let mut buffer = vec![T::default(); guess];
    for _ in 0..2 {
        let room = i32::try_from(buffer.len()).unwrap_or(i32::MAX);
        let written = call(buffer.as_mut_ptr(), room);
        match usize::try_from(written) {
            Ok(length) => {
                buffer.truncate(length);
                return buffer;
            }
            Err(_) => {
                buffer.resize(usize::try_from(written.unsigned_abs()).unwrap_or(0), T::default())
            }
        }
    }
    Vec::new()
}

/// A list of no devices, ended as llama.cpp reads it. Without it a model with no layer on a GPU would have long batches computed there
/// all the same, and a buffer for that.
const NONE: [sys::ggml_backend_dev_t; 1] = [std::ptr::null_mut()];

/// Layers for a GPU as llama.cpp takes them: a negative number means all.
fn layers(gpu_layers: Option<u32>) -> i32 {
    gpu_layers.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX))
}

extern "C" fn on_progress(share: f32, data: *mut c_void) -> bool {
    // SAFETY: `data` is the `&mut &mut Progress` that `load` passed and keeps alive; llama.cpp calls
    // from the loading thread only.
    let progress = unsafe { &mut *data.cast::<&mut Progress<'_>>() };
    progress(share)
}

/// A C stream over an open file; closes it.
struct Stream(NonNull<libc::FILE>);

impl Stream {
    /// Takes the file and goes to its start: a restarted runner shares the position with the last one.
    fn open(file: File) -> std::io::Result<Self> {
        let descriptor = descriptor(file)?;
        // SAFETY: the descriptor is open and ours to give; the mode is terminated.
        let stream = unsafe { libc::fdopen(descriptor, c"rb".as_ptr()) };
        let stream = NonNull::new(stream).ok_or_else(std::io::Error::last_os_error)?;
        // SAFETY: the stream was just opened.
        unsafe { libc::rewind(stream.as_ptr()) };
        Ok(Self(stream))
    }
}

/// The number by which the C library knows a file.
#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may run out of numbers")]
fn descriptor(file: File) -> std::io::Result<i32> {
    Ok(file.into_raw_fd())
}

#[cfg(windows)]
fn descriptor(file: File) -> std::io::Result<i32> {
    use std::os::windows::io::IntoRawHandle;
    let handle = file.into_raw_handle().expose_provenance().cast_signed();
    // SAFETY: the handle is open and ours to give.
    let descriptor = unsafe { libc::open_osfhandle(handle, libc::O_RDONLY | libc::O_BINARY) };
    if descriptor < 0 { Err(std::io::Error::last_os_error()) } else { Ok(descriptor) }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once. A mapping of the file outlives it.
        unsafe { libc::fclose(self.0.as_ptr()) };
    }
}
