//! The device: what it says of itself and which operations it takes.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use llama_cpp_sys_2 as sys;
use tieline_kernels::Level;
use tieline_kernels::attention::WIDTHS;

use super::anew::{self, Kind};
use super::choice::{self, Worth};
use super::job::Worker;
use super::tables::{
    API_VERSION, Backend, BackendDevice, BackendFunctions, BackendRegistry, DeviceFunctions,
    RegistryFunctions,
};
use super::{ATTENDS, INNER, ON};

const NAME: &CStr = c"TIELINE";
const DESCRIPTION: &CStr = c"matrix products on the processor";
/// Identifies backends of this kind.
static GUID: [u8; 16] = *b"tieline-kernels1";
/// Rows from which on a matrix is worth a split of the graph.
const ROWS: i64 = 32;

static REGISTRY: BackendRegistry = BackendRegistry {
    api_version: API_VERSION,
    iface: RegistryFunctions {
        get_name: registry_name,
        get_device_count,
        get_device,
        get_proc_address,
    },
    context: ptr::null_mut(),
};
static DEVICE: OnceLock<BackendDevice> = OnceLock::new();

/// Offers the device to ggml.
pub(super) fn register() {
    // SAFETY: the registry is static; ggml never writes to it. It asks it for its devices now.
    unsafe { sys::ggml_backend_register(registry().cast()) };
}

fn registry() -> *mut BackendRegistry {
    ptr::from_ref(&REGISTRY).cast_mut()
}

fn device() -> *mut BackendDevice {
    let make = || BackendDevice {
        iface: DeviceFunctions {
            get_name: device_name,
            get_description,
            get_memory,
            get_type,
            get_props,
            init_backend,
            get_buffer_type,
            get_host_buffer_type: None,
            buffer_from_host_ptr,
            supports_op,
            supports_buft,
            offload_op: None,
            event_new: None,
            event_free: None,
            event_synchronize: None,
        },
        reg: registry(),
        context: ptr::null_mut(),
    };
    ptr::from_ref(DEVICE.get_or_init(make)).cast_mut()
}

unsafe extern "C" fn registry_name(_: *mut BackendRegistry) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn get_device_count(_: *mut BackendRegistry) -> usize {
    1
}

unsafe extern "C" fn get_device(_: *mut BackendRegistry, _: usize) -> *mut BackendDevice {
    device()
}

/// llama.cpp tells every backend how many threads to use, by this one name.
unsafe extern "C" fn get_proc_address(_: *mut BackendRegistry, name: *const c_char) -> *mut c_void {
    // SAFETY: ggml gives a terminated name.
    if unsafe { CStr::from_ptr(name) } == c"ggml_backend_set_n_threads" {
        let function: unsafe extern "C" fn(*mut Backend, c_int) = set_n_threads;
        return function as *mut c_void;
    }
    ptr::null_mut()
}

unsafe extern "C" fn set_n_threads(_: *mut Backend, threads: c_int) {
    if let Some(inner) = INNER.get() {
        inner.use_threads(threads);
    }
}

unsafe extern "C" fn device_name(_: *mut BackendDevice) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn get_description(_: *mut BackendDevice) -> *const c_char {
    DESCRIPTION.as_ptr()
}

/// It has no memory of its own.
unsafe extern "C" fn get_memory(_: *mut BackendDevice, free: *mut usize, total: *mut usize) {
    // SAFETY: ggml gives two places to write to.
    unsafe {
        *free = 0;
        *total = 0;
    }
}

unsafe extern "C" fn get_type(_: *mut BackendDevice) -> sys::ggml_backend_dev_type {
    sys::GGML_BACKEND_DEVICE_TYPE_ACCEL
}

unsafe extern "C" fn get_props(
    _: *mut BackendDevice,
    properties: *mut sys::ggml_backend_dev_props,
) {
    let made = sys::ggml_backend_dev_props {
        name: NAME.as_ptr(),
        description: DESCRIPTION.as_ptr(),
        memory_free: 0,
        memory_total: 0,
        type_: sys::GGML_BACKEND_DEVICE_TYPE_ACCEL,
        device_id: ptr::null(),
        caps: sys::ggml_backend_dev_caps {
            async_: false,
            host_buffer: false,
            buffer_from_host_ptr: true,
            events: false,
            mmap_support: true,
        },
    };
    // SAFETY: ggml gives a place to write to.
    unsafe { properties.write(made) };
}

