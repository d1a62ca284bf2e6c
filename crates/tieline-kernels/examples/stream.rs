//! How fast this machine reads memory: `cargo run --release -p tieline-kernels --example stream`.
//!
//! A step of one token reads every weight once, so this is what its speed ends at: bytes a second divided by the bytes
//! of a model's matrices. By threads, each reading its own part of 1 GiB, many times what caches hold. The best of
//! several rounds by the clock, since whatever disturbs only slows. Argument: the most threads (2 without it).
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for people")]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

const BYTES: usize = 1 << 30;
const ROUNDS: usize = 9;

fn main() {
    let most = std::env::args().nth(1).map_or(2, |text| text.parse().expect("a whole number"));
    // Written, so that every page is one of its own.
    let words: Vec<u64> = (0..BYTES as u64 / 8).collect();
    for threads in 1..=most {
        let seconds = (0..ROUNDS).map(|_| round(&words, threads)).fold(f64::INFINITY, f64::min);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let speed = BYTES as f64 / seconds / 1e9;
        println!("{threads} threads: {speed:.1} GB/s");
    }
}

/// Seconds that `threads` take to read all words once.
fn round(words: &[u64], threads: usize) -> f64 {
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        for part in words.chunks(words.len().div_ceil(threads)) {
            scope.spawn(|| {
                barrier.wait();
                black_box(sum(part));
                barrier.wait();
            });
        }
        barrier.wait();
        let started = Instant::now();
        barrier.wait();
        started.elapsed().as_secs_f64()
    })
}

/// The sum of all words, of several lines at once.
fn sum(words: &[u64]) -> u64 {
    const WIDTH: usize = 64;
    let mut sums = [0u64; WIDTH];
    for words in words.as_chunks::<WIDTH>().0 {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum ^= *word;
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}
