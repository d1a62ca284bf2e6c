//! ggml's tables of functions for a device, as `ggml-backend-impl.h` declares them.
//!
//! They are no part of ggml's public interface, so no bindings are generated: these are written after the
//! header of exactly the version that the workspace pins (`GGML_BACKEND_API_VERSION` 3), and a test asks
//! the registered device for all it has. Functions that we never give are declared as [`Absent`].

use std::ffi::{c_char, c_int, c_void};

use llama_cpp_sys_2 as sys;

/// The version of the tables that this is written after.
pub(super) const API_VERSION: c_int = 3;

/// A function that a device may lack. Always null here.
pub(super) type Absent = Option<unsafe extern "C" fn()>;

type Device = *mut BackendDevice;
type Registry = *mut BackendRegistry;

/// `ggml_backend_reg`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct BackendRegistry {
    pub(super) api_version: c_int,
    pub(super) iface: RegistryFunctions,
    pub(super) context: *mut c_void,
}

/// `ggml_backend_reg_i`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct RegistryFunctions {
    pub(super) get_name: unsafe extern "C" fn(Registry) -> *const c_char,
    pub(super) get_device_count: unsafe extern "C" fn(Registry) -> usize,
    pub(super) get_device: unsafe extern "C" fn(Registry, usize) -> Device,
    pub(super) get_proc_address: unsafe extern "C" fn(Registry, *const c_char) -> *mut c_void,
}

/// `ggml_backend_device`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct BackendDevice {
    pub(super) iface: DeviceFunctions,
    pub(super) reg: Registry,
    pub(super) context: *mut c_void,
}

/// `ggml_backend_device_i`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct DeviceFunctions {
    pub(super) get_name: unsafe extern "C" fn(Device) -> *const c_char,
    pub(super) get_description: unsafe extern "C" fn(Device) -> *const c_char,
    pub(super) get_memory: unsafe extern "C" fn(Device, *mut usize, *mut usize),
    pub(super) get_type: unsafe extern "C" fn(Device) -> sys::ggml_backend_dev_type,
    pub(super) get_props: unsafe extern "C" fn(Device, *mut sys::ggml_backend_dev_props),
    pub(super) init_backend: unsafe extern "C" fn(Device, *const c_char) -> *mut Backend,
    pub(super) get_buffer_type: unsafe extern "C" fn(Device) -> sys::ggml_backend_buffer_type_t,
    pub(super) get_host_buffer_type: Absent,
    pub(super) buffer_from_host_ptr:
        unsafe extern "C" fn(Device, *mut c_void, usize, usize) -> sys::ggml_backend_buffer_t,
    pub(super) supports_op: unsafe extern "C" fn(Device, *const sys::ggml_tensor) -> bool,
    pub(super) supports_buft: unsafe extern "C" fn(Device, sys::ggml_backend_buffer_type_t) -> bool,
    pub(super) offload_op: Absent,
    pub(super) event_new: Absent,
    pub(super) event_free: Absent,
    pub(super) event_synchronize: Absent,
}

/// `ggml_backend`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) guid: *const [u8; 16],
    pub(super) iface: BackendFunctions,
    pub(super) device: Device,
    pub(super) context: *mut c_void,
}

/// `ggml_backend_i`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct BackendFunctions {
    pub(super) get_name: unsafe extern "C" fn(*mut Backend) -> *const c_char,
    pub(super) free: unsafe extern "C" fn(*mut Backend),
    /// Five transfers of data, and synchronising.
    pub(super) transfers: [Absent; 6],
    /// Four functions for plans.
    pub(super) plans: [Absent; 4],
    pub(super) graph_compute:
        unsafe extern "C" fn(*mut Backend, *mut sys::ggml_cgraph) -> sys::ggml_status,
    /// Two for events, and one that sorts the graph.
    pub(super) others: [Absent; 3],
}

/// `ggml_custom_op_params` (`ggml-impl.h`): what a custom operation's parameters hold.
#[repr(C)]
#[derive(Debug)]
pub(super) struct CustomOperation {
    pub(super) run: sys::ggml_custom_op_t,
    pub(super) tasks: c_int,
    pub(super) data: *mut c_void,
}

const _: () = assert!(size_of::<CustomOperation>() <= 64, "no room in an operation's parameters");

// SAFETY: tables that never change; what they point to are statics too.
unsafe impl Sync for BackendRegistry {}
// SAFETY: as above.
unsafe impl Sync for BackendDevice {}
// SAFETY: as above.
unsafe impl Send for BackendRegistry {}
// SAFETY: as above.
unsafe impl Send for BackendDevice {}
