//! Steps of few tokens, without a split of the graph.
//!
//! A device of its own has the graph cut around each of its operations, and a cut wakes all threads twice: with few
//! tokens that costs what the kernels save. So these are swapped where they lie. Before ggml's processor
//! backend computes a graph, every product and all attention of few tokens become custom operations of ours; afterwards
//! they are what they were. All else, fused operations and the question whether to go on among it, stays ggml's.
//!
//! ggml rounds activations for each matrix and has all threads wait until that is done. Here matrices that share their
//! activations share the rounded ones, and whoever comes first rounds. Which experts a token goes to is known only while
//! the graph is computed: with so few tokens, each thread sorts them for itself.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;
use tieline_kernels::attention::Cut;
use tieline_kernels::{Activations, Layout, Level, Matrix, Output, Part, Rounding, multiply};

use super::anew::Kind;
use super::experts::{Experts, Groups};
use super::job::{Attend, ROWS, SCRATCH, length, take, tokens, wanted};
use super::tables::{Backend, BackendDevice, CustomOperation};
use super::{INNER, Inner, ON, device};

type Init = unsafe extern "C" fn(*mut BackendDevice, *const c_char) -> *mut Backend;
type Compute = unsafe extern "C" fn(*mut Backend, *mut sys::ggml_cgraph) -> sys::ggml_status;

/// ggml's own functions, which ours call.
static INIT: OnceLock<Init> = OnceLock::new();
static COMPUTE: OnceLock<Compute> = OnceLock::new();

/// Bytes of a matrix that a thread takes at a time, about: with one token, a microsecond's work.
const BYTES: usize = 16 << 10;

/// Rows of an expert's matrix that a thread takes at a time.
const EXPERT_ROWS: usize = 16;

thread_local! {
    static GROUPS: RefCell<Groups> = RefCell::default();
    /// Rooms for rounded activations, used again from step to step.
    static ROUNDED: RefCell<Vec<Activations>> = RefCell::default();
}

/// Has ggml's processor backends, as they are made from now on, ask here first. Once per process.
pub(super) fn install() {
    // SAFETY: llama.cpp is started; null where there is no such device.
    let device = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
    let device: *mut BackendDevice = device.cast();
    // SAFETY: a device is a static variable of ggml, laid out as in `tables`. Nothing else runs yet.
    if let Some(device) = unsafe { device.as_mut() }
        && INIT.set(device.iface.init_backend).is_ok()
    {
        device.iface.init_backend = init;
    }
}

unsafe extern "C" fn init(device: *mut BackendDevice, options: *const c_char) -> *mut Backend {
    let Some(init) = INIT.get() else { return ptr::null_mut() };
    // SAFETY: the caller's arguments.
    let backend = unsafe { init(device, options) };
    // SAFETY: null, or a backend that nobody else knows yet.
    if let Some(backend) = unsafe { backend.as_mut() } {
        // All of ggml's processor backends have the same function.
        COMPUTE.get_or_init(|| backend.iface.graph_compute);
        backend.iface.graph_compute = compute;
    }
    backend
}

unsafe extern "C" fn compute(
    backend: *mut Backend,
    graph: *mut sys::ggml_cgraph,
) -> sys::ggml_status {
    let Some(compute) = COMPUTE.get() else { return sys::GGML_STATUS_FAILED };
    let Some(inner) = INNER.get().filter(|_| ON.load(Ordering::Relaxed)) else {
        // SAFETY: the caller's backend, which `init` made, and graph.
        return unsafe { compute(backend, graph) };
    };
    ROUNDED.with_borrow_mut(|rounded| {
        // SAFETY: ggml gives a graph whose tensors are allocated and stay so until it is computed.
        let (sources, attending) =
            unsafe { (Sources::of(graph, inner.level, rounded), attending(graph, inner)) };
        let swaps: Vec<Swap<'_>> = sources.products().into_iter().chain(attending).collect();
        swaps.iter().for_each(Swap::install);
        // SAFETY: the caller's backend, which `init` made, and graph. `swaps` live until it is computed.
        let status = unsafe { compute(backend, graph) };
        swaps.iter().for_each(Swap::remove);
        status
    })
}

/// The products of a graph that are ours, and what they are multiplied with.
struct Sources<'a> {
    level: Level,
    /// Each with the number of its source.
    products: Vec<(*mut sys::ggml_tensor, usize)>,
    values: Vec<Values<'a>>,
}

/// Activations that are rounded by whoever needs them first.
#[derive(Debug)]
struct Values<'a> {
    source: *const sys::ggml_tensor,
    rounded: &'a Activations,
    /// The next token to round, and how many are.
    next: AtomicUsize,
    done: AtomicUsize,
}

