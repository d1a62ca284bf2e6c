//! One split of llama.cpp's graph, as operations that its threads do together.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;
use tieline_kernels::attention::{self, Attention, Cut, Desk, attend};
use tieline_kernels::{
    Activations, Format, Layout, Level, Matrix, Output, Part, Rounding, Scratch, multiply,
};

use super::anew::Kind;
use super::experts::{Experts, Groups};
use super::{Inner, device};

/// Operations of one of our graphs.
const STEPS: usize = 64;
/// Rows of a matrix that a thread takes at a time: a whole number of the kernels' strips.
pub(super) const ROWS: usize = 32;
/// More rows than this are taken twice as many at a time.
const MANY: usize = 512;
/// Values that a thread rounds at a time, at least.
const VALUES: usize = 4096;

thread_local! {
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
    static DESK: RefCell<Desk> = RefCell::default();
}

/// What one of ggml's backends keeps from graph to graph.
#[derive(Debug, Default)]
pub(super) struct Worker {
    /// Rounded activations, one for each source in a split.
    activations: Vec<Activations>,
    /// Tokens by expert, one for each product of a mixture in a split.
    groups: Vec<Groups>,
    graph: Option<Graph>,
}

/// One operation.
#[derive(Debug)]
enum Step<'a> {
    /// Rounds the activations of all tokens, which lie one after another. A pointer, since an earlier step may
    /// write them.
    Round { level: Level, values: *const f32, to: &'a Activations, next: AtomicUsize },
    /// Multiplies a matrix with them.
    Multiply {
        level: Level,
        matrix: Matrix<'a>,
        with: &'a Activations,
        output: Output,
        next: AtomicUsize,
    },
    /// Multiplies the matrices of experts, each with its tokens.
    Mix { experts: Experts<'a>, groups: &'a Groups, with: &'a Activations, next: AtomicUsize },
    /// Answers queries from the cache.
    Attend(Attend),
}

/// Attention that threads take part in. What it reads is looked at only when its turn has come: until then, others write it.
#[derive(Debug)]
pub(super) struct Attend {
    level: Level,
    node: *const sys::ggml_tensor,
    /// The node's own parameters say it no longer, where it was swapped.
    scale: f32,
    cut: Cut,
    next: AtomicUsize,
}

impl Worker {
    /// Computes all that is ours in a graph, in its order.
    ///
    /// # Safety
    /// The graph's operations are ones that the device takes, and their tensors are allocated.
    pub(super) unsafe fn compute(
        &mut self,
        inner: &Inner,
        graph: *mut sys::ggml_cgraph,
    ) -> sys::ggml_status {
        // SAFETY: the caller's promise.
        let operations = unsafe { operations(graph) };
        if operations.is_empty() {
            return sys::GGML_STATUS_SUCCESS;
        }
        let sources = sources(&operations);
        if self.activations.len() < sources.len() {
            self.activations.resize_with(sources.len(), Activations::default);
        }
        for (activations, source) in self.activations.iter_mut().zip(&sources) {
            let layout = if source.picked { Layout::Rows } else { Layout::of_many(inner.level) };
            let Source { values, rounding, .. } = *source;
            activations.resize(rounding, layout, tokens(values), length(values.ne[0]));
        }
        // SAFETY: the caller's promise. No operation of ours makes numbers of experts, so they are computed.
        let grouped = unsafe { group(&operations, &mut self.groups) };
        if !grouped {
            return sys::GGML_STATUS_FAILED;
        }
        let sources = (sources.as_slice(), self.activations.as_slice());
        let threads = inner.threads.load(Ordering::Relaxed);
        // SAFETY: the caller's promise.
        let steps = unsafe { steps((inner.level, threads), &operations, sources, &self.groups) };
        let Some(steps) = steps else { return sys::GGML_STATUS_FAILED };
        let graph = match &mut self.graph {
            Some(graph) => graph,
            none => match Graph::new() {
                Some(graph) => none.insert(graph),
                None => return sys::GGML_STATUS_ALLOC_FAILED,
            },
        };
        for steps in steps.chunks(STEPS) {
            let status = inner.compute(graph.of(steps));
            if status != sys::GGML_STATUS_SUCCESS {
                return status;
            }
        }
        sys::GGML_STATUS_SUCCESS
    }
}

/// What is ours among a graph's operations.
///
/// # Safety
/// The graph and its tensors are valid for as long as what is returned.
unsafe fn operations<'a>(graph: *mut sys::ggml_cgraph) -> Vec<&'a sys::ggml_tensor> {
    // SAFETY: the caller's promise.
    let count = unsafe { sys::ggml_graph_n_nodes(graph) };
    (0..count)
        // SAFETY: the caller's promise; the index is below the count.
        .map(|index| unsafe { &*sys::ggml_graph_node(graph, index) })
        .filter(|node| is_product(node) || node.op == sys::GGML_OP_FLASH_ATTN_EXT)
        .filter(|node| wanted(node))
        .collect()
}

fn is_product(node: &sys::ggml_tensor) -> bool {
    node.op == sys::GGML_OP_MUL_MAT || is_mixture(node)
}

fn is_mixture(node: &sys::ggml_tensor) -> bool {
    node.op == sys::GGML_OP_MUL_MAT_ID
}

/// Rows of activations of a product's source: of a mixture's, each token may have several.
pub(super) fn tokens(source: &sys::ggml_tensor) -> usize {
    length(source.ne[1]) * length(source.ne[2])
}

/// The products of experts' matrices, in their order.
fn mixtures<'a>(operations: &[&'a sys::ggml_tensor]) -> impl Iterator<Item = &'a sys::ggml_tensor> {
    operations.iter().copied().filter(|node| is_mixture(node))
}

