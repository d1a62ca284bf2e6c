mod floats;
mod picked;

use proptest::prelude::*;

use super::*;
use crate::format::Rounding;

/// A matrix of random bytes whose scales are small numbers of both signs.
fn bytes(format: Format, rows: usize, width: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    let mut bytes: Vec<u8> =
        std::iter::repeat_with(&mut next).take(rows * format.row_bytes(width).unwrap()).collect();
    for block in bytes.chunks_mut(format.block_bytes()) {
        for &at in scales(format) {
            // A half between 2⁻⁸ and 2⁻⁴, or its negative.
            block[at + 1] = (block[at + 1] & 0x80) | (0x1c + block[at + 1] % 16);
        }
        if format == Format::Mxfp4 {
            block[0] = 120 + block[0] % 10;
        }
        if format.is_float() {
            // Numbers between 2⁻⁸ and 1, or their negatives.
            let high = |byte: u8| match format {
                Format::F16 => (byte & 0x80) | (0x1c + byte % 32),
                _ => (byte & 0x80) | (0x3c + byte % 4),
            };
            block.iter_mut().skip(1).step_by(2).for_each(|byte| *byte = high(*byte));
        }
    }
    bytes
}

/// Where a block holds 16-bit scales.
fn scales(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::Iq4Nl | Format::Iq4Xs => &[0],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
        Format::Mxfp4 | Format::F16 | Format::Bf16 => &[],
    }
}

fn values(tokens: usize, width: usize, scale: f32) -> Vec<f32> {
    let count = u16::try_from(tokens * width).unwrap();
    (0..count).map(|at| (f32::from(at) * 0.731).sin() * scale).collect()
}

/// Rows, which every kernel takes.
fn rounded(
    (format, level): (Format, Level),
    tokens: usize,
    width: usize,
    values: &[f32],
) -> Activations {
    laid_out(Layout::Rows, (format, level), tokens, width, values)
}

fn laid_out(
    layout: Layout,
    (format, level): (Format, Level),
    tokens: usize,
    width: usize,
    values: &[f32],
) -> Activations {
    let mut activations = Activations::default();
    activations.resize(format.rounding(), layout, tokens, width);
    for token in 0..tokens {
        // SAFETY: one thread.
        unsafe { activations.fill(level, token, &values[token * width..(token + 1) * width]) };
    }
    activations
}

/// The product, one token after another, with whatever lies between the rows left as it was.
fn product(
    kernel: Kernel,
    matrix: &Matrix<'_>,
    activations: &Activations,
    parts: &[Range<usize>],
) -> Vec<f32> {
    let stride = matrix.rows() + 3;
    let mut floats = vec![-7.0; stride * activations.tokens()];
    // SAFETY: one thread, and the floats outlive the output.
    let output = unsafe { Output::new(floats.as_mut_ptr(), stride, activations.tokens()) };
    let mut scratch = Scratch::default();
    for part in parts {
        // SAFETY: one thread, and all tokens are filled.
        unsafe {
            multiply(kernel, (matrix, part.clone().into()), activations, &output, &mut scratch)
        };
    }
    for token in floats.chunks(stride) {
        assert_eq!(token[matrix.rows()..], [-7.0; 3], "written beyond the rows");
    }
    floats.chunks(stride).flat_map(|token| token[..matrix.rows()].to_vec()).collect()
}

/// A level, and whether the kernel for few tokens multiplies, however many there are.
type Kernel = (Level, bool);

/// All kernels for many tokens, and those for few.
fn kernels() -> impl Iterator<Item = Kernel> {
    levels().flat_map(|level| [(level, false), (level, true)])
}

fn quantised() -> Vec<Format> {
    Format::ALL.into_iter().filter(|format| !format.is_float()).collect()
}

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.available())
}

fn one(range: &Range<usize>) -> &[Range<usize>] {
    std::slice::from_ref(range)
}

