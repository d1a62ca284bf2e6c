use std::ptr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use tieline_kernels::{Format, Level};

use super::super::job::Worker;
use super::super::{INNER, Inner, device, start};
use super::*;

/// The sizes of a mixture.
#[derive(Debug, Clone, Copy)]
struct Shape {
    format: Format,
    rows: usize,
    width: usize,
    experts: usize,
    used: usize,
    tokens: usize,
    /// Whether each expert of a token gets values of its own.
    own_values: bool,
}

impl Shape {
    fn value_rows(self) -> usize {
        if self.own_values { self.used } else { 1 }
    }
}

/// The backend, of which one test computes at a time: its work is in one room.
pub(in super::super) struct Held {
    inner: &'static Inner,
    _alone: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Held {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        self.inner
    }
}

pub(in super::super) fn inner() -> Option<Held> {
    static STARTED: Once = Once::new();
    static ALONE: Mutex<()> = Mutex::new(());
    STARTED.call_once(|| {
        // SAFETY: once, before all else.
        unsafe { sys::llama_backend_init() };
        start();
    });
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    INNER.get().map(|inner| Held { inner, _alone: alone })
}

/// Numbers that look drawn.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next()).unwrap() % end
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| f32::from(self.next().to_le_bytes()[1]) / 128.0 - 1.0).collect()
    }
}

/// A graph with the product of a mixture, and of its values with the first expert's matrix, as experts that are shared
/// have it.
struct Graph {
    shape: Shape,
    context: *mut sys::ggml_context,
    buffer: sys::ggml_backend_buffer_t,
    graph: *mut sys::ggml_cgraph,
    weights: *mut sys::ggml_tensor,
    values: *mut sys::ggml_tensor,
    /// As `argsort` leaves them: of all experts, the first are used.
    sorted: *mut sys::ggml_tensor,
    mixed: *mut sys::ggml_tensor,
    shared: *mut sys::ggml_tensor,
}

fn size(number: usize) -> i64 {
    i64::try_from(number).unwrap()
}

impl Graph {
    fn new(shape: Shape, inner: &Inner) -> Self {
        let params = sys::ggml_init_params {
            mem_size: 1 << 20,
            mem_buffer: ptr::null_mut(),
            no_alloc: true,
        };
        let number = sys::ggml_type::try_from(shape.format.ggml()).unwrap();
        let (width, rows, tokens) = (size(shape.width), size(shape.rows), size(shape.tokens));
        let (experts, used) = (size(shape.experts), size(shape.used));
        let value_rows = size(shape.value_rows());
        // SAFETY: made here and freed by `drop`.
        unsafe {
            let context = sys::ggml_init(params);
            let weights = sys::ggml_new_tensor_3d(context, number, width, rows, experts);
            let float = sys::GGML_TYPE_F32;
            let values = sys::ggml_new_tensor_3d(context, float, width, value_rows, tokens);
            let sorted = sys::ggml_new_tensor_2d(context, sys::GGML_TYPE_I32, experts, tokens);
            let ids = sys::ggml_view_2d(context, sorted, used, tokens, (*sorted).nb[1], 0);
            let mixed = sys::ggml_mul_mat_id(context, weights, values, ids);
            let one = sys::ggml_view_2d(context, weights, width, rows, (*weights).nb[1], 0);
            let all = sys::ggml_reshape_2d(context, values, width, value_rows * tokens);
            let shared = sys::ggml_mul_mat(context, one, all);
            let graph = sys::ggml_new_graph(context);
            sys::ggml_build_forward_expand(graph, mixed);
            sys::ggml_build_forward_expand(graph, shared);
            let buffer = sys::ggml_backend_alloc_ctx_tensors(context, inner.backend());
            Self { shape, context, buffer, graph, weights, values, sorted, mixed, shared }
        }
    }

    fn set<T>(&self, tensor: *mut sys::ggml_tensor, numbers: &[T]) {
        // SAFETY: ggml checks that so many bytes fit.
        unsafe {
            let from = numbers.as_ptr().cast();
            sys::ggml_backend_tensor_set(tensor, from, 0, size_of_val(numbers));
        }
    }

    fn weigh(&self, random: &mut Random) {
        let Shape { format, rows, width, experts, .. } = self.shape;
        let values = random.values(rows * experts * width);
        let mut bytes = vec![0u8; rows * experts * format.row_bytes(width).unwrap()];
        let number = sys::ggml_type::try_from(format.ggml()).unwrap();
        // SAFETY: so many floats, and room for as many rows of the format.
        unsafe {
            let (from, to) = (values.as_ptr(), bytes.as_mut_ptr().cast());
            let (rows, width) = (size(rows * experts), size(width));
            sys::ggml_quantize_chunk(number, from, to, 0, rows, width, ptr::null());
        }
        self.set(self.weights, &bytes);
    }

