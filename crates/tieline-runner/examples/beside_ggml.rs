//! How fast matrices are multiplied by our kernels and by ggml's, one after the other on the same weights, on one thread:
//! `cargo run --release -p tieline-runner --example beside_ggml -- 1536 1536`.
//!
//! A line for each format and number of tokens: thousand millions of operations a second (a weight times a value is two) of
//! ours, of ggml's, and ours by ggml's. The time is the processor's; rounds take turns, and of each the fastest counts. ggml
//! gets the weights as the file has them: what it lays out anew is never offered to our kernels. Ours is the kernel for few
//! tokens where it is written, up to as many as are few. After the sizes come names of formats, where not all are wanted.
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for people")]
#![expect(unsafe_code, reason = "calls ggml, and what several threads may call, from one")]

mod beside;

use beside::{noise, round};
use llama_cpp_sys_2 as sys;
use tieline_kernels::{Activations, Format, Level, Matrix, Output, Scratch, multiply};

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
    let names: Vec<String> = arguments.collect();
    let level = Level::best();
    println!("{} of {rows} rows by {width}; GOP/s: ours, ggml's, ours/ggml's", level.name());
    for format in Format::ALL {
        let wanted = names.is_empty() || names.contains(&format!("{format:?}"));
        if format.row_bytes(width).is_none() || !wanted {
            continue;
        }
        let weights = Weights::random(format, rows, width);
        for tokens in TOKENS {
            let [ours, theirs] = beside(level, &weights, tokens);
            println!("{format:?} {tokens} {ours:.0} {theirs:.0} {:.2}", ours / theirs);
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

/// Operations a second of ours and of ggml's, in turns.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn beside(level: Level, weights: &Weights, tokens: usize) -> [f64; 2] {
    let values = noise(tokens * weights.width);
    let mut products = vec![0.0; weights.rows * tokens];
    let mut ours = ours(level, weights, &values, &mut products);
    let theirs = Theirs::new(weights, &values, tokens);
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
    weights: &'a Weights,
    values: &'a [f32],
    products: &'a mut [f32],
) -> impl FnMut() + 'a {
    let (rows, width) = (weights.rows, weights.width);
    let matrix = Matrix::new(weights.format, &weights.bytes, rows, width).expect("a matrix");
    let mut activations = Activations::default();
    let mut scratch = Scratch::default();
    move || {
        activations.resize(weights.format.rounding(), values.len() / width, width);
        // SAFETY: one thread does all this.
        unsafe {
            for (token, values) in values.chunks_exact(width).enumerate() {
                activations.fill(level, token, values);
            }
            let output = Output::new(products.as_mut_ptr(), rows, values.len() / width);
            let few = values.len() / width <= Level::FEW;
            multiply(
                (level, few),
                (&matrix, (0..rows).into()),
                &activations,
                &output,
                &mut scratch,
            );
        }
    }
}

/// ggml's processor backend, on one thread, with a graph of one product.
struct Theirs {
    backend: sys::ggml_backend_t,
    buffer: sys::ggml_backend_buffer_t,
    context: *mut sys::ggml_context,
    graph: *mut sys::ggml_cgraph,
}

impl Theirs {
    fn new(weights: &Weights, values: &[f32], tokens: usize) -> Self {
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
            let context = sys::ggml_init(params);
            let matrix =
                sys::ggml_new_tensor_2d(context, number, size(weights.width), size(weights.rows));
            let float = sys::GGML_TYPE_F32;
            let with = sys::ggml_new_tensor_2d(context, float, size(weights.width), size(tokens));
            let product = sys::ggml_mul_mat(context, matrix, with);
            let graph = sys::ggml_new_graph(context);
            sys::ggml_build_forward_expand(graph, product);
            let buffer = sys::ggml_backend_alloc_ctx_tensors(context, backend);
            let bytes = &weights.bytes;
            sys::ggml_backend_tensor_set(matrix, bytes.as_ptr().cast(), 0, bytes.len());
            sys::ggml_backend_tensor_set(with, values.as_ptr().cast(), 0, size_of_val(values));
            Self { backend, buffer, context, graph }
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
            sys::ggml_backend_buffer_free(self.buffer);
            sys::ggml_free(self.context);
            sys::ggml_backend_free(self.backend);
        }
    }
}