/// Activations of a graph, and the first and the last of its operations that are ours and need them.
#[derive(Debug)]
struct Source {
    tensor: *const sys::ggml_tensor,
    /// Tokens and values of each.
    shape: [usize; 2],
    first: usize,
    last: usize,
}

/// In which room each source is rounded, and the rooms' shapes, numbered as they are first needed.
///
/// Operations come one after the other, and all threads wait for each other between them. So what is needed no longer
/// leaves its room to the next of the same shape, and there are as many as are needed at once, not as a model has layers.
fn rooms(sources: &[Source]) -> (Vec<usize>, Vec<[usize; 2]>) {
    let mut rooms: Vec<([usize; 2], usize)> = Vec::new();
    let give = |source: &Source| {
        let free =
            rooms.iter().position(|(shape, last)| *shape == source.shape && *last < source.first);
        let room = free.unwrap_or(rooms.len());
        match rooms.get_mut(room) {
            Some((_, last)) => *last = source.last,
            None => rooms.push((source.shape, source.last)),
        }
        room
    };
    let given = sources.iter().map(give).collect();
    (given, rooms.into_iter().map(|(shape, _)| shape).collect())
}

impl<'a> Sources<'a> {
    /// # Safety
    /// The graph's tensors are allocated, and stay so for `'a`.
    unsafe fn of(
        graph: *mut sys::ggml_cgraph,
        level: Level,
        rounded: &'a mut Vec<Activations>,
    ) -> Self {
        let mut products = Vec::new();
        let mut sources: Vec<Source> = Vec::new();
        let ours = |operation: &sys::ggml_tensor| {
            device::multiplies_few(operation) || device::mixes_few(operation)
        };
        // SAFETY: the caller's promise.
        for (at, node) in unsafe { nodes(graph, ours) }.enumerate() {
            // SAFETY: the caller's promise; a product has two sources.
            let tensor = unsafe { (*node).src[1] }.cast_const();
            // What shares a source lies close together.
            let known = sources.iter().rposition(|other| ptr::eq(other.tensor, tensor));
            products.push((node, known.unwrap_or(sources.len())));
            match known {
                Some(known) => sources[known].last = at,
                None => {
                    // SAFETY: as above.
                    let shape = unsafe { [tokens(&*tensor), length((*tensor).ne[0])] };
                    sources.push(Source { tensor, shape, first: at, last: at });
                }
            }
        }
        let (given, shapes) = rooms(&sources);
        rounded.resize_with(shapes.len(), Activations::default);
        for (room, [tokens, width]) in rounded.iter_mut().zip(shapes) {
            room.resize(Rounding::Bytes, Layout::Rows, tokens, width);
        }
        let rounded: &'a [Activations] = rounded;
        let values = sources.iter().zip(given).map(|(source, room)| Values {
            source: source.tensor,
            rounded: &rounded[room],
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        });
        Self { level, values: values.collect(), products }
    }

    /// The products as operations of ours.
    fn products(&self) -> Vec<Swap<'_>> {
        self.products
            .iter()
            .filter_map(|&(node, source)| Some((node, self.values.get(source)?)))
            .filter_map(|(node, values)| {
                // SAFETY: `of` promised that the graph's tensors are allocated.
                let product = unsafe { Multiply::new(self.level, node, values) }?;
                Some(Swap::new(node, Task::Multiply(product)))
            })
            .collect()
    }
}

/// What must be computed of a graph, and is of a kind.
///
/// # Safety
/// The graph and its tensors are valid.
unsafe fn nodes(
    graph: *mut sys::ggml_cgraph,
    is_ours: impl Fn(&sys::ggml_tensor) -> bool,
) -> impl Iterator<Item = *mut sys::ggml_tensor> {
    // SAFETY: the caller's promise; indices are below the count.
    let all = (0..unsafe { sys::ggml_graph_n_nodes(graph) })
        .map(move |index| unsafe { sys::ggml_graph_node(graph, index) });
    // SAFETY: the caller's promise.
    all.filter(move |node| unsafe { wanted(&**node) && is_ours(&**node) })
}

/// A graph's attention of few tokens. Layers that look through the same mask are cut alike, and it is looked at once.
///
/// # Safety
/// The graph's tensors are allocated, and stay so for `'a`.
unsafe fn attending<'a>(graph: *mut sys::ggml_cgraph, inner: &Inner) -> Vec<Swap<'a>> {
    let threads = inner.threads.load(Ordering::Relaxed);
    let mut cuts: Vec<(*const sys::ggml_tensor, Cut)> = Vec::new();
    // SAFETY: the caller's promise.
    let nodes = unsafe { nodes(graph, device::attends_few) };
    nodes
        .filter_map(|node| {
            // SAFETY: the caller's promise; attention of ours has a mask.
            let mask = unsafe { (*node).src[3] }.cast_const();
            // SAFETY: as above. A mask that something computes is not there yet; nothing else is looked at.
            let attend = unsafe {
                let is_there = (*mask).op == sys::GGML_OP_NONE;
                Attend::new(inner.level, node, |attention| {
                    let known = cuts
                        .iter()
                        .find(|(other, cut)| ptr::eq(*other, mask) && cut.fits(attention));
                    if let Some((_, cut)) = known {
                        return cut.clone();
                    }
                    let cut = match attention.tokens() {
                        _ if !is_there => Cut::blind(attention),
                        0..=Level::FEW => Cut::by_sight(attention, threads),
                        _ => Cut::blocks(attention, threads),
                    };
                    cuts.push((mask, cut.clone()));
                    cut
                })
            }?;
            Some(Swap::new(node, Task::Attend(attend)))
        })
        .collect()
}

