//! Products of any shape: what the device takes, it computes as ggml does.

use proptest::prelude::*;
use tieline_kernels::Format;

use super::super::experts::tests::inner;
use super::super::job::Worker;
use super::*;

/// How a tensor lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// In one piece.
    Plain,
    /// Rows of a larger one, from its second on: in one piece as long as there is one matrix.
    Later,
    /// The beginnings of longer rows.
    Wide,
    /// The second and third dimensions changed places.
    Turned,
}

const LIES: [Lie; 4] = [Lie::Plain, Lie::Later, Lie::Wide, Lie::Turned];

/// A product: a matrix of each of `batch` by the tokens of `batch` times `repeats`.
#[derive(Debug, Clone, Copy)]
struct Product {
    kind: sys::ggml_type,
    values: sys::ggml_type,
    blocks: usize,
    rows: usize,
    tokens: usize,
    batch: [usize; 2],
    repeats: [usize; 2],
    lies: [Lie; 2],
    hint: bool,
    /// Whether ggml laid the matrix out anew.
    anew: bool,
}

impl Product {
    /// The same, of a matrix that ggml lays out anew, where it does.
    fn laid_out_anew(self) -> Self {
        let format = Format::from_ggml(self.kind);
        let wide = format == Some(Format::Q2K) && Level::Avx512Vnni.available();
        let known = format.is_some_and(Format::in_eights) && Level::Avx2.available();
        if !known && !wide {
            return self;
        }
        let (rows, lies) = (self.rows.next_multiple_of(8), [Lie::Plain, self.lies[1]]);
        Self { rows, lies, batch: [1; 2], anew: true, ..self }
    }
}

fn products() -> impl Strategy<Value = Product> {
    let formats = Format::ALL.map(|format| sys::ggml_type::try_from(format.ggml()).unwrap());
    let kinds: Vec<sys::ggml_type> = formats.into_iter().chain([sys::GGML_TYPE_F32]).collect();
    // Mostly one matrix: others are seldom taken.
    let dimension = || proptest::sample::select(vec![1usize, 1, 1, 2, 3]);
    let lie = || proptest::sample::select(LIES.to_vec());
    let sizes = (1usize..4, 1usize..80, 1usize..50);
    let batches = ([dimension(), dimension()], [dimension(), dimension()]);
    let values =
        proptest::sample::select(vec![sys::GGML_TYPE_F32, sys::GGML_TYPE_F32, sys::GGML_TYPE_F16]);
    let kinds = (proptest::sample::select(kinds), values, prop::bool::weighted(0.1), any::<bool>());
    (kinds, sizes, batches, [lie(), lie()]).prop_map(
        |((kind, values, hint, anew), (blocks, rows, tokens), (batch, repeats), lies)| {
            let plain = Product {
                kind,
                values,
                blocks,
                rows,
                tokens,
                batch,
                repeats,
                lies,
                hint,
                anew: false,
            };
            if anew { plain.laid_out_anew() } else { plain }
        },
    )
}

fn size(number: usize) -> i64 {
    i64::try_from(number).unwrap()
}

/// A graph of one product.
struct Graph {
    contexts: [*mut sys::ggml_context; 2],
    buffers: [sys::ggml_backend_buffer_t; 2],
    graph: *mut sys::ggml_cgraph,
    product: *mut sys::ggml_tensor,
}

impl Graph {
    fn new(of: Product, inner: &super::super::Inner) -> Self {
        let params = sys::ggml_init_params {
            mem_size: 1 << 20,
            mem_buffer: ptr::null_mut(),
            no_alloc: true,
        };
        // SAFETY: made here and freed by `drop`; sizes are those that ggml asks for.
        unsafe {
            // Of the matrix, and of all else.
            let contexts = [(); 2].map(|()| sys::ggml_init(params));
            let [home, context] = contexts;
            let block = usize::try_from(sys::ggml_blck_size(of.kind)).unwrap();
            let width = of.blocks * block.max(32);
            let [two, three] = of.batch;
            let (weights, whole) =
                tensor(home, (of.kind, of.lies[0]), block.max(32), [width, of.rows, two, three]);
            let repeated = [width, of.tokens, two * of.repeats[0], three * of.repeats[1]];
            let (values, all) = tensor(context, (of.values, of.lies[1]), 8, repeated);
            let product = sys::ggml_mul_mat(context, weights, values);
            (*product).op_params[1] = i32::from(of.hint);
            let graph = sys::ggml_new_graph(context);
            sys::ggml_build_forward_expand(graph, product);
            let plain = sys::ggml_backend_cpu_buffer_type();
            let kind = anew::buffer_type().filter(|_| of.anew).unwrap_or(plain);
            let buffers = [
                sys::ggml_backend_alloc_ctx_tensors_from_buft(home, kind),
                sys::ggml_backend_alloc_ctx_tensors(context, inner.backend()),
            ];
            fill(whole);
            fill(all);
            Self { contexts, buffers, graph, product }
        }
    }

