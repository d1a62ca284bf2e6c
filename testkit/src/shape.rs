//! Tiny models of many architectures, with random weights that are the same on every machine.
//!
//! They know no language, and their answers are nonsense; but they are computed by the same code as real
//! models of their kind, in milliseconds, and depend on every token before. So they show whether a model of
//! that kind loads, and whether what was kept of a prompt is what would have been computed. All weights are
//! 32-bit floats: what the shape of a batch changes is too little to change a greedy answer.

mod file;
mod layers;
pub mod lora;
mod vocabulary;

use std::ops::Range;
use std::path::PathBuf;
use std::{fs, process};

use file::{Draft, Value};
use layers::{EMBEDDING, EXPERTS, EXPERTS_USED, FEED_FORWARD, HEADS, KV_HEADS, LAYERS};

/// The context that all of them but the encoders are said to be trained for.
pub const CONTEXT: u32 = 8192;
/// The context of the encoders, which have a table of positions.
pub const ENCODER_CONTEXT: u32 = 512;
/// How far back layers with a sliding window look, the token itself included.
pub const WINDOW: u32 = 32;
/// The same of [`Shape::Gemma3Wide`].
pub const WIDE_WINDOW: u32 = 288;

/// A kind of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Attention in every layer; a vocabulary of the SentencePiece kind.
    Llama,
    /// As `Llama`, with tokens for a gap to fill in.
    Infill,
    /// Attention with normalised queries and keys; a byte-level vocabulary, and no BOS.
    Qwen3,
    /// A mixture of experts in every layer.
    Qwen3Moe,
    /// Three layers of four look back no further than [`WINDOW`].
    Gemma3,
    /// As `Gemma3`, but no further than [`WIDE_WINDOW`].
    Gemma3Wide,
    /// Every other layer looks back no further than [`WINDOW`]; experts, and attention sinks.
    GptOss,
    /// No attention: all that was read is in a state of fixed size.
    Mamba,
    /// Both: two layers with such a state, two with attention.
    Jamba,
    /// An encoder that gives vectors: the mean of all tokens, as the file says.
    Bert,
    /// An encoder that gives a score for a pair of texts.
    Reranker,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 11] = [
        Self::Llama,
        Self::Infill,
        Self::Qwen3,
        Self::Qwen3Moe,
        Self::Gemma3,
        Self::Gemma3Wide,
        Self::GptOss,
        Self::Mamba,
        Self::Jamba,
        Self::Bert,
        Self::Reranker,
    ];

    /// Those that generate text.
    pub const GENERATORS: [Self; 9] = [
        Self::Llama,
        Self::Infill,
        Self::Qwen3,
        Self::Qwen3Moe,
        Self::Gemma3,
        Self::Gemma3Wide,
        Self::GptOss,
        Self::Mamba,
        Self::Jamba,
    ];

    /// A short name: part of the file's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Infill => "infill",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Gemma3 => "gemma3",
            Self::Gemma3Wide => "gemma3-wide",
            Self::GptOss => "gpt-oss",
            Self::Mamba => "mamba",
            Self::Jamba => "jamba",
            Self::Bert => "bert",
            Self::Reranker => "reranker",
        }
    }

    /// The name that llama.cpp gives the architecture.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Infill => "llama",
            Self::Gemma3Wide => "gemma3",
            Self::Reranker => "bert",
            other => other.name(),
        }
    }

    /// Tokens that are words or parts of words: neither control tokens nor bytes.
    pub fn words(self) -> Range<u32> {
        vocabulary::Kind::of(self).words()
    }
}

/// The path of a model of this shape in the cache of test models, written there where it is not.
///
/// Its name carries a hash of its bytes, so a change here makes another file.
///
/// # Panics
/// The file cannot be written.
pub fn shape(shape: Shape) -> PathBuf {
    written(shape, &draft(shape))
}

/// The same with the matrices of experts in 8 bits: all else is floats, so what differs comes from them.
///
/// # Panics
/// The file cannot be written.
pub fn shape_of_rounded_experts(shape: Shape) -> PathBuf {
    let mut draft = draft(shape);
    let experts = draft.tensors.iter_mut().filter(|tensor| tensor.name.ends_with("_exps.weight"));
    experts.for_each(|tensor| tensor.rounded = true);
    written(shape, &draft)
}

fn written(shape: Shape, draft: &Draft) -> PathBuf {
    let bytes = draft.bytes();
    let folder = crate::cache();
    let path = folder.join(format!("shape-{}-{:016x}.gguf", shape.name(), hash(&bytes)));
    if path.metadata().is_ok_and(|metadata| metadata.len() == bytes.len() as u64) {
        return path;
    }
    let part = path.with_extension(format!("{}-{}.part", process::id(), serial()));
    let made = fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&part, &bytes))
        .and_then(|()| fs::rename(&part, &path));
    made.unwrap_or_else(|error| crate::fail(&format!("cannot write {}: {error}", path.display())));
    path
}

