//! What measures ours beside ggml's: numbers and a clock.

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
