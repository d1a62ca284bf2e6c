//! Reads the header and checks every number in it before the engine sees the file.

use std::collections::HashSet;
use std::io::{Read, Seek};

use super::adapter;
use super::cursor::Cursor;
use super::error::GgufError;
use super::types::TensorType;
use super::value::{Value, ValueType};
use super::{Gguf, Metadata, Tensor};

/// No published model has near as many.
const MAX_KEYS: u64 = 65_536;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_KEY_BYTES: u64 = 65_535;
const MAX_STRING_BYTES: u64 = 16 * 1024 * 1024;
const MAX_TEMPLATE_BYTES: u64 = 256 * 1024;
/// The engine keeps 64 bytes for a name and ends it with a zero.
const MAX_NAME_BYTES: u64 = 63;
/// Longer lists are skipped: a tokenizer's tables have 30,000 to 300,000 elements.
const MAX_KEPT_ELEMENTS: u64 = 1024;
/// Empty texts take 8 bytes each, so a long file could keep us busy with them for minutes.
const MAX_STRINGS: u64 = 1 << 24;
const MAX_DEPTH: u32 = 4;
const TEMPLATE: &str = "tokenizer.chat_template";
const ALIGNMENT: &str = "general.alignment";

pub(super) fn read(file: impl Read + Seek) -> Result<Gguf, GgufError> {
    let mut cursor = Cursor::new(file)?;
    let version = read_version(&mut cursor)?;
    let tensors = count(&mut cursor, "tensors", MAX_TENSORS, 24)?;
    let keys = count(&mut cursor, "metadata keys", MAX_KEYS, 13)?;
    let metadata = read_metadata(&mut cursor, keys)?;
    let alignment = alignment(&metadata)?;
    let tensors = read_tensors(&mut cursor, tensors)?;
    let file_len = cursor.length();
    let data_start = cursor.position().next_multiple_of(alignment);
    check_layout(&tensors, alignment, data_start, file_len)?;
    let gguf = Gguf { version, metadata, tensors, data_start, file_len };
    adapter::check(&gguf)?;
    Ok(gguf)
}

fn read_version<R: Read + Seek>(cursor: &mut Cursor<R>) -> Result<u32, GgufError> {
    if cursor.length() == 0 {
        return Err(GgufError::Empty);
    }
    let magic: [u8; 4] = cursor.array("the first four bytes")?;
    if &magic != b"GGUF" {
        return Err(GgufError::WrongMagic { found: magic.escape_ascii().to_string() });
    }
    match cursor.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        version if version.trailing_zeros() >= 16 && version != 0 => Err(GgufError::BigEndian),
        version => Err(GgufError::Version(version)),
    }
}

/// A count of things that take at least `least` bytes each.
fn count<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    what: &str,
    limit: u64,
    least: u64,
) -> Result<u64, GgufError> {
    let count = cursor.u64(&format!("the number of {what}"))?;
    let limit = limit.min(cursor.remaining() / least);
    if count > limit {
        return Err(GgufError::TooMany { what: what.to_owned(), count, limit });
    }
    Ok(count)
}

fn read_metadata<R: Read + Seek>(cursor: &mut Cursor<R>, keys: u64) -> Result<Metadata, GgufError> {
    let mut metadata = Metadata::default();
    for index in 0..keys {
        let key = cursor.string(&format!("metadata key {index}"), MAX_KEY_BYTES)?;
        cursor.spend("metadata", 64)?;
        if key.is_empty() || metadata.0.contains_key(&key) {
            let problem = if key.is_empty() { "it is empty" } else { "it comes twice" };
            return Err(malformed(&format!("metadata key {index} ({key:?})"), problem));
        }
        let place = format!("metadata key {key:?}");
        let kind = value_type(cursor, &place)?;
        let limit = if key.starts_with(TEMPLATE) { MAX_TEMPLATE_BYTES } else { MAX_STRING_BYTES };
        let value = read_value(cursor, &place, kind, Limits { string: limit, depth: 0 })?;
        metadata.0.insert(key, value);
    }
    Ok(metadata)
}

#[derive(Clone, Copy)]
struct Limits {
    string: u64,
    depth: u32,
}

fn value_type<R: Read + Seek>(cursor: &mut Cursor<R>, place: &str) -> Result<ValueType, GgufError> {
    let id = cursor.u32(place)?;
    ValueType::from_id(id).ok_or_else(|| malformed(place, &format!("{id} is no type of values")))
}

fn read_value<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    place: &str,
    kind: ValueType,
    limits: Limits,
) -> Result<Value, GgufError> {
    Ok(match kind {
        ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array(place)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array(place)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array(place)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array(place)?)),
        ValueType::U32 => Value::U32(cursor.u32(place)?),
        ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array(place)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array(place)?)),
        // The engine takes any byte but zero for true.
        ValueType::Bool => Value::Bool(cursor.array::<1>(place)? != [0]),
        ValueType::String => Value::String(cursor.string(place, limits.string)?),
        ValueType::Array => read_array(cursor, place, limits)?,
        ValueType::U64 => Value::U64(cursor.u64(place)?),
        ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array(place)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array(place)?)),
    })
}

