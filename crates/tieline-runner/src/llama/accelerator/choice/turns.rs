//! The same product by ours and by ggml's, in turns.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;
use tieline_kernels::{Activations, Layout, Output, Scratch, multiply};

use super::super::Inner;
use super::super::anew::Kind;
use super::super::device::SHORT;
use super::super::job::length;

/// Products of a run, about: a fraction of a millisecond.
const PRODUCTS: usize = 2_500_000;
/// A run has a multiple of so many rows: our kernels unpack as many at once.
const ROWS: usize = 32;
/// The fewest rows of a run of many tokens. Both sides round the tokens once for each matrix, however few its rows: with
/// 32 of them that took longer than to multiply floats, of which a matrix has a thousand rows and more.
const ROWS_OF_MANY: usize = 128;

/// Matrices of a run, at most: small ones.
const MATRICES: usize = 64;
/// Bytes of memory that the system maps at once, at least.
const PAGE: usize = 4096;

/// The matrices of a kind and what they are multiplied with.
///
/// Each run takes the rows after those of the one before, and begins again when all were had: as when a model computes, so
/// that weights come from as far as its size has them come. With few tokens that decides who is faster: of a matrix that
/// lay in the nearest cache, ggml multiplied two tokens half as fast again as ours; of one of 30 MB, ours a third faster.
pub(super) struct Turns<'a> {
    inner: &'a Inner,
    kind: Kind,
    width: usize,
    tensors: &'a [*const sys::ggml_tensor],
    values: Vec<f32>,
    products: Vec<f32>,
    activations: Activations,
    scratch: Scratch,
    /// Where the next run begins: a tensor and its row.
    next: (usize, usize),
}

/// Rows of a tensor.
#[derive(Debug)]
struct Slice {
    tensor: *mut sys::ggml_tensor,
    first: usize,
    rows: usize,
}

impl<'a> Turns<'a> {
    /// For up to `most` tokens. `None` where there is nothing to multiply.
    ///
    /// The tensors are matrices of the model, which lies in memory as in its file.
    pub(super) fn new(
        inner: &'a Inner,
        (kind, width): (Kind, usize),
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
            kind,
            width,
            tensors,
            values,
            products: Vec::new(),
            activations,
            scratch,
            next: (0, 0),
        };
        (width > 0 && !tensors.is_empty()).then_some(made)
    }

    /// Seconds of ours and of ggml's, round by round. `None`: ggml computes nothing.
    pub(super) fn rounds<const N: usize>(
        &mut self,
        tokens: usize,
        few: bool,
    ) -> Option<[[f64; 2]; N]> {
        let mut rounds = [[0.0; 2]; N];
        // Once before, so that the code and what it writes to are in their places.
        for round in 0..=N {
            let mine = self.slices(tokens, few);
            let ours = seconds(|| self.ours(&mine, (tokens, few)))?;
            let slices = self.slices(tokens, few);
            let theirs = Theirs::new(&slices, (self.width, tokens), &self.values)?;
            let ggmls = seconds(|| {
                let status = self.inner.compute(theirs.graph);
                (status == sys::GGML_STATUS_SUCCESS).then_some(())
            })?;
            if let Some(round) = round.checked_sub(1) {
                rounds[round] = [ours / rows(&mine), ggmls / rows(&slices)];
            }
        }
        Some(rounds)
    }

    /// The next rows of the matrices, about as many as a run takes, in memory but not in the caches.
    fn slices(&mut self, tokens: usize, few: bool) -> Vec<Slice> {
        let least = if few { ROWS } else { ROWS_OF_MANY };
        let mut left = (PRODUCTS / (self.width * tokens)).next_multiple_of(ROWS).max(least);
        let mut slices = Vec::new();
        while left > 0 && slices.len() < MATRICES {
            let (at, first) = self.next;
            let tensor = self.tensors[at].cast_mut();
            // SAFETY: a tensor of a model that is loaded.
            let all = length(unsafe { (*tensor).ne[1] });
            let rows = (all - first).min(left);
            left -= rows;
            let ends = first + rows == all;
            self.next = if ends { ((at + 1) % self.tensors.len(), 0) } else { (at, first + rows) };
            slices.push(Slice { tensor, first, rows });
        }
        slices.iter().for_each(Slice::touch);
        slices
    }

    /// Rounds and multiplies, as ggml does for each matrix.
    fn ours(&mut self, slices: &[Slice], (tokens, few): (usize, bool)) -> Option<()> {
        let (level, width) = (self.inner.level, self.width);
        let rounding = self.kind.format.rounding();
        // Without a cut of the graph they are rounded as rows for either kernel.
        let cuts = tokens > SHORT || self.kind.format.is_float();
        let layout = if cuts { Layout::of_many(level) } else { Layout::Rows };
        let few = few && self.kind.by_few(level, tokens);
        for slice in slices {
            self.products.resize(self.products.len().max(slice.rows * tokens), 0.0);
            self.activations.resize(rounding, layout, tokens, width);
            let matrix = self.kind.matrix(slice.bytes(), slice.rows, width)?;
            // SAFETY: one thread does all this, and the floats are the product's own.
            unsafe {
                for (token, values) in self.values.chunks_exact(width).take(tokens).enumerate() {
                    self.activations.fill(level, token, values);
                }
                let output = Output::new(self.products.as_mut_ptr(), slice.rows, tokens);
                let part = (&matrix, (0..slice.rows).into());
                multiply((level, few), part, &self.activations, &output, &mut self.scratch);
            }
        }
        Some(())
    }
}

