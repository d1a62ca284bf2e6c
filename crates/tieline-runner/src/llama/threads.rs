//! The threads that compute.
//!
//! A pool of our own, made once: without one, ggml would start and join its threads for every token.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::accelerator;
use super::system::cpu_registry;

type New = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> sys::ggml_threadpool_t;
type Free = unsafe extern "C" fn(sys::ggml_threadpool_t);

/// A pool of computing threads. Must outlive every context that it is attached to.
#[derive(Debug)]
pub(super) struct ThreadPool {
    pool: NonNull<sys::ggml_threadpool>,
    free: Free,
    threads: i32,
    poll: bool,
}

impl ThreadPool {
    /// Starts `threads` threads, the caller's counted. `poll`: they spin for a while before they sleep.
    /// `None` where the backend has no pools.
    pub(super) fn start(threads: i32, poll: bool) -> Option<Self> {
        let new = function(c"ggml_threadpool_new")?;
        let free = function(c"ggml_threadpool_free")?;
        // SAFETY: under these names ggml registers functions of these types.
        let (new, free) = unsafe {
            (std::mem::transmute::<*mut (), New>(new), std::mem::transmute::<*mut (), Free>(free))
        };
        // SAFETY: fills a plain struct.
        let mut params = unsafe { sys::ggml_threadpool_params_default(threads) };
        if !poll {
            params.poll = 0;
        }
        // SAFETY: `params` is complete and lives through the call.
        let pool = NonNull::new(unsafe { new(&raw mut params) })?;
        Some(Self { pool, free, threads, poll })
    }

    pub(super) fn threads(&self) -> i32 {
        self.threads
    }

    pub(super) fn polls(&self) -> bool {
        self.poll
    }

    pub(super) fn as_ptr(&self) -> sys::ggml_threadpool_t {
        self.pool.as_ptr()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        accelerator::forget_pool(self.as_ptr());
        // SAFETY: made by `start`, freed once, and the contexts that used it are freed before or use others.
        unsafe { (self.free)(self.pool.as_ptr()) };
    }
}

/// A function of the processor's backend, by name: a dynamic build cannot link it.
fn function(name: &std::ffi::CStr) -> Option<*mut ()> {
    let registry = cpu_registry()?;
    // SAFETY: `registry` is valid and the name terminated.
    let function = unsafe { sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr()) };
    (!function.is_null()).then_some(function.cast())
}