fn read_array<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    place: &str,
    limits: Limits,
) -> Result<Value, GgufError> {
    if limits.depth >= MAX_DEPTH {
        return Err(malformed(place, "its lists are nested too deep"));
    }
    let element = value_type(cursor, place)?;
    let length = cursor.u64(place)?;
    let limit = cursor.remaining() / element.least_size();
    if length > limit {
        return Err(GgufError::TooMany {
            what: format!("elements in {place}"),
            count: length,
            limit,
        });
    }
    let limits = Limits { depth: limits.depth + 1, ..limits };
    if length > MAX_KEPT_ELEMENTS {
        skip_elements(cursor, place, element, length)?;
        return Ok(Value::Skipped { element, length });
    }
    cursor.spend(place, length * 32)?;
    let values = (0..length).map(|_| read_value(cursor, place, element, limits));
    values.collect::<Result<_, _>>().map(Value::Array)
}

fn skip_elements<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    place: &str,
    element: ValueType,
    length: u64,
) -> Result<(), GgufError> {
    match element {
        ValueType::String if length > MAX_STRINGS => Err(GgufError::TooMany {
            what: format!("texts in {place}"),
            count: length,
            limit: MAX_STRINGS,
        }),
        ValueType::String => (0..length).try_for_each(|_| cursor.skip_string(place)),
        // No known model has these, and skipping them would need recursion without a budget.
        ValueType::Array => Err(malformed(place, "it has too many lists in one list")),
        _ => cursor.skip(place, length * element.least_size()),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    match metadata.get(ALIGNMENT) {
        None => Ok(32),
        Some(Value::U32(alignment)) if alignment.is_power_of_two() => Ok((*alignment).into()),
        Some(value) => Err(malformed(ALIGNMENT, &format!("{value:?} is no 32-bit power of two"))),
    }
}

fn read_tensors<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    count: u64,
) -> Result<Vec<Tensor>, GgufError> {
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for index in 0..count {
        // A tensor and its name, which is held twice.
        cursor.spend("the table of tensors", 160)?;
        let tensor = read_tensor(cursor, index)?;
        if !names.insert(tensor.name.clone()) {
            return Err(malformed(&tensor.place(), "its name comes twice"));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn read_tensor<R: Read + Seek>(cursor: &mut Cursor<R>, index: u64) -> Result<Tensor, GgufError> {
    let name = cursor.string(&format!("the name of tensor {index}"), MAX_NAME_BYTES)?;
    let place = format!("tensor {name:?}");
    let dimensions = match cursor.u32(&place)? {
        count @ 1..=4 => (0..count).map(|_| cursor.u64(&place)).collect::<Result<Vec<_>, _>>()?,
        count => return Err(malformed(&place, &format!("it has {count} dimensions, not 1 to 4"))),
    };
    let id = cursor.u32(&place)?;
    let Some(kind) = TensorType::from_id(id) else {
        return Err(malformed(&place, &format!("{id} is no number format, or was removed")));
    };
    let offset = cursor.u64(&place)?;
    let bytes = tensor_bytes(&place, &dimensions, kind)?;
    Ok(Tensor { name, dimensions, kind, offset, bytes })
}

/// The engine multiplies in signed 64 bits, so more than that is refused though the file could not
/// hold it anyway.
fn tensor_bytes(place: &str, dimensions: &[u64], kind: TensorType) -> Result<u64, GgufError> {
    if dimensions.contains(&0) {
        return Err(malformed(place, "a dimension is zero"));
    }
    let row = dimensions.first().copied().unwrap_or(0);
    if row % kind.block_elements() != 0 {
        let problem = format!(
            "its rows have {row} values, which {} cannot store: it packs {} together",
            kind.name(),
            kind.block_elements()
        );
        return Err(malformed(place, &problem));
    }
    let elements = dimensions
        .iter()
        .try_fold(1_u64, |product, dimension| product.checked_mul(*dimension))
        .filter(|elements| i64::try_from(*elements).is_ok());
    elements
        .and_then(|elements| (elements / kind.block_elements()).checked_mul(kind.block_bytes()))
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| malformed(place, "its size overflows 64 bits"))
}

/// Every tensor lies aligned inside the file, and no two share a byte.
fn check_layout(
    tensors: &[Tensor],
    alignment: u64,
    data_start: u64,
    file_len: u64,
) -> Result<(), GgufError> {
    let mut by_offset: Vec<&Tensor> = tensors.iter().collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    let mut free_from = 0_u128;
    for tensor in by_offset {
        if tensor.offset % alignment != 0 {
            let problem = format!("its offset {} is no multiple of {alignment}", tensor.offset);
            return Err(malformed(&tensor.place(), &problem));
        }
        if u128::from(tensor.offset) < free_from {
            return Err(malformed(&tensor.place(), "it overlaps another tensor"));
        }
        free_from = u128::from(tensor.offset) + u128::from(tensor.bytes);
        let needed = u128::from(data_start) + free_from;
        if needed > file_len.into() {
            let name = tensor.name.clone();
            return Err(GgufError::TensorOutside { name, needed, length: file_len });
        }
    }
    Ok(())
}

fn malformed(place: &str, problem: &str) -> GgufError {
    GgufError::Malformed { place: place.to_owned(), problem: problem.to_owned() }
}
