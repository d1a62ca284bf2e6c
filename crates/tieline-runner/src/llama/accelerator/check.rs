//! Whether our kernels read weights as ggml does, and attend as attention is defined.
//!
//! A format is multiplied with one token for each column, which is 1 there and 0 elsewhere: the products are
//! the weights themselves, and are compared with ggml's own `to_float`. It takes a few milliseconds and is
//! done at every start, since a wrong weight would be a wrong answer that nobody sees.

use llama_cpp_sys_2 as sys;
use tieline_kernels::attention::{Attention, Cut, Desk, Rows, Size, WIDTHS, attend};
use tieline_kernels::{
    Activations, Format, Layout, Level, Matrix, Output, Rounding, Scratch, multiply,
};

mod anew;

pub(super) use anew::reads_anew;

const ROWS: usize = 17;
/// Columns: a block of the longest formats.
const COLUMNS: usize = 256;
/// Relative to the largest weight: rounding of `f32`, several times.
const TOLERANCE: f32 = 1e-5;

/// The first format that we read otherwise than ggml.
pub(super) fn disagreement(level: Level) -> Option<Format> {
    let roundings = [Rounding::Bytes, Rounding::Half, Rounding::Brain];
    roundings.into_iter().find_map(|rounding| {
        let tokens = unit_tokens(rounding, level);
        let formats = Format::ALL.into_iter().filter(|format| format.rounding() == rounding);
        formats.into_iter().find(|&format| !agrees(format, format.ggml(), &tokens, level))
    })
}

/// One token for each column: 1 there, 0 elsewhere.
fn unit_tokens(rounding: Rounding, level: Level) -> Activations {
    let mut activations = Activations::default();
    activations.resize(rounding, Layout::of_many(level), COLUMNS, COLUMNS);
    let mut values = [0.0; COLUMNS];
    for token in 0..COLUMNS {
        values[token] = 1.0;
        // SAFETY: one thread.
        unsafe { activations.fill(level, token, &values) };
        values[token] = 0.0;
    }
    activations
}

/// Whether `format` is to us what type number `theirs` is to ggml.
fn agrees(format: Format, theirs: u32, tokens: &Activations, level: Level) -> bool {
    let Some(row_bytes) = format.row_bytes(COLUMNS) else { return false };
    let bytes = sample(format, ROWS * row_bytes);
    let Some(want) = ggml(theirs, &bytes, row_bytes) else { return false };
    let Some(matrix) = Matrix::new(format, &bytes, ROWS, COLUMNS) else { return false };
    let by_few = || alike(&want, &ours_by_few(&matrix, level), ROWS);
    agree(&want, &matrix, tokens, (level, false)) && (!level.thin(format) || by_few())
}

/// Whether the weights are what a kernel multiplies, by tokens that are 1 in one column each.
fn agree(want: &[f32], matrix: &Matrix<'_>, tokens: &Activations, kernel: (Level, bool)) -> bool {
    alike(want, &product(matrix, tokens, kernel), matrix.rows())
}

/// Whether the weights, row after row, are the products of so many rows, column after column.
fn alike(want: &[f32], got: &[f32], rows: usize) -> bool {
    let most = want.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
    most.is_finite()
        && most > 0.0
        && got.len() == want.len()
        && got.chunks(rows).enumerate().all(|(column, rows)| {
            rows.iter()
                .enumerate()
                .all(|(row, got)| (got - want[row * COLUMNS + column]).abs() <= most * TOLERANCE)
        })
}

/// Bytes of all kinds, but with scales that are small numbers.
fn sample(format: Format, count: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    })
    .take(count)
    .collect();
    for block in bytes.chunks_mut(format.block_bytes()) {
        for &high in high_bytes(format) {
            // The upper byte of a half between 2⁻⁸ and 2⁻⁴, or of its negative.
            block[high] = (block[high] & 0x80) | (0x1c + block[high] % 16);
        }
        if format == Format::Mxfp4 {
            block[0] = 120 + block[0] % 10;
        }
        if format.is_float() {
            // The upper byte of a number between 2⁻⁸ and 1, or of its negative.
            let high = |byte: u8| match format {
                Format::F16 => (byte & 0x80) | (0x1c + byte % 32),
                _ => (byte & 0x80) | (0x3c + byte % 4),
            };
            block.iter_mut().skip(1).step_by(2).for_each(|byte| *byte = high(*byte));
        }
    }
    bytes
}

