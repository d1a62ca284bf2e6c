//! How a matrix of weights lies in memory: as in the file, or as ggml lays it out anew for itself.
//!
//! For that, ggml has a kind of buffer of its own, and chooses a layout by format, rows and what the processor can do. What
//! we take it for is checked at every start: ggml lays out some rows, and what is read of them must be the weights. A matrix
//! whose layout is not known so is ggml's.

use std::ffi::CStr;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use llama_cpp_sys_2 as sys;
use tieline_kernels::{Format, Level, Matrix};

use super::job::length;
use super::{check, function};

static ANEW: OnceLock<Anew> = OnceLock::new();

/// What is known of ggml's own layouts.
#[derive(Debug)]
struct Anew {
    /// The kind of buffer that they are in.
    buffers: AtomicPtr<sys::ggml_backend_buffer_type>,
    /// Formats that are read as ggml means them.
    read: Vec<Format>,
    /// Formats that are not, though they should be.
    misread: Vec<Format>,
}

/// A format, and how it lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) format: Format,
    /// Whether ggml laid it out anew, eight rows side by side.
    pub(super) in_eights: bool,
}

/// Finds out what ggml lays out anew as we read it. Once per process, after llama.cpp started.
pub(super) fn start(level: Level) {
    let Some(buffers) = buffer_type() else { return };
    let (mut read, mut misread) = (Vec::new(), Vec::new());
    for format in Format::ALL.into_iter().filter(|format| level.takes_eights(*format)) {
        match check::reads_anew(format, buffers, level) {
            Some(true) => read.push(format),
            Some(false) => misread.push(format),
            None => {}
        }
    }
    // Cannot be set: this is the first time.
    let _ = ANEW.set(Anew { buffers: AtomicPtr::new(buffers), read, misread });
}

/// The formats that ggml lays out otherwise than it should.
pub(super) fn misread() -> impl Iterator<Item = Kind> {
    let formats = ANEW.get().map(|anew| anew.misread.as_slice()).unwrap_or_default();
    formats.iter().map(|&format| Kind { format, in_eights: true })
}

/// Whether this is the kind of buffer in which ggml lays weights out anew, and we know how.
pub(super) fn is(buffers: sys::ggml_backend_buffer_type_t) -> bool {
    ANEW.get().is_some_and(|anew| {
        !anew.read.is_empty() && anew.buffers.load(Ordering::Relaxed) == buffers
    })
}

/// ggml's kind of buffer for what it lays out anew.
pub(super) fn buffer_type() -> Option<sys::ggml_backend_buffer_type_t> {
    type All =
        unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *mut sys::ggml_backend_buffer_type_t;
    let all = function(c"ggml_backend_dev_get_extra_bufts")?;
    // SAFETY: under this name ggml registers a function of this type. The processor's device is there, since its function
    // is; the list ends with null, and names are terminated.
    unsafe {
        let all = std::mem::transmute::<*mut (), All>(all);
        let mut next = all(sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU));
        while !next.is_null() && !(*next).is_null() {
            if CStr::from_ptr(sys::ggml_backend_buft_name(*next)) == c"CPU_REPACK" {
                return Some(*next);
            }
            next = next.add(1);
        }
    }
    None
}

impl Kind {
    /// What a matrix is; `None` where its format or how it lies is not one of ours.
    pub(super) fn of(weights: &sys::ggml_tensor) -> Option<Self> {
        let format = Format::from_ggml(weights.type_)?;
        // SAFETY: a view's own source is valid.
        let whole = unsafe { weights.view_src.as_ref() }.unwrap_or(weights);
        // What has no buffer yet is not a model's: it is computed, as a row after another.
        // SAFETY: the buffer is valid.
        if whole.buffer.is_null() || unsafe { sys::ggml_backend_buffer_is_host(whole.buffer) } {
            return Some(Self { format, in_eights: false });
        }
        // SAFETY: as above.
        let anew = is(unsafe { sys::ggml_backend_buffer_get_type(whole.buffer) });
        let known = ANEW.get().is_some_and(|anew| anew.read.contains(&format));
        let plain = weights.view_src.is_null() && weights.ne[1] % 8 == 0;
        (anew && known && plain).then_some(Self { format, in_eights: true })
    }

    /// A matrix, or several one after another, of a tensor in one piece; `None` where it is not what we know.
    ///
    /// # Safety
    /// Its bytes are there, and are not written, for `'a`.
    pub(super) unsafe fn whole<'a>(weights: &sys::ggml_tensor) -> Option<Matrix<'a>> {
        let kind = Self::of(weights)?;
        let width = length(weights.ne[0]);
        let rows = length(weights.ne[1]).checked_mul(length(weights.ne[2]))?;
        let bytes = rows.checked_mul(kind.format.row_bytes(width)?)?;
        // SAFETY: contiguous matrices of whole blocks have so many bytes, however they are laid out.
        let bytes = unsafe { std::slice::from_raw_parts(weights.data.cast::<u8>(), bytes) };
        kind.matrix(bytes, rows, width)
    }

    /// A matrix of this kind.
    pub(super) fn matrix(self, bytes: &[u8], rows: usize, width: usize) -> Option<Matrix<'_>> {
        if self.in_eights {
            return Matrix::in_eights(self.format, bytes, rows, width);
        }
        Matrix::new(self.format, bytes, rows, width)
    }

    /// Whether few tokens are multiplied without a split of the graph: by the kernel for few, which takes pairs of blocks, or by the one
    /// for many.
    pub(super) fn takes_few(self, level: Level, width: usize) -> bool {
        self.in_eights || level.thin(self.format) && width.is_multiple_of(64)
    }

    /// The fewest tokens that may be ours. What is laid out anew is laid out for one.
    pub(super) fn fewest(self) -> usize {
        if self.in_eights { 2 } else { 1 }
    }

    /// As [`Level::few`].
    pub(super) fn few(self, level: Level, tokens: usize) -> bool {
        if self.in_eights {
            return level.few_in_eights(self.format, tokens);
        }
        level.few(self.format, tokens)
    }

    /// As [`Level::by_few`].
    pub(super) fn by_few(self, level: Level, tokens: usize) -> bool {
        !self.in_eights && level.by_few(self.format, tokens)
    }

    /// As [`Level::tokens`].
    pub(super) fn tokens(self, level: Level) -> Option<usize> {
        if self.in_eights {
            return level.tokens_in_eights(self.format);
        }
        level.tokens(self.format)
    }

    /// As [`Level::mixture`].
    pub(super) fn mixture(self, level: Level) -> Option<usize> {
        if self.in_eights {
            return level.mixture_in_eights(self.format);
        }
        level.mixture(self.format)
    }
}

impl fmt::Display for Kind {
    /// `Q4_0`, or `Q4_0x8` where eight rows lie side by side.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.format, if self.in_eights { "x8" } else { "" })
    }
}
