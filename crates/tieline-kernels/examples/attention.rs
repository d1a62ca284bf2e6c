//! How long attention takes by tokens that ask, as a model's layers ask one after another: each has a cache of its own, which
//! comes from memory. One thread.
//!
//! `cargo run --release -p tieline-kernels --example attention -- [POSITIONS] [HEADS] [CACHE_HEADS] [WIDTH] [LAYERS]`

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for people")]
#![expect(unsafe_code, reason = "outputs are places to write to")]

use std::time::Instant;

use tieline_kernels::attention::{Attention, Cut, Desk, Rows, Size, attend};
use tieline_kernels::{Level, Output};

const TOKENS: [usize; 7] = [1, 2, 4, 8, 14, 64, 512];
const ROUNDS: usize = 12;

/// One of a model's layers.
struct Layer {
    keys: Vec<u16>,
    values: Vec<u16>,
}

fn main() {
    let given: Vec<usize> =
        std::env::args().skip(1).map(|number| number.parse().expect("whole numbers")).collect();
    let number = |at: usize, usual: usize| given.get(at).copied().unwrap_or(usual);
    let positions = number(0, 3000);
    let (heads, cache_heads, width) = (number(1, 9), number(2, 3), number(3, 64));
    let layers: Vec<Layer> =
        (0..number(4, 30)).map(|_| layer(positions * cache_heads * width)).collect();
    println!("tokens  ms a layer  GFLOP/s");
    for tokens in TOKENS {
        let size = Size { width, heads, cache_heads, tokens, positions };
        let milliseconds = time(size, &layers);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let operations = (4 * heads * tokens * positions * width) as f64;
        println!("{tokens:6}  {milliseconds:10.3}  {:7.1}", operations / milliseconds / 1e6);
    }
}

/// Halves between 1/64 and 1/32, of both signs.
fn layer(count: usize) -> Layer {
    let mut state = 1u32;
    let mut half = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [.., high, low] = state.to_be_bytes();
        u16::from_be_bytes([0x24 | (high & 0x83), low])
    };
    let mut halves = || (0..count).map(|_| half()).collect();
    Layer { keys: halves(), values: halves() }
}

/// Milliseconds for a layer, the best of some rounds over all of them.
fn time(size: Size, layers: &[Layer]) -> f64 {
    let Size { width, heads, cache_heads, tokens, positions } = size;
    let queries: Vec<f32> = (0u16..).map(|at| f32::from(at % 37) / 37.0 - 0.5).take(64).collect();
    let queries: Vec<f32> = queries.into_iter().cycle().take(tokens * heads * width).collect();
    let mask = vec![0u16; tokens * positions];
    let mut answers = vec![0.0f32; tokens * heads * width];
    let mut desk = Desk::default();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for layer in layers {
            let cached = [&layer.keys, &layer.values].map(|data| Rows {
                data,
                row: cache_heads * width,
                head: width,
            });
            let queries = Rows { data: &queries, row: heads * width, head: width };
            let mask = Rows { data: &mask, row: positions, head: 0 };
            let attention = Attention::new((size, 0.125), queries, cached, mask).expect(
                "a position or more, heads that the cache's divide, a width of 64, 96, 128 or 256",
            );
            let cut = if tokens <= Level::FEW {
                Cut::by_sight(&attention, 1)
            } else {
                Cut::blocks(&attention, 2)
            };
            for part in 0..cut.parts(&attention) {
                // SAFETY: so many floats, and one thread.
                unsafe {
                    let output = Output::new(answers.as_mut_ptr(), heads * width, tokens);
                    attend(Level::best(), (&attention, &cut, part), &output, &mut desk);
                }
            }
        }
        best = best.min(started.elapsed().as_secs_f64());
    }
    #[expect(clippy::cast_precision_loss, reason = "a few layers")]
    let layers = layers.len() as f64;
    best * 1e3 / layers
}
