//! What a context and its model take of memory, to the byte.

use std::ptr;

use llama_cpp_sys_2 as sys;
use tieline_types::{BufferUse, Bytes, DeviceMemory};

use super::Context;
use super::system::text;

/// Kinds of memory that are told apart at most: each device has a few.
const KINDS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct Buffer {
    kind: sys::ggml_backend_buffer_type_t,
    weights: u64,
    kv: u64,
    compute: u64,
}

unsafe extern "C" {
    /// In `memory.cpp`.
    fn tieline_memory(context: *const sys::llama_context, out: *mut Buffer, room: usize) -> usize;
}

impl Context<'_> {
    /// What it and its model take, or would take where nothing was allocated. The rows of logits are not
    /// among it.
    pub(crate) fn memory_use(&self) -> Vec<BufferUse> {
        let nothing = Buffer { kind: ptr::null_mut(), weights: 0, kv: 0, compute: 0 };
        let mut buffers = [nothing; KINDS];
        // SAFETY: the context is valid; writes at most `KINDS` entries of this very layout.
        let count = unsafe { tieline_memory(self.as_raw(), buffers.as_mut_ptr(), KINDS) };
        let mut used: Vec<BufferUse> =
            buffers.iter().take(count.min(KINDS)).map(describe).collect();
        used.retain(|buffer| buffer.total() > Bytes(0));
        used.sort_by(|a, b| (&a.device, &a.name).cmp(&(&b.device, &b.name)));
        used
    }
}

fn describe(buffer: &Buffer) -> BufferUse {
    // SAFETY: the kind came from llama.cpp, and kinds live for ever.
    let name = unsafe { text(sys::ggml_backend_buft_name(buffer.kind)) };
    // SAFETY: as above.
    let host = unsafe { sys::ggml_backend_buft_is_host(buffer.kind) };
    // SAFETY: as above; null where the backend does not say.
    let device = unsafe { sys::ggml_backend_buft_get_device(buffer.kind) };
    let kind = kind(device).filter(|_| !host);
    BufferUse {
        name,
        device: own_memory(device).filter(|_| !host),
        gpu: matches!(
            kind,
            Some(sys::GGML_BACKEND_DEVICE_TYPE_GPU | sys::GGML_BACKEND_DEVICE_TYPE_IGPU)
        ),
        weights: Bytes(buffer.weights),
        kv: Bytes(buffer.kv),
        compute: Bytes(buffer.compute),
    }
}

/// The name of a device that has memory of its own.
fn own_memory(device: sys::ggml_backend_dev_t) -> Option<String> {
    let is = kind(device) == Some(sys::GGML_BACKEND_DEVICE_TYPE_GPU);
    // SAFETY: the device is valid; its name lives as long as it, which is for ever.
    is.then(|| unsafe { text(sys::ggml_backend_dev_name(device)) })
}

/// What a device is; `None` where there is none.
fn kind(device: sys::ggml_backend_dev_t) -> Option<sys::ggml_backend_dev_type> {
    // SAFETY: the device is valid where it is not null.
    (!device.is_null()).then(|| unsafe { sys::ggml_backend_dev_type(device) })
}

/// Devices with memory of their own, and what they say of it.
pub(crate) fn device_memory() -> Vec<DeviceMemory> {
    // SAFETY: needs only a started llama.cpp, as there is before any model.
    let count = unsafe { sys::ggml_backend_dev_count() };
    let one = |index| {
        // SAFETY: `index` is below the count; devices are never removed.
        let device = unsafe { sys::ggml_backend_dev_get(index) };
        let name = own_memory(device)?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the device is valid and both are writable.
        unsafe { sys::ggml_backend_dev_memory(device, &raw mut free, &raw mut total) };
        Some(DeviceMemory { name, free: Bytes(free as u64), total: Bytes(total as u64) })
    };
    (0..count).filter_map(one).collect()
}

#[cfg(all(test, arrays_left_out))]
mod tests {
    use std::fs::File;

    use super::super::{Llama, Model};

    unsafe extern "C" {
        /// In `memory.cpp`.
        fn tieline_arrays_left_out() -> u64;
    }

    #[test]
    fn no_text_is_made_of_a_vocabulary() {
        let file = File::open(testkit::smollm2()).unwrap();
        let model = Model::outline(&Llama::start(), file, None).unwrap();
        // SAFETY: reads a number that was written by this thread.
        assert!(unsafe { tieline_arrays_left_out() } >= 2);
        assert_eq!(model.architecture(), "llama");
    }
}
