//! How fast matrices are multiplied here, on one thread: `cargo run --release -p tieline-kernels --example speed`.
//!
//! A line for each format, a column for each number of tokens: operations a second (a weight times a value is
//! two). With one token it is unpacking that takes the time. Arguments: rows, columns, and a level by name
//! (`AVX2`; the best without one). The fastest of several rounds, since whatever disturbs only slows. The time is the
//! thread's own on its processor, where the system tells it (Linux), else the clock's; Linux counts it in steps of some
//! milliseconds, so a round is many runs.
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for people")]
#![expect(unsafe_code, reason = "calls what several threads may call, from one")]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tieline_kernels::{Activations, Format, Layout, Level, Matrix, Output, Scratch, multiply};

/// Runs between two looks at the time.
const RUNS: u8 = 4;
const ROUNDS: usize = 4;
/// The least seconds of a round.
const ROUND: f64 = 0.06;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut size = || arguments.next().map_or(1536, |text| text.parse().expect("a whole number"));
    let (rows, width) = (size(), size());
    let level = level(arguments.next().as_deref());
    println!("{} of {rows} rows by {width}; GOP/s by tokens", level.name());
    println!("{:<8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}", "", 1, 2, 4, 8, 32, 128, 512);
    let only = arguments.next();
    for format in Format::ALL {
        if only.as_deref().is_some_and(|only| only != format!("{format:?}")) {
            continue;
        }
        if format.row_bytes(width).is_none() {
            continue;
        }
        let speeds =
            [1, 2, 4, 8, 32, 128, 512].map(|tokens| speed(level, format, (rows, width, tokens)));
        print!("{:<8}", format!("{format:?}"));
        for speed in speeds {
            print!("{speed:>8.0}");
        }
        println!();
    }
}

/// The level of a name, which this processor must have.
fn level(name: Option<&str>) -> Level {
    let Some(name) = name else { return Level::best() };
    let named = |level: &Level| level.name().eq_ignore_ascii_case(name) && level.available();
    Level::ALL.into_iter().find(named).expect("a level that this processor has, by name")
}

/// Seconds that this thread computed, or seconds at all.
fn time() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = spent.and_then(|text| text.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| START.elapsed(), Duration::from_nanos).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn speed(level: Level, format: Format, (rows, width, tokens): (usize, usize, usize)) -> f64 {
    let row_bytes = format.row_bytes(width).expect("whole blocks");
    // Small bytes, so that no scale is infinite.
    let bytes: Vec<u8> = (0..rows * row_bytes).map(|at| [17, 34, 51, 20][at % 4]).collect();
    let matrix = Matrix::new(format, &bytes, rows, width).expect("a matrix");
    let values = vec![0.5; width];
    let mut activations = Activations::default();
    let mut products = vec![0.0; rows * tokens];
    let mut scratch = Scratch::default();
    let mut best = f64::INFINITY;
    let few = level.by_few(format, tokens);
    let layout = if few { Layout::Rows } else { Layout::of_many(level) };
    let mut run = || {
        activations.resize(format.rounding(), layout, tokens, width);
        // SAFETY: one thread does all this.
        unsafe {
            for token in 0..tokens {
                activations.fill(level, token, &values);
            }
            let output = Output::new(products.as_mut_ptr(), rows, tokens);
            multiply(
                (level, few),
                (&matrix, (0..rows).into()),
                &activations,
                &output,
                &mut scratch,
            );
        }
    };
    for _ in 0..ROUNDS {
        let (started, mut runs) = (time(), 0.0);
        while time() - started < ROUND {
            (0..RUNS).for_each(|_| run());
            runs += f64::from(RUNS);
        }
        best = best.min((time() - started) / runs);
    }
    2.0 * (rows * width * tokens) as f64 / best / 1e9
}
