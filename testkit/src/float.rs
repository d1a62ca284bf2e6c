//! Makes a float model of a quantised one: the same weights, each as the nearest 16-bit float.
//!
//! Quantised weights are multiplied with activations that are rounded to 8 bits, so that the least change
//! in a batch's shape moves every logit a little. Float weights leave a noise too small to change a greedy
//! answer: with them tests can compare texts.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// ggml's numbers for types of tensors.
const F32: u32 = 0;
const F16: u32 = 1;
const Q4_1: u32 = 3;
const Q8_0: u32 = 8;
/// llama.cpp's number for a file of 16-bit floats.
const MOSTLY_F16: u32 = 1;
/// Values in a block of either quantised type.
const BLOCK: usize = 32;
/// Where tensors start is a multiple of this, since `general.alignment` is not set.
const ALIGNMENT: usize = 32;

/// What a file must be: its length and the FNV-1a hash of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) length: u64,
    pub(crate) hash: u64,
}

/// Writes the float model of `source` at `target`, all of it or nothing; fails where it is not `want`.
pub(crate) fn convert(source: &Path, target: &Path, want: Shape) -> Result<(), String> {
    let part = target.with_extension(format!("{}.part", std::process::id()));
    let made = fs::read(source).map_err(|error| error.to_string()).and_then(|bytes| {
        let mut out = Hashed::new(BufWriter::new(File::create(&part).map_err(in_words)?));
        rewrite(&bytes, &mut out)?;
        out.to.flush().map_err(in_words)?;
        if out.shape != want {
            return Err(format!("made {:x?}, expected {want:x?}", out.shape));
        }
        fs::rename(&part, target).map_err(in_words)
    });
    if made.is_err() {
        // Perhaps it was never made.
        let _ = fs::remove_file(&part);
    }
    made
}

fn in_words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// One tensor of the file.
struct Tensor<'b> {
    name: &'b [u8],
    dimensions: Vec<u64>,
    kind: u32,
    offset: usize,
}

impl Tensor<'_> {
    fn values(&self) -> Result<usize, String> {
        let values = self.dimensions.iter().try_fold(1u64, |all, &one| all.checked_mul(one));
        values.and_then(|values| usize::try_from(values).ok()).ok_or("a tensor is too large".into())
    }

    /// The type and the length of what it becomes.
    fn new_kind(&self) -> Result<(u32, usize), String> {
        let values = self.values()?;
        Ok(if self.kind == F32 { (F32, values * 4) } else { (F16, values * 2) })
    }
}

fn rewrite(bytes: &[u8], out: &mut impl Write) -> Result<(), String> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(4)? != b"GGUF" || reader.u32()? != 3 {
        return Err("not a GGUF file of version 3".into());
    }
    let (tensors, keys) = (reader.u64()?, reader.u64()?);
    let mut file_type = None;
    for _ in 0..keys {
        let name = reader.text()?;
        let kind = reader.u32()?;
        if name == b"general.file_type" {
            file_type = Some(reader.at);
        }
        reader.skip_value(kind)?;
    }
    let mut head = bytes[..reader.at].to_vec();
    let at = file_type.ok_or("no general.file_type")?;
    head[at..at + 4].copy_from_slice(&MOSTLY_F16.to_le_bytes());
    let tensors: Vec<Tensor<'_>> =
        (0..tensors).map(|_| reader.tensor()).collect::<Result<_, String>>()?;
    let data = bytes.get(aligned(reader.at)..).ok_or("no tensors' data")?;
    write_infos(&tensors, &mut head)?;
    head.resize(aligned(head.len()), 0);
    out.write_all(&head).map_err(in_words)?;
    tensors.iter().try_for_each(|tensor| write_tensor(tensor, data, out))
}

fn aligned(at: usize) -> usize {
    at.next_multiple_of(ALIGNMENT)
}

