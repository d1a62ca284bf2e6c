//! Writes a model so small that it loads in a moment: a real file of a real architecture, whose weights
//! mean nothing.

use std::io::{self, Write};

/// Tokens: unknown, begin, end, one for each byte, a gap, and the letters.
const TOKENS: u32 = 3 + 256 + 1 + 26;
const WIDTH: u32 = 32;
const INNER: u32 = 64;
const ALIGNMENT: usize = 32;
const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";

/// GGUF's numbers for the types of values.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Where a file says something else than the truth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lies {
    pub(crate) tokenizer: Option<&'static str>,
    pub(crate) template: Option<&'static str>,
    pub(crate) blocks: Option<u32>,
    pub(crate) alignment: Option<u32>,
    /// The name of the token of byte 65.
    pub(crate) byte_token: Option<&'static str>,
    /// The length of the name of the token of byte 66.
    pub(crate) token_length: Option<u64>,
    /// Of the last tensor.
    pub(crate) dimensions: Option<[u64; 2]>,
    /// Of the last tensor.
    pub(crate) offset: Option<u64>,
}

/// The whole file. The same bytes each time.
pub(crate) fn model(lies: &Lies) -> io::Result<Vec<u8>> {
    let tensors = tensors();
    let mut file = Vec::new();
    let values = values(lies)?;
    file.write_all(b"GGUF")?;
    file.write_all(&3u32.to_le_bytes())?;
    file.write_all(&(tensors.len() as u64).to_le_bytes())?;
    file.write_all(&(values.len() as u64).to_le_bytes())?;
    values.iter().try_for_each(|value| file.write_all(value))?;
    let mut offset = 0u64;
    for (name, shape) in &tensors {
        string(&mut file, name)?;
        file.write_all(&u32::try_from(shape.len()).unwrap_or(0).to_le_bytes())?;
        let is_last = Some(*name) == tensors.last().map(|(name, _)| *name);
        let true_shape: Vec<u64> = shape.iter().map(|size| u64::from(*size)).collect();
        let shown = lies.dimensions.filter(|_| is_last).map_or(true_shape, Vec::from);
        shown.iter().try_for_each(|size| file.write_all(&size.to_le_bytes()))?;
        // ggml's number for 32-bit floats.
        file.write_all(&0u32.to_le_bytes())?;
        file.write_all(&lies.offset.filter(|_| is_last).unwrap_or(offset).to_le_bytes())?;
        offset += count(shape) * 4;
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    let mut random = 1u64;
    for (name, shape) in &tensors {
        for _ in 0..count(shape) {
            // Knuth's MMIX generator.
            random = random.wrapping_mul(6_364_136_223_846_793_005);
            random = random.wrapping_add(1_442_695_040_888_963_407);
            let small = f32::from(u16::try_from(random >> 48).unwrap_or(0)) / 32768.0 - 1.0;
            let weight = if name.contains("norm") { 1.0 } else { small * 0.3 };
            file.write_all(&weight.to_le_bytes())?;
        }
    }
    Ok(file)
}

fn count(shape: &[u32]) -> u64 {
    shape.iter().map(|size| u64::from(*size)).product()
}

/// Every length is a multiple of the alignment, as it must be.
fn tensors() -> Vec<(&'static str, Vec<u32>)> {
    vec![
        ("token_embd.weight", vec![WIDTH, TOKENS]),
        ("output_norm.weight", vec![WIDTH]),
        ("output.weight", vec![WIDTH, TOKENS]),
        ("blk.0.attn_norm.weight", vec![WIDTH]),
        ("blk.0.attn_q.weight", vec![WIDTH, WIDTH]),
        ("blk.0.attn_k.weight", vec![WIDTH, WIDTH]),
        ("blk.0.attn_v.weight", vec![WIDTH, WIDTH]),
        ("blk.0.attn_output.weight", vec![WIDTH, WIDTH]),
        ("blk.0.ffn_norm.weight", vec![WIDTH]),
        ("blk.0.ffn_gate.weight", vec![WIDTH, INNER]),
        ("blk.0.ffn_up.weight", vec![WIDTH, INNER]),
        ("blk.0.ffn_down.weight", vec![INNER, WIDTH]),
    ]
}

fn values(lies: &Lies) -> io::Result<Vec<Vec<u8>>> {
    let mut all = vec![
        text("general.architecture", "llama")?,
        text("general.name", "tiny")?,
        text("tokenizer.ggml.model", lies.tokenizer.unwrap_or("llama"))?,
        text("tokenizer.chat_template", lies.template.unwrap_or(TEMPLATE))?,
        value("llama.attention.layer_norm_rms_epsilon", F32, &1e-5f32.to_le_bytes())?,
    ];
    for (key, number) in [
        ("llama.context_length", 512),
        ("llama.embedding_length", WIDTH),
        ("llama.block_count", lies.blocks.unwrap_or(1)),
        ("llama.feed_forward_length", INNER),
        ("llama.attention.head_count", 2),
        ("llama.rope.dimension_count", WIDTH / 2),
        ("llama.vocab_size", TOKENS),
        ("tokenizer.ggml.unknown_token_id", 0),
        ("tokenizer.ggml.bos_token_id", 1),
        ("tokenizer.ggml.eos_token_id", 2),
    ] {
        all.push(value(key, U32, &number.to_le_bytes())?);
    }
    if let Some(alignment) = lies.alignment {
        all.push(value("general.alignment", U32, &alignment.to_le_bytes())?);
    }
    all.extend(vocabulary(lies)?);
    Ok(all)
}

fn vocabulary(lies: &Lies) -> io::Result<[Vec<u8>; 3]> {
    /// llama.cpp's kinds of tokens.
    const NORMAL: i32 = 1;
    const UNKNOWN: i32 = 2;
    const CONTROL: i32 = 3;
    const BYTE: i32 = 6;
    let mut tokens = vec![
        ("<unk>".to_owned(), UNKNOWN),
        ("<s>".to_owned(), CONTROL),
        ("</s>".to_owned(), CONTROL),
    ];
    tokens.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), BYTE)));
    tokens.push(("\u{2581}".to_owned(), NORMAL));
    tokens.extend(('a'..='z').map(|letter| (letter.to_string(), NORMAL)));
    let (mut names, mut kinds, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(name) = lies.byte_token {
        name.clone_into(&mut tokens[3 + 65].0);
    }
    for (number, (name, kind)) in tokens.iter().enumerate() {
        let length = lies.token_length.filter(|_| number == 3 + 66);
        names.write_all(&length.unwrap_or(name.len() as u64).to_le_bytes())?;
        names.write_all(name.as_bytes())?;
        kinds.write_all(&kind.to_le_bytes())?;
        scores.write_all(&0f32.to_le_bytes())?;
    }
    Ok([
        list("tokenizer.ggml.tokens", STRING, &names)?,
        list("tokenizer.ggml.token_type", I32, &kinds)?,
        list("tokenizer.ggml.scores", F32, &scores)?,
    ])
}

fn string(to: &mut Vec<u8>, text: &str) -> io::Result<()> {
    to.write_all(&(text.len() as u64).to_le_bytes())?;
    to.write_all(text.as_bytes())
}

fn value(key: &str, kind: u32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    string(&mut out, key)?;
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(bytes)?;
    Ok(out)
}

fn text(key: &str, text: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    string(&mut bytes, text)?;
    value(key, STRING, &bytes)
}

fn list(key: &str, kind: u32, elements: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.write_all(&u64::from(TOKENS).to_le_bytes())?;
    bytes.write_all(elements)?;
    value(key, ARRAY, &bytes)
}
