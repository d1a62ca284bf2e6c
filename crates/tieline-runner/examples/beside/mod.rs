//! What measures ours beside ggml's: numbers and a clock.

use std::ffi::{CStr, c_char};

use llama_cpp_sys_2 as sys;

/// The least seconds of a round.
const ROUND: f64 = 0.025;

/// Numbers between -0.5 and 0.5, the same at every call.
pub(crate) fn noise(count: usize) -> Vec<f32> {
    let mut random = random();
    std::iter::repeat_with(|| f32::from(random().to_le_bytes()[3]) / 255.0 - 0.5)
        .take(count)
        .collect()
}

/// Whole numbers that look drawn, the same at every call.
pub(crate) fn random() -> impl FnMut() -> u32 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    }
}

/// ggml's kind of buffer for weights that it lays out anew.
pub(crate) fn repack() -> Option<sys::ggml_backend_buffer_type_t> {
    type Kinds =
        unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *mut sys::ggml_backend_buffer_type_t;
    // SAFETY: the processor's device is always there; under this name it has such a function, whose list ends with null.
    unsafe {
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        let registry = sys::ggml_backend_dev_backend_reg(device);
        let name: *const c_char = c"ggml_backend_dev_get_extra_bufts".as_ptr();
        let function = sys::ggml_backend_reg_get_proc_address(registry, name);
        let kinds = std::mem::transmute::<*mut std::ffi::c_void, Option<Kinds>>(function)?;
        let mut kind = kinds(device);
        while !kind.is_null() && !(*kind).is_null() {
            if CStr::from_ptr(sys::ggml_backend_buft_name(*kind)) == c"CPU_REPACK" {
                return Some(*kind);
            }
            kind = kind.add(1);
        }
    }
    None
}

/// Seconds of a run, the mean of a round.
pub(crate) fn round(run: &mut dyn FnMut()) -> f64 {
    let (started, mut runs) = (time(), 0.0);
    while time() - started < ROUND {
        run();
        runs += 1.0;
    }
    (time() - started) / runs
}

/// Seconds that this process computed.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time into what it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
