//! How fast matrices are multiplied by our kernels and by ggml's, one after the other on the same weights, on one thread:
//! `cargo run --release -p tieline-runner --example beside_ggml -- 1536 1536`.
//!
//! A line for each format and number of tokens: thousand millions of operations a second (a weight times a value is two) of
//! ours, of ggml's, and ours by ggml's. The time is the processor's; rounds take turns, and of each the fastest counts. ggml
//! gets the weights as the file has them; what it lays out anew, and we know, is measured a second time as such (`Q4_0x8`),
//! by both. Ours is the kernel for few tokens up to as many as it is the faster one for. After the sizes come names of
//! formats and numbers of tokens, where not all are wanted, and of a level, where that is not to be the best (`AVX2`).
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for people")]
#![expect(unsafe_code, reason = "calls ggml, and what several threads may call, from one")]

mod beside;

use beside::{noise, repack, round};
use llama_cpp_sys_2 as sys;
use tieline_kernels::{Activations, Format, Layout, Level, Matrix, Output, Scratch, multiply};

const TOKENS: [usize; 18] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 24, 32, 64, 128, 512];
const ROUNDS: usize = 4;

/// A matrix and its size.
struct Weights {
    format: Format,
    bytes: Vec<u8>,
    rows: usize,
    width: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut size = || arguments.next().map_or(1536, |text| text.parse().expect("a whole number"));
    let (rows, width) = (size(), size());
    let (numbers, names): (Vec<String>, Vec<String>) =
        arguments.partition(|word| word.parse::<usize>().is_ok());
    let (levels, formats): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|name| Level::ALL.into_iter().any(|level| level.name() == name));
    let named = |level: &Level| levels.iter().any(|name| name == level.name());
    let level = Level::ALL.into_iter().find(named).unwrap_or(Level::best());
    let some = |tokens: &usize| numbers.is_empty() || numbers.contains(&tokens.to_string());
    println!("{} of {rows} rows by {width}; GOP/s: ours, ggml's, ours/ggml's", level.name());
    for format in Format::ALL {
        let wanted = formats.is_empty() || formats.contains(&format!("{format:?}"));
        if format.row_bytes(width).is_none() || !wanted {
            continue;
        }
        let weights = Weights::random(format, rows, width);
        for tokens in TOKENS.into_iter().filter(some) {
            let [ours, theirs] = beside(level, &weights, tokens, None);
            println!("{format:?} {tokens} {ours:.0} {theirs:.0} {:.2}", ours / theirs);
        }
        let Some(kind) = repack().filter(|_| level.takes_eights(format) && rows % 8 == 0) else {
            continue;
        };
        for tokens in TOKENS.into_iter().filter(some) {
            let [ours, theirs] = beside(level, &weights, tokens, Some(kind));
            println!("{format:?}x8 {tokens} {ours:.0} {theirs:.0} {:.2}", ours / theirs);
        }
    }
}

impl Weights {
    fn random(format: Format, rows: usize, width: usize) -> Self {
        let values = noise(rows * width);
        let mut bytes = vec![0; rows * format.row_bytes(width).expect("whole blocks")];
        let number = sys::ggml_type::try_from(format.ggml()).expect("a type");
        // SAFETY: so many floats, and room for as many rows of the format; none of ours needs an importance matrix.
        unsafe {
            let (from, to) = (values.as_ptr(), bytes.as_mut_ptr().cast());
            let (rows, width) = (rows.cast_signed() as i64, width.cast_signed() as i64);
            sys::ggml_quantize_chunk(number, from, to, 0, rows, width, std::ptr::null());
        }
        Self { format, bytes, rows, width }
    }
}

/// Operations a second of ours and of ggml's, in turns; where a kind of buffer is given, with weights that ggml laid out anew.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn beside(
    level: Level,
    weights: &Weights,
    tokens: usize,
    anew: Option<sys::ggml_backend_buffer_type_t>,
) -> [f64; 2] {
    let Weights { format, rows, width, .. } = *weights;
    let values = noise(tokens * width);
    let mut products = vec![0.0; rows * tokens];
    let theirs = Theirs::new(weights, &values, tokens, anew);
    let matrix = if anew.is_some() {
        Matrix::in_eights(format, theirs.weights(), rows, width)
    } else {
        Matrix::new(format, &weights.bytes, rows, width)
    };
    let matrix = matrix.expect("a matrix");
    let mut ours = ours(level, (weights, &matrix), &values, &mut products);
    let mut best = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        best[0] = best[0].min(round(&mut ours));
        best[1] = best[1].min(round(&mut || theirs.run()));
    }
    best.map(|seconds| 2.0 * (weights.rows * weights.width * tokens) as f64 / seconds / 1e9)
}

