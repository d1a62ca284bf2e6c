//! Writes a GGUF file whose tensors hold 32-bit floats, or some of them numbers of 8 bits.

use crate::float::to_half;

/// Where tensors start is a multiple of this, since `general.alignment` is not set.
const ALIGNMENT: usize = 32;
/// ggml's number for 32-bit floats.
const F32: u32 = 0;
/// ggml's number for blocks of 32 numbers of 8 bits with a scale.
const Q8_0: u32 = 8;

/// A value of the metadata.
#[derive(Clone, Debug)]
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
}

/// A file to be.
#[derive(Debug, Default)]
pub(super) struct Draft {
    keys: Vec<(String, Value)>,
    pub(super) tensors: Vec<Tensor>,
}

#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// The lengths, the fastest first.
    pub(super) dimensions: Vec<u32>,
    pub(super) values: Vec<f32>,
    /// Whether the file holds them in 8 bits: rows are then whole blocks of 32.
    pub(super) rounded: bool,
}

impl Tensor {
    /// How many bytes it has in the file.
    fn length(&self) -> usize {
        let lengths = self.dimensions.iter().map(|&length| usize::try_from(length).unwrap_or(0));
        let values: usize = lengths.product();
        if self.rounded { values / 32 * 34 } else { values * 4 }
    }

    fn bytes(&self) -> Vec<u8> {
        if !self.rounded {
            return self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        }
        self.values.chunks(32).flat_map(round).collect()
    }
}

/// A block of Q8_0.
fn round(values: &[f32]) -> Vec<u8> {
    let most = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let scale = most / 127.0;
    let mut block = to_half(scale).to_vec();
    #[expect(clippy::cast_possible_truncation, reason = "at most 127 in size")]
    let byte = |value: &f32| ((value / scale.max(f32::MIN_POSITIVE)).round() as i8).cast_unsigned();
    block.extend(values.iter().map(byte));
    block
}

impl Draft {
    pub(super) fn key(&mut self, name: &str, value: Value) {
        self.keys.push((name.to_owned(), value));
    }

    /// Adds a tensor; `values` are as many as the product of its lengths.
    pub(super) fn tensor(&mut self, name: String, dimensions: Vec<u32>, values: Vec<f32>) {
        debug_assert_eq!(
            dimensions.iter().map(|&length| u64::from(length)).product::<u64>(),
            values.len() as u64,
            "{name}"
        );
        self.tensors.push(Tensor { name, dimensions, values, rounded: false });
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        for tensor in &self.tensors {
            out.extend(tensor.bytes());
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        }
        out
    }

    /// The file's bytes up to its tensors, and how long it is with them, whose values may be missing here.
    pub(super) fn hollow(&self) -> (Vec<u8>, u64) {
        let header = self.header();
        let lengths = self.tensors.iter().map(|one| one.length().next_multiple_of(ALIGNMENT));
        let length = header.len() + lengths.sum::<usize>();
        (header, length as u64)
    }

    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (name, value) in &self.keys {
            put_text(&mut out, name);
            put_value(&mut out, value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            put_text(&mut out, &tensor.name);
            put_count(&mut out, tensor.dimensions.len());
            tensor
                .dimensions
                .iter()
                .for_each(|&length| out.extend(u64::from(length).to_le_bytes()));
            out.extend(if tensor.rounded { Q8_0 } else { F32 }.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + tensor.length()).next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    /// The format's number for a list.
    const LIST: u32 = 9;
    let kind: u32 = match value {
        Value::U32(_) => 4,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::Text(_) => 8,
        Value::I32s(_) | Value::F32s(_) | Value::Bools(_) | Value::Texts(_) => LIST,
    };
    out.extend(kind.to_le_bytes());
    let list = |out: &mut Vec<u8>, kind: u32, length: usize| {
        out.extend(kind.to_le_bytes());
        out.extend((length as u64).to_le_bytes());
    };
    match value {
        Value::U32(number) => out.extend(number.to_le_bytes()),
        Value::F32(number) => out.extend(number.to_le_bytes()),
        Value::Bool(yes) => out.push(u8::from(*yes)),
        Value::Text(text) => put_text(out, text),
        Value::I32s(numbers) => {
            list(out, 5, numbers.len());
            numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        Value::F32s(numbers) => {
            list(out, 6, numbers.len());
            numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        Value::Bools(all) => {
            list(out, 7, all.len());
            out.extend(all.iter().map(|&yes| u8::from(yes)));
        }
        Value::Texts(texts) => {
            list(out, 8, texts.len());
            texts.iter().for_each(|text| put_text(out, text));
        }
    }
}