/// Another number in each call: tests of one process may write the same file at the same time.
fn serial() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// FNV-1a: enough against accidents, and no crate.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn draft(shape: Shape) -> Draft {
    let mut draft = Draft::default();
    let text = |text: &str| Value::Text(text.to_owned());
    draft.key("general.architecture", text(shape.architecture()));
    draft.key("general.name", Value::Text(format!("Tiny {}", shape.name())));
    draft.key("general.license", text("apache-2.0"));
    // llama.cpp's number for a file of 32-bit floats.
    draft.key("general.file_type", Value::U32(0));
    hyperparameters(shape, &mut draft);
    vocabulary::write(shape, &mut draft);
    layers::write(shape, &mut draft);
    draft
}

/// What llama.cpp reads before the tensors.
fn hyperparameters(shape: Shape, draft: &mut Draft) {
    let architecture = shape.architecture();
    let mut key = |name: &str, value: Value| draft.key(&format!("{architecture}.{name}"), value);
    let encodes = matches!(shape, Shape::Bert | Shape::Reranker);
    key("context_length", Value::U32(if encodes { ENCODER_CONTEXT } else { CONTEXT }));
    key("embedding_length", Value::U32(EMBEDDING));
    key("block_count", Value::U32(LAYERS));
    if shape != Shape::Mamba {
        key("feed_forward_length", Value::U32(FEED_FORWARD));
        key("attention.head_count", Value::U32(HEADS));
    }
    match shape {
        Shape::Mamba => {}
        // A layer without heads is one with a state.
        Shape::Jamba => {
            let heads = |layer| if layers::is_recurrent(shape, layer) { 0 } else { KV_HEADS };
            let heads = (0..LAYERS).map(|layer| heads(layer).cast_signed()).collect();
            key("attention.head_count_kv", Value::I32s(heads));
        }
        Shape::Bert | Shape::Reranker => key("attention.head_count_kv", Value::U32(HEADS)),
        _ => key("attention.head_count_kv", Value::U32(KV_HEADS)),
    }
    if encodes {
        key("attention.layer_norm_epsilon", Value::F32(1e-12));
        key("attention.causal", Value::Bool(false));
        // llama.cpp's numbers for the mean and for a score.
        key("pooling_type", Value::U32(if shape == Shape::Bert { 1 } else { 4 }));
    } else {
        key("attention.layer_norm_rms_epsilon", Value::F32(1e-6));
    }
    if layers::has_windows(shape) {
        let window = if shape == Shape::Gemma3Wide { WIDE_WINDOW } else { WINDOW };
        let windows = (0..LAYERS).map(|layer| layers::has_window(shape, layer)).collect();
        key("attention.sliding_window", Value::U32(window));
        key("attention.sliding_window_pattern", Value::Bools(windows));
    }
    if matches!(shape, Shape::Qwen3Moe | Shape::GptOss) {
        key("expert_count", Value::U32(EXPERTS));
        key("expert_used_count", Value::U32(EXPERTS_USED));
        key("expert_feed_forward_length", Value::U32(FEED_FORWARD / 2));
    }
    if matches!(shape, Shape::Mamba | Shape::Jamba) {
        key("ssm.conv_kernel", Value::U32(layers::CONVOLUTION));
        key("ssm.inner_size", Value::U32(2 * EMBEDDING));
        key("ssm.state_size", Value::U32(layers::STATE));
        key("ssm.time_step_rank", Value::U32(layers::STEP_RANK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_the_same_each_time_and_no_other_shape() {
        let mut hashes: Vec<u64> =
            Shape::ALL.iter().map(|&shape| hash(&draft(shape).bytes())).collect();
        for (&shape, &want) in Shape::ALL.iter().zip(&hashes) {
            assert_eq!(hash(&draft(shape).bytes()), want, "{}", shape.name());
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), Shape::ALL.len());
    }

    #[test]
    fn shapes_are_small() {
        for shape in Shape::ALL {
            let length = draft(shape).bytes().len();
            assert!((100_000..4_000_000).contains(&length), "{}: {length}", shape.name());
        }
    }

    #[test]
    fn a_file_is_written_once() {
        let path = shape(Shape::Mamba);
        let written = path.metadata().unwrap().modified().unwrap();
        assert_eq!(shape(Shape::Mamba), path);
        assert_eq!(path.metadata().unwrap().modified().unwrap(), written);
    }
}
