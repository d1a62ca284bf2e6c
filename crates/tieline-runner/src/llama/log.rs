//! llama.cpp's log: kept in memory, so that an error can say what llama.cpp said.

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use llama_cpp_sys_2 as sys;

/// Most lines kept between two looks.
const KEPT: usize = 32;
/// Longest line kept, in bytes. A hostile model's names must not fill the memory.
const LINE: usize = 500;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Takes over llama.cpp's log from now on.
pub(super) fn capture() {
    // SAFETY: `record` has the type asked for, takes no user data, and lives for ever.
    unsafe { sys::llama_log_set(Some(record), ptr::null_mut()) };
}

/// The errors logged since the last call, oldest first.
pub(crate) fn take_errors() -> Vec<String> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
}

extern "C" fn record(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level != sys::GGML_LOG_LEVEL_ERROR || text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a terminated string that lives through this call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line: String = text.trim().chars().take(LINE).collect();
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if line.is_empty() {
        return;
    }
    if lines.len() == KEPT {
        lines.pop_front();
    }
    lines.push_back(line);
}
