//! Matrices of floats.

use super::*;

const FLOATS: [Format; 2] = [Format::F16, Format::Bf16];

/// The bytes of a matrix in which every weight is one of these.
fn of(weights: &[u16], count: usize) -> Vec<u8> {
    weights.iter().cycle().take(count).flat_map(|bits| bits.to_le_bytes()).collect()
}

/// The smallest and the greatest that a format has, both signs, and nothing.
fn extremes(format: Format) -> [u16; 6] {
    match format {
        Format::F16 => [0x0001, 0x83ff, 0x7bff, 0xfbff, 0x0000, 0x8000],
        // Not the greatest: products of two would be infinite.
        _ => [0x0080, 0x8080, 0x4f7f, 0xcf7f, 0x0000, 0x8000],
    }
}

#[test]
fn extreme_weights_and_values_are_multiplied_as_they_are() {
    let (rows, width) = (37, 96);
    for (format, scale) in
        FLOATS.into_iter().flat_map(|format| [1e-7, 1.0, 60_000.0].map(|scale| (format, scale)))
    {
        let bytes = of(&extremes(format), rows * width);
        for tokens in [1, 4, 5, 8, 9, 12, 13, 27] {
            // The largest product, which others are small beside.
            let largest = extremes(format).map(|bits| match format {
                Format::F16 => crate::half::to_f32(bits).abs(),
                _ => crate::half::brain_to_f32(bits).abs(),
            });
            let largest = largest.into_iter().fold(0.0, f32::max);
            let values = values(tokens, width, scale);
            check_with((format, &bytes), (rows, width, tokens), &values, scale * largest);
        }
    }
}

#[test]
fn what_is_no_number_stays_where_it_is() {
    let (rows, width, tokens) = (40, 64, 14);
    for (format, bad) in [
        (Format::F16, 0x7e00),
        (Format::F16, 0x7c00),
        (Format::Bf16, 0x7fc0),
        (Format::Bf16, 0xff80),
    ] {
        let mut bytes = of(&[0x3c00, 0xb800], rows * width);
        let at = 2 * (17 * width + 33);
        bytes[at..at + 2].copy_from_slice(&u16::to_le_bytes(bad));
        let matrix = Matrix::new(format, &bytes, rows, width).unwrap();
        let mut values = values(tokens, width, 1.0);
        values[5 * width + 1] = f32::NAN;
        values[13 * width + 1] = f32::INFINITY;
        for kernel in kernels() {
            let activations = rounded((format, kernel.0), tokens, width, &values);
            let got = product(kernel, &matrix, &activations, one(&(0..rows)));
            for (at, product) in got.into_iter().enumerate() {
                let (token, row) = (at / rows, at % rows);
                let finite = token != 5 && token != 13 && row != 17;
                assert_eq!(product.is_finite(), finite, "{format:?} {kernel:?} {token} {row}");
            }
        }
    }
}

/// What ggml cannot hold in a half, it takes for infinite.
#[test]
fn values_beyond_a_half_are_infinite() {
    let bytes = of(&[0x3c00], 32);
    let matrix = Matrix::new(Format::F16, &bytes, 1, 32).unwrap();
    for kernel in kernels() {
        let activations = rounded((Format::F16, kernel.0), 1, 32, &[70_000.0; 32]);
        assert_eq!(product(kernel, &matrix, &activations, one(&(0..1))), [f32::INFINITY]);
    }
}

/// One chain of fused additions for each product: the reference computes the same bits.
#[test]
fn every_level_computes_the_same_bits() {
    let (rows, width) = (45, 160);
    for format in FLOATS {
        let bytes = bytes(format, rows, width, 7);
        let matrix = Matrix::new(format, &bytes, rows, width).unwrap();
        for tokens in [1, 3, 7, 12, 17, 25] {
            let values = values(tokens, width, 3.0);
            let bits = |level| -> Vec<u32> {
                let activations = rounded((format, level), tokens, width, &values);
                let products = product((level, false), &matrix, &activations, one(&(0..rows)));
                products.into_iter().map(f32::to_bits).collect()
            };
            let want = bits(Level::Portable);
            assert!(levels().all(|level| bits(level) == want), "{format:?} {tokens}");
        }
    }
}

#[test]
#[should_panic(expected = "rounded for other weights")]
fn values_rounded_for_other_weights_are_refused() {
    let bytes = of(&[0x3c00], 32);
    let matrix = Matrix::new(Format::F16, &bytes, 1, 32).unwrap();
    let activations = rounded((Format::Bf16, Level::Portable), 1, 32, &[1.0; 32]);
    product((Level::Portable, false), &matrix, &activations, one(&(0..1)));
}

#[test]
#[should_panic(expected = "with all tokens")]
fn floats_of_experts_are_refused() {
    let bytes = of(&[0x3c00], 32);
    let matrix = Matrix::new(Format::F16, &bytes, 1, 32).unwrap();
    let activations = rounded((Format::F16, Level::Portable), 1, 32, &[1.0; 32]);
    let mut floats = [0.0];
    // SAFETY: one thread, and the floats outlive the output.
    unsafe {
        let output = Output::new(floats.as_mut_ptr(), 1, 1);
        let with = (&activations, Picks { tokens: &[Pick { token: 0, to: 0 }], few: false });
        let part = (0..1).into();
        multiply_picked(Level::Portable, (&matrix, part), with, &output, &mut Scratch::default());
    }
}
