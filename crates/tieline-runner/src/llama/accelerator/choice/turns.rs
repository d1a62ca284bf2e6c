//! The same product by ours and by ggml's, in turns.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;
use tieline_kernels::{Activations, Format, Matrix, Output, Scratch, multiply};

use super::super::Inner;
use super::super::job::length;

/// Products of a run, about: a fraction of a millisecond, and with one token weights beyond the nearest caches.
const PRODUCTS: usize = 5_000_000;
/// The fewest rows of a run: as many as our kernels unpack at once.
const ROWS: usize = 32;

/// Some matrices of a kind and what they are multiplied with.
pub(super) struct Turns<'a> {
    inner: &'a Inner,
    format: Format,
    width: usize,
    tensors: &'a [*const sys::ggml_tensor],
    values: Vec<f32>,
    products: Vec<f32>,
    activations: Activations,
    scratch: Scratch,
}

/// The first rows of a tensor.
type Slice = (*const sys::ggml_tensor, usize);

impl<'a> Turns<'a> {
    /// For up to `most` tokens. `None` where there is nothing to multiply.
    ///
    /// The tensors are matrices of the model, which lies in memory as in its file.
    pub(super) fn new(
        inner: &'a Inner,
        (format, width): (Format, usize),
        tensors: &'a [*const sys::ggml_tensor],
        most: usize,
    ) -> Option<Self> {
        // ggml's threads are not there yet, and one is enough.
        inner.use_pool(std::ptr::null_mut());
        inner.use_threads(1);
        let mut state = 1u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(state.to_le_bytes()[3]) / 255.0 - 0.5
        });
        let values = noise.take(most * width).collect();
        let (activations, scratch) = (Activations::default(), Scratch::default());
        let made = Self {
            inner,
            format,
            width,
            tensors,
            values,
            products: Vec::new(),
            activations,
            scratch,
        };
        (width > 0 && !tensors.is_empty()).then_some(made)
    }

    /// Seconds of ours and of ggml's, round by round. `None`: ggml computes nothing.
    pub(super) fn rounds<const N: usize>(
        &mut self,
        tokens: usize,
        few: bool,
    ) -> Option<[[f64; 2]; N]> {
        let slices = self.slices(tokens);
        let rows: usize = slices.iter().map(|(_, rows)| rows).sum();
        self.products.resize(rows * tokens, 0.0);
        let theirs = Theirs::new(&slices, (self.width, tokens), &self.values)?;
        let mut rounds = [[0.0; 2]; N];
        // Once before, so that all is in memory and in its place.
        for round in 0..=N {
            let ours = seconds(|| self.ours(&slices, (tokens, few)))?;
            let ggmls = seconds(|| {
                let status = self.inner.compute(theirs.graph);
                (status == sys::GGML_STATUS_SUCCESS).then_some(())
            })?;
            if let Some(round) = round.checked_sub(1) {
                rounds[round] = [ours, ggmls];
            }
        }
        Some(rounds)
    }

    /// Rows of the matrices, about as many as a run takes.
    fn slices(&self, tokens: usize) -> Vec<Slice> {
        let mut left = (PRODUCTS / (self.width * tokens)).next_multiple_of(ROWS).max(ROWS);
        let mut slices = Vec::new();
        for &tensor in self.tensors {
            // SAFETY: a tensor of a model that is loaded.
            let rows = length(unsafe { (*tensor).ne[1] }).min(left);
            if rows > 0 {
                slices.push((tensor, rows));
                left -= rows;
            }
        }
        slices
    }

    /// Rounds and multiplies, as ggml does for each matrix.
    fn ours(&mut self, slices: &[Slice], (tokens, few): (usize, bool)) -> Option<()> {
        let (level, width) = (self.inner.level, self.width);
        let row_bytes = self.format.row_bytes(width)?;
        let mut products = self.products.as_mut_slice();
        for &(tensor, rows) in slices {
            let (mine, rest) = products.split_at_mut(rows * tokens);
            products = rest;
            self.activations.resize(tokens, width);
            // SAFETY: one thread does all this. A matrix has so many bytes, and the floats are the product's own.
            unsafe {
                let bytes = (*tensor).data.cast::<u8>().cast_const();
                let bytes = std::slice::from_raw_parts(bytes, rows * row_bytes);
                let matrix = Matrix::new(self.format, bytes, rows, width)?;
                for (token, values) in self.values.chunks_exact(width).take(tokens).enumerate() {
                    self.activations.fill(level, token, values);
                }
                let output = Output::new(mine.as_mut_ptr(), rows, tokens);
                let part = (&matrix, (0..rows).into());
                multiply((level, few), part, &self.activations, &output, &mut self.scratch);
            }
        }
        Some(())
    }
}

/// ggml's graph of the products.
struct Theirs {
    context: NonNull<sys::ggml_context>,
    graph: *mut sys::ggml_cgraph,
    /// Written whenever the graph is computed.
    _products: Vec<f32>,
}

impl Theirs {
    /// It reads `values` whenever it is computed: they must stay where they are.
    fn new(slices: &[Slice], (width, tokens): (usize, usize), values: &[f32]) -> Option<Self> {
        let rows: usize = slices.iter().map(|(_, rows)| rows).sum();
        let mut products = vec![0.0f32; rows * tokens];
        let size = |number: usize| i64::try_from(number).ok();
        let nodes = 2 * slices.len() + 1;
        // SAFETY: these only compute sizes.
        let room = unsafe {
            nodes * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead_custom(2 * nodes, false)
        };
        let params = sys::ggml_init_params {
            mem_size: room + 1024,
            mem_buffer: std::ptr::null_mut(),
            no_alloc: true,
        };
        let (width, tokens) = (size(width)?, size(tokens)?);
        let mut to = products.as_mut_ptr();
        // SAFETY: the context has room for these tensors and the graph, and is freed by `drop`. The matrices are those of
        // a loaded model and have at least these rows; values and products are as long as their tensors.
        unsafe {
            let context = NonNull::new(sys::ggml_init(params))?;
            let ggml = context.as_ptr();
            let graph = sys::ggml_new_graph_custom(ggml, 2 * nodes, false);
            let with = sys::ggml_new_tensor_2d(ggml, sys::GGML_TYPE_F32, width, tokens);
            (*with).data = values.as_ptr().cast_mut().cast();
            for &(tensor, rows) in slices {
                let step = (*tensor).nb[1];
                let rows = i64::try_from(rows).unwrap_or(0);
                let some = sys::ggml_view_2d(ggml, tensor.cast_mut(), width, rows, step, 0);
                let product = sys::ggml_mul_mat(ggml, some, with);
                (*product).data = to.cast();
                to = to.add(length(rows) * length(tokens));
                sys::ggml_build_forward_expand(graph, product);
            }
            Some(Self { context, graph, _products: products })
        }
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { sys::ggml_free(self.context.as_ptr()) };
    }
}

/// Seconds that this thread computes for something.
fn seconds(run: impl FnOnce() -> Option<()>) -> Option<f64> {
    let started = time();
    run()?;
    Some(time() - started)
}

/// Seconds that this thread has computed.
#[expect(clippy::cast_precision_loss, reason = "a clock's nanoseconds")]
fn time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time into what it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