/// Sorts the tokens of each mixture by expert. False where that cannot be done.
///
/// # Safety
/// The operations are ones that the device takes; what says which expert is computed.
unsafe fn group(operations: &[&sys::ggml_tensor], groups: &mut Vec<Groups>) -> bool {
    let count = mixtures(operations).count();
    if groups.len() < count {
        groups.resize_with(count, Groups::default);
    }
    mixtures(operations).zip(groups).all(|(product, groups)| {
        // SAFETY: the caller's promise.
        let experts = unsafe { mixture(product) };
        // SAFETY: as above.
        experts.is_some_and(|experts| unsafe { experts.group(groups) })
    })
}

/// # Safety
/// As for [`Experts::new`].
unsafe fn mixture(product: &sys::ggml_tensor) -> Option<Experts<'_>> {
    // SAFETY: the caller's promise.
    device::mixes(product).and_then(|way| unsafe { Experts::new(way, product) })
}

/// ggml marks what must be computed.
pub(super) fn wanted(node: &sys::ggml_tensor) -> bool {
    i32::try_from(sys::GGML_TENSOR_FLAG_COMPUTE).is_ok_and(|flag| node.flags & flag != 0)
}

/// What products multiply with.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    values: &'a sys::ggml_tensor,
    /// To what they are rounded.
    rounding: Rounding,
    /// Whether experts pick tokens of it.
    picked: bool,
}

impl Source<'_> {
    fn is(&self, other: &Self) -> bool {
        let kinds = self.rounding == other.rounding && self.picked == other.picked;
        ptr::eq(self.values, other.values) && kinds
    }
}

fn source(product: &sys::ggml_tensor) -> Source<'_> {
    // SAFETY: a product has two sources that live as long as it.
    let (weights, values) = unsafe { (&*product.src[0], &*product.src[1]) };
    let rounding = Format::from_ggml(weights.type_).map(Format::rounding);
    Source { values, rounding: rounding.unwrap_or_default(), picked: is_mixture(product) }
}

/// Where the source is among others.
fn place(sources: &[Source<'_>], source: Source<'_>) -> Option<usize> {
    sources.iter().position(|other| other.is(&source))
}

/// What the products multiply with, each once.
fn sources<'a>(operations: &[&'a sys::ggml_tensor]) -> Vec<Source<'a>> {
    let mut sources = Vec::new();
    for product in operations.iter().filter(|node| is_product(node)) {
        if place(&sources, source(product)).is_none() {
            sources.push(source(product));
        }
    }
    sources
}

/// The operations as steps: values are rounded when they are first used, since an earlier product of the same
/// graph may make them. `None` where a tensor is not what the device takes.
///
/// # Safety
/// All tensors are allocated and stay so for `'a`, and products do not overlap what is still read.
unsafe fn steps<'a>(
    (level, threads): (Level, usize),
    operations: &[&'a sys::ggml_tensor],
    (sources, activations): (&[Source<'a>], &'a [Activations]),
    groups: &'a [Groups],
) -> Option<Vec<Step<'a>>> {
    let mut rounded = vec![false; sources.len()];
    let mut groups = groups.iter();
    let mut steps = Vec::with_capacity(operations.len() + sources.len());
    for &operation in operations {
        if !is_product(operation) {
            let cut = |attention: &Attention<'_>| Cut::blocks(attention, threads);
            // SAFETY: the caller's promise.
            steps.push(Step::Attend(unsafe { Attend::new(level, operation, cut) }?));
            continue;
        }
        let slot = place(sources, source(operation))?;
        let with = &activations[slot];
        if !std::mem::replace(&mut rounded[slot], true) {
            let values = sources[slot].values.data.cast::<f32>().cast_const();
            steps.push(Step::Round { level, values, to: with, next: AtomicUsize::new(0) });
        }
        steps.push(if is_mixture(operation) {
            // SAFETY: the caller's promise.
            let experts = unsafe { mixture(operation) }?;
            Step::Mix { experts, groups: groups.next()?, with, next: AtomicUsize::new(0) }
        } else {
            // SAFETY: the caller's promise.
            unsafe { multiplying(level, operation, with) }?
        });
    }
    Some(steps)
}

