//! How long it takes to tell a prompt's task: `cargo run --release -p tieline-router --example task_speed`.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::Instant;

use tieline_router::quality::task::{Hints, Model};

fn main() -> io::Result<()> {
    let started = Instant::now();
    let Some(model) = Model::built_in() else { return Err(io::Error::other("no built-in model")) };
    let trained = started.elapsed();
    // Prompts of many kinds one after another: hardly a word comes twice.
    let prompt = &include_str!("../testdata/tasks-held-out.tsv")[..1024];
    let mut micros = Vec::with_capacity(2000);
    for _ in 0..2000 {
        let started = Instant::now();
        black_box(model.infer(black_box(prompt), Hints::default()));
        micros.push(started.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    let (median, p99) = (micros[1000], micros[1980]);
    writeln!(io::stdout(), "training {trained:?}; 1 KB: median {median:.1} us, p99 {p99:.1} us")
}
