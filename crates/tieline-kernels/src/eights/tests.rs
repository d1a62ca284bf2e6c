use proptest::prelude::*;

use super::*;
use crate::activations::{Activations, Layout};
use crate::multiply::{Output, Part, Scratch, multiply, unpack as unpack_strips};

const FORMATS: [Format; 4] = [Format::Q4_0, Format::Q4K, Format::Iq4Nl, Format::Mxfp4];

/// Rows as ggml lays them out anew: written after `make_block_q4_0x8`, `make_block_q4_Kx8`, `make_block_iq4_nlx8` and
/// `make_block_mxfp4x8`, and the loops around them (`repack.cpp`). The runner's tests have ggml itself do it.
fn laid_out_anew(format: Format, bytes: &[u8], rows: usize) -> Vec<u8> {
    let row_bytes = bytes.len() / rows;
    let size = format.block_bytes();
    let mut anew = Vec::new();
    for first in (0..rows).step_by(8) {
        for block in 0..row_bytes / size {
            let of = |row: usize| &bytes[(first + row) * row_bytes + block * size..][..size];
            anew.extend(block_of_eight(format, std::array::from_fn(of)));
        }
    }
    assert_eq!(anew.len(), bytes.len());
    anew
}

fn block_of_eight(format: Format, rows: [&[u8]; 8]) -> Vec<u8> {
    let mut out = Vec::new();
    let numbers = |from: usize, signs: u8, out: &mut Vec<u8>| {
        for run in (from..format.block_bytes()).step_by(8) {
            for row in rows {
                out.extend(row[run..run + 8].iter().map(|byte| byte ^ signs));
            }
        }
    };
    match format {
        Format::Mxfp4 => {
            out.extend(rows.map(|row| row[0]));
            numbers(1, 0, &mut out);
        }
        Format::Q4K => {
            out.extend(rows.iter().flat_map(|row| &row[..2]));
            out.extend(rows.iter().flat_map(|row| &row[2..4]));
            for group in 0..8 {
                let pairs = rows.map(|row| scale_and_minimum(&row[4..16], group));
                let (s, m) = (pairs.map(|pair| pair.0), pairs.map(|pair| pair.1));
                out.extend((0..4).map(|at| (s[at] & 63) + ((s[at + 4] & 48) << 2)));
                out.extend((0..4).map(|at| (m[at] & 63) + ((m[at + 4] & 48) << 2)));
                out.extend((4..8).map(|at| (s[at] & 15) + ((m[at] & 15) << 4)));
            }
            numbers(16, 0, &mut out);
        }
        _ => {
            out.extend(rows.iter().flat_map(|row| &row[..2]));
            numbers(2, if format == Format::Q4_0 { 0x88 } else { 0 }, &mut out);
        }
    }
    out
}

/// As `make_block_q4_Kx8` takes them from a row's twelve bytes.
fn scale_and_minimum(scales: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (scales[group] & 63, scales[group + 4] & 63);
    }
    let at = group - 4;
    (
        ((scales[at] & 192) >> 2) | (scales[at + 8] & 15),
        ((scales[at + 4] & 192) >> 2) | ((scales[at + 8] & 240) >> 4),
    )
}

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.available() && level.takes_eights(Format::Q4_0))
}

fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    std::iter::repeat_with(&mut next).take(count).collect()
}

/// Some bytes of weights, with halves of one kind for all scales where that is given.
fn weights(format: Format, (rows, width): (usize, usize), half: Option<u16>, seed: u64) -> Vec<u8> {
    let mut bytes = noise(rows * format.row_bytes(width).unwrap(), seed);
    for (number, block) in bytes.chunks_mut(format.block_bytes()).enumerate() {
        let Some(half) = half else { continue };
        // Some of them negative.
        let half = (half ^ u16::try_from(number % 2).unwrap() << 15).to_le_bytes();
        match format {
            Format::Mxfp4 => block[0] = half[0],
            Format::Q4K => block[..4].copy_from_slice(&[half, half].concat()),
            _ => block[..2].copy_from_slice(&half),
        }
    }
    bytes
}

/// A panel's first lanes: numbers, and the bits of scales and minima. What is no number has no bits of its own.
fn read(panel: &Panel, format: Format, lanes: usize) -> (Vec<[u8; 4]>, Vec<u32>) {
    let bits = |float: &f32| if float.is_nan() { f32::NAN.to_bits() } else { float.to_bits() };
    let q = panel.q.iter().flat_map(|columns| columns.0.iter().flat_map(|lane| &lane[..lanes]));
    let minima = if format.has_minimum() { panel.m.as_slice() } else { &[] };
    let floats = panel.d.iter().chain(minima).flat_map(|floats| &floats.0[..lanes]);
    (q.copied().collect(), floats.map(bits).collect())
}