unsafe extern "C" fn init_backend(_: *mut BackendDevice, _: *const c_char) -> *mut Backend {
    let backend = Backend {
        guid: &raw const GUID,
        iface: BackendFunctions {
            get_name: backend_name,
            free,
            transfers: [None; 6],
            plans: [None; 4],
            graph_compute,
            others: [None; 3],
        },
        device: device(),
        context: Box::into_raw(Box::new(Worker::default())).cast(),
    };
    Box::into_raw(Box::new(backend))
}

unsafe extern "C" fn backend_name(_: *mut Backend) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn free(backend: *mut Backend) {
    // SAFETY: made by `init_backend`, and freed once.
    unsafe {
        let backend = Box::from_raw(backend);
        drop(Box::from_raw(backend.context.cast::<Worker>()));
    }
}

unsafe extern "C" fn graph_compute(
    backend: *mut Backend,
    graph: *mut sys::ggml_cgraph,
) -> sys::ggml_status {
    let Some(inner) = INNER.get() else { return sys::GGML_STATUS_FAILED };
    // SAFETY: made by `init_backend`; ggml computes one graph of a backend at a time.
    let worker = unsafe { &mut *(*backend).context.cast::<Worker>() };
    // SAFETY: ggml gives a graph of operations that `supports_op` took, with all data allocated.
    unsafe { worker.compute(inner, graph) }
}

unsafe extern "C" fn get_buffer_type(_: *mut BackendDevice) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: a static of ggml.
    unsafe { sys::ggml_backend_cpu_buffer_type() }
}

unsafe extern "C" fn buffer_from_host_ptr(
    _: *mut BackendDevice,
    data: *mut c_void,
    size: usize,
    _: usize,
) -> sys::ggml_backend_buffer_t {
    // SAFETY: the caller's pointer, as for ggml's own processor backend.
    unsafe { sys::ggml_backend_cpu_buffer_from_ptr(data, size) }
}

unsafe extern "C" fn supports_buft(
    _: *mut BackendDevice,
    kind: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: ggml gives a valid type of buffer.
    unsafe { sys::ggml_backend_buft_is_host(kind) || anew::is(kind) }
}

unsafe extern "C" fn supports_op(
    _: *mut BackendDevice,
    operation: *const sys::ggml_tensor,
) -> bool {
    // SAFETY: ggml gives a valid operation.
    let operation = unsafe { &*operation };
    match operation.op {
        sys::GGML_OP_NONE
        | sys::GGML_OP_RESHAPE
        | sys::GGML_OP_VIEW
        | sys::GGML_OP_PERMUTE
        | sys::GGML_OP_TRANSPOSE => true,
        sys::GGML_OP_MUL_MAT => ON.load(Ordering::Relaxed) && multiplies(operation),
        sys::GGML_OP_MUL_MAT_ID => {
            ON.load(Ordering::Relaxed) && !is_few(operation) && mixes(operation).is_some()
        }
        sys::GGML_OP_FLASH_ATTN_EXT => attends(operation) && !few(operation),
        _ => false,
    }
}

/// Steps of so many tokens are swapped in ggml's own graph. A cut of it wakes all threads twice, which longer ones hardly feel.
pub(super) const SHORT: usize = 32;

/// Whether a matrix product is one of ours: a quantised matrix, plain and in one piece, by enough tokens.
fn multiplies(operation: &sys::ggml_tensor) -> bool {
    let enough = plain_product(operation).is_some_and(|(worth, tokens)| worth.many(tokens));
    enough && !multiplies_few(operation)
}

