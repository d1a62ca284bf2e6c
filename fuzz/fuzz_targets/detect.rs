//! No text makes the detectors panic, and what they find is in order, apart and on borders of characters.
//!
//! Run with `cargo +nightly fuzz run detect`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tieline_privacy::{Detectors, Dictionary};

static DETECTORS: LazyLock<Detectors> = LazyLock::new(|| {
    let terms = ["Project Falcon", "Weiß", "山田商事", "a-b-c"].map(str::to_owned).to_vec();
    Detectors::new(&Dictionary { terms }).expect("terms of three signs or more")
});

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let mut end = 0;
    for found in DETECTORS.find(&text) {
        assert!(found.range.start >= end && found.range.start < found.range.end);
        assert!(text.get(found.range.clone()).is_some());
        end = found.range.end;
    }
});
