//! Starts llama.cpp and says what it was built for.

use std::ffi::{CStr, c_char};

use llama_cpp_sys_2 as sys;
use tieline_types::RunnerBuild;

use super::{accelerator, log};

/// Proof that llama.cpp is started. Models need one.
#[derive(Debug)]
pub(crate) struct Llama(());

impl Llama {
    /// Starts llama.cpp; once per process.
    pub(crate) fn start() -> Self {
        log::capture();
        #[cfg(feature = "dynamic-backends")]
        load_backends_beside_this_program();
        // SAFETY: called before any other function of llama.cpp but the two above, which allow it.
        unsafe { sys::llama_backend_init() };
        accelerator::start();
        Self(())
    }
}

/// Loads the processor variant that fits this machine from the program's own folder.
///
/// Never from the working directory, where llama.cpp would look too if it were left to itself.
#[cfg(feature = "dynamic-backends")]
fn load_backends_beside_this_program() {
    use std::ffi::CString;

    let folder = std::env::current_exe().ok().and_then(|path| path.parent().map(ToOwned::to_owned));
    let folder =
        folder.and_then(|path| CString::new(path.into_os_string().into_encoded_bytes()).ok());
    if let Some(folder) = folder {
        // SAFETY: `folder` is a terminated string that lives through the call.
        unsafe { sys::ggml_backend_load_all_from_path(folder.as_ptr()) };
    }
}

/// What this runner is made of.
pub(crate) fn build(_: &Llama) -> RunnerBuild {
    // SAFETY: returns a terminated string that lives for ever.
    let llama_cpp = unsafe { text(sys::llama_version()) };
    RunnerBuild {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        llama_cpp,
        kernels: kernels(),
        devices: devices(),
        gpus: GPUS.iter().filter(|(_, built)| *built).map(|(name, _)| (*name).to_owned()).collect(),
    }
}

/// Kinds of GPU, and whether this is built for them.
const GPUS: [(&str, bool); 4] = [
    ("cuda", cfg!(feature = "cuda")),
    ("rocm", cfg!(feature = "rocm")),
    ("metal", cfg!(feature = "metal")),
    ("vulkan", cfg!(feature = "vulkan")),
];

fn devices() -> Vec<String> {
    // SAFETY: needs only a started llama.cpp.
    let count = unsafe { sys::ggml_backend_dev_count() };
    (0..count)
        .map(|index| {
            // SAFETY: `index` is below the count; devices are never removed.
            let device = unsafe { sys::ggml_backend_dev_get(index) };
            // SAFETY: `device` is valid; its name lives as long as it.
            unsafe { text(sys::ggml_backend_dev_name(device)) }
        })
        // Ours is the processor, by another door, and is there only once a model is loaded.
        .filter(|name| *name != accelerator::DEVICE)
        .collect()
}

/// The instruction sets and methods that the processor's kernels were compiled with.
///
/// The kernels answer for themselves, so this is what is used, not what the processor could do.
pub(crate) fn kernels() -> Vec<String> {
    let Some(registry) = cpu_registry() else { return Vec::new() };
    let name = c"ggml_backend_get_features";
    // SAFETY: `registry` is valid and the name terminated.
    let function = unsafe { sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr()) };
    // SAFETY: under this name ggml registers a function of this type, or null, which is `None`.
    let function: sys::ggml_backend_get_features_t = unsafe { std::mem::transmute(function) };
    let Some(function) = function else { return Vec::new() };
    // SAFETY: the function takes its own registry and returns an array that lives for ever.
    let mut feature = unsafe { function(registry) };
    let mut names = Vec::new();
    loop {
        // SAFETY: the array ends with an entry whose name is null, where this stops.
        let (name, value) = unsafe { ((*feature).name, (*feature).value) };
        if name.is_null() {
            names.extend(accelerator::names());
            return names;
        }
        // SAFETY: name and value are terminated strings that live for ever.
        let (name, value) = unsafe { (text(name), text(value)) };
        if value != "0" {
            names.push(name);
        }
        // SAFETY: this was not the last entry.
        feature = unsafe { feature.add(1) };
    }
}

/// The registry of the processor's backend: the door to functions that a dynamic build loads late.
pub(super) fn cpu_registry() -> Option<sys::ggml_backend_reg_t> {
    // SAFETY: needs only a started llama.cpp; null where no such device exists.
    let device = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
    if device.is_null() {
        return None;
    }
    // SAFETY: `device` is valid.
    let registry = unsafe { sys::ggml_backend_dev_backend_reg(device) };
    (!registry.is_null()).then_some(registry)
}

/// Copies a C string.
///
/// # Safety
/// `text` is null or a terminated string that lives through the call.
pub(super) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