/// Whether an operation is such a product by so few tokens that it is swapped in ggml's own graph.
pub(super) fn multiplies_few(operation: &sys::ggml_tensor) -> bool {
    let is_short = || {
        let (worth, tokens) = plain_product(operation)?;
        Some(match tokens {
            0..=Level::FEW if worth.few(tokens) => {
                takes_few(operation) || lies_in_eights(operation)
            }
            _ => tokens <= SHORT && worth.many(tokens) && !is_float(operation),
        })
    };
    operation.op == sys::GGML_OP_MUL_MAT
        && is_short().unwrap_or(false)
        && (lies_in_eights(operation) || lies_plain(operation))
}

fn is_float(product: &sys::ggml_tensor) -> bool {
    // SAFETY: a product has two sources.
    Kind::of(unsafe { &*product.src[0] }).is_some_and(|kind| kind.format.is_float())
}

/// Whether an operation is a product of experts' matrices by so few tokens that it is swapped in ggml's own graph.
pub(super) fn mixes_few(operation: &sys::ggml_tensor) -> bool {
    operation.op == sys::GGML_OP_MUL_MAT_ID
        && is_few(operation)
        && mixes(operation).is_some_and(|(_, few)| few)
        && lies_plain(operation)
}

/// Whether a product of experts' matrices has so few tokens that no graph is cut for it.
fn is_few(product: &sys::ggml_tensor) -> bool {
    usize::try_from(product.ne[2]).is_ok_and(|tokens| tokens <= Level::FEW)
}

/// Whether a product of experts' matrices is one of ours, and if so, by the kernel for few tokens or by the one for many.
///
/// Only the number of tokens decides, not where they go: so a token's products do not depend on the others' experts.
pub(super) fn mixes(operation: &sys::ggml_tensor) -> Option<(Level, bool)> {
    // SAFETY: such a product has three sources, null or valid.
    let [weights, values, ids] = [0, 1, 2].map(|source| unsafe { operation.src[source].as_ref() });
    let (weights, values, ids) = (weights?, values?, ids?);
    let kind = Kind::of(weights)?;
    let level = INNER.get()?.level;
    let size = |number: i64| usize::try_from(number).unwrap_or(0);
    // SAFETY: all are valid tensors.
    let contiguous = unsafe {
        sys::ggml_is_contiguous(weights)
            && sys::ggml_is_contiguous(values)
            && sys::ggml_is_contiguous(operation)
    };
    let float = sys::GGML_TYPE_F32;
    let plain = contiguous
        && values.type_ == float
        && operation.type_ == float
        && ids.type_ == sys::GGML_TYPE_I32
        && ids.ne[1] == values.ne[2]
        && [weights, values, operation].iter().all(|tensor| tensor.ne[3] == 1)
        && kind.format.row_bytes(size(weights.ne[0])).is_some()
        && weights.ne[1] >= ROWS;
    let experts = size(weights.ne[2]);
    let picks = size(ids.ne[0]).checked_mul(size(ids.ne[1]))?;
    let many =
        !is_few(operation) && kind.mixture(level).is_some_and(|least| picks >= least * experts);
    // Of long blocks, the kernel for few tokens was not measured here: most experts get one.
    let short = kind.format.block_weights() == 32;
    // Most experts get one token.
    let few = !many && short && kind.few(level, 1) && takes_few(operation);
    (plain && (many || few)).then_some((level, few))
}

/// Whether the matrix's rows are whole pairs of blocks, as the kernel for few tokens takes them.
fn takes_few(product: &sys::ggml_tensor) -> bool {
    // SAFETY: a product has two sources.
    unsafe { (*product.src[0]).ne[0] % 64 == 0 }
}

/// Whether the matrix lies in memory anew, in a way that we know.
fn lies_in_eights(product: &sys::ggml_tensor) -> bool {
    // SAFETY: a product has two sources.
    Kind::of(unsafe { &*product.src[0] }).is_some_and(|kind| kind.in_eights)
}

/// Whether the matrix lies in memory as in the file: not anew in a way of ggml's.
fn lies_plain(product: &sys::ggml_tensor) -> bool {
    // SAFETY: a product has two sources; a view's own source is valid; a buffer is null or valid.
    unsafe {
        let weights = &*product.src[0];
        let whole = weights.view_src.as_ref().unwrap_or(weights);
        !whole.buffer.is_null() && sys::ggml_backend_buffer_is_host(whole.buffer)
    }
}

