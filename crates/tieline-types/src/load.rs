//! How a model is loaded, and what came of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Digest, Jail, MemoryUse, Tokens};

/// A model's file whose bytes have been verified against `digest`.
///
/// The store makes it; nothing but custom keeps others from doing so. The engine opens `path` and hands the
/// open file to the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// What the file holds.
    pub digest: Digest,
    /// Where it lies.
    pub path: PathBuf,
}

/// The number format of a KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    #[default]
    F16,
    /// 16-bit brain floats.
    Bf16,
    /// 8.5 bits a value.
    Q8_0,
    /// 6 bits a value.
    Q5_1,
    /// 5.5 bits a value.
    Q5_0,
    /// 5 bits a value.
    Q4_1,
    /// 4.5 bits a value. Costs quality: measure before use.
    Q4_0,
}

impl KvType {
    /// Every type, most precise first.
    pub const ALL: [Self; 8] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_0,
    ];

    /// Bits that a value takes, its block's scale included.
    pub fn bits(self) -> f64 {
        match self {
            Self::F32 => 32.0,
            Self::F16 | Self::Bf16 => 16.0,
            Self::Q8_0 => 8.5,
            Self::Q5_1 => 6.0,
            Self::Q5_0 => 5.5,
            Self::Q4_1 => 5.0,
            Self::Q4_0 => 4.5,
        }
    }

    /// The name that users write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q5_1 => "q5_1",
            Self::Q5_0 => "q5_0",
            Self::Q4_1 => "q4_1",
            Self::Q4_0 => "q4_0",
        }
    }
}

/// When to use flash attention. A quantised V cache needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlashAttention {
    /// Where the backend is faster with it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How one vector is made of a text's token vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// As the model's file says; mean where it says nothing.
    Model,
    /// The mean of all tokens.
    Mean,
    /// The first token.
    Cls,
    /// The last token.
    Last,
}

/// How to load a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadParams {
    /// Context length; `None` takes the model's own, up to [`LoadParams::DEFAULT_CONTEXT`].
    pub context: Option<Tokens>,
    /// Number format of cached keys.
    pub type_k: KvType,
    /// Number format of cached values.
    pub type_v: KvType,
    /// Threads that decode; `None` takes the processors this process may use.
    pub threads: Option<u32>,
    /// Threads that prefill; `None` takes as many as decode.
    pub threads_batch: Option<u32>,
    /// Most tokens submitted at once.
    pub batch: Tokens,
    /// Most tokens computed at once. Changes results of quantised weights by rounding.
    pub ubatch: Tokens,
    /// When to use flash attention.
    pub flash_attention: FlashAttention,
    /// Load for embeddings instead of text.
    pub embeddings: Option<Pooling>,
    /// Map the file instead of reading it into memory.
    pub mmap: bool,
    /// Layers to put on a GPU; `None`: all that fit, where the runner has one. A build for the processor alone refuses any.
    pub gpu_layers: Option<u32>,
    /// Most requests that are answered at once.
    pub parallel: u32,
    /// Tokens that the KV cache holds, of all requests together and of what was read before; `None`
    /// takes the context.
    pub kv_tokens: Option<Tokens>,
    /// SHA-256 of the model's file: part of the name of what is cached of it.
    pub model: Option<Digest>,
    /// SHA-256 of the file of a draft model, a smaller one with the same vocabulary that guesses what this
    /// one will say, open at [`crate::wire::DRAFT_FD`]; `None` loads none.
    pub draft: Option<Digest>,
    /// Most bytes of KV cache kept on disk, in the folder open at [`crate::wire::CACHE_FD`]; `None`
    /// keeps nothing there.
    pub disk_cache: Option<Bytes>,
    /// Most bytes for copies of what cannot be cut of a model's state, where it has such: they spare work and
    /// are never needed. Changes no answer but by rounding.
    #[serde(default = "copies")]
    pub copies: Bytes,
    /// How long a running answer may stand still because another's prompt is read. A goal, not a
    /// promise: prompts are cut into pieces that take as long.
    pub step: Duration,
    /// Multiply matrices of many tokens with our own kernels, where the processor suits them and they agree
    /// with ggml's formats; else with ggml's alone. Changes results by rounding.
    #[serde(default = "yes")]
    pub own_kernels: bool,
    /// Which of our kernels multiply what, as it was measured before. What it does not name goes by the kernels' own
    /// tables. Changes results by rounding.
    #[serde(default)]
    pub kernel_choices: Vec<KernelChoice>,
    /// Measure what [`kernel_choices`](Self::kernel_choices) does not name. Receipts have no need: they name all that
    /// was.
    #[serde(default)]
    pub measure_kernels: bool,
    /// Watch how long steps take, and use fewer threads while other programs want the processor.
    pub adapt_threads: bool,
    /// What a token took with as many threads as this load has and then with fewer, as an earlier one measured it; where it is
    /// of another number, or nothing, it is measured. Changes no answer.
    #[serde(default)]
    pub paces: Vec<Pace>,
}

impl LoadParams {
    /// The longest context taken without being asked for one.
    pub const DEFAULT_CONTEXT: Tokens = Tokens(8192);
    /// Requests answered at once.
    pub const DEFAULT_PARALLEL: u32 = 8;
    /// The most that may be: llama.cpp tells 256 sequences apart, and some are for what is cached.
    pub const MOST_PARALLEL: u32 = 64;
    /// For copies of states, where there is memory enough.
    pub const DEFAULT_COPIES: Bytes = Bytes(256 * 1024 * 1024);
    /// How long an answer may stand still.
    pub const DEFAULT_STEP: Duration = Duration::from_millis(150);
}

/// What receipts mean that were written before there was a choice: it does not matter, since their kernels'
/// names differ.
fn yes() -> bool {
    true
}