/// A weight, taken apart by the code under test: the runner's tests compare that with ggml's.
fn weight(format: Format, row: &[u8], column: usize) -> f64 {
    let (bytes, weights) = (format.block_bytes(), format.block_weights());
    let block = &row[column / weights * bytes..][..bytes];
    if format.is_float() {
        let bits = u16::from_le_bytes([row[2 * column], row[2 * column + 1]]);
        let brain = format == Format::Bf16;
        let weight =
            if brain { crate::half::brain_to_f32(bits) } else { crate::half::to_f32(bits) };
        return weight.into();
    }
    let unpacked = crate::unpack::unpack(format, block, column % weights / WIDTH);
    let at = column % WIDTH;
    let number = unpacked.q[at];
    let number = format.table().map_or(number, |table| table[usize::from(number & 15)]);
    let whole = f64::from(number) - f64::from(format.zero());
    f64::from(unpacked.d[at / 16]) * whole + f64::from(unpacked.m[at / 16])
}

/// A rounded value.
fn value(activations: &Activations, token: usize, column: usize) -> f64 {
    if activations.rounding() != Rounding::Bytes {
        // SAFETY: one thread.
        let group = unsafe { activations.group(token / float::TOKENS) };
        return group[column][token % float::TOKENS].into();
    }
    // SAFETY: one thread.
    let row = unsafe { activations.row(token) };
    f64::from(row.d[column / WIDTH]) * f64::from(row.q[column / WIDTH][column % WIDTH])
}

/// Compares all products with sums in `f64` of the same rounded values.
fn check(format: Format, (rows, width, tokens): (usize, usize, usize), scale: f32, seed: u64) {
    let bytes = bytes(format, rows, width, seed);
    let values = values(tokens, width, scale);
    check_with((format, &bytes), (rows, width, tokens), &values, scale);
}

/// As [`check`], with these weights and values, whose size is `scale`.
fn check_with(
    (format, bytes): (Format, &[u8]),
    (rows, width, tokens): (usize, usize, usize),
    values: &[f32],
    scale: f32,
) {
    let matrix = Matrix::new(format, bytes, rows, width).unwrap();
    let activations = rounded((format, Level::Portable), tokens, width, values);
    let weights: Vec<f64> = (0..rows)
        .flat_map(|row| (0..width).map(move |column| (row, column)))
        .map(|(row, column)| weight(format, matrix.bytes(row..row + 1), column))
        .collect();
    for kernel in kernels() {
        let got = product(kernel, &matrix, &activations, one(&(0..rows)));
        for (at, &got) in got.iter().enumerate() {
            let (token, row) = (at / rows, at % rows);
            let (mut want, mut size) = (0.0, 0.0);
            for column in 0..width {
                let product = weights[row * width + column] * value(&activations, token, column);
                want += product;
                // Numbers above the zero and what is taken for it cancel: both round.
                size += product.abs() + f64::from(scale) * 0.1;
            }
            let error = (f64::from(got) - want).abs();
            assert!(error <= size * 1e-5, "{format:?} {kernel:?} {token}/{row}: {got} for {want}");
        }
    }
}

/// Kernels for few tokens take so many blocks at a time: two times all of them, and some.
#[test]
fn rows_longer_than_what_is_made_ready_at_once_are_right() {
    for format in quantised().into_iter().filter(|format| format.block_weights() == WIDTH) {
        check(format, (5, 70 * WIDTH, 3), 1.0, 4);
    }
}