/// What is worth taking of a product of a quantised matrix, plain and in one piece, and its number of tokens.
fn plain_product(operation: &sys::ggml_tensor) -> Option<(Worth, usize)> {
    // SAFETY: a product has two sources, null or valid.
    let (weights, values) = unsafe { (operation.src[0].as_ref()?, operation.src[1].as_ref()?) };
    let kind = Kind::of(weights)?;
    let level = INNER.get()?.level;
    let flat = |tensor: &sys::ggml_tensor| tensor.ne[2] == 1 && tensor.ne[3] == 1;
    let width = usize::try_from(weights.ne[0]).unwrap_or(0);
    // SAFETY: both are valid tensors.
    let contiguous = unsafe { sys::ggml_is_contiguous(weights) && sys::ggml_is_contiguous(values) };
    let float = sys::GGML_TYPE_F32;
    // A hint in the second parameter asks for a method of ggml's own.
    let plain = operation.op_params[1] == 0
        && flat(weights)
        && flat(values)
        && contiguous
        && values.type_ == float
        && operation.type_ == float
        && kind.format.row_bytes(width).is_some()
        && weights.ne[1] >= ROWS;
    if !plain {
        return None;
    }
    // What is not computed lies where it is as long as the model.
    if weights.op == sys::GGML_OP_NONE && (kind.in_eights || lies_plain(operation)) {
        choice::see(kind, weights);
    }
    Some((choice::of(level, kind, width), usize::try_from(values.ne[1]).ok()?))
}

/// Whether attention is one of ours, of so few tokens that it is swapped in ggml's own graph.
pub(super) fn attends_few(operation: &sys::ggml_tensor) -> bool {
    operation.op == sys::GGML_OP_FLASH_ATTN_EXT && attends(operation) && few(operation)
}

/// Whether few tokens attend.
fn few(attention: &sys::ggml_tensor) -> bool {
    // SAFETY: attention has queries.
    usize::try_from(unsafe { (*attention.src[0]).ne[1] }).is_ok_and(|tokens| tokens <= SHORT)
}

/// Whether attention is one of ours: to keys and values of 16 bits, with a mask and nothing besides.
fn attends(operation: &sys::ggml_tensor) -> bool {
    // Where attention is not written for the processor, ggml's is the faster.
    let written = INNER.get().is_some_and(|inner| inner.level.attends());
    if !written || !ON.load(Ordering::Relaxed) || !ATTENDS.load(Ordering::Relaxed) {
        return false;
    }
    // SAFETY: sources are null or valid.
    let source = |number: usize| unsafe { operation.src[number].as_ref() };
    let (Some(queries), Some(keys), Some(values), Some(mask), None) =
        (source(0), source(1), source(2), source(3), source(4))
    else {
        return false;
    };
    let half = sys::GGML_TYPE_F16;
    let flat = |tensor: &sys::ggml_tensor| tensor.ne[3] == 1;
    let wide = |tensor: &sys::ggml_tensor| tensor.ne[0] == queries.ne[0];
    let width = usize::try_from(queries.ne[0]).unwrap_or(0);
    // A bias that grows with the distance, and a cap on exponents, are floats that are not 0.
    let plain = operation.op_params[1] == 0 && operation.op_params[2] == 0;
    let places = queries.nb[0] == 4 && keys.nb[0] == 2 && values.nb[0] == 2 && mask.nb[0] == 2;
    plain
        && places
        && WIDTHS.contains(&width)
        && [queries, keys, values, mask].into_iter().all(flat)
        && wide(keys)
        && wide(values)
        && mask.ne[2] == 1
        && keys.ne[2] > 0
        && keys.ne[2] == values.ne[2]
        && queries.ne[2] % keys.ne[2] == 0
        && queries.type_ == sys::GGML_TYPE_F32
        && operation.type_ == sys::GGML_TYPE_F32
        && [keys, values, mask].into_iter().all(|tensor| tensor.type_ == half)
}

#[cfg(test)]
mod tests;
