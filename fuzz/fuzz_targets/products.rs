//! No shape makes a kernel read beyond its weights or write beyond its rows, and all levels compute the same.
//!
//! Run with `cargo +nightly fuzz run products`; the address sanitizer watches what is read.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use tieline_kernels::{
    Activations, Format, Layout, Level, Matrix, Output, Part, Pick, Picks, Scratch, multiply,
    multiply_picked,
};

/// What is between the rows of the output.
const UNTOUCHED: f32 = -7.0;

#[derive(Arbitrary, Debug)]
struct Shape {
    format: u8,
    rows: u8,
    blocks: u8,
    tokens: u8,
    first: u8,
    count: u8,
    next: Range<usize>,
    in_eights: bool,
    picks: Vec<(u8, u8)>,
    values: u8,
    /// By how many bytes the weights are too short.
    missing: u16,
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    if let Ok(shape) = Shape::arbitrary(&mut bytes) {
        multiplied(&shape, bytes.take_rest());
    }
});

fn multiplied(shape: &Shape, noise: &[u8]) {
    let format = Format::ALL[usize::from(shape.format) % Format::ALL.len()];
    let tokens = usize::from(shape.tokens) % 20 + 1;
    let (rows, width) = (usize::from(shape.rows), (usize::from(shape.blocks) % 12) * 32);
    let Some(row_bytes) = format.row_bytes(width) else {
        return assert!(Matrix::new(format, &[0; 4096], rows, width).is_none());
    };
    let weights = weights(format, noise, rows * row_bytes);
    let missing = usize::from(shape.missing).min(weights.len());
    // As long as the rows and no longer, so that the sanitizer sees a byte too many.
    let short: Box<[u8]> = weights[missing..].into();
    let made = Matrix::new(format, &short, rows, width);
    assert_eq!(made.is_some(), missing == 0 || rows * row_bytes == 0);
    let weights: Box<[u8]> = weights.into();
    let anew = shape.in_eights.then(|| Matrix::in_eights(format, &weights, rows, width)).flatten();
    let Some(matrix) = anew.or_else(|| Matrix::new(format, &weights, rows, width)) else { return };
    let mut first = usize::from(shape.first) % (rows + 1);
    if anew.is_some() {
        first -= first % 8;
    }
    let last = (first + usize::from(shape.count)).min(rows);
    let part = Part { rows: first..last, next: shape.next.clone() };
    let values = f32::from(shape.values) - 100.0;
    let job = Job { format, matrix: &matrix, part, width, tokens, values };
    let picks: Vec<Pick> = (0..)
        .zip(&shape.picks)
        .map(|(to, (token, _))| Pick { token: usize::from(*token) % tokens, to })
        .collect();

    // Whoever multiplied before leaves nothing behind.
    let scratch = &mut Scratch::default();
    let mut all: Option<[Vec<u32>; 2]> = None;
    for level in Level::ALL.into_iter().filter(|level| level.available() && *level != Level::Portable) {
        if anew.is_some() && !level.takes_eights(format) {
            continue;
        }
        let few = job.multiply((level, true), Layout::Rows, scratch);
        let many = job.multiply((level, false), Layout::of_many(level), scratch);
        assert_eq!(many, job.multiply((level, false), Layout::Rows, scratch));
        let [mut picked, mut picked_few] = [Vec::new(), Vec::new()];
        if format != Format::F16 && format != Format::Bf16 && !picks.is_empty() {
            picked = job.pick((level, false), &picks, scratch);
            picked_few = job.pick((level, true), &picks, scratch);
        }
        near(&many, &few);
        near(&picked, &picked_few);
        let got = [many, picked];
        match &all {
            Some(want) => assert_eq!(want, &got, "{format:?} {level:?}"),
            None => all = Some(got),
        }
    }
}

/// Few tokens are summed in another order: within what rounding of sums of this size leaves.
fn near(many: &[u32], few: &[u32]) {
    assert_eq!(many.len(), few.len());
    let floats = |bits: &[u32]| bits.iter().copied().map(f32::from_bits).collect::<Vec<f32>>();
    let (many, few) = (floats(many), floats(few));
    let most = many.iter().fold(1.0f32, |most, float| most.max(float.abs()));
    if most.is_finite() {
        let far = |(one, other): (&f32, &f32)| !((one - other).abs() <= most * 1e-3);
        assert!(!many.iter().zip(&few).any(far), "{many:?} {few:?}");
    }
}

/// Bytes that repeat, with scales that are numbers: of what is none, levels may make another than none.
fn weights(format: Format, noise: &[u8], count: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = noise.iter().copied().chain([0x31]).cycle().take(count).collect();
    for block in bytes.chunks_mut(format.block_bytes()) {
        match format {
            // An exponent alone.
            Format::Mxfp4 => block[0] %= 200,
            // Bits of a half's exponent: never all of them.
            _ => block.iter_mut().for_each(|byte| *byte &= 0xbf),
        }
    }
    bytes
}

struct Job<'a> {
    format: Format,
    matrix: &'a Matrix<'a>,
    part: Part,
    width: usize,
    tokens: usize,
    values: f32,
}

impl Job<'_> {
    fn activations(&self, level: Level, layout: Layout) -> Activations {
        let mut made = Activations::default();
        made.resize(self.format.rounding(), layout, self.tokens, self.width);
        for token in 0..self.tokens {
            let value = |at: usize| self.values * ((at * 37 + token * 11) % 251) as f32 / 125.0 - 1.0;
            let values: Vec<f32> = (0..self.width).map(value).collect();
            // SAFETY: one thread.
            unsafe { made.fill(level, token, &values) };
        }
        made
    }

    /// The products' bits; nothing else is written.
    fn multiply(&self, (level, few): (Level, bool), layout: Layout, scratch: &mut Scratch) -> Vec<u32> {
        let activations = self.activations(level, layout);
        self.written(self.tokens, |output| {
            let part = (self.matrix, self.part.clone());
            // SAFETY: one thread, and all tokens are filled.
            unsafe { multiply((level, few), part, &activations, output, scratch) };
        })
    }

    fn pick(&self, (level, few): (Level, bool), tokens: &[Pick], scratch: &mut Scratch) -> Vec<u32> {
        let activations = self.activations(level, Layout::Rows);
        self.written(tokens.len(), |output| {
            let (part, picks) = ((self.matrix, self.part.clone()), Picks { tokens, few });
            // SAFETY: one thread, and all tokens are filled.
            unsafe { multiply_picked(level, part, (&activations, picks), output, scratch) };
        })
    }

    fn written(&self, tokens: usize, fill: impl FnOnce(&Output)) -> Vec<u32> {
        let stride = self.matrix.rows() + 3;
        let mut floats = vec![UNTOUCHED; stride * tokens];
        // SAFETY: so many floats, which nobody else touches.
        let output = unsafe { Output::new(floats.as_mut_ptr(), stride, tokens) };
        fill(&output);
        for token in floats.chunks(stride) {
            let mut other = token[..self.part.rows.start].iter().chain(&token[self.part.rows.end..]);
            assert!(other.all(|float| *float == UNTOUCHED), "written beyond the rows");
        }
        floats.iter().map(|float| float.to_bits()).collect()
    }
}