    /// What the product is multiplied with: values, and for each token all experts in some order.
    fn fill(&self, random: &mut Random, most: usize) -> (Vec<f32>, Vec<i32>) {
        let Shape { width, tokens, experts, .. } = self.shape;
        let values = random.values(width * self.shape.value_rows() * tokens);
        // Experts from `most` on get no token; repeated ones are allowed.
        let ids = (0..experts * tokens).map(|_| i32::try_from(random.below(most)).unwrap());
        let ids: Vec<i32> = ids.collect();
        self.set(self.values, &values);
        self.set(self.sorted, &ids);
        (values, ids)
    }

    fn read(&self, tensor: *mut sys::ggml_tensor) -> Vec<f32> {
        // SAFETY: as many floats as the tensor has.
        unsafe {
            let mut floats = vec![0.0f32; usize::try_from(sys::ggml_nelements(tensor)).unwrap()];
            let to = floats.as_mut_ptr().cast();
            sys::ggml_backend_tensor_get(tensor, to, 0, size_of_val(floats.as_slice()));
            floats
        }
    }

    /// The products of ggml's own processor backend.
    fn theirs(&self, inner: &Inner) -> [Vec<f32>; 2] {
        self.spoil();
        // The backend that runs our steps was made before ours are asked.
        assert_eq!(inner.compute(self.graph), sys::GGML_STATUS_SUCCESS);
        [self.read(self.mixed), self.read(self.shared)]
    }

    /// The same by the device, or by ggml's backend with ours swapped in.
    fn ours(&self, inner: &Inner) -> [Vec<f32>; 2] {
        self.spoil();
        // SAFETY: the graph's tensors are allocated.
        let status = unsafe {
            if self.shape.tokens > Level::FEW {
                Worker::default().compute(inner, self.graph)
            } else {
                let kind = sys::GGML_BACKEND_DEVICE_TYPE_CPU;
                let backend = sys::ggml_backend_init_by_type(kind, ptr::null());
                let status = sys::ggml_backend_graph_compute(backend, self.graph);
                sys::ggml_backend_free(backend);
                status
            }
        };
        assert_eq!(status, sys::GGML_STATUS_SUCCESS);
        [self.read(self.mixed), self.read(self.shared)]
    }

    fn spoil(&self) {
        for tensor in [self.mixed, self.shared] {
            self.set(tensor, &vec![7.0f32; self.read(tensor).len()]);
        }
    }

    /// Whether the mixture is ours.
    fn is_taken(&self) -> bool {
        // SAFETY: the tensor lives.
        device::mixes(unsafe { &*self.mixed }).is_some()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe {
            sys::ggml_backend_buffer_free(self.buffer);
            sys::ggml_free(self.context);
        }
    }
}

/// Each row of products within what two roundings of activations to 8 bits may lie apart; another row is 1.4.
#[track_caller]
fn alike(shape: Shape, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    for (at, (ours, theirs)) in ours.chunks(shape.rows).zip(theirs.chunks(shape.rows)).enumerate() {
        let square = |sum: f32, number: f32| sum + number * number;
        let size = theirs.iter().copied().fold(0.0, square).sqrt();
        let apart =
            ours.iter().zip(theirs).map(|(one, other)| one - other).fold(0.0, square).sqrt();
        assert!(apart <= 0.03 * size && size > 0.0, "{shape:?}, row {at}: {apart} of {size}");
    }
}

/// Formats by every kind of kernel: long and short blocks, with minima and without.
const FORMATS: [Format; 6] =
    [Format::Q8_0, Format::Q4_1, Format::Q5_0, Format::Q6K, Format::Q5K, Format::Iq4Nl];

fn shapes(random: &mut Random) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (format, tokens) in FORMATS.into_iter().flat_map(|format| {
        [1, 3, 8, Level::FEW, Level::FEW + 1, 40, 150].map(|tokens| (format, tokens))
    }) {
        for own_values in [false, true] {
            let experts = 2 + random.below(7);
            shapes.push(Shape {
                format,
                rows: 32 + random.below(50),
                width: 256 * (1 + random.below(2)),
                experts,
                used: 1 + random.below(experts),
                tokens,
                own_values,
            });
        }
    }
    shapes
}

#[test]
fn any_mixture_is_ggmls() {
    let Some(held) = inner() else { return };
    let inner = &*held;
    let mut random = Random(7);
    let (mut many, mut few) = (0, 0);
    for shape in shapes(&mut random) {
        let graph = Graph::new(shape, inner);
        graph.weigh(&mut random);
        // All experts, and some without a token; all tokens to one.
        for most in [shape.experts, shape.experts.div_ceil(2), 1] {
            graph.fill(&mut random, most);
            if !graph.is_taken() {
                continue;
            }
            let (ours, theirs) = (graph.ours(inner), graph.theirs(inner));
            alike(shape, &ours[0], &theirs[0]);
            alike(shape, &ours[1], &theirs[1]);
            assert!(ours[0] != theirs[0], "{shape:?} is not ours");
            *(if shape.tokens > Level::FEW { &mut many } else { &mut few }) += 1;
        }
    }
    assert!(many > 20, "only {many} by the device");
    let short = inner.level.thin(Format::Q4_1);
    assert!(few > 20 || !short, "only {few} in ggml's graph");
}