    /// Whether it is ours: by the device, and in ggml's own graph.
    fn is_taken(&self) -> [bool; 2] {
        // SAFETY: the tensor lives.
        unsafe {
            let many = supports_op(ptr::null_mut(), self.product);
            [many, multiplies_few(&*self.product)]
        }
    }

    fn products(
        &self,
        compute: impl FnOnce(*mut sys::ggml_cgraph) -> sys::ggml_status,
    ) -> Vec<f32> {
        // SAFETY: as many floats as the tensor has.
        unsafe {
            let count = usize::try_from(sys::ggml_nelements(self.product)).unwrap();
            let mut floats = vec![7.0f32; count];
            let bytes = size_of_val(floats.as_slice());
            sys::ggml_backend_tensor_set(self.product, floats.as_ptr().cast(), 0, bytes);
            assert_eq!(compute(self.graph), sys::GGML_STATUS_SUCCESS);
            sys::ggml_backend_tensor_get(self.product, floats.as_mut_ptr().cast(), 0, bytes);
            floats
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe {
            self.buffers.into_iter().for_each(|buffer| sys::ggml_backend_buffer_free(buffer));
            self.contexts.into_iter().for_each(|context| sys::ggml_free(context));
        }
    }
}

/// A tensor of these dimensions that lies so, and what it is a view of. Longer rows are longer by `more`.
///
/// # Safety
/// The context has room.
unsafe fn tensor(
    context: *mut sys::ggml_context,
    (kind, lie): (sys::ggml_type, Lie),
    more: usize,
    [width, rows, two, three]: [usize; 4],
) -> (*mut sys::ggml_tensor, *mut sys::ggml_tensor) {
    let make = |width: usize, rows: usize, two: usize| {
        let [width, rows, two, three] = [width, rows, two, three].map(size);
        // SAFETY: the caller's promise.
        unsafe { sys::ggml_new_tensor_4d(context, kind, width, rows, two, three) }
    };
    let whole = match lie {
        Lie::Plain => make(width, rows, two),
        Lie::Later => make(width, rows + 2, two),
        Lie::Wide => make(width + more, rows, two),
        Lie::Turned => make(width, two, rows),
    };
    let from = usize::from(lie == Lie::Later);
    let [width, rows, two, three] = [width, rows, two, three].map(size);
    // SAFETY: the caller's promise; a view lies within its whole.
    let seen = unsafe {
        let [_, one, another, third] = (*whole).nb;
        match lie {
            Lie::Plain => whole,
            Lie::Turned => sys::ggml_permute(context, whole, 0, 2, 1, 3),
            Lie::Later | Lie::Wide => sys::ggml_view_4d(
                context,
                whole,
                width,
                rows,
                two,
                three,
                one,
                another,
                third,
                from * one,
            ),
        }
    };
    (seen, whole)
}

/// Fills a tensor, rounded to its type.
///
/// # Safety
/// It is allocated, and a whole.
unsafe fn fill(tensor: *mut sys::ggml_tensor) {
    // SAFETY: so many floats, and room for as many rows of the type.
    unsafe {
        let count = usize::try_from(sys::ggml_nelements(tensor)).unwrap();
        let mut state = 1u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(state.to_le_bytes()[3]) / 128.0 - 1.0
        });
        let floats: Vec<f32> = noise.take(count).collect();
        let mut bytes = vec![0u8; sys::ggml_nbytes(tensor)];
        let width = (*tensor).ne[0];
        let rows = size(count) / width;
        let (from, to) = (floats.as_ptr(), bytes.as_mut_ptr());
        if (*tensor).type_ == sys::GGML_TYPE_F32 {
            to.copy_from_nonoverlapping(from.cast(), bytes.len());
        } else {
            sys::ggml_quantize_chunk((*tensor).type_, from, to.cast(), 0, rows, width, ptr::null());
        }
        sys::ggml_backend_tensor_set(tensor, bytes.as_ptr().cast(), 0, bytes.len());
    }
}

/// Whether products are within what two roundings of activations to 8 bits may lie apart.
fn alike(ours: &[f32], theirs: &[f32]) -> bool {
    let square = |sum: f32, number: f32| sum + number * number;
    let size = theirs.iter().copied().fold(0.0, square).sqrt();
    let apart = ours.iter().zip(theirs).map(|(one, other)| one - other).fold(0.0, square).sqrt();
    ours.len() == theirs.len() && apart <= 0.03 * size
}