/// The greatest counts that there are: sums of pairs must fit in their 16 bits.
#[test]
fn nothing_is_cut_off() {
    for format in quantised() {
        let width = format.block_weights().max(2 * WIDTH);
        for number in [0x00, 0x7f, 0x80, 0xff] {
            let mut bytes = bytes(format, 33, width, 9);
            for block in bytes.chunks_mut(format.block_bytes()) {
                let scales = scales(format);
                let is_scale =
                    |at: usize| scales.iter().any(|from| (*from..from + 2).contains(&at));
                let exponent = format == Format::Mxfp4;
                let numbers = block.iter_mut().enumerate().skip(usize::from(exponent));
                numbers.filter(|(at, _)| !is_scale(*at)).for_each(|(_, byte)| *byte = number);
            }
            for sign in [1.0, -1.0] {
                for tokens in [1, 7] {
                    let values = vec![sign; tokens * width];
                    check_with((format, &bytes), (33, width, tokens), &values, 1.0);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Counts are whole numbers, and floats are scaled and summed in one order, but by the kernel for few tokens.
    #[test]
    fn levels_with_instructions_agree_to_the_last_bit(
        format in proptest::sample::select(Format::ALL.to_vec()),
        rows in 1usize..70,
        blocks in 1usize..4,
        tokens in 1usize..20,
        seed in any::<u64>(),
    ) {
        let width = blocks * format.block_weights();
        let bytes = bytes(format, rows, width, seed);
        let matrix = Matrix::new(format, &bytes, rows, width).unwrap();
        let values = values(tokens, width, 1.0);
        let bits = |level| -> Vec<u32> {
            let activations = rounded((format, level), tokens, width, &values);
            let products = product((level, false), &matrix, &activations, one(&(0..rows)));
            products.into_iter().map(f32::to_bits).collect()
        };
        let all: Vec<_> = levels().filter(|level| *level != Level::Portable).map(bits).collect();
        prop_assert!(all.windows(2).all(|two| two[0] == two[1]), "{format:?}");
    }

    /// From rows and from what lies side by side: more blocks than are rounded at once.
    #[test]
    fn tokens_side_by_side_are_multiplied_as_rows_are(
        format in proptest::sample::select(Format::ALL.to_vec()),
        rows in 1usize..70,
        blocks in 1usize..40,
        tokens in 1usize..20,
        scale in proptest::sample::select(vec![1e-20f32, 1.0, 1e30]),
        bad in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let width = blocks.div_ceil(format.block_weights() / 32) * format.block_weights();
        let bytes = bytes(format, rows, width, seed);
        let matrix = Matrix::new(format, &bytes, rows, width).unwrap();
        let mut values = values(tokens, width, scale);
        values[bad.index(tokens * width)] = f32::NAN;
        for level in levels() {
            let bits = |layout| -> Vec<u32> {
                let activations = laid_out(layout, (format, level), tokens, width, &values);
                let products = product((level, false), &matrix, &activations, one(&(0..rows)));
                products.into_iter().map(f32::to_bits).collect()
            };
            prop_assert_eq!(bits(Layout::Rows), bits(Layout::of_many(level)), "{:?} {:?}", format, level);
        }
    }

    #[test]
    fn any_shape_is_right(
        format in proptest::sample::select(Format::ALL.to_vec()),
        rows in 1usize..70,
        blocks in 1usize..40,
        tokens in 1usize..15,
        scale in proptest::sample::select(vec![1e-20f32, 0.01, 1.0, 300.0]),
        seed in any::<u64>(),
    ) {
        // Long rows where blocks are short: scales are read 16 blocks at a time.
        let blocks = if format.block_weights() > WIDTH { blocks % 3 + 1 } else { blocks };
        check(format, (rows, blocks * format.block_weights(), tokens), scale, seed);
    }

    #[test]
    fn any_division_of_the_rows_gives_the_same(
        format in proptest::sample::select(Format::ALL.to_vec()),
        cut in 0usize..=50,
        tokens in proptest::sample::select(vec![1usize, 3, 7]),
        seed in any::<u64>(),
    ) {
        let (rows, width) = (50, 256);
        let bytes = bytes(format, rows, width, seed);
        let matrix = Matrix::new(format, &bytes, rows, width).unwrap();
        for kernel in kernels() {
            let activations = rounded((format, kernel.0), tokens, width, &values(tokens, width, 1.0));
            let whole = product(kernel, &matrix, &activations, one(&(0..rows)));
            let parts = product(kernel, &matrix, &activations, &[cut..rows, 0..cut]);
            prop_assert_eq!(whole, parts, "{:?}", kernel);
        }
    }
}

/// What levels of different processors compute is never side by side: so it is held to the bits of one run.
#[test]
fn every_processor_computes_the_same_bits() {
    let (rows, tokens) = (35, thin::FEW + 2);
    for level in levels().filter(|level| *level != Level::Portable) {
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        for format in quantised() {
            let width = 3 * format.block_weights();
            let bytes = bytes(format, rows, width, 11);
            let matrix = Matrix::new(format, &bytes, rows, width).unwrap();
            // No sines here: they are not everywhere the same.
            let value = |at| f32::from(u8::try_from(at * 37 % 251).unwrap()) / 8.0 - 15.0;
            let values: Vec<f32> = (0..tokens * width).map(value).collect();
            let layout = Layout::of_many(level);
            let activations = laid_out(layout, (format, level), tokens, width, &values);
            for product in product((level, false), &matrix, &activations, one(&(0..rows))) {
                digest = (digest ^ u64::from(product.to_bits())).wrapping_mul(0x0100_0000_01b3);
            }
        }
        assert_eq!(digest, 0x1f95_acea_4cc6_73e7, "{level:?}: {digest:#x}");
    }
}

#[test]
fn a_token_does_not_depend_on_its_neighbours() {
    let rows = 35;
    let all = 0..rows;
    let all = one(&all);
    for (format, kernel) in
        Format::ALL.into_iter().flat_map(|format| kernels().map(move |kernel| (format, kernel)))
    {
        // Scales of short blocks are read 16 at a time.
        let width = if format.block_weights() > WIDTH { 256 * 3 } else { 32 * 38 };
        let many = values(20, width, 1.0);
        let bytes = bytes(format, rows, width, 3);
        let matrix = Matrix::new(format, &bytes, rows, width).unwrap();
        let whole = product(kernel, &matrix, &rounded((format, kernel.0), 20, width, &many), all);
        for (token, count) in
            (0..20).step_by(7).flat_map(|token| (1..=14.min(20 - token)).map(move |n| (token, n)))
        {
            let some = &many[token * width..(token + count) * width];
            let some =
                product(kernel, &matrix, &rounded((format, kernel.0), count, width, some), all);
            let together = &whole[token * rows..(token + count) * rows];
            assert_eq!(some, together, "{format:?} {kernel:?} {token} {count}");
        }
    }
}

#[test]
fn what_is_no_number_stays_with_its_token() {
    let (rows, width) = (40, 64);
    let mut values = values(3, width, 1.0);
    values[width + 40] = f32::NAN;
    for (format, kernel) in [Format::Q8_0, Format::Q4_1]
        .into_iter()
        .flat_map(|format| kernels().map(move |kernel| (format, kernel)))
    {
        let bytes = bytes(format, rows, width, 5);
        let matrix = Matrix::new(format, &bytes, rows, width).unwrap();
        let activations = rounded((format, kernel.0), 3, width, &values);
        let got = product(kernel, &matrix, &activations, one(&(0..rows)));
        assert!(got[..rows].iter().all(|product| product.is_finite()));
        assert!(got[rows..2 * rows].iter().all(|product| product.is_nan()));
        assert!(got[2 * rows..].iter().all(|product| product.is_finite()));
    }
}

fn ends_well(work: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok()
}

/// Tokens that lie side by side are multiplied by the kernel for many, and by no other.
#[test]
fn only_one_kernel_takes_tokens_side_by_side() {
    let (rows, width, tokens) = (35, 64, 8);
    let bytes = bytes(Format::Q8_0, rows, width, 5);
    let matrix = Matrix::new(Format::Q8_0, &bytes, rows, width).unwrap();
    let beside = Level::ALL
        .into_iter()
        .any(|level| level.available() && Layout::of_many(level) == Layout::Beside);
    let all = 0..rows;
    for (level, few) in kernels() {
        let values = values(tokens, width, 1.0);
        let activations = laid_out(Layout::Beside, (Format::Q8_0, level), tokens, width, &values);
        let made = || drop(product((level, few), &matrix, &activations, one(&all)));
        let takes = !beside || Layout::of_many(level) == Layout::Beside && !few;
        assert_eq!(ends_well(made), takes, "{level:?} {few}");
        let picks = [Pick { token: 1, to: 1 }];
        let picked = || {
            let mut floats = vec![0.0; rows * tokens];
            // SAFETY: one thread, and the floats outlive the output.
            unsafe {
                let output = Output::new(floats.as_mut_ptr(), rows, tokens);
                let with = (&activations, Picks { tokens: &picks, few });
                let part = (&matrix, all.clone().into());
                multiply_picked(level, part, with, &output, &mut Scratch::default());
            }
        };
        assert_eq!(ends_well(picked), !beside, "{level:?} {few}");
    }
}

#[test]
fn a_matrix_that_is_cut_off_is_refused() {
    assert!(Matrix::new(Format::Q4_1, &[0; 39], 2, 32).is_none());
    assert!(Matrix::new(Format::Q4_1, &[0; 40], 2, 32).is_some());
    assert!(Matrix::new(Format::Q4_1, &[0; 400], 2, 33).is_none(), "not whole blocks");
    assert!(Matrix::new(Format::Q4K, &[0; 400], 2, 32).is_none(), "not whole blocks");
    assert!(Matrix::new(Format::Q4_1, &[0; 40], usize::MAX, 32).is_none());
}

#[test]
#[should_panic(expected = "another width")]
fn other_widths_are_refused() {
    let matrix = Matrix::new(Format::Q8_0, &[0; 68], 1, 64).unwrap();
    product(
        (Level::best(), false),
        &matrix,
        &rounded((Format::Q8_0, Level::best()), 1, 32, &[1.0; 32]),
        one(&(0..1)),
    );
}

#[test]
#[should_panic(expected = "beyond the matrix")]
fn rows_that_are_not_there_are_refused() {
    let matrix = Matrix::new(Format::Q8_0, &[0; 34], 1, 32).unwrap();
    product(
        (Level::best(), false),
        &matrix,
        &rounded((Format::Q8_0, Level::best()), 1, 32, &[1.0; 32]),
        one(&(0..2)),
    );
}

#[test]
fn what_comes_next_changes_nothing() {
    for kernel in [(Level::best(), false), (Level::best(), true)] {
        (1..=5).for_each(|tokens| whatever_comes_next(kernel, tokens));
    }
}

fn whatever_comes_next(kernel: Kernel, tokens: usize) {
    let (rows, width) = (70, 64);
    let bytes = bytes(Format::Q4_1, rows, width, 3);
    let matrix = Matrix::new(Format::Q4_1, &bytes, rows, width).unwrap();
    let activations = rounded((Format::Q4_1, kernel.0), tokens, width, &values(tokens, width, 2.0));
    let want = product(kernel, &matrix, &activations, one(&(0..rows)));
    for next in [0..0, 32..70, 60..1000, 900..usize::MAX, usize::MAX..usize::MAX] {
        let mut got = vec![0.0; rows * tokens];
        // SAFETY: one thread, and the floats outlive the output.
        let output = unsafe { Output::new(got.as_mut_ptr(), rows, tokens) };
        let part = Part { rows: 0..rows, next };
        // SAFETY: one thread, and all tokens are filled.
        unsafe {
            multiply(kernel, (&matrix, part), &activations, &output, &mut Scratch::default())
        };
        assert_eq!(got, want);
    }
}
