//! The values of a model's metadata.

/// What a key of the metadata holds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// 8 bits without sign.
    U8(u8),
    /// 8 bits with sign.
    I8(i8),
    /// 16 bits without sign.
    U16(u16),
    /// 16 bits with sign.
    I16(i16),
    /// 32 bits without sign.
    U32(u32),
    /// 32 bits with sign.
    I32(i32),
    /// A 32-bit float.
    F32(f32),
    /// Yes or no.
    Bool(bool),
    /// Text.
    String(String),
    /// A short list, kept whole.
    Array(Vec<Value>),
    /// A long list, such as a tokenizer's table: only its kind and length are kept.
    Skipped {
        /// The kind of its elements.
        element: ValueType,
        /// How many there are.
        length: u64,
    },
    /// 64 bits without sign.
    U64(u64),
    /// 64 bits with sign.
    I64(i64),
    /// A 64-bit float.
    F64(f64),
}

impl Value {
    /// The number, where the value is a whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::U8(number) => Some((*number).into()),
            Self::U16(number) => Some((*number).into()),
            Self::U32(number) => Some((*number).into()),
            Self::U64(number) => Some(*number),
            Self::I8(number) => u64::try_from(*number).ok(),
            Self::I16(number) => u64::try_from(*number).ok(),
            Self::I32(number) => u64::try_from(*number).ok(),
            Self::I64(number) => u64::try_from(*number).ok(),
            Self::F32(_)
            | Self::F64(_)
            | Self::Bool(_)
            | Self::String(_)
            | Self::Array(_)
            | Self::Skipped { .. } => None,
        }
    }

    /// The text, where the value is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }
}

/// The kinds of values, with the format's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// See [`Value::U8`].
    U8,
    /// See [`Value::I8`].
    I8,
    /// See [`Value::U16`].
    U16,
    /// See [`Value::I16`].
    I16,
    /// See [`Value::U32`].
    U32,
    /// See [`Value::I32`].
    I32,
    /// See [`Value::F32`].
    F32,
    /// See [`Value::Bool`].
    Bool,
    /// See [`Value::String`].
    String,
    /// See [`Value::Array`].
    Array,
    /// See [`Value::U64`].
    U64,
    /// See [`Value::I64`].
    I64,
    /// See [`Value::F64`].
    F64,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(super) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// Bytes in the file; for text and lists the least that one takes.
    pub(super) fn least_size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}