impl Slice {
    fn bytes(&self) -> &[u8] {
        // SAFETY: rows of a tensor of a loaded model, which lie one after another and are never written.
        unsafe {
            let row = (*self.tensor).nb[1];
            let from = (*self.tensor).data.cast::<u8>().cast_const().add(self.first * row);
            std::slice::from_raw_parts(from, self.rows * row)
        }
    }

    /// Has the system bring it into memory, where it is not yet.
    fn touch(&self) {
        let sum = self.bytes().iter().step_by(PAGE).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        std::hint::black_box(sum);
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
        let most = slices.iter().map(|slice| slice.rows).max()?;
        // Each writes over the one before, as ours.
        let mut products = vec![0.0f32; most * tokens];
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
        let to = products.as_mut_ptr();
        // SAFETY: the context has room for these tensors and the graph, and is freed by `drop`. The matrices are those of
        // a loaded model and have these rows; values and products are at least as long as their tensors.
        unsafe {
            let context = NonNull::new(sys::ggml_init(params))?;
            let ggml = context.as_ptr();
            let graph = sys::ggml_new_graph_custom(ggml, 2 * nodes, false);
            let with = sys::ggml_new_tensor_2d(ggml, sys::GGML_TYPE_F32, width, tokens);
            (*with).data = values.as_ptr().cast_mut().cast();
            for &Slice { tensor, first, rows } in slices {
                let step = (*tensor).nb[1];
                let some = sys::ggml_view_2d(ggml, tensor, width, size(rows)?, step, first * step);
                // By these ggml knows what it laid out anew; slices begin where eight rows begin.
                ((*some).buffer, (*some).extra) = ((*tensor).buffer, (*tensor).extra);
                let product = sys::ggml_mul_mat(ggml, some, with);
                (*product).data = to.cast();
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

/// How many rows slices have: the last of a run may be cut off.
#[expect(clippy::cast_precision_loss, reason = "a number of rows")]
fn rows(slices: &[Slice]) -> f64 {
    slices.iter().map(|slice| slice.rows).sum::<usize>() as f64
}

/// Seconds that this thread computes for something.
fn seconds(run: impl FnOnce() -> Option<()>) -> Option<f64> {
    let started = time();
    run()?;
    Some(time() - started)
}

/// Seconds. Windows counts a thread's own far too coarsely, so there it is the time that passes.
#[cfg(windows)]
fn time() -> f64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64()
}

/// Seconds that this thread has computed.
#[cfg(unix)]
#[expect(clippy::cast_precision_loss, reason = "a clock's nanoseconds")]
fn time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time into what it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
