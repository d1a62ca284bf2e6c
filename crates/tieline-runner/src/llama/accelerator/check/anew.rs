//! Whether we read what ggml lays out anew as ggml means it.

use std::ptr::NonNull;

use super::{COLUMNS, agree, ggml, sample, unit_tokens};
use llama_cpp_sys_2 as sys;
use tieline_kernels::{Format, Level, Matrix, Rounding};

/// Three times eight: a pair, and one without another.
const ROWS: usize = 24;

/// Whether products of rows that ggml laid out in such a buffer are those of the rows as they were; `None` where it lays out
/// none of this format.
pub(in super::super) fn reads_anew(
    format: Format,
    buffers: sys::ggml_backend_buffer_type_t,
    level: Level,
) -> Option<bool> {
    let row_bytes = format.row_bytes(COLUMNS)?;
    let bytes = sample(format, ROWS * row_bytes);
    let anew = laid_out(format, &bytes, buffers)?;
    Some(reads(format, (&bytes, &anew), level))
}

/// Whether they are, by what ggml made of them.
fn reads(format: Format, (bytes, anew): (&[u8], &[u8]), level: Level) -> bool {
    let number = format.ggml();
    let Some(want) = ggml(number, bytes, bytes.len() / ROWS) else { return false };
    let matrix = Matrix::in_eights(format, anew, ROWS, COLUMNS);
    matrix.is_some_and(|matrix| {
        agree(&want, &matrix, &unit_tokens(Rounding::Bytes, level), (level, false))
    })
}

/// What ggml makes of rows; `None` where it would not lay them out.
fn laid_out(
    format: Format,
    bytes: &[u8],
    buffers: sys::ggml_backend_buffer_type_t,
) -> Option<Vec<u8>> {
    let number = sys::ggml_type::try_from(format.ggml()).ok()?;
    let [width, rows] = [COLUMNS, ROWS].map(|size| i64::try_from(size).unwrap_or(0));
    // SAFETY: only computes a size.
    let room = unsafe { 2 * sys::ggml_tensor_overhead() };
    let params =
        sys::ggml_init_params { mem_size: room, mem_buffer: std::ptr::null_mut(), no_alloc: true };
    // SAFETY: the context and the buffer are made and freed here. The matrix has as many bytes as are copied into it, and as
    // are read from it: laid out anew, a matrix is as long. ggml marks in `extra` what it knows how to lay out.
    unsafe {
        let context = NonNull::new(sys::ggml_init(params))?.as_ptr();
        let matrix = sys::ggml_new_tensor_2d(context, number, width, rows);
        let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(context, buffers);
        let fits = !buffer.is_null() && sys::ggml_nbytes(matrix) == bytes.len();
        let made = (fits && !(*matrix).extra.is_null()).then(|| {
            sys::ggml_backend_tensor_set(matrix, bytes.as_ptr().cast(), 0, bytes.len());
            std::slice::from_raw_parts((*matrix).data.cast::<u8>(), bytes.len()).to_vec()
        });
        sys::ggml_backend_buffer_free(buffer);
        sys::ggml_free(context);
        made
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::anew::buffer_type;
    use super::*;

    /// In this build, ggml lays out all that we know, and as we know it.
    #[test]
    fn every_level_reads_what_ggml_laid_out() {
        drop(super::super::super::experts::tests::inner());
        let Some(buffers) = buffer_type().filter(|_| Level::Avx2.available()) else { return };
        for level in Level::ALL.into_iter().filter(|level| level.available()) {
            for format in Format::ALL.into_iter().filter(|format| level.takes_eights(*format)) {
                assert_eq!(reads_anew(format, buffers, level), Some(true), "{format:?} {level:?}");
            }
        }
    }

    #[test]
    fn another_layout_is_noticed() {
        drop(super::super::super::experts::tests::inner());
        let (level, Some(buffers)) = (Level::best(), buffer_type()) else { return };
        for format in Format::ALL.into_iter().filter(|format| level.takes_eights(*format)) {
            let bytes = sample(format, ROWS * format.row_bytes(COLUMNS).unwrap());
            let Some(mut anew) = laid_out(format, &bytes, buffers) else { continue };
            assert!(reads(format, (&bytes, &anew), level), "{format:?}");
            // As it lay before; then with numbers of two rows that changed places.
            assert!(!reads(format, (&bytes, &bytes), level), "{format:?}");
            let last = anew.len() - 16;
            let (one, two) = anew[last..].split_at_mut(8);
            one.swap_with_slice(two);
            assert!(!reads(format, (&bytes, &anew), level), "{format:?}");
        }
    }
}
