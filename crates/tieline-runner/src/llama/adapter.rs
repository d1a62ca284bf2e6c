//! LoRA adapters: weights that are added to a model's while it computes.

use std::marker::PhantomData;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::Model;

/// An adapter of a model, whose weights it has a copy of. Must outlive its use by a context, which keeps it.
#[derive(Debug)]
pub(crate) struct Adapter<'m> {
    adapter: NonNull<sys::llama_adapter_lora>,
    model: PhantomData<&'m Model>,
}

impl<'m> Adapter<'m> {
    /// Reads an adapter from its file's bytes; `None` where llama.cpp refuses, which its log explains.
    ///
    /// Reads memory as a stream: no file is opened and no system call made, so it works in the sealed jail.
    pub(crate) fn load(model: &'m Model, file: &mut [u8]) -> Option<Self> {
        let stream = Stream::over(file)?;
        // SAFETY: the model is valid and outlives the adapter, and no other thread uses it; the stream is open
        // and at its start. llama.cpp reads it in this call and does not keep it.
        let adapter = unsafe {
            sys::llama_adapter_lora_init_from_file_ptr(model.as_ptr(), stream.0.as_ptr().cast())
        };
        Some(Self { adapter: NonNull::new(adapter)?, model: PhantomData })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_adapter_lora {
        self.adapter.as_ptr()
    }
}

impl Drop for Adapter<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `load`, freed once; contexts keep what they use, and the model is still there.
        unsafe { sys::llama_adapter_lora_free(self.as_ptr()) };
    }
}

/// A C stream over memory; closes it.
struct Stream<'b>(NonNull<libc::FILE>, PhantomData<&'b mut [u8]>);

impl<'b> Stream<'b> {
    /// Windows has no streams over memory: no adapter is taken there.
    #[cfg(windows)]
    fn over(_: &'b mut [u8]) -> Option<Self> {
        None
    }

    /// `None` for no bytes at all, and where there is no memory for the stream.
    #[cfg(unix)]
    fn over(bytes: &'b mut [u8]) -> Option<Self> {
        let start = bytes.as_mut_ptr().cast();
        // SAFETY: the bytes are borrowed for as long as the stream lives, which only reads them; the mode is
        // terminated.
        let stream = unsafe { libc::fmemopen(start, bytes.len(), c"r".as_ptr()) };
        NonNull::new(stream).map(|stream| Self(stream, PhantomData))
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        // SAFETY: opened by `over`, closed once.
        unsafe { libc::fclose(self.0.as_ptr()) };
    }
}