/// The upper bytes of a block's 16-bit scales.
fn high_bytes(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[1, 3],
        Format::Q2K => &[81, 83],
        Format::Q3K => &[109],
        Format::Q6K => &[209],
        Format::Mxfp4 | Format::F16 | Format::Bf16 => &[],
        _ => &[1],
    }
}

/// The weights as ggml reads them, row after row.
fn ggml(number: u32, bytes: &[u8], row_bytes: usize) -> Option<Vec<f32>> {
    let number = sys::ggml_type::try_from(number).ok()?;
    // SAFETY: ggml knows the number of each of our formats; the table is static.
    let to_float = unsafe { (*sys::ggml_get_type_traits(number)).to_float }?;
    let mut weights = vec![0.0; bytes.len() / row_bytes * COLUMNS];
    for (row, weights) in bytes.chunks(row_bytes).zip(weights.chunks_mut(COLUMNS)) {
        // SAFETY: reads a row of whole blocks and writes as many floats as it has weights.
        unsafe {
            to_float(row.as_ptr().cast(), weights.as_mut_ptr(), COLUMNS.cast_signed() as i64)
        };
    }
    Some(weights)
}

/// The weights as we multiply them, column after column, with tokens that are 1 in one column each; by the kernel for few
/// tokens or by that for many.
fn product(matrix: &Matrix<'_>, tokens: &Activations, kernel: (Level, bool)) -> Vec<f32> {
    let rows = matrix.rows();
    let mut products = vec![f32::NAN; rows * tokens.tokens()];
    // SAFETY: so many floats, which nobody else touches.
    unsafe {
        let output = Output::new(products.as_mut_ptr(), rows, tokens.tokens());
        multiply(kernel, (matrix, (0..rows).into()), tokens, &output, &mut Scratch::default());
    }
    products
}

/// The same by the kernel for few tokens: one column after another.
fn ours_by_few(matrix: &Matrix<'_>, level: Level) -> Vec<f32> {
    let mut token = Activations::default();
    token.resize(Rounding::Bytes, Layout::Rows, 1, COLUMNS);
    let mut values = [0.0; COLUMNS];
    let mut products = Vec::with_capacity(matrix.rows() * COLUMNS);
    for column in 0..COLUMNS {
        values[column] = 1.0;
        // SAFETY: one thread.
        unsafe { token.fill(level, 0, &values) };
        values[column] = 0.0;
        products.extend(product(matrix, &token, (level, true)));
    }
    products
}

/// Heads of queries and of the cache, tokens, positions: none a whole number of what is taken at once.
const HEADS: (usize, usize) = (6, 2);
const ASKING: usize = 5;
const POSITIONS: usize = 75;
const SCALE: f32 = 0.125;
/// A position that must not be seen.
const HIDDEN: u16 = 0xfc00;

/// Whether our attention is what its definition says, in steps of few tokens and of many.
pub(super) fn attends(level: Level) -> bool {
    WIDTHS.into_iter().all(|width| attends_by(level, width, SCALE))
}

/// Whether it is by heads of this width, if scores are scaled so.
fn attends_by(level: Level, width: usize, scale: f32) -> bool {
    let (heads, cache_heads) = HEADS;
    let size = Size { width, heads, cache_heads, tokens: ASKING, positions: POSITIONS };
    // So large that few positions have most of the weight.
    let large = |half| 8.0 * float(half);
    let queries: Vec<f32> = halves(heads * width * ASKING).into_iter().map(large).collect();
    let mut keys = halves(cache_heads * width * POSITIONS);
    let values = keys.clone();
    keys.reverse();
    // Each token sees one position more than the one before, but for some that are another's.
    let seen = |token, position| position < POSITIONS - ASKING + token && position % 7 != token;
    let mask: Vec<u16> = (0..ASKING * POSITIONS)
        .map(|at| if seen(at / POSITIONS, at % POSITIONS) { 0 } else { HIDDEN })
        .collect();
    let row = |data, heads: usize| Rows { data, row: heads * width, head: width };
    let asked = Rows { data: queries.as_slice(), row: heads * width, head: width };
    let cached = [row(&keys, cache_heads), row(&values, cache_heads)];
    let through = Rows { data: mask.as_slice(), row: POSITIONS, head: 0 };
    let Some(attention) = Attention::new((size, SCALE), asked, cached, through) else {
        return false;
    };
    let want: Vec<f32> = (0..ASKING * heads)
        .flat_map(|at| {
            let (token, head) = (at / heads, at % heads);
            let of = head / (heads / cache_heads) * width;
            let cell = |data: &[u16], position: usize| -> Vec<f32> {
                let from = position * cache_heads * width + of;
                data[from..from + width].iter().copied().map(float).collect()
            };
            let cells: Vec<_> = (0..POSITIONS)
                .filter(|&position| seen(token, position))
                .map(|position| (cell(&keys, position), cell(&values, position)))
                .collect();
            answer(&queries[at * width..][..width], &cells, scale)
        })
        .collect();
    [Cut::blocks(&attention, 2), Cut::by_sight(&attention, 2)].iter().all(|cut| {
        let got = attended(level, &attention, cut, heads * width);
        let near = |(got, want): (&f32, &f32)| (got - want).abs() <= NEAR;
        got.len() == want.len() && got.iter().zip(&want).all(near)
    })
}

