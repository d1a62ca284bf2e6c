//! How fast the detectors are: megabytes a second on four kinds of text, and microseconds for a prompt of 4 KB.
//!
//! `cargo run --release -p tieline-privacy --example detect_speed`
#![expect(clippy::print_stdout, reason = "it prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use tieline_privacy::{Detectors, Dictionary};

/// How often each text is read; the median counts.
const ROUNDS: usize = 15;
/// How much of each text is read at once.
const MEBIBYTE: usize = 1 << 20;
const PROMPT: usize = 4096;

/// Pieces that make the detectors look again and again.
const HOSTILE: [&str; 24] = [
    "://",
    "a://b:c@",
    "password: ",
    "password is ",
    "token=",
    "eyJ.",
    "@",
    "a@a.",
    "1 ",
    "0049 ",
    "+49 ",
    "(",
    "12.3456, ",
    "-----BEGIN PRIVATE KEY-----",
    "straße ",
    "rue de la ",
    "born ",
    "host=",
    "server=;",
    "user.name ",
    "市1-",
    "::",
    "00:",
    "4111 ",
];

fn main() {
    let terms = ["Project Falcon", "Acme Holding", "Zürich Nord", "山田商事", "blue-heron"];
    let plain = Detectors::default();
    let with_terms = Detectors::new(&Dictionary { terms: terms.map(str::to_owned).to_vec() });
    println!(
        "{:<10} {:>10} {:>12} {:>10} {:>16}",
        "text", "MB/s", "with terms", "findings", "4 KB prompt, µs"
    );
    for (name, text) in texts() {
        let text = repeated(&text, MEBIBYTE);
        let prompt = repeated(&text, PROMPT);
        let speed = |detectors: &Detectors| text.len() as f64 / seconds(detectors, &text) / 1e6;
        let terms = with_terms.as_ref().map_or(0.0, speed);
        let findings = plain.find(&text).len();
        let micros = seconds(&plain, &prompt) * 1e6;
        println!("{name:<10} {:>10.0} {terms:>12.0} {findings:>10} {micros:>16.0}", speed(&plain));
    }
    let slow = |piece: &&str| (seconds(&plain, &repeated(piece, MEBIBYTE / 4)), piece.to_string());
    let (taken, piece) = HOSTILE
        .iter()
        .map(slow)
        .fold((0.0, String::new()), |one, other| if one.0 > other.0 { one } else { other });
    println!(
        "the slowest of {} hostile texts repeats {piece:?}: {:.1} MB/s",
        HOSTILE.len(),
        (MEBIBYTE / 4) as f64 / taken / 1e6
    );
}

/// The median of the seconds for one reading.
fn seconds(detectors: &Detectors, text: &str) -> f64 {
    let rounds = if text.len() > PROMPT { ROUNDS } else { 100 * ROUNDS };
    let mut taken: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            black_box(detectors.find(black_box(text)));
            start.elapsed().as_secs_f64()
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    taken[taken.len() / 2]
}

/// At least so much of the text, cut at a border of characters.
fn repeated(text: &str, len: usize) -> String {
    let mut long = text.repeat(len / text.len().max(1) + 1);
    long.truncate(long.ceil_char_boundary(len));
    long
}

fn texts() -> Vec<(&'static str, String)> {
    let code = include_str!("../src/detect.rs").to_owned() + include_str!("../src/guarded.rs");
    vec![
        ("prose", include_str!("../../../ARCHITECTURE.md").to_owned()),
        ("code", code),
        ("JSON logs", logs()),
        ("corpus", include_str!("../corpus/generated.txt").to_owned()),
    ]
}

/// Lines as servers write them: times, ids, numbers, a few addresses.
fn logs() -> String {
    let line = |number: usize| {
        format!(
            "{{\"ts\":\"2026-03-{:02}T10:{:02}:{:02}.{:03}Z\",\"level\":\"info\",\"request_id\":\"0198{:08x}-7c3e-7b21-9a7e-{:012x}\",\
             \"route\":\"/v1/chat/completions\",\"status\":200,\"ms\":{}.{},\"tokens\":{},\"peer\":\"10.0.{}.{}\",\"msg\":\"request done\"}}\n",
            number % 28 + 1,
            number % 60,
            number * 7 % 60,
            number * 13 % 1000,
            number * 7919,
            number * 104_729,
            number % 900,
            number % 10,
            number * 31 % 4000,
            number % 250,
            number * 3 % 250 + 1,
        )
    };
    (0..400).map(line).collect()
}