/// Ours by the device or in ggml's graph, where the product is taken.
fn ours(graph: &Graph, inner: &super::super::Inner) -> Option<Vec<f32>> {
    let [many, few] = graph.is_taken();
    assert!(!(many && few), "taken twice");
    if many {
        // SAFETY: the graph's tensors are allocated.
        let compute = |of| unsafe { Worker::default().compute(inner, of) };
        return Some(graph.products(compute));
    }
    few.then(|| {
        // SAFETY: a backend of ggml's, made with ours swapped in, and freed once.
        graph.products(|of| unsafe {
            let backend =
                sys::ggml_backend_init_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU, ptr::null());
            let status = sys::ggml_backend_graph_compute(backend, of);
            sys::ggml_backend_free(backend);
            status
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Strides, views, dimensions beyond the second and repeated matrices: taken and right, or left to ggml.
    #[test]
    fn what_is_taken_of_any_shape_is_ggmls_product(of in products()) {
        let Some(held) = inner() else { return Ok(()) };
        let inner = &*held;
        let graph = Graph::new(of, inner);
        if let Some(ours) = ours(&graph, inner) {
            // Values of another type, hints and further dimensions are ggml's.
            let one = of.batch.iter().chain(&of.repeats).all(|number| *number == 1);
            prop_assert!(one && !of.hint && of.values == sys::GGML_TYPE_F32, "{:?}", of);
            let theirs = graph.products(|graph| inner.compute(graph));
            prop_assert!(alike(&ours, &theirs), "{:?}", of);
        }
    }
}

/// A product of every format by many tokens, as models have it.
fn plain(format: Format) -> Product {
    Product {
        kind: sys::ggml_type::try_from(format.ggml()).unwrap(),
        values: sys::GGML_TYPE_F32,
        blocks: 2,
        rows: 70,
        tokens: 130,
        batch: [1; 2],
        repeats: [1; 2],
        lies: [Lie::Plain; 2],
        hint: false,
        anew: false,
    }
}

#[test]
fn what_ggml_laid_out_anew_is_taken_as_what_lies_as_in_the_file() {
    let Some(held) = inner() else { return };
    let inner = &*held;
    let mut all = 0;
    for format in Format::ALL {
        for (lie, tokens) in [(Lie::Plain, 130), (Lie::Later, 130), (Lie::Plain, 2)] {
            let of = Product { lies: [Lie::Plain, lie], tokens, ..plain(format) }.laid_out_anew();
            if !of.anew {
                continue;
            }
            let graph = Graph::new(of, inner);
            let ours = ours(&graph, inner);
            let least = inner.level.tokens_in_eights(format);
            assert_eq!(ours.is_some(), least.is_some_and(|least| tokens >= least), "{format:?}");
            if let Some(ours) = ours {
                let theirs = graph.products(|graph| inner.compute(graph));
                assert!(alike(&ours, &theirs), "{format:?}");
                assert!(ours != theirs, "{format:?} is not ours");
                // The same weights as in the file: the same products, to the last bit.
                let plain = Graph::new(Product { anew: false, ..of }, inner);
                // SAFETY: the graph's tensors are allocated.
                let same = plain.products(|of| unsafe { Worker::default().compute(inner, of) });
                assert_eq!(ours, same, "{format:?}");
                all += 1;
            }
        }
    }
    assert!(all > 0 || inner.level != Level::Avx512Vnni, "nothing was compared");
}

#[test]
fn plain_products_and_rows_of_a_larger_matrix_are_taken() {
    let Some(held) = inner() else { return };
    let inner = &*held;
    for format in Format::ALL {
        for lies in [[Lie::Plain; 2], [Lie::Later, Lie::Plain], [Lie::Plain, Lie::Later]] {
            let graph = Graph::new(Product { lies, ..plain(format) }, inner);
            let taken = inner.level.tokens(format).is_some_and(|least| least <= 130);
            let ours = ours(&graph, inner);
            assert_eq!(ours.is_some(), taken, "{format:?} {lies:?}");
            if let Some(ours) = ours {
                let theirs = graph.products(|graph| inner.compute(graph));
                assert!(alike(&ours, &theirs), "{format:?} {lies:?}");
                // Of floats, sums of so few are exact.
                assert!(ours != theirs || format.is_float(), "{format:?} {lies:?} is not ours");
            }
        }
    }
}

#[test]
fn what_does_not_lie_in_one_piece_is_ggmls() {
    let Some(held) = inner() else { return };
    let inner = &*held;
    let plain = plain(Format::Q8_0);
    let mut others = vec![
        Product { hint: true, ..plain },
        Product { rows: 31, ..plain },
        Product { values: sys::GGML_TYPE_F16, kind: sys::GGML_TYPE_F16, ..plain },
        Product { kind: sys::GGML_TYPE_F32, ..plain },
    ];
    for dimension in [0, 1] {
        let mut many = [1; 2];
        many[dimension] = 2;
        others.extend([Product { batch: many, ..plain }, Product { repeats: many, ..plain }]);
        for lie in [Lie::Wide, Lie::Turned] {
            let mut lies = [Lie::Plain; 2];
            lies[dimension] = lie;
            // Turned around one matrix, rows lie as they did.
            let batch = if lie == Lie::Turned { [2, 1] } else { [1, 1] };
            others.push(Product { lies, batch, ..plain });
        }
    }
    for of in others {
        assert_eq!(Graph::new(of, inner).is_taken(), [false; 2], "{of:?}");
    }
}
