//! How fast the matrices of a mixture of experts are multiplied by our kernels and by ggml's, in turns on the same weights,
//! on one thread: `cargo run --release -p tieline-runner --example beside_experts -- 1024 2048 64 8` (rows, columns,
//! experts, experts of a token; numbers of tokens may follow).
//!
//! A line for each format and number of tokens: the tokens of an expert on average, then thousand millions of operations a
//! second of our kernel for many tokens, of ours for few (0 where there is none), of ggml's with the weights as the file has
//! them, and of ours and ggml's with weights that it laid out anew (0 where it does not). The time is the processor's; of
//! several rounds the fastest counts. Experts are drawn, each as likely as the others.
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for people")]
#![expect(unsafe_code, reason = "calls ggml, and what several threads may call, from one")]

mod beside;

use beside::{noise, random, repack, round};
use llama_cpp_sys_2 as sys;
use tieline_kernels::{
    Activations, Format, Layout, Level, Matrix, Output, Pick, Picks, Scratch, multiply_picked,
};

const TOKENS: [usize; 7] = [1, 4, 12, 32, 64, 128, 512];
const ROUNDS: usize = 3;

/// Matrices of experts and what they are multiplied with.
struct Mixture {
    format: Format,
    bytes: Vec<u8>,
    rows: usize,
    width: usize,
    experts: usize,
    used: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut size =
        |or: usize| arguments.next().map_or(or, |text| text.parse().expect("a whole number"));
    let (rows, width, experts, used) = (size(1024), size(2048), size(64), size(8));
    let asked: Vec<usize> = arguments.map(|text| text.parse().expect("a whole number")).collect();
    let counts = if asked.is_empty() { TOKENS.to_vec() } else { asked };
    let level = Level::best();
    println!(
        "{}: {experts} experts of {rows} rows by {width}, {used} for a token\n\
         format tokens mean; GOP/s: ours, ours for few, ggml's; ours/ggml's; of what is laid out anew: ours, ggml's; ours/ggml's",
        level.name()
    );
    for format in Format::ALL.into_iter().filter(|format| !format.is_float()) {
        let Some(row_bytes) = format.row_bytes(width) else { continue };
        let bytes = weights(format, experts * rows, width, row_bytes);
        let mixture = Mixture { format, bytes, rows, width, experts, used };
        for &tokens in &counts {
            line(level, &mixture, tokens);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn line(level: Level, mixture: &Mixture, tokens: usize) {
    let Mixture { rows, width, experts, used, format, .. } = mixture;
    let values = noise(tokens * width);
    let ids = drawn(*experts, *used, tokens);
    let plain = Theirs::new(mixture, &values, &ids, None);
    let anew = repack().map(|kind| Theirs::new(mixture, &values, &ids, Some(kind)));
    let anew = anew.as_ref().filter(|anew| anew.packed);
    let laid_out = anew.filter(|_| level.takes_eights(*format)).map(Theirs::weights);
    let mut products = [(); 3].map(|()| vec![0.0; rows * used * tokens]);
    let [for_many, for_few, for_anew] = &mut products;
    let (all, with) = (experts * rows, (values.as_slice(), ids.as_slice()));
    let matrix = || Matrix::new(*format, &mixture.bytes, all, *width).expect("a matrix");
    let mut ways: [Option<Box<dyn FnMut() + '_>>; 5] = [
        Some(Box::new(ours((level, false), (mixture, matrix()), with, for_many))),
        level.thin(*format).then(|| -> Box<dyn FnMut()> {
            Box::new(ours((level, true), (mixture, matrix()), with, for_few))
        }),
        Some(Box::new(|| plain.run())),
        laid_out.map(|bytes| -> Box<dyn FnMut()> {
            let matrix = Matrix::in_eights(*format, bytes, all, *width).expect("a matrix");
            Box::new(ours((level, false), (mixture, matrix), with, for_anew))
        }),
        anew.map(|anew| -> Box<dyn FnMut()> { Box::new(|| anew.run()) }),
    ];
    let mut best = [f64::INFINITY; 5];
    for _ in 0..ROUNDS {
        for (way, best) in ways.iter_mut().zip(&mut best) {
            if let Some(way) = way {
                *best = best.min(round(way));
            }
        }
    }
    drop(ways);
    alike(&products[0], &plain.products());
    let operations = 2.0 * (rows * width * used * tokens) as f64;
    let [many, few, theirs, ours_anew, anew] = best.map(|seconds| operations / seconds / 1e9);
    let mean = (used * tokens) as f64 / *experts as f64;
    let ratio = many.max(few) / theirs;
    print!("{format:?} {tokens} {mean:.2}; {many:.0} {few:.0} {theirs:.0}; {ratio:.2}");
    println!("; {ours_anew:.0} {anew:.0}; {:.2}", if anew > 0.0 { ours_anew / anew } else { 0.0 });
}

/// Both are roundings of the same.
fn alike(ours: &[f32], theirs: &[f32]) {
    let square = |sum: f64, number: f32| sum + f64::from(number).powi(2);
    let size = theirs.iter().copied().fold(0.0, square);
    let apart = ours.iter().zip(theirs).map(|(one, other)| one - other).fold(0.0, square);
    assert!(apart <= size * 1e-3, "other products than ggml's: {apart} of {size}");
}

fn weights(format: Format, rows: usize, width: usize, row_bytes: usize) -> Vec<u8> {
    // A few rows again and again: their values do not matter, their bytes in memory do.
    let some = rows.min(64);
    let values = noise(some * width);
    let mut bytes = vec![0; some * row_bytes];
    let number = sys::ggml_type::try_from(format.ggml()).expect("a type");
    // SAFETY: so many floats, and room for as many rows of the format; none of ours needs an importance matrix.
    unsafe {
        let (from, to) = (values.as_ptr(), bytes.as_mut_ptr().cast());
        let (rows, width) = (some.cast_signed() as i64, width.cast_signed() as i64);
        sys::ggml_quantize_chunk(number, from, to, 0, rows, width, std::ptr::null());
    }
    bytes.into_iter().cycle().take(rows * row_bytes).collect()
}

/// Different experts for each token.
fn drawn(experts: usize, used: usize, tokens: usize) -> Vec<i32> {
    let mut random = random();
    let mut all: Vec<i32> = (0..).take(experts).collect();
    let mut ids = Vec::with_capacity(used * tokens);
    for _ in 0..tokens {
        for slot in 0..used {
            let left = experts - slot;
            let drawn = usize::try_from(random() >> 8).expect("a number") % left;
            all.swap(slot, slot + drawn);
        }
        ids.extend_from_slice(&all[..used]);
    }
    ids
}

/// A run of ours: tokens are sorted by expert and rounded, then each expert has its turn.
fn ours<'a>(
    (level, few): (Level, bool),
    (mixture, matrix): (&'a Mixture, Matrix<'a>),
    (values, ids): (&'a [f32], &'a [i32]),
    products: &'a mut [f32],
) -> impl FnMut() + 'a {
    let Mixture { format, rows, width, experts, used, .. } = *mixture;
    let (mut activations, mut scratch) = (Activations::default(), Scratch::default());
    let mut picks = vec![Vec::new(); experts];
    move || {
        picks.iter_mut().for_each(Vec::clear);
        for (to, &id) in ids.iter().enumerate() {
            picks[usize::try_from(id).expect("an expert")].push(Pick { token: to / used, to });
        }
        activations.resize(format.rounding(), Layout::Rows, values.len() / width, width);
        // SAFETY: one thread does all this.
        unsafe {
            for (token, values) in values.chunks_exact(width).enumerate() {
                activations.fill(level, token, values);
            }
            let output = Output::new(products.as_mut_ptr(), rows, ids.len());
            for (expert, tokens) in picks.iter().enumerate().filter(|(_, some)| !some.is_empty()) {
                let first = expert * rows;
                let (part, output) = ((first..first + rows).into(), output.from_row(first));
                let with = (&activations, Picks { tokens, few });
                multiply_picked(level, (&matrix, part), with, &output, &mut scratch);
            }
        }
    }
}

/// ggml's processor backend, on one thread, with a graph of one product.
struct Theirs {
    backend: sys::ggml_backend_t,
    buffers: [sys::ggml_backend_buffer_t; 2],
    contexts: [*mut sys::ggml_context; 2],
    graph: *mut sys::ggml_cgraph,
    product: *mut sys::ggml_tensor,
    matrices: *mut sys::ggml_tensor,
    /// Whether the weights were laid out anew.
    packed: bool,
}

impl Theirs {
    fn new(
        mixture: &Mixture,
        values: &[f32],
        ids: &[i32],
        kind: Option<sys::ggml_backend_buffer_type_t>,
    ) -> Self {
        let number = sys::ggml_type::try_from(mixture.format.ggml()).expect("a type");
        let size = |number: usize| i64::try_from(number).expect("a size");
        let (width, rows) = (size(mixture.width), size(mixture.rows));
        let (experts, used) = (size(mixture.experts), size(mixture.used));
        let tokens = size(ids.len()) / used;
        // SAFETY: everything is made here and freed by `drop`; the tensors have the sizes of what is copied into them.
        unsafe {
            let backend = sys::ggml_backend_cpu_init();
            sys::ggml_backend_cpu_set_n_threads(backend, 1);
            let contexts = [(); 2].map(|()| {
                sys::ggml_init(sys::ggml_init_params {
                    mem_size: 1 << 20,
                    mem_buffer: std::ptr::null_mut(),
                    no_alloc: true,
                })
            });
            let [fixed, others] = contexts;
            let matrices = sys::ggml_new_tensor_3d(fixed, number, width, rows, experts);
            let with = sys::ggml_new_tensor_3d(others, sys::GGML_TYPE_F32, width, 1, tokens);
            let which = sys::ggml_new_tensor_2d(others, sys::GGML_TYPE_I32, used, tokens);
            let product = sys::ggml_mul_mat_id(others, matrices, with, which);
            let graph = sys::ggml_new_graph(others);
            sys::ggml_build_forward_expand(graph, product);
            let kind = kind.unwrap_or_else(|| sys::ggml_backend_cpu_buffer_type());
            let buffers = [
                sys::ggml_backend_alloc_ctx_tensors_from_buft(fixed, kind),
                sys::ggml_backend_alloc_ctx_tensors(others, backend),
            ];
            let bytes = &mixture.bytes;
            let host = sys::ggml_backend_buft_is_host(kind);
            let packed = !host && sys::ggml_backend_supports_op(backend, product);
            if host || packed {
                sys::ggml_backend_tensor_set(matrices, bytes.as_ptr().cast(), 0, bytes.len());
            }
            sys::ggml_backend_tensor_set(with, values.as_ptr().cast(), 0, size_of_val(values));
            sys::ggml_backend_tensor_set(which, ids.as_ptr().cast(), 0, size_of_val(ids));
            Self { backend, buffers, contexts, graph, product, matrices, packed }
        }
    }

    fn run(&self) {
        // SAFETY: the graph and its tensors live as long as this.
        let status = unsafe { sys::ggml_backend_graph_compute(self.backend, self.graph) };
        assert_eq!(status, sys::GGML_STATUS_SUCCESS, "ggml computed nothing");
    }

    /// The matrices' bytes, as they lie here.
    fn weights(&self) -> &[u8] {
        // SAFETY: so many bytes, which nobody writes any more.
        unsafe {
            let count = sys::ggml_nbytes(self.matrices);
            std::slice::from_raw_parts((*self.matrices).data.cast::<u8>(), count)
        }
    }

    fn products(&self) -> Vec<f32> {
        // SAFETY: as many floats as the product has.
        unsafe {
            let count = sys::ggml_nelements(self.product);
            let mut floats = vec![0.0; usize::try_from(count).expect("a size")];
            let to = floats.as_mut_ptr().cast();
            sys::ggml_backend_tensor_get(self.product, to, 0, size_of_val(floats.as_slice()));
            floats
        }
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