fn write_infos(tensors: &[Tensor<'_>], head: &mut Vec<u8>) -> Result<(), String> {
    let mut offset = 0;
    for tensor in tensors {
        let (kind, length) = tensor.new_kind()?;
        head.extend((tensor.name.len() as u64).to_le_bytes());
        head.extend(tensor.name);
        let dimensions = u32::try_from(tensor.dimensions.len()).map_err(in_words)?;
        head.extend(dimensions.to_le_bytes());
        tensor.dimensions.iter().for_each(|length| head.extend(length.to_le_bytes()));
        head.extend(kind.to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        offset += aligned(length);
    }
    Ok(())
}

fn write_tensor(tensor: &Tensor<'_>, data: &[u8], out: &mut impl Write) -> Result<(), String> {
    let values = tensor.values()?;
    let (_, length) = tensor.new_kind()?;
    let stored = match tensor.kind {
        F32 => values * 4,
        Q4_1 => values / BLOCK * Q4_1_BYTES,
        Q8_0 => values / BLOCK * Q8_0_BYTES,
        other => return Err(format!("a tensor of type {other}, which is not known here")),
    };
    let end = tensor.offset.checked_add(stored).ok_or("a tensor lies nowhere")?;
    let stored = data.get(tensor.offset..end).ok_or("a tensor is cut off")?;
    let mut floats = Vec::with_capacity(aligned(length));
    match tensor.kind {
        F32 => floats.extend(stored),
        Q4_1 => stored.chunks_exact(Q4_1_BYTES).for_each(|block| q4_1(block, &mut floats)),
        _ => stored.chunks_exact(Q8_0_BYTES).for_each(|block| q8_0(block, &mut floats)),
    }
    floats.resize(aligned(length), 0);
    out.write_all(&floats).map_err(in_words)
}

/// A block of Q4_1: scale, minimum, and 32 numbers of 4 bits, the first half in the low bits.
const Q4_1_BYTES: usize = 2 + 2 + BLOCK / 2;

fn q4_1(block: &[u8], floats: &mut Vec<u8>) {
    let (scale, least) = (from_half(block[0], block[1]), from_half(block[2], block[3]));
    let quants = &block[4..];
    let low = quants.iter().map(|byte| byte & 15);
    let high = quants.iter().map(|byte| byte >> 4);
    for number in low.chain(high) {
        floats.extend(to_half(f32::from(number) * scale + least));
    }
}

/// A block of Q8_0: scale, and 32 signed bytes.
const Q8_0_BYTES: usize = 2 + BLOCK;

fn q8_0(block: &[u8], floats: &mut Vec<u8>) {
    let scale = from_half(block[0], block[1]);
    for byte in &block[2..] {
        floats.extend(to_half(f32::from(byte.cast_signed()) * scale));
    }
}

fn from_half(low: u8, high: u8) -> f32 {
    let bits = u16::from_le_bytes([low, high]);
    let (exponent, fraction) = (u32::from(bits >> 10 & 31), u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Counted in steps of 2^-24.
        0 => f32::from(bits & 0x3ff) / 16_777_216.0,
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// The nearest 16-bit float, and of two as near the even one.
pub(crate) fn to_half(value: f32) -> [u8; 2] {
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let half = match magnitude {
        // Below 2^-14 they are steps of 2^-24: those of a 32-bit float from 0.5 on, which rounds to them.
        0..0x3880_0000 => (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits(),
        // The exponent counts from 15 and not from 127; 13 bits of the fraction go.
        0x3880_0000..0x477f_f000 => (magnitude - (112 << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13,
        0x477f_f000..=0x7f80_0000 => 0x7c00,
        _ => 0x7e00,
    };
    let [low, high, ..] = half.to_le_bytes();
    [low, high | u8::from(value.is_sign_negative()) << 7]
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], String> {
        let end = self.at.checked_add(count).ok_or("the header is cut off")?;
        let taken = self.bytes.get(self.at..end).ok_or("the header is cut off")?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(in_words)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'b [u8], String> {
        let length = usize::try_from(self.u64()?).map_err(in_words)?;
        self.take(length)
    }

    fn skip_value(&mut self, kind: u32) -> Result<(), String> {
        match kind {
            0 | 1 | 7 => self.take(1).map(drop),
            2 | 3 => self.take(2).map(drop),
            4..=6 => self.take(4).map(drop),
            10..=12 => self.take(8).map(drop),
            8 => self.text().map(drop),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if kind == 9 {
                    return Err("a list of lists".into());
                }
                (0..count).try_for_each(|_| self.skip_value(kind))
            }
            other => Err(format!("a value of type {other}, which is not known here")),
        }
    }

    fn tensor(&mut self) -> Result<Tensor<'b>, String> {
        let name = self.text()?;
        let dimensions = (0..self.u32()?).map(|_| self.u64()).collect::<Result<_, String>>()?;
        let kind = self.u32()?;
        let offset = usize::try_from(self.u64()?).map_err(in_words)?;
        Ok(Tensor { name, dimensions, kind, offset })
    }
}

/// Passes bytes on and hashes them on their way: enough against accidents, and no crate.
struct Hashed<W> {
    to: W,
    shape: Shape,
}

impl<W> Hashed<W> {
    fn new(to: W) -> Self {
        Self { to, shape: Shape { length: 0, hash: 0xcbf2_9ce4_8422_2325 } }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.shape.length += written as u64;
        for &byte in &bytes[..written] {
            self.shape.hash = (self.shape.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(2).map(|pair| from_half(pair[0], pair[1])).collect()
    }

    #[test]
    fn every_half_survives_the_way_to_a_float_and_back() {
        for bits in 0..=u16::MAX {
            let [low, high] = bits.to_le_bytes();
            let value = from_half(low, high);
            if value.is_nan() {
                assert!(from_half(to_half(value)[0], to_half(value)[1]).is_nan());
            } else {
                assert_eq!(to_half(value), [low, high], "{bits:#x} is {value}");
            }
        }
    }

    #[test]
    fn a_float_becomes_the_nearest_half() {
        let check = |value: f32, want: u16| assert_eq!(to_half(value), want.to_le_bytes());
        check(1.0, 0x3c00);
        check(-2.0, 0xc000);
        // Half-way to the next: to the even one, down and up.
        check(1.0 + 1.0 / 2048.0, 0x3c00);
        check(1.0 + 3.0 / 2048.0, 0x3c02);
        check(1.0 + 1.1 / 2048.0, 0x3c01);
        check(65519.0, 0x7bff);
        check(65520.0, 0x7c00);
        // The smallest there is, and half of it.
        check(2f32.powi(-24), 1);
        check(2f32.powi(-25), 0);
        check(1.5 * 2f32.powi(-24), 2);
    }

    #[test]
    fn a_block_of_q4_1() {
        // Scale 0.5, minimum -1.
        let mut block = vec![0x00, 0x38, 0x00, 0xbc];
        block.extend((0..16).map(|at| at | (15 - at) << 4));
        let mut out = Vec::new();
        q4_1(&block, &mut out);
        let count = |number: u8| f32::from(number) * 0.5 - 1.0;
        let want: Vec<f32> = (0..16).map(count).chain((0..16).rev().map(count)).collect();
        assert_eq!(floats(&out), want);
    }

    #[test]
    fn a_block_of_q8_0() {
        // Scale 0.25.
        let mut block = vec![0x00, 0x34];
        block.extend((-16i8..16).map(i8::cast_unsigned));
        let mut out = Vec::new();
        q8_0(&block, &mut out);
        assert_eq!(floats(&out), (-16i8..16).map(|at| f32::from(at) * 0.25).collect::<Vec<_>>());
    }

    /// A file with one key and one tensor of each kind.
    fn tiny() -> Vec<u8> {
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(2u64.to_le_bytes());
        bytes.extend(1u64.to_le_bytes());
        text(&mut bytes, "general.file_type");
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(3u32.to_le_bytes());
        for (name, length, kind, offset) in [("a", 32u64, Q8_0, 0u64), ("b", 2, F32, 64)] {
            text(&mut bytes, name);
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(aligned(bytes.len()), 0);
        bytes.extend([0x00, 0x3c]);
        bytes.extend((0u8..32).chain([0; 30]));
        bytes.extend([1.5f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat());
        bytes
    }

    #[test]
    fn a_file_keeps_all_but_the_types_of_its_tensors() {
        let mut out = Vec::new();
        rewrite(&tiny(), &mut out).unwrap();
        let mut reader = Reader { bytes: &out, at: 24 };
        assert_eq!(reader.text().unwrap(), b"general.file_type");
        assert_eq!((reader.u32().unwrap(), reader.u32().unwrap()), (4, MOSTLY_F16));
        let (a, b) = (reader.tensor().unwrap(), reader.tensor().unwrap());
        assert_eq!((a.name, a.kind, a.offset, &a.dimensions[..]), (&b"a"[..], F16, 0, &[32][..]));
        assert_eq!((b.name, b.kind, b.offset, &b.dimensions[..]), (&b"b"[..], F32, 64, &[2][..]));
        let data = &out[aligned(reader.at)..];
        assert_eq!(floats(&data[..64]), (0u8..32).map(f32::from).collect::<Vec<_>>());
        assert_eq!(data[64..72], [1.5f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat());
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused() {
        let whole = tiny();
        for length in 0..whole.len() {
            assert!(rewrite(&whole[..length], &mut io::sink()).is_err(), "{length}");
        }
    }
}
