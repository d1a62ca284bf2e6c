//! Writes small GGUF files, well-formed and hostile: for tests, of this crate and of others.

use super::value::Value;

/// What a file to be written shall say; nothing is checked.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The format's version.
    pub version: u32,
    /// Keys and values in order.
    pub metadata: Vec<(String, Value)>,
    /// Tensors in order.
    pub tensors: Vec<DraftTensor>,
    /// Where the data is aligned to.
    pub alignment: u64,
    /// How many bytes of data follow the header.
    pub data_bytes: u64,
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct DraftTensor {
    /// The name.
    pub name: String,
    /// The lengths.
    pub dimensions: Vec<u64>,
    /// ggml's number of the format.
    pub kind: u32,
    /// Where its data starts.
    pub offset: u64,
}

impl Default for Draft {
    fn default() -> Self {
        Self { version: 3, metadata: Vec::new(), tensors: Vec::new(), alignment: 32, data_bytes: 0 }
    }
}

impl Draft {
    /// A model that passes every check, with `data_bytes` (a multiple of 128) of weights.
    pub fn sample(data_bytes: u64) -> Self {
        let text = |value: &str| Value::String(value.to_owned());
        let tensor = DraftTensor {
            name: "output.weight".to_owned(),
            dimensions: vec![32, data_bytes / 128],
            kind: 0,
            offset: 0,
        };
        Self {
            metadata: vec![
                ("general.architecture".to_owned(), text("llama")),
                ("general.name".to_owned(), text("Sample")),
                ("general.license".to_owned(), text("apache-2.0")),
                ("llama.context_length".to_owned(), Value::U32(2048)),
                ("general.file_type".to_owned(), Value::U32(0)),
                ("tokenizer.chat_template".to_owned(), text("{{ messages }}")),
            ],
            tensors: vec![tensor],
            data_bytes,
            ..Self::default()
        }
    }

    /// The file's bytes. The weights repeat no short pattern, so that a shifted copy is noticed.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            out.extend(type_id(value).to_le_bytes());
            put_value(&mut out, value);
        }
        self.tensors.iter().for_each(|tensor| put_tensor(&mut out, tensor));
        while !(out.len() as u64).is_multiple_of(self.alignment.max(1)) {
            out.push(0);
        }
        let mut word = 0x9e37_79b9_u32;
        for _ in 0..self.data_bytes.div_ceil(4) {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            out.extend(word.to_be_bytes());
        }
        out
    }
}

fn put_tensor(out: &mut Vec<u8>, tensor: &DraftTensor) {
    put_string(out, &tensor.name);
    out.extend(u32::try_from(tensor.dimensions.len()).unwrap_or(u32::MAX).to_le_bytes());
    tensor.dimensions.iter().for_each(|dimension| out.extend(dimension.to_le_bytes()));
    out.extend(tensor.kind.to_le_bytes());
    out.extend(tensor.offset.to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(number) => out.push(*number),
        Value::I8(number) => out.extend(number.to_le_bytes()),
        Value::U16(number) => out.extend(number.to_le_bytes()),
        Value::I16(number) => out.extend(number.to_le_bytes()),
        Value::U32(number) => out.extend(number.to_le_bytes()),
        Value::I32(number) => out.extend(number.to_le_bytes()),
        Value::F32(number) => out.extend(number.to_le_bytes()),
        Value::Bool(yes) => out.push(u8::from(*yes)),
        Value::String(text) => put_string(out, text),
        Value::Array(values) => {
            out.extend(values.first().map_or(4, type_id).to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| put_value(out, value));
        }
        // The length without the elements: a lie, as a hostile file tells it.
        Value::Skipped { element, length } => {
            out.extend((*element as u32).to_le_bytes());
            out.extend(length.to_le_bytes());
        }
        Value::U64(number) => out.extend(number.to_le_bytes()),
        Value::I64(number) => out.extend(number.to_le_bytes()),
        Value::F64(number) => out.extend(number.to_le_bytes()),
    }
}

fn type_id(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) | Value::Skipped { .. } => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}
