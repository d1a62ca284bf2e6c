//! Our kernels, as a device that llama.cpp's scheduler gives matrix products to.
//!
//! ggml calls such a device an accelerator (its BLAS backend is one): it takes the operations that it says
//! it supports, works on the processor's own memory, and leaves all others to ggml's processor backend.
//! Weights stay where they are.
//!
//! The work is done by the threads that llama.cpp computes with: what a split of the graph asks for becomes
//! a graph of ggml's custom operations, which a processor backend of our own runs on the same pool.
//!
//! Products and attention of few tokens come by another door, [`thin`], which cuts no graph.

mod anew;
mod check;
mod choice;
mod device;
mod experts;
mod job;
mod tables;
mod thin;

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;
use tieline_kernels::{Format, Level};

use super::system::cpu_registry;

pub(crate) use choice::choose;

/// The device's name.
pub(super) const DEVICE: &str = "TIELINE";

static ON: AtomicBool = AtomicBool::new(true);
/// Whether attention may be ours, too.
static ATTENDS: AtomicBool = AtomicBool::new(false);
static INNER: OnceLock<Inner> = OnceLock::new();
/// Why the kernels are off on a processor that they are written for.
static MISREAD: OnceLock<Format> = OnceLock::new();
/// Whether attention is ggml's since ours was not what it should be.
static MISATTENDS: AtomicBool = AtomicBool::new(false);

/// The processor backend that runs our operations.
#[derive(Debug)]
struct Inner {
    level: Level,
    backend: AtomicPtr<sys::ggml_backend>,
    set_threads: SetThreads,
    set_pool: SetPool,
    /// The pool that `backend` was given last.
    pool: AtomicPtr<sys::ggml_threadpool>,
    /// How many threads compute.
    threads: AtomicUsize,
}

type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, c_int);
type SetPool = unsafe extern "C" fn(sys::ggml_backend_t, sys::ggml_threadpool_t);

/// Makes the kernels ready, where the processor has instructions that they are written for. Once per process,
/// after llama.cpp started.
pub(super) fn start() {
    let level = Level::best();
    if level == Level::Portable {
        return;
    }
    // Never wrong, rather than fast: weights that we read otherwise than ggml are not ours to multiply.
    if let Some(format) = check::disagreement(level) {
        // Cannot be set: this is the first time.
        let _ = MISREAD.set(format);
        return;
    }
    anew::start(level);
    MISATTENDS.store(level.attends() && !check::attends(level), Ordering::Relaxed);
    if let Some(inner) = Inner::start(level) {
        // Cannot be set: as above.
        let _ = INNER.set(inner);
        // After our own processor backend is made: its graphs hold no products.
        thin::install();
    }
}

/// Says whether models loaded from now on may use the kernels.
///
/// Only then is llama.cpp offered the device: where it merely plans, it counts buffers that two devices
/// share once for each.
pub(crate) fn switch(on: bool) {
    ON.store(on, Ordering::Relaxed);
    if on && INNER.get().is_some() {
        device::register();
        choice::watch();
    }
}

/// Says whether attention may be ours in what is computed next.
///
/// Not while a context is made: llama.cpp asks then where attention would be computed, and does without the fast
/// way if that is not the processor itself.
pub(super) fn attend(ours: bool) {
    ATTENDS.store(ours && !MISATTENDS.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// The name of the kernels, where they are used, and what the check at the start switched off: all of them, for a format
/// that is read otherwise, or attention alone, or what ggml lays out anew.
pub(super) fn names() -> Vec<String> {
    if let Some(format) = MISREAD.get() {
        return vec![format!("TIELINE-OFF-{format:?}")];
    }
    let Some(inner) = INNER.get().filter(|_| ON.load(Ordering::Relaxed)) else {
        return Vec::new();
    };
    let without = MISATTENDS.load(Ordering::Relaxed).then(|| "TIELINE-OFF-ATTENTION".to_owned());
    let anew = anew::misread().map(|kind| format!("TIELINE-OFF-{kind}"));
    std::iter::once(format!("TIELINE-{}", inner.level.name())).chain(without).chain(anew).collect()
}

/// Lets the next computation use this pool, or threads of its own where it is null.
pub(super) fn use_pool(pool: sys::ggml_threadpool_t) {
    if let Some(inner) = INNER.get() {
        inner.use_pool(pool);
    }
}

/// Must be called before a pool is freed.
pub(super) fn forget_pool(pool: sys::ggml_threadpool_t) {
    if let Some(inner) = INNER.get()
        && inner.pool.load(Ordering::Relaxed) == pool
    {
        inner.use_pool(std::ptr::null_mut());
    }
}

impl Inner {
    fn start(level: Level) -> Option<Self> {
        let set_threads = function(c"ggml_backend_set_n_threads")?;
        let set_pool = function(c"ggml_backend_cpu_set_threadpool")?;
        // SAFETY: needs only a started llama.cpp.
        let backend = unsafe {
            sys::ggml_backend_init_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU, std::ptr::null())
        };
        if backend.is_null() {
            return None;
        }
        // SAFETY: under these names ggml registers functions of these types.
        let (set_threads, set_pool) = unsafe {
            (
                std::mem::transmute::<*mut (), SetThreads>(set_threads),
                std::mem::transmute::<*mut (), SetPool>(set_pool),
            )
        };
        let (backend, pool) = (AtomicPtr::new(backend), AtomicPtr::default());
        let threads = AtomicUsize::new(1);
        Some(Self { level, backend, set_threads, set_pool, pool, threads })
    }

    fn backend(&self) -> sys::ggml_backend_t {
        self.backend.load(Ordering::Relaxed)
    }

    fn use_pool(&self, pool: sys::ggml_threadpool_t) {
        if self.pool.swap(pool, Ordering::Relaxed) != pool {
            // SAFETY: the backend is never freed. It pauses the pool before, which is not freed yet: whoever
            // frees one has it forgotten first.
            unsafe { (self.set_pool)(self.backend(), pool) };
        }
    }

    fn use_threads(&self, threads: c_int) {
        self.threads.store(usize::try_from(threads).unwrap_or(1).max(1), Ordering::Relaxed);
        // SAFETY: the backend is never freed.
        unsafe { (self.set_threads)(self.backend(), threads.max(1)) };
    }

    /// Runs a graph of our operations.
    fn compute(&self, graph: *mut sys::ggml_cgraph) -> sys::ggml_status {
        // SAFETY: the backend is never freed, and `graph` is made of custom operations whose data live.
        unsafe { sys::ggml_backend_graph_compute(self.backend(), graph) }
    }
}

/// A function of the processor's backend, by name: a dynamic build cannot link it.
fn function(name: &CStr) -> Option<*mut ()> {
    let registry = cpu_registry()?;
    // SAFETY: `registry` is valid and the name terminated.
    let function = unsafe { sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr()) };
    (!function.is_null()).then_some(function.cast())
}