/// A step of a matrix by all tokens.
///
/// # Safety
/// The product and its matrix are allocated and stay so for `'a`.
unsafe fn multiplying<'a>(
    level: Level,
    product: &'a sys::ggml_tensor,
    with: &'a Activations,
) -> Option<Step<'a>> {
    // SAFETY: a product has two sources that live as long as it.
    let weights = unsafe { &*product.src[0] };
    // SAFETY: the caller's promise.
    let matrix = unsafe { Kind::whole(weights) }?;
    // SAFETY: the product's own floats, which nobody reads before it is done.
    let output = unsafe { Output::new(product.data.cast(), product.nb[1] / 4, with.tokens()) };
    Some(Step::Multiply { level, matrix, with, output, next: AtomicUsize::new(0) })
}

/// What an operation attends to, and where its answers go.
///
/// # Safety
/// The operation is one that the device takes; its tensors are allocated and stay so for `'a`, and nobody writes what
/// is read while it is.
unsafe fn attending<'a>(
    operation: &'a sys::ggml_tensor,
    scale: f32,
) -> Option<(Attention<'a>, Output)> {
    // SAFETY: the device takes attention with four sources.
    let [queries, keys, values, mask] =
        [0, 1, 2, 3].map(|source| unsafe { operation.src[source].as_ref() });
    let (queries, keys, values, mask) = (queries?, keys?, values?, mask?);
    let size = attention::Size {
        width: length(queries.ne[0]),
        heads: length(queries.ne[2]),
        cache_heads: length(keys.ne[2]),
        tokens: length(queries.ne[1]),
        positions: length(keys.ne[1]),
    };
    // SAFETY: the caller's promise; the device checked the types.
    let attention = unsafe {
        let cached = [all_rows(keys), all_rows(values)];
        Attention::new((size, scale), all_rows(queries), cached, all_rows(mask))?
    };
    // SAFETY: the operation's own floats, which nobody reads before it is done.
    let output = unsafe { Output::new(operation.data.cast(), operation.nb[2] / 4, size.tokens) };
    Some((attention, output))
}

impl Attend {
    /// `None` where the tensor is not what the device takes. `cut` says how the work is cut, and looks at nothing but
    /// the mask, if that is there.
    ///
    /// # Safety
    /// The device takes the operation, and its tensors are allocated until it is computed.
    pub(super) unsafe fn new(
        level: Level,
        node: *const sys::ggml_tensor,
        cut: impl FnOnce(&Attention<'_>) -> Cut,
    ) -> Option<Self> {
        // SAFETY: the caller's promise.
        let (scale, cut) = unsafe {
            let scale = f32::from_bits((*node).op_params[0].cast_unsigned());
            (scale, cut(&attending(&*node, scale)?.0))
        };
        Some(Self { level, node, scale, cut, next: AtomicUsize::new(0) })
    }

    /// One thread's share.
    pub(super) fn work(&self) {
        // SAFETY: ggml computes in order: what is read is computed by now, and written no more before this is done.
        let Some((attention, output)) = (unsafe { attending(&*self.node, self.scale) }) else {
            return;
        };
        let parts = self.cut.parts(&attention);
        DESK.with_borrow_mut(|desk| {
            while let Some(part) = take(&self.next, 1, parts) {
                let part = (&attention, &self.cut, part.start);
                // SAFETY: the counter gives every part to one thread.
                unsafe { attend(self.level, part, &output, desk) };
            }
        });
    }
}

/// A tensor's rows, of numbers that lie side by side.
///
/// # Safety
/// The tensor is one of `T`, allocated and unchanged for `'a`.
unsafe fn all_rows<'a, T>(tensor: &'a sys::ggml_tensor) -> attention::Rows<'a, T> {
    let bytes = size_of::<T>();
    let last = |dimension: usize| length(tensor.ne[dimension] - 1) * (tensor.nb[dimension] / bytes);
    let count = last(2) + last(1) + length(tensor.ne[0]);
    // SAFETY: from its first to its last element, a tensor lies in one buffer.
    let data = unsafe { std::slice::from_raw_parts(tensor.data.cast::<T>(), count) };
    attention::Rows { data, row: tensor.nb[1] / bytes, head: tensor.nb[2] / bytes }
}

