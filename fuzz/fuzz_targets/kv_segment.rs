//! No bytes make the reader of cached KV panic, or take for a payload what was not written as one.
//!
//! Run with `cargo +nightly fuzz run kv_segment`.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use tieline_decode::disk::{MAX_PAYLOAD, Root, SEGMENT, decode, encode};

/// Where the checksum lies in a file.
const CHECKSUM: Range<usize> = 68..100;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes);
    with_right_checksum(bytes.to_vec());

    let (tokens, payload) = bytes.split_at(bytes.len().min(4 * SEGMENT));
    let tokens: Vec<i32> = tokens
        .chunks_exact(4)
        .map(|token| i32::from_le_bytes([token[0], token[1], token[2], token[3]]))
        .collect();
    if let Ok(mut file) = encode(Root::new(&[]), &tokens, payload) {
        assert_eq!(decode(&file).as_deref(), Ok(payload));
        if let Some(last) = file.last_mut() {
            *last ^= 1;
        }
        assert!(decode(&file).is_err());
    }
});

/// What no accident makes: a file that is wrong in itself and whose checksum says that it is whole.
fn with_right_checksum(mut file: Vec<u8>) {
    if file.len() < CHECKSUM.end {
        return;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[..CHECKSUM.start]).update(&file[CHECKSUM.end..]);
    file[CHECKSUM].copy_from_slice(hasher.finalize().as_bytes());
    if let Ok(payload) = decode(&file) {
        assert!(payload.len() as u64 <= MAX_PAYLOAD);
    }
}