impl Values<'_> {
    /// Rounds what nobody has begun yet, and waits for the rest.
    fn round(&self, level: Level) {
        let (tokens, width) = (self.rounded.tokens(), self.rounded.width());
        while let Some(range) = take(&self.next, 1, tokens) {
            let token = range.start;
            // SAFETY: the source is contiguous floats, and what makes them is done: ggml computes in order. The
            // counter gives every token to one thread.
            unsafe {
                let values = (*self.source).data.cast::<f32>().add(token * width);
                let values = std::slice::from_raw_parts(values, width);
                self.rounded.fill(level, token, values);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
        while self.done.load(Ordering::Acquire) < tokens {
            std::hint::spin_loop();
        }
    }
}

/// An operation that is a custom one of ours while its graph is computed.
#[derive(Debug)]
struct Swap<'a> {
    node: *mut sys::ggml_tensor,
    was: (sys::ggml_op, [i32; 16]),
    task: Task<'a>,
}

/// What a swapped operation does.
#[derive(Debug)]
enum Task<'a> {
    Multiply(Multiply<'a>),
    Attend(Attend),
}

/// A product that threads take part in. What it reads is looked at only when its turn has come: until then, others write it.
#[derive(Debug)]
struct Multiply<'a> {
    level: Level,
    node: *const sys::ggml_tensor,
    /// Whether it is one of experts' matrices.
    mixes: bool,
    values: &'a Values<'a>,
    /// The next row to multiply, or the next part.
    next: AtomicUsize,
}

/// A matrix and where its products go.
struct Whole<'t> {
    matrix: Matrix<'t>,
    output: Output,
    /// Whether the kernel for few tokens multiplies.
    few: bool,
    /// How many rows a thread takes at a time.
    rows: usize,
}

impl<'a> Multiply<'a> {
    /// `None` where the tensor is not what the device takes.
    ///
    /// # Safety
    /// A product of a graph that is about to be computed, whose tensors are allocated.
    unsafe fn new(
        level: Level,
        node: *const sys::ggml_tensor,
        values: &'a Values<'a>,
    ) -> Option<Self> {
        // SAFETY: the caller's promise.
        let mixes = unsafe { (*node).op == sys::GGML_OP_MUL_MAT_ID };
        let product = Self { level, node, mixes, values, next: AtomicUsize::new(0) };
        // SAFETY: as above; nothing is read but what tensors are.
        let is_ours =
            unsafe { if mixes { product.experts().is_some() } else { product.matrix().is_some() } };
        is_ours.then_some(product)
    }

    /// # Safety
    /// The node and its sources are allocated for as long as what is returned, and nobody writes the sources.
    unsafe fn matrix<'t>(&self) -> Option<Whole<'t>> {
        // SAFETY: the caller's promise; a product has two sources.
        let (product, weights) = unsafe { (&*self.node, &*(*self.node).src[0]) };
        let kind = Kind::of(weights)?;
        // SAFETY: the caller's promise.
        let matrix = unsafe { Kind::whole(weights) }?;
        let row_bytes = kind.format.row_bytes(length(weights.ne[0]))?;
        let (stride, tokens) = (product.nb[1] / 4, self.values.rounded.tokens());
        let few = kind.by_few(self.level, tokens);
        let together = if few { 4 } else { ROWS };
        // SAFETY: the product's own floats, which nobody reads before it is done.
        let output = unsafe { Output::new(product.data.cast(), stride, tokens) };
        let rows = (BYTES / row_bytes.max(1)).max(1).next_multiple_of(together);
        Some(Whole { matrix, output, few, rows })
    }

    /// # Safety
    /// As for [`matrix`](Self::matrix).
    unsafe fn experts<'t>(&self) -> Option<Experts<'t>> {
        // SAFETY: the caller's promise.
        unsafe { Experts::new((self.level, true), &*self.node) }
    }

