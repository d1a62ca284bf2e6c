//! No bytes make the division of an answer panic, and how they are cut changes nothing.
//!
//! The first byte chooses the framing, the second the length of the pieces.
//! Run with `cargo +nightly fuzz run frames`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tieline_providers::frames::{FrameError, Frames, Owned};
use tieline_providers::protocol::Framing;

fn divide(framing: Framing, pieces: &[&[u8]]) -> (Vec<Owned>, Option<FrameError>) {
    let mut frames = Frames::new(framing);
    let fault = pieces.iter().find_map(|piece| frames.push(piece).err());
    let fault = fault.or_else(|| frames.end().err());
    (std::iter::from_fn(|| frames.next_frame()).collect(), fault)
}

fuzz_target!(|bytes: &[u8]| {
    let [framing, length, bytes @ ..] = bytes else { return };
    let framing = if framing % 2 == 0 { Framing::Sse } else { Framing::Lines };
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(*length).max(1)).collect();
    assert!(divide(framing, &[bytes]) == divide(framing, &pieces));
});
