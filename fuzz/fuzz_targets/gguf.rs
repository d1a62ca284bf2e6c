//! No bytes make the GGUF reader panic, or accept a tensor outside the file.
//!
//! Run with `cargo +nightly fuzz run gguf`.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tieline_store::Gguf;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::read(Cursor::new(bytes)) else { return };
    for tensor in &gguf.tensors {
        let end =
            u128::from(gguf.data_start) + u128::from(tensor.offset) + u128::from(tensor.bytes);
        assert!(end <= bytes.len() as u128);
    }
    let _ = (gguf.quantisation(), gguf.context_length(), gguf.chat_template_digest());
    let _ = (gguf.parameter_count(), gguf.bytes_by_type());
});
