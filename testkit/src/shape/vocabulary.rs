//! Three small vocabularies, one of each kind that models of these shapes come with.

use std::ops::Range;

use super::Shape;
use super::file::{Draft, Value};

/// Tokens of a vocabulary.
pub(super) const SIZE: u32 = 512;
/// The text that begins a text, and the one that ends it.
const BOS: u32 = 1;
const EOS: u32 = 2;
/// Control tokens before the bytes; then come 256 bytes, then words.
const CONTROLS: u32 = 8;
/// The encoders' control tokens.
const ENCODER_CONTROLS: u32 = 5;

/// Every message, as many templates write it.
const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// How a vocabulary cuts texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// SentencePiece: what is no token is bytes.
    Pieces,
    /// Byte-level pairs that are merged.
    Pairs,
    /// Words and their ends: what is none is unknown.
    Words,
}

impl Kind {
    pub(super) fn of(shape: Shape) -> Self {
        match shape {
            Shape::Qwen3 | Shape::Qwen3Moe | Shape::GptOss => Self::Pairs,
            Shape::Bert | Shape::Reranker => Self::Words,
            Shape::Llama
            | Shape::Infill
            | Shape::Gemma3
            | Shape::Gemma3Wide
            | Shape::Mamba
            | Shape::Jamba => Self::Pieces,
        }
    }

    pub(super) fn words(self) -> Range<u32> {
        match self {
            Self::Pieces | Self::Pairs => CONTROLS + 256..SIZE,
            Self::Words => ENCODER_CONTROLS..SIZE,
        }
    }
}

/// llama.cpp's numbers for what a token is.
#[derive(Clone, Copy, Debug)]
enum Class {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    Byte = 6,
}

/// Writes the vocabulary of a shape, and its template.
pub(super) fn write(shape: Shape, draft: &mut Draft) {
    match Kind::of(shape) {
        Kind::Pieces => pieces(shape, draft),
        Kind::Pairs => pairs(shape, draft),
        Kind::Words => words(draft),
    }
}

fn controls(shape: Shape) -> Vec<(String, Class)> {
    let gaps = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];
    let spare = ["<|spare_5|>", "<|spare_6|>", "<|spare_7|>"];
    let last = if shape == Shape::Infill { gaps } else { spare };
    let first = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"];
    let class = |name: &str| if name == "<unk>" { Class::Unknown } else { Class::Control };
    first.into_iter().chain(last).map(|name| (name.to_owned(), class(name))).collect()
}

/// Pronounceable parts of words.
fn syllables() -> impl Iterator<Item = String> {
    "bdklmnrst"
        .chars()
        .flat_map(|first| "aeiou".chars().map(move |second| format!("{first}{second}")))
}

/// Words of two syllables, none twice.
fn long_words() -> impl Iterator<Item = String> {
    let second: Vec<String> = syllables().collect();
    (1..second.len()).flat_map(move |step| {
        let second = second.clone();
        syllables().enumerate().map(move |(at, first)| first + &second[(at + step) % second.len()])
    })
}

/// Fills a vocabulary up with `more`.
fn fill(tokens: &mut Vec<(String, Class)>, more: impl Iterator<Item = String>) {
    let room = usize::try_from(SIZE).unwrap_or(0).saturating_sub(tokens.len());
    tokens.extend(more.take(room).map(|text| (text, Class::Normal)));
}

fn pieces(shape: Shape, draft: &mut Draft) {
    let mut tokens = controls(shape);
    tokens.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), Class::Byte)));
    let single = ('!'..='~').chain(['\u{2581}']).map(String::from);
    let begun = |text: String| format!("\u{2581}{text}");
    fill(&mut tokens, single.chain(syllables()).chain(syllables().map(begun)).chain(long_words()));
    // The longer a piece, the rather it is taken.
    let score = |text: &str| -1000.0 / f32::from(u16::try_from(text.chars().count()).unwrap_or(1));
    let scores = tokens.iter().map(|(text, _)| score(text)).collect();
    draft.key("tokenizer.ggml.model", Value::Text("llama".to_owned()));
    draft.key("tokenizer.ggml.scores", Value::F32s(scores));
    draft.key("tokenizer.ggml.add_bos_token", Value::Bool(true));
    draft.key("tokenizer.ggml.add_space_prefix", Value::Bool(!super::layers::is_gemma(shape)));
    draft.key("tokenizer.ggml.unknown_token_id", Value::U32(0));
    let template = format!("{{{{ bos_token }}}}{TEMPLATE}");
    finish(shape, draft, tokens, &template);
}