/// Whether panels are the same from both layouts, by every level.
fn same_panels(format: Format, rows: usize, width: usize, bytes: &[u8]) {
    let anew = laid_out_anew(format, bytes, rows);
    let matrix = Matrix::new(format, bytes, rows, width).unwrap();
    let eights = Matrix::in_eights(format, &anew, rows, width).unwrap();
    for level in levels() {
        let (mut want, mut got) = (Scratch::default(), Scratch::default());
        for first in (0..rows).step_by(EIGHT) {
            let strips = || (first..rows.min(first + 2 * LANES), 0..rows);
            unpack_strips(level, &matrix, strips(), &mut want.panels[0]);
            unpack_strips(level, &eights, strips(), &mut got.panels[0]);
            for (strip, (want, got)) in want.panels[0].iter().zip(&got.panels[0]).enumerate() {
                let lanes = (rows - first).saturating_sub(strip * LANES).min(LANES);
                let (want, got) = (read(want, format, lanes), read(got, format, lanes));
                assert_eq!(want, got, "{format:?} {level:?} {first} {strip}");
            }
        }
    }
}

/// Everything that a scale can be: zero, the smallest, below and at the smallest normal one, the largest, none.
const HALVES: [u16; 8] = [0, 1, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0x7c01, 0x7e00];

#[test]
fn extreme_scales_are_the_same() {
    for format in FORMATS {
        for half in HALVES {
            let width = format.block_weights() * 2;
            let bytes = weights(format, (24, width), Some(half), 7);
            same_panels(format, 24, width, &bytes);
        }
    }
}

#[test]
fn every_power_of_two_is_the_same() {
    for exponent in 0..=255 {
        let bytes = weights(Format::Mxfp4, (16, 32), Some(exponent), 3);
        same_panels(Format::Mxfp4, 16, 32, &bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn panels_of_both_layouts_are_the_same(
        format in proptest::sample::select(FORMATS.to_vec()),
        eights in 1usize..7,
        blocks in 1usize..6,
        seed in any::<u64>(),
    ) {
        let (rows, width) = (eights * EIGHT, blocks * format.block_weights());
        same_panels(format, rows, width, &weights(format, (rows, width), None, seed));
    }

    /// Parts that begin where eights do, of any length.
    #[test]
    fn products_of_both_layouts_are_the_same(
        format in proptest::sample::select(FORMATS.to_vec()),
        eights in 1usize..9,
        blocks in 1usize..4,
        tokens in 1usize..14,
        (first, count) in (0usize..8, 1usize..64),
        few in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (rows, width) = (eights * EIGHT, blocks * format.block_weights());
        let bytes = weights(format, (rows, width), Some(0x2100), seed);
        let anew = laid_out_anew(format, &bytes, rows);
        let first = first % eights * EIGHT;
        let part = Part { rows: first..rows.min(first + count), next: 0..rows };
        let products = |matrix: Option<Matrix<'_>>, few: bool, level| -> Vec<u32> {
            let mut activations = Activations::default();
            activations.resize(format.rounding(), Layout::Rows, tokens, width);
            let mut floats = vec![-7.0; rows * tokens];
            // SAFETY: one thread, and the floats outlive the output.
            unsafe {
                for token in 0..tokens {
                    let values: Vec<f32> = noise(width, seed ^ token as u64)
                        .into_iter()
                        .map(|byte| f32::from(byte) / 128.0 - 1.0)
                        .collect();
                    activations.fill(level, token, &values);
                }
                let output = Output::new(floats.as_mut_ptr(), rows, tokens).from_row(part.rows.start);
                let part = (&matrix.unwrap(), part.clone());
                multiply((level, few), part, &activations, &output, &mut Scratch::default());
            }
            floats.into_iter().map(f32::to_bits).collect()
        };
        for level in levels() {
            let want = products(Matrix::new(format, &bytes, rows, width), false, level);
            // The kernel for few tokens is not written for this layout, and is not taken where it is asked for.
            let got = products(Matrix::in_eights(format, &anew, rows, width), few, level);
            prop_assert_eq!(&want, &got, "{:?} {:?}", format, level);
        }
    }
}

#[test]
fn only_what_is_known_lies_in_eights() {
    let bytes = [0; 4096];
    for format in Format::ALL {
        let matrix = Matrix::in_eights(format, &bytes, 8, format.block_weights());
        assert_eq!(matrix.is_some(), FORMATS.contains(&format), "{format:?}");
    }
    assert!(Matrix::in_eights(Format::Q4_0, &bytes, 12, 32).is_none(), "not whole eights");
    assert!(Matrix::in_eights(Format::Q4_0, &bytes[..143], 8, 32).is_none(), "cut off");
    for level in [Level::NeonDot, Level::NeonI8mm] {
        assert!(!level.takes_eights(Format::Q4_0), "others there");
    }
}

#[test]
#[should_panic(expected = "amid eight rows")]
fn a_part_begins_where_eights_begin() {
    let bytes = [0; 16 * 18];
    let matrix = Matrix::in_eights(Format::Q4_0, &bytes, 16, 32).unwrap();
    let mut activations = Activations::default();
    activations.resize(Format::Q4_0.rounding(), Layout::Rows, 1, 32);
    let mut floats = [0.0; 16];
    // SAFETY: one thread, and the floats outlive the output.
    unsafe {
        activations.fill(Level::best(), 0, &[1.0; 32]);
        let output = Output::new(floats.as_mut_ptr(), 16, 1);
        let part = (&matrix, (4..16).into());
        multiply((Level::best(), false), part, &activations, &output, &mut Scratch::default());
    }
}