    /// One thread's share.
    fn work(&self) {
        self.values.round(self.level);
        // SAFETY: ggml computes in order: what is read is computed by now, and written no more before this is done.
        unsafe {
            if self.mixes {
                if let Some(experts) = self.experts() {
                    GROUPS.with_borrow_mut(|groups| self.mix(&experts, groups));
                }
            } else if let Some(whole) = self.matrix() {
                self.multiply(&whole);
            }
        }
    }

    fn multiply(&self, Whole { matrix, output, few, rows }: &Whole<'_>) {
        let rows = *rows;
        SCRATCH.with_borrow_mut(|scratch| {
            // Rooms of activations are filled again for later sources.
            scratch.forget();
            let mut mine = take(&self.next, rows, matrix.rows());
            while let Some(now) = mine {
                // Taken now, so that its bytes come while these are multiplied.
                mine = take(&self.next, rows, matrix.rows());
                let part = Part { rows: now, next: mine.clone().unwrap_or_default() };
                let rounded = self.values.rounded;
                // SAFETY: the counter gives every row to one thread, and all tokens are rounded.
                unsafe { multiply((self.level, *few), (matrix, part), rounded, output, scratch) };
            }
        });
    }

    fn mix(&self, experts: &Experts<'_>, groups: &mut Groups) {
        // SAFETY: what says which expert is computed: it is a source of this operation.
        if !unsafe { experts.group(groups) } {
            // Nothing that could be taken for an answer.
            if take(&self.next, 1, 1).is_some() {
                // SAFETY: the counter lets one thread do so, and no thread found what to multiply.
                unsafe { experts.spoil() };
            }
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            // As above.
            scratch.forget();
            let all = experts.parts(groups, EXPERT_ROWS);
            let mut mine = take(&self.next, 1, all);
            while let Some(part) = mine {
                // Taken now, as above.
                mine = take(&self.next, 1, all);
                let parts = (part.start, mine.as_ref().map(|next| next.start));
                let rounded = self.values.rounded;
                // SAFETY: the counter gives every part to one thread, and all tokens are rounded.
                unsafe { experts.multiply((groups, EXPERT_ROWS), parts, rounded, scratch) };
            }
        });
    }
}

impl<'a> Swap<'a> {
    fn new(node: *mut sys::ggml_tensor, task: Task<'a>) -> Self {
        // SAFETY: a node of a graph that is about to be computed.
        let was = unsafe { ((*node).op, (*node).op_params) };
        Self { node, was, task }
    }

    /// Makes the node an operation of ours. The swap must stay where it is until it is removed.
    fn install(&self) {
        let ours = CustomOperation {
            run: Some(run),
            tasks: ALL_THREADS,
            data: ptr::from_ref(self).cast_mut().cast(),
        };
        // SAFETY: the node is a tensor that nobody computes yet; a custom operation's parameters fit in its own.
        unsafe {
            (*self.node).op = sys::GGML_OP_CUSTOM;
            (&raw mut (*self.node).op_params).cast::<CustomOperation>().write_unaligned(ours);
        }
    }

    /// Makes the node what it was.
    fn remove(&self) {
        // SAFETY: as above, and it is computed.
        unsafe { ((*self.node).op, (*self.node).op_params) = self.was };
    }

    /// One thread's share.
    fn work(&self) {
        match &self.task {
            Task::Multiply(product) => product.work(),
            Task::Attend(attend) => attend.work(),
        }
    }
}

/// `GGML_N_TASKS_MAX`: every thread takes part.
const ALL_THREADS: c_int = -1;

/// What ggml calls in every thread.
unsafe extern "C" fn run(_: *mut sys::ggml_tensor, _: c_int, _: c_int, swap: *mut c_void) {
    // SAFETY: `install` gave the address of a swap that lives through the computing.
    unsafe { &*swap.cast::<Swap<'_>>() }.work();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(width: usize, first: usize, last: usize) -> Source {
        Source { tensor: ptr::null(), shape: [2, width], first, last }
    }

    #[test]
    fn a_room_is_given_on_when_it_is_needed_no_longer() {
        let layer = |at: usize| {
            [source(64, at, at + 2), source(64, at + 5, at + 5), source(256, at + 7, at + 7)]
        };
        let layers: Vec<Source> = (0..30).flat_map(|number| layer(10 * number)).collect();
        let two = vec![[2, 64], [2, 256]];
        assert_eq!(rooms(&layers), ([0, 0, 1].repeat(30), two), "whatever the layers");
    }

    #[test]
    fn what_is_needed_at_once_has_rooms_of_its_own() {
        let rooms = |sources: &[Source]| super::rooms(sources).0;
        assert_eq!(rooms(&[source(64, 0, 9), source(64, 3, 4), source(64, 9, 9)]), [0, 1, 1]);
        assert_eq!(rooms(&[source(64, 0, 3), source(64, 3, 4)]), [0, 1], "by the same operation");
    }
}