fn pairs(shape: Shape, draft: &mut Draft) {
    let mut tokens = controls(shape);
    tokens.extend((0..=255u8).map(|byte| (visible(byte).to_string(), Class::Normal)));
    let begun = |text: String| format!("\u{120}{text}");
    let words = syllables().chain(syllables().map(begun)).chain(long_words());
    fill(&mut tokens, words);
    // What a token is made of: the letter that a syllable begins with, a space, or a syllable.
    let parts = |text: &str| {
        let letters: Vec<char> = text.chars().collect();
        let cut = if letters.len() == 4 { 2 } else { 1 };
        let text = |letters: &[char]| letters.iter().collect::<String>();
        format!("{} {}", text(&letters[..cut]), text(&letters[cut..]))
    };
    let first = usize::try_from(CONTROLS + 256).unwrap_or(0);
    let merges = tokens[first..].iter().map(|(text, _)| parts(text)).collect();
    let cut = if shape == Shape::GptOss { "gpt-4o" } else { "qwen2" };
    draft.key("tokenizer.ggml.model", Value::Text("gpt2".to_owned()));
    draft.key("tokenizer.ggml.pre", Value::Text(cut.to_owned()));
    draft.key("tokenizer.ggml.merges", Value::Texts(merges));
    draft.key("tokenizer.ggml.add_bos_token", Value::Bool(false));
    finish(shape, draft, tokens, TEMPLATE);
}

/// The character that stands for a byte in byte-level vocabularies: itself where it can be seen, and of
/// the others the n-th is U+0100 + n.
fn visible(byte: u8) -> char {
    let shows = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if shows(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !shows(other)).count();
    let number = u32::try_from(before).unwrap_or(0);
    char::from_u32(0x100 + number).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn finish(shape: Shape, draft: &mut Draft, tokens: Vec<(String, Class)>, template: &str) {
    tokens_of(draft, tokens);
    draft.key("tokenizer.ggml.bos_token_id", Value::U32(BOS));
    draft.key("tokenizer.ggml.eos_token_id", Value::U32(EOS));
    draft.key("tokenizer.ggml.eot_token_id", Value::U32(4));
    if shape == Shape::Infill {
        for (name, token) in [("fim_pre", 5), ("fim_suf", 6), ("fim_mid", 7)] {
            draft.key(&format!("tokenizer.ggml.{name}_token_id"), Value::U32(token));
        }
    }
    draft.key("tokenizer.chat_template", Value::Text(template.to_owned()));
}

fn tokens_of(draft: &mut Draft, tokens: Vec<(String, Class)>) {
    let classes = tokens.iter().map(|(_, class)| *class as i32).collect();
    let texts = tokens.into_iter().map(|(text, _)| text).collect();
    draft.key("tokenizer.ggml.tokens", Value::Texts(texts));
    draft.key("tokenizer.ggml.token_type", Value::I32s(classes));
}

fn words(draft: &mut Draft) {
    let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let control = |(at, name): (usize, &str)| {
        (name.to_owned(), if at == 1 { Class::Unknown } else { Class::Control })
    };
    let mut tokens: Vec<(String, Class)> = names.into_iter().enumerate().map(control).collect();
    let single = || ('!'..='~').map(String::from);
    let begun = |text: String| format!("\u{2581}{text}");
    let parts = single().chain(syllables());
    let words = long_words().map(begun);
    fill(&mut tokens, parts.chain(single().map(begun)).chain(syllables().map(begun)).chain(words));
    draft.key("tokenizer.ggml.model", Value::Text("bert".to_owned()));
    draft.key("tokenizer.ggml.token_type_count", Value::U32(2));
    tokens_of(draft, tokens);
    let ids = [
        ("padding", 0),
        ("unknown", 1),
        ("bos", 2),
        ("cls", 2),
        ("eos", 3),
        ("seperator", 3),
        ("mask", 4),
    ];
    for (name, token) in ids {
        draft.key(&format!("tokenizer.ggml.{name}_token_id"), Value::U32(token));
    }
}