/// A run of ours, with the rounding of the tokens.
fn ours<'a>(
    level: Level,
    (weights, matrix): (&'a Weights, &'a Matrix<'a>),
    values: &'a [f32],
    products: &'a mut [f32],
) -> impl FnMut() + 'a {
    let (rows, width) = (weights.rows, weights.width);
    let mut activations = Activations::default();
    let mut scratch = Scratch::default();
    let few = level.by_few(weights.format, values.len() / width);
    let layout = if few { Layout::Rows } else { Layout::of_many(level) };
    move || {
        activations.resize(weights.format.rounding(), layout, values.len() / width, width);
        // SAFETY: one thread does all this.
        unsafe {
            for (token, values) in values.chunks_exact(width).enumerate() {
                activations.fill(level, token, values);
            }
            let output = Output::new(products.as_mut_ptr(), rows, values.len() / width);
            multiply((level, few), (matrix, (0..rows).into()), &activations, &output, &mut scratch);
        }
    }
}

/// ggml's processor backend, on one thread, with a graph of one product.
struct Theirs {
    backend: sys::ggml_backend_t,
    buffers: [sys::ggml_backend_buffer_t; 2],
    contexts: [*mut sys::ggml_context; 2],
    graph: *mut sys::ggml_cgraph,
    matrix: *mut sys::ggml_tensor,
}

impl Theirs {
    fn new(
        weights: &Weights,
        values: &[f32],
        tokens: usize,
        anew: Option<sys::ggml_backend_buffer_type_t>,
    ) -> Self {
        let number = sys::ggml_type::try_from(weights.format.ggml()).expect("a type");
        let size =
            |number: usize| i64::try_from(number).expect("a size that fits in ggml's numbers");
        let params = sys::ggml_init_params {
            mem_size: 1 << 20,
            mem_buffer: std::ptr::null_mut(),
            no_alloc: true,
        };
        // SAFETY: everything is made here and freed by `drop`; the tensors have the sizes of what is copied into them.
        unsafe {
            let backend = sys::ggml_backend_cpu_init();
            sys::ggml_backend_cpu_set_n_threads(backend, 1);
            let contexts = [(); 2].map(|()| sys::ggml_init(params));
            let [fixed, context] = contexts;
            let matrix =
                sys::ggml_new_tensor_2d(fixed, number, size(weights.width), size(weights.rows));
            let float = sys::GGML_TYPE_F32;
            let with = sys::ggml_new_tensor_2d(context, float, size(weights.width), size(tokens));
            let product = sys::ggml_mul_mat(context, matrix, with);
            let graph = sys::ggml_new_graph(context);
            sys::ggml_build_forward_expand(graph, product);
            let kind = anew.unwrap_or_else(|| sys::ggml_backend_cpu_buffer_type());
            let buffers = [
                sys::ggml_backend_alloc_ctx_tensors_from_buft(fixed, kind),
                sys::ggml_backend_alloc_ctx_tensors(context, backend),
            ];
            let bytes = &weights.bytes;
            sys::ggml_backend_tensor_set(matrix, bytes.as_ptr().cast(), 0, bytes.len());
            sys::ggml_backend_tensor_set(with, values.as_ptr().cast(), 0, size_of_val(values));
            Self { backend, buffers, contexts, graph, matrix }
        }
    }

    /// The matrix's bytes, as they lie here.
    fn weights(&self) -> &[u8] {
        // SAFETY: so many bytes, which nobody writes any more.
        unsafe {
            let count = sys::ggml_nbytes(self.matrix);
            std::slice::from_raw_parts((*self.matrix).data.cast::<u8>(), count)
        }
    }

    fn run(&self) {
        // SAFETY: the graph and its tensors live as long as this.
        let status = unsafe { sys::ggml_backend_graph_compute(self.backend, self.graph) };
        assert_eq!(status, sys::GGML_STATUS_SUCCESS, "ggml computed nothing");
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe {
            self.buffers.into_iter().for_each(|buffer| sys::ggml_backend_buffer_free(buffer));
            self.contexts.into_iter().for_each(|context| sys::ggml_free(context));
            sys::ggml_backend_free(self.backend);
        }
    }
}
