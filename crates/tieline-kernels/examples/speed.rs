//! How fast matrices are multiplied here, on one thread: `cargo run --release -p tieline-kernels --example speed`.
//!
//! A line for each format, a column for each number of tokens: operations a second (a weight times a value is
//! two). With one token it is unpacking that takes the time. Arguments: rows and columns, and a level's name where it is not the best. The fastest of several runs, since whatever disturbs only slows.
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for people")]
#![expect(unsafe_code, reason = "calls what several threads may call, from one")]

use std::time::Instant;

use tieline_kernels::{Activations, Format, Level, Matrix, Output, Scratch, multiply};

const RUNS: usize = 30;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut size = || arguments.next().map_or(1536, |text| text.parse().expect("a whole number"));
    let (rows, width) = (size(), size());
    let level = arguments.next().map_or_else(Level::best, |name| {
        let named = |level: &Level| level.available() && level.name().eq_ignore_ascii_case(&name);
        Level::ALL.into_iter().find(named).expect("a level that this processor has")
    });
    println!("{} of {rows} rows by {width}; GOP/s by tokens", level.name());
    println!("{:<8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}", "", 1, 2, 4, 8, 32, 128, 512);
    for format in Format::ALL {
        if format.row_bytes(width).is_none() {
            continue;
        }
        let speeds =
            [1, 2, 4, 8, 32, 128, 512].map(|tokens| speed(level, format, (rows, width), tokens));
        print!("{:<8}", format!("{format:?}"));
        for speed in speeds {
            print!("{speed:>8.0}");
        }
        println!();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn speed(level: Level, format: Format, (rows, width): (usize, usize), tokens: usize) -> f64 {
    let row_bytes = format.row_bytes(width).expect("whole blocks");
    // Small bytes, so that no scale is infinite.
    let bytes: Vec<u8> = (0..rows * row_bytes).map(|at| [17, 34, 51, 20][at % 4]).collect();
    let matrix = Matrix::new(format, &bytes, rows, width).expect("a matrix");
    let values = vec![0.5; width];
    let mut activations = Activations::default();
    let mut products = vec![0.0; rows * tokens];
    let mut scratch = Scratch::default();
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let started = Instant::now();
        activations.resize(tokens, width);
        // SAFETY: one thread does all this.
        unsafe {
            for token in 0..tokens {
                activations.fill(level, token, &values);
            }
            let output = Output::new(products.as_mut_ptr(), rows, tokens);
            multiply(level, (&matrix, (0..rows).into()), &activations, &output, &mut scratch);
        }
        best = best.min(started.elapsed().as_secs_f64());
    }
    2.0 * (rows * width * tokens) as f64 / best / 1e9
}