pub(super) fn length(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

impl Step<'_> {
    /// One thread's share: parts are taken until none is left, so that a thread which is held up delays the
    /// others by two parts at most.
    fn work(&self) {
        match self {
            Self::Round { level, values, to, next } => {
                let width = to.width().max(1);
                let some = VALUES.div_ceil(width).next_multiple_of(to.together());
                while let Some(tokens) = take(next, some, to.tokens()) {
                    for token in tokens {
                        // SAFETY: the values are contiguous floats, as the device checked, and the steps that
                        // make them are done. The counter gives every token to one thread.
                        unsafe {
                            let values =
                                std::slice::from_raw_parts(values.add(token * width), width);
                            to.fill(*level, token, values);
                        }
                    }
                }
            }
            Self::Multiply { level, matrix, with, output, next } => {
                SCRATCH.with_borrow_mut(|scratch| {
                    let mut mine = take_rows(next, matrix.rows());
                    while let Some(rows) = mine {
                        // Taken now, so that its bytes come while these are multiplied.
                        mine = take_rows(next, matrix.rows());
                        let part = Part { rows, next: mine.clone().unwrap_or_default() };
                        // SAFETY: the counter gives every row to one thread; ggml waits for all threads before
                        // the next step, so all tokens are rounded.
                        unsafe { multiply((*level, false), (matrix, part), with, output, scratch) };
                    }
                })
            }
            Self::Mix { experts, groups, with, next } => {
                SCRATCH.with_borrow_mut(|scratch| {
                    let all = experts.parts(groups, ROWS);
                    let mut mine = take(next, 1, all);
                    while let Some(part) = mine {
                        // Taken now, as above.
                        mine = take(next, 1, all);
                        let parts = (part.start, mine.as_ref().map(|next| next.start));
                        // SAFETY: as above, for every part.
                        unsafe { experts.multiply((groups, ROWS), parts, with, scratch) };
                    }
                });
            }
            Self::Attend(attend) => attend.work(),
        }
    }
}

/// The next rows of `all`: what kernels multiply best together, and less towards the end, where threads wait for each other.
fn take_rows(next: &AtomicUsize, all: usize) -> Option<std::ops::Range<usize>> {
    let left = all.saturating_sub(next.load(Ordering::Relaxed));
    take(next, if left > MANY { 2 * ROWS } else { ROWS }, all)
}

/// The next `some` of `all`, or `None` when all are taken.
pub(super) fn take(next: &AtomicUsize, some: usize, all: usize) -> Option<std::ops::Range<usize>> {
    let first = next.fetch_add(some, Ordering::Relaxed);
    (first < all).then(|| first..all.min(first + some))
}

/// Room for a graph of custom operations, used again and again.
#[derive(Debug)]
struct Graph(NonNull<sys::ggml_context>);

impl Graph {
    fn new() -> Option<Self> {
        // SAFETY: these only compute sizes.
        let size = unsafe {
            STEPS * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead_custom(STEPS, false)
        };
        let params = sys::ggml_init_params {
            mem_size: size + 1024,
            mem_buffer: ptr::null_mut(),
            no_alloc: true,
        };
        // SAFETY: ggml allocates the room itself.
        NonNull::new(unsafe { sys::ggml_init(params) }).map(Self)
    }

    /// A graph of these steps, one after another. Valid until the next call.
    fn of(&mut self, steps: &[Step<'_>]) -> *mut sys::ggml_cgraph {
        let context = self.0.as_ptr();
        // SAFETY: the context is ours. Its room is for STEPS tensors and a graph of as many; `steps` are no
        // more, and outlive the computing, after which nobody looks at their addresses.
        unsafe {
            sys::ggml_reset(context);
            let graph = sys::ggml_new_graph_custom(context, STEPS, false);
            for step in steps {
                let node = sys::ggml_custom_4d(
                    context,
                    sys::GGML_TYPE_F32,
                    1,
                    1,
                    1,
                    1,
                    ptr::null_mut(),
                    0,
                    Some(run),
                    ALL_THREADS,
                    ptr::from_ref(step).cast_mut().cast(),
                );
                sys::ggml_build_forward_expand(graph, node);
            }
            graph
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { sys::ggml_free(self.0.as_ptr()) };
    }
}

/// `GGML_N_TASKS_MAX`: every thread takes part.
const ALL_THREADS: c_int = -1;

/// What ggml calls in every thread.
unsafe extern "C" fn run(_: *mut sys::ggml_tensor, _: c_int, _: c_int, step: *mut c_void) {
    // SAFETY: `Graph::of` gave the address of a step that lives through the computing.
    unsafe { &*step.cast::<Step<'_>>() }.work();
}