/// Where the others go decides nothing about a token's products.
#[test]
fn a_token_does_not_depend_on_where_the_others_go() {
    let Some(held) = inner() else { return };
    let inner = &*held;
    for (format, tokens) in FORMATS
        .into_iter()
        .flat_map(|format| [Level::FEW, 20, 64, 300].map(|tokens| (format, tokens)))
    {
        let (rows, width, experts, used) = (45, 256, 8, 3);
        let shape = Shape { format, rows, width, experts, used, tokens, own_values: true };
        let graph = Graph::new(shape, inner);
        if !graph.is_taken() {
            continue;
        }
        let mut random = Random(3);
        graph.weigh(&mut random);
        let (values, ids) = graph.fill(&mut random, experts);
        let before = graph.ours(inner);
        // Others but the fourth go elsewhere, and have other values.
        let stays = 3;
        for most in [experts, 2, 1] {
            let (mut others, mut elsewhere) = graph.fill(&mut random, most);
            let (kept, gone) = (stays * width * used, (stays + 1) * width * used);
            others[kept..gone].copy_from_slice(&values[kept..gone]);
            let (kept, gone) = (stays * experts, (stays + 1) * experts);
            elsewhere[kept..gone].copy_from_slice(&ids[kept..gone]);
            graph.set(graph.values, &others);
            graph.set(graph.sorted, &elsewhere);
            let after = graph.ours(inner);
            let token = stays * used * rows..(stays + 1) * used * rows;
            assert!(before[0][token.clone()] == after[0][token], "{shape:?}");
            assert!(before[0] != after[0], "nobody went elsewhere");
        }
    }
}

/// A number that no expert has: nothing beyond the matrices is read, and nothing looks like an answer.
#[test]
fn experts_that_are_not_there_are_refused() {
    let Some(held) = inner() else { return };
    let inner = &*held;
    for (tokens, wrong) in [(64, 8), (64, -1), (4, 8), (4, i32::MIN)] {
        let (rows, width, experts, used) = (32, 256, 8, 2);
        let format = Format::Q5_1;
        let shape = Shape { format, rows, width, experts, used, tokens, own_values: false };
        let graph = Graph::new(shape, inner);
        if !graph.is_taken() {
            continue;
        }
        let mut random = Random(3);
        graph.weigh(&mut random);
        let (_, mut ids) = graph.fill(&mut random, experts);
        ids[experts + 1] = wrong;
        graph.set(graph.sorted, &ids);
        graph.spoil();
        if tokens > Level::FEW {
            // SAFETY: the graph's tensors are allocated.
            let status = unsafe { Worker::default().compute(inner, graph.graph) };
            assert_eq!(status, sys::GGML_STATUS_FAILED);
        } else {
            assert!(graph.ours(inner)[0].iter().all(|product| product.is_nan()));
        }
    }
}

/// Most experts get one token of a short step, so what the table says of one decides.
#[test]
fn experts_of_short_steps_go_by_the_table_of_one_token() {
    let Some(held) = inner() else { return };
    let inner = &*held;
    for format in [Format::Q4_1, Format::Q5_1, Format::Q8_0] {
        let (rows, width, experts, used, tokens) = (32, 256, 4, 2, 3);
        let shape = Shape { format, rows, width, experts, used, tokens, own_values: false };
        assert_eq!(Graph::new(shape, inner).is_taken(), inner.level.few(format, 1), "{format:?}");
    }
}

#[test]
fn floats_and_matrices_of_few_rows_stay_with_ggml() {
    let Some(held) = inner() else { return };
    let inner = &*held;
    let shape = Shape {
        format: Format::Q5_1, // Taken by all levels.
        rows: 32,
        width: 256,
        experts: 4,
        used: 2,
        tokens: 100,
        own_values: false,
    };
    assert!(Graph::new(shape, inner).is_taken());
    assert!(!Graph::new(Shape { rows: 31, ..shape }, inner).is_taken());
    assert!(!Graph::new(Shape { format: Format::Q2K, ..shape }, inner).is_taken());
    let graph = Graph::new(shape, inner);
    // SAFETY: the tensors are the graph's own, which nobody computes.
    unsafe { (*graph.values).type_ = sys::GGML_TYPE_F16 };
    assert!(!graph.is_taken());
}