/// What answers may be apart, which are below 1 in size: sums of `f32` in another order.
const NEAR: f32 = 1e-4;

/// One query's answer by the definition: softmax of scaled products, times values.
fn answer(query: &[f32], cells: &[(Vec<f32>, Vec<f32>)], scale: f32) -> Vec<f32> {
    let score = |(key, _): &(Vec<f32>, Vec<f32>)| -> f32 {
        scale * query.iter().zip(key).map(|(one, other)| one * other).sum::<f32>()
    };
    let scores: Vec<f32> = cells.iter().map(score).collect();
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|score| (score - most).exp()).collect();
    let total: f32 = weights.iter().sum();
    let mean = |at: usize| {
        let sum = cells.iter().zip(&weights).map(|((_, value), weight)| weight * value[at]);
        sum.sum::<f32>() / total
    };
    (0..query.len()).map(mean).collect()
}

/// The answers as we compute them.
fn attended(level: Level, attention: &Attention<'_>, cut: &Cut, stride: usize) -> Vec<f32> {
    let mut floats = vec![f32::NAN; stride * ASKING];
    let mut desk = Desk::default();
    for part in 0..cut.parts(attention) {
        // SAFETY: so many floats, which nobody else touches.
        unsafe {
            let output = Output::new(floats.as_mut_ptr(), stride, ASKING);
            attend(level, (attention, cut, part), &output, &mut desk);
        }
    }
    floats
}

/// Numbers of 16 bits between -1 and 1.
fn halves(count: usize) -> Vec<u16> {
    let bytes = sample(Format::Q8_0, 2 * count);
    let (pairs, _) = bytes.as_chunks::<2>();
    // The exponent is between 2⁻³ and 2⁻¹.
    let number = |pair: &[u8; 2]| {
        (u16::from_le_bytes(*pair) & 0x83ff) | (0x3000 + u16::from(pair[1] % 3) * 0x400)
    };
    pairs.iter().map(number).collect()
}

/// As ggml reads it.
fn float(half: u16) -> f32 {
    // SAFETY: turns a number into another.
    unsafe { sys::ggml_fp16_to_fp32(half) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_read_as_ggml_reads_it() {
        for level in Level::ALL.into_iter().filter(|level| level.available()) {
            assert_eq!(disagreement(level), None, "{level:?}");
        }
    }

    #[test]
    fn attention_is_what_its_definition_says() {
        for level in Level::ALL.into_iter().filter(|level| level.available()) {
            assert!(attends(level), "{level:?}");
        }
    }

    #[test]
    fn other_attention_is_noticed() {
        for level in Level::ALL.into_iter().filter(|level| level.available()) {
            for width in WIDTHS {
                assert!(!attends_by(level, width, SCALE * 1.01), "{level:?} {width}");
            }
        }
    }

    #[test]
    fn another_format_is_noticed() {
        let tokens = unit_tokens(Rounding::Bytes, Level::best());
        // Of equal size: 4 bits on even steps, and on uneven ones.
        assert!(!agrees(Format::Q4_0, Format::Iq4Nl.ggml(), &tokens, Level::best()));
        assert!(!agrees(Format::Iq4Nl, Format::Q4_0.ggml(), &tokens, Level::best()));
        let tokens = unit_tokens(Rounding::Half, Level::best());
        assert!(!agrees(Format::F16, Format::Bf16.ggml(), &tokens, Level::best()));
    }
}