fn copies() -> Bytes {
    LoadParams::DEFAULT_COPIES
}

impl Default for LoadParams {
    fn default() -> Self {
        Self {
            context: None,
            type_k: KvType::F16,
            type_v: KvType::F16,
            threads: None,
            threads_batch: None,
            batch: Tokens(2048),
            ubatch: Tokens(512),
            flash_attention: FlashAttention::Auto,
            embeddings: None,
            mmap: true,
            gpu_layers: None,
            parallel: Self::DEFAULT_PARALLEL,
            kv_tokens: None,
            model: None,
            draft: None,
            disk_cache: None,
            copies: Self::DEFAULT_COPIES,
            step: Self::DEFAULT_STEP,
            own_kernels: true,
            kernel_choices: Vec::new(),
            measure_kernels: false,
            adapt_threads: true,
            paces: Vec::new(),
        }
    }
}

/// How fast a model decodes with so many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Threads that compute.
    pub threads: u32,
    /// What one token takes, in nanoseconds.
    pub token_ns: u64,
}

/// From which numbers of tokens on our kernels multiply matrices of one kind, as it was measured on this machine; ggml's
/// multiply the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelChoice {
    /// The weights' format, by the kernels' name for it.
    pub format: String,
    /// Weights of a row.
    pub width: u32,
    /// Of steps of up to 11 tokens: bit `n` for those of `n`.
    pub few: u16,
    /// Of longer steps: those of so many and more; `None` for none.
    pub many: Option<u32>,
    /// Whether it was measured without doubt. Else the kernels' tables had a word in it, and it is worth another try.
    pub settled: bool,
}

impl fmt::Display for KernelChoice {
    /// `Q4_1/576 1-11, 16+`: the tokens that ours multiply.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.format, self.width)?;
        let few = |tokens: &u32| self.few.checked_shr(*tokens).unwrap_or(0) & 1 != 0;
        let (mut before, mut tokens) = (" ", 1);
        while let Some(first) = (tokens..16).find(few) {
            let last = (first..16).take_while(few).last().unwrap_or(first);
            write!(f, "{before}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            (before, tokens) = (", ", last + 1);
        }
        match self.many {
            Some(least) => write!(f, "{before}{least}+")?,
            None if self.few == 0 => f.write_str(" none")?,
            None => {}
        }
        if self.settled { Ok(()) } else { f.write_str(" (unsettled)") }
    }
}

/// What a runner is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerBuild {
    /// The runner's own version.
    pub version: String,
    /// llama.cpp's version, as it names itself.
    pub llama_cpp: String,
    /// Instruction sets that the arithmetic kernels were compiled for, as the kernels report them.
    pub kernels: Vec<String>,
    /// Devices that it can compute on: `CPU`, `CUDA0`, …
    pub devices: Vec<String>,
    /// The kinds of GPU that it was built for: `cuda`, `vulkan`, …; none where it was built for the processor alone.
    #[serde(default)]
    pub gpus: Vec<String>,
}

impl RunnerBuild {
    /// The processor, among [`devices`](Self::devices).
    pub const PROCESSOR: &str = "CPU";

    /// Whether it has a device beside the processor.
    pub fn has_gpu(&self) -> bool {
        self.devices.iter().any(|device| device != Self::PROCESSOR)
    }
}

/// What a loaded model is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// One line from llama.cpp: size, type.
    pub description: String,
    /// Number of weights.
    pub parameters: u64,
    /// Size of all weights.
    pub weights: Bytes,
    /// The effective context length.
    pub context: Tokens,
    /// The context length that the model was trained for.
    pub trained_context: Tokens,
    /// Number of tokens in the vocabulary.
    pub vocabulary: Tokens,
    /// Length of an embedding.
    pub embedding_length: u32,
    /// Whether the file carries a chat template.
    pub has_chat_template: bool,
    /// Tokens that the KV cache holds.
    pub kv_tokens: Tokens,
    /// What a token takes of the KV cache.
    pub kv_token_size: Bytes,
    /// Most requests answered at once.
    pub parallel: u32,
    /// The kernels that compute it, as [`RunnerBuild::kernels`].
    pub kernels: Vec<String>,
    /// What they multiply, where that is not as their tables say: all that is to be known at the next load.
    pub kernel_choices: Vec<KernelChoice>,
    /// What a token takes by the number of threads, most first, where it was measured.
    pub paces: Vec<Pace>,
    /// Whether others may have slowed that measuring.
    pub paces_disturbed: bool,
    /// Threads that decode.
    pub threads: u32,
    /// Threads that prefill.
    pub threads_batch: u32,
    /// From the order to load until ready for the first request.
    pub load_time: Duration,
    /// The most memory that the runner has held so far, where it can tell.
    pub peak_memory: Option<Bytes>,
    /// The model's architecture, by its file.
    pub architecture: String,
    /// What llama.cpp allocated or mapped for it.
    pub memory: MemoryUse,
    /// What holds the runner now that no more of the model is read.
    pub jail: Jail,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(few: u16, many: Option<u32>, want: &str) {
        let choice =
            KernelChoice { format: "Q4K".to_owned(), width: 512, few, many, settled: true };
        assert_eq!(choice.to_string(), format!("Q4K/512 {want}"));
        let unsettled = KernelChoice { settled: false, ..choice };
        assert_eq!(unsettled.to_string(), format!("Q4K/512 {want} (unsettled)"));
    }

    #[test]
    fn a_choice_says_which_tokens_are_ours() {
        check(0, None, "none");
        check(0, Some(4), "4+");
        check(0b1111_1111_1110, Some(12), "1-11, 12+");
        check(0b1010_1100, None, "2-3, 5, 7");
        check(1 << 15 | 2, Some(64), "1, 15, 64+");
    }
}
