//! Whether our kernels read weights as ggml does.
//!
//! A format is multiplied with one token for each column, which is 1 there and 0 elsewhere: the products are
//! the weights themselves, and are compared with ggml's own `to_float`. It takes a few milliseconds and is
//! done at every start, since a wrong weight would be a wrong answer that nobody sees.

use llama_cpp_sys_2 as sys;
use tieline_kernels::{Activations, Format, Level, Matrix, Output, Scratch, multiply};

const ROWS: usize = 17;
/// Columns: a block of the longest formats.
const COLUMNS: usize = 256;
/// Relative to the largest weight: rounding of `f32`, several times.
const TOLERANCE: f32 = 1e-5;

/// The first format that we read otherwise than ggml.
pub(super) fn disagreement(level: Level) -> Option<Format> {
    let tokens = unit_tokens(level);
    Format::ALL.into_iter().find(|&format| !agrees(format, format.ggml(), &tokens, level))
}

/// One token for each column: 1 there, 0 elsewhere.
fn unit_tokens(level: Level) -> Activations {
    let mut activations = Activations::default();
    activations.resize(COLUMNS, COLUMNS);
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
    let read = |got: Option<Vec<f32>>| got.is_some_and(|got| alike(&want, &got));
    read(product(format, &bytes, tokens, level))
        && (!level.thin(format) || read(ours_by_few(format, &bytes, level)))
}

/// Whether the weights, row after row, are the products, column after column.
fn alike(want: &[f32], got: &[f32]) -> bool {
    let most = want.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
    most.is_finite()
        && most > 0.0
        && got.len() == want.len()
        && got.chunks(ROWS).enumerate().all(|(column, rows)| {
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
        Format::Mxfp4 => &[],
        _ => &[1],
    }
}

/// The weights as ggml reads them, row after row.
fn ggml(number: u32, bytes: &[u8], row_bytes: usize) -> Option<Vec<f32>> {
    let number = sys::ggml_type::try_from(number).ok()?;
    // SAFETY: ggml knows the number of each of our formats; the table is static.
    let to_float = unsafe { (*sys::ggml_get_type_traits(number)).to_float }?;
    let mut weights = vec![0.0; ROWS * COLUMNS];
    for (row, weights) in bytes.chunks(row_bytes).zip(weights.chunks_mut(COLUMNS)) {
        // SAFETY: reads a row of whole blocks and writes as many floats as it has weights.
        unsafe {
            to_float(row.as_ptr().cast(), weights.as_mut_ptr(), COLUMNS.cast_signed() as i64)
        };
    }
    Some(weights)
}

/// The weights as we multiply them, column after column, with tokens that are 1 in one column each.
fn product(format: Format, bytes: &[u8], tokens: &Activations, level: Level) -> Option<Vec<f32>> {
    let matrix = Matrix::new(format, bytes, ROWS, COLUMNS)?;
    let mut products = vec![f32::NAN; ROWS * tokens.tokens()];
    // SAFETY: so many floats, which nobody else touches.
    unsafe {
        let output = Output::new(products.as_mut_ptr(), ROWS, tokens.tokens());
        multiply(level, (&matrix, (0..ROWS).into()), tokens, &output, &mut Scratch::default());
    }
    Some(products)
}

/// The same by the kernel for few tokens: one column after another.
fn ours_by_few(format: Format, bytes: &[u8], level: Level) -> Option<Vec<f32>> {
    let mut token = Activations::default();
    token.resize(1, COLUMNS);
    let mut values = [0.0; COLUMNS];
    let mut products = Vec::with_capacity(ROWS * COLUMNS);
    for column in 0..COLUMNS {
        values[column] = 1.0;
        // SAFETY: one thread.
        unsafe { token.fill(level, 0, &values) };
        values[column] = 0.0;
        products.extend(product(format, bytes, &token, level)?);
    }
    Some(products)
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
    fn another_format_is_noticed() {
        let tokens = unit_tokens(Level::best());
        // Of equal size: 4 bits on even steps, and on uneven ones.
        assert!(!agrees(Format::Q4_0, Format::Iq4Nl.ggml(), &tokens, Level::best()));
        assert!(!agrees(Format::Iq4Nl, Format::Q4_0.ggml(), &tokens, Level::best()));
    }
}
