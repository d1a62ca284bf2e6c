//! What the guard costs on a prompt of 4 KB: the detectors alone, a redaction, a restored answer.
//!
//! `cargo run --release -p tieline-privacy --example guard_speed`
#![expect(clippy::print_stdout, reason = "it prints its figures")]

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tieline_privacy::{
    Detectors, Entity, Guard, GuardLimits, Pseudonyms, Release, Restorer, RootKey, Session, Target,
    Treatment, VaultLimits, would_leave,
};
use tieline_types::{Prompt, Request};

const PROMPT: usize = 4096;
const ROUNDS: usize = 2000;

fn main() {
    let detectors = Arc::new(Detectors::default());
    let root = RootKey::new([7; 32]);
    let guard = Guard::new(Arc::clone(&detectors), root.clone(), GuardLimits::default());
    let session = Session::named("speed");
    let prose = include_str!("../../../ARCHITECTURE.md");
    let mails = "Write to jane.roe@corp.org and call +49 30 901820 about the offer of last week. ";
    println!(
        "{:<26} {:>12} {:>12} {:>9}",
        "prompt of 4 KB", "detect, µs", "redact, µs", "replaced"
    );
    for (name, text) in [("prose, no findings", prose), ("mails, 2 in 80 bytes", mails)] {
        let text = sized(text);
        let request = Request::new(Prompt::Text(text.clone().into()));
        let release = |treatment| Release { treatment, rule: "speed".to_owned(), session };
        let preview = |treatment| would_leave(&request, &release(treatment), &guard).ok();
        let detect = micros(|| detectors.find(&text).len());
        let redact = micros(|| preview(Treatment::Redacted));
        // A preview copies the request, and so does one of a request that leaves as it is.
        let copy = micros(|| preview(Treatment::AsIs));
        let replaced = preview(Treatment::Redacted);
        let replaced: u64 = replaced.map_or(0, |shown| shown.egress.replaced.values().sum());
        println!("{name:<26} {detect:>12.1} {:>12.1} {replaced:>9}", redact - copy);
    }
    restoring(&root, session, prose, mails);
}

/// An answer in pieces of four bytes, as vendors send it.
fn restoring(root: &RootKey, session: Session, prose: &str, mails: &str) {
    let mut pseudonyms = Pseudonyms::new(root, session, VaultLimits::default());
    let mail = pseudonyms.pseudonym(Entity::Email, "jane.roe@corp.org").unwrap_or_default();
    let vault = Arc::new(Mutex::new(pseudonyms));
    let answers =
        [("prose", sized(prose)), ("mails", sized(&mails.replace("jane.roe@corp.org", &mail)))];
    println!("\n{:<26} {:>12} {:>12}", "answer of 4 KB", "restore, µs", "restored");
    for (name, text) in answers {
        let mut restored = 0;
        let spent = micros(|| {
            let mut restorer = Restorer::new(Arc::clone(&vault), Target::Text);
            let pieces =
                text.as_bytes().chunks(4).filter_map(|piece| std::str::from_utf8(piece).ok());
            let bytes: usize = pieces.map(|piece| restorer.push(piece).len()).sum();
            let rest = restorer.finish().len();
            restored = restorer.restored();
            bytes + rest
        });
        println!("{name:<26} {spent:>12.1} {restored:>12}");
    }
}

/// The median of the microseconds of one round.
fn micros<T>(mut round: impl FnMut() -> T) -> f64 {
    let mut taken: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(round());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    taken[ROUNDS / 2]
}

/// ASCII of the text, so often that it is 4 KB.
fn sized(text: &str) -> String {
    let mut sized: String = text.chars().filter(char::is_ascii).collect();
    sized = sized.repeat(PROMPT / sized.len().max(1) + 1);
    sized.truncate(PROMPT);
    sized
}
