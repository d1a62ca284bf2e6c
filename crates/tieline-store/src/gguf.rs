//! Reads the header of a GGUF model and refuses whatever the engine should never see.
//!
//! Reads no weights, holds at most 64 MiB, and trusts no number of the file: the engine has had
//! writes outside its memory by crafted headers more than once.

mod adapter;
mod cursor;
mod error;
mod read;
#[cfg(test)]
mod tests;
mod types;
mod value;
pub mod write;

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use sha2::{Digest as _, Sha256};
use tieline_types::{Bytes, Digest, Tokens};

pub use adapter::Misfit;
pub use error::GgufError;
pub use types::TensorType;
pub use value::{Value, ValueType};

/// A model's header. Every tensor in it lies inside the file, aligned and on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// The format's version: 2 or 3.
    pub version: u32,
    /// The keys and their values.
    pub metadata: Metadata,
    /// The tensors in the file's order.
    pub tensors: Vec<Tensor>,
    /// Where the tensors' data starts in the file.
    pub data_start: u64,
    /// The file's length in bytes.
    pub file_len: u64,
}

/// The keys of a model and their values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

/// A tensor's row in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, which no other tensor has.
    pub name: String,
    /// One to four lengths, the row's first; none is zero.
    pub dimensions: Vec<u64>,
    /// The number format.
    pub kind: TensorType,
    /// Where its data starts, counted from [`Gguf::data_start`].
    pub offset: u64,
    /// How many bytes its data takes.
    pub bytes: u64,
}

impl Tensor {
    fn place(&self) -> String {
        format!("tensor {:?}", self.name)
    }

    /// How many values it holds.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

/// How much of a model one number format takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Tensors in this format.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: Bytes,
}

impl Gguf {
    /// Reads and checks a header.
    ///
    /// # Errors
    /// The file cannot be read, is no GGUF model, or breaks a rule of the format.
    pub fn read(file: impl Read + Seek) -> Result<Self, GgufError> {
        read::read(file)
    }

    /// The architecture, such as `llama`.
    pub fn architecture(&self) -> Option<&str> {
        self.text("general.architecture")
    }

    /// The name that its makers gave it.
    pub fn name(&self) -> Option<&str> {
        self.text("general.name")
    }

    /// The licence that the file claims.
    pub fn licence(&self) -> Option<&str> {
        self.text("general.license")
    }

    /// The longest context that it was trained for.
    pub fn context_length(&self) -> Option<Tokens> {
        let key = format!("{}.context_length", self.architecture()?);
        u32::try_from(self.metadata.get(&key)?.as_u64()?).ok().map(Tokens)
    }

    /// Over how many files its model is spread, of which this is one; 1: it is whole.
    pub fn parts(&self) -> u64 {
        self.metadata.get("split.count").and_then(Value::as_u64).unwrap_or(1)
    }

    /// How many weights it has.
    pub fn parameter_count(&self) -> u64 {
        self.tensors.iter().map(Tensor::elements).fold(0, u64::saturating_add)
    }

    /// The quantisation's name: as the file says, or else the format that takes the most bytes.
    pub fn quantisation(&self) -> Option<&str> {
        let declared = self.metadata.get("general.file_type").and_then(Value::as_u64);
        declared.and_then(types::file_type_name).or_else(|| {
            let types = self.bytes_by_type();
            types.into_iter().max_by_key(|(_, share)| share.bytes).map(|(kind, _)| kind.name())
        })
    }

    /// How many tensors and bytes each number format takes.
    pub fn bytes_by_type(&self) -> BTreeMap<TensorType, Share> {
        let mut types = BTreeMap::<_, Share>::new();
        for tensor in &self.tensors {
            let share = types.entry(tensor.kind).or_default();
            share.tensors += 1;
            share.bytes.0 += tensor.bytes;
        }
        types
    }

    /// The template that turns a conversation into a prompt, whole.
    pub fn chat_template(&self) -> Option<&str> {
        self.text("tokenizer.chat_template")
    }

    /// The template's SHA-256: weights can be clean while their template is not.
    pub fn chat_template_digest(&self) -> Option<Digest> {
        self.chat_template().map(|template| Digest(Sha256::digest(template).into()))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_str)
    }
}
