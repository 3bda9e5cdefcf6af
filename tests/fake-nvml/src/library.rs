//! The library itself, the driver, and handles.

use std::{
    ffi::{CStr, c_char, c_int, c_uint},
    ptr,
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::{INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, OK, device, exports, put, state, state::Device};

/// As in NVML.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    state::init()
}

/// As in NVML.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    state::init()
}

/// As in NVML.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    state::shutdown()
}

/// As in NVML.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlErrorString(_code: nvmlReturn_t) -> *const c_char {
    c"fake nvml error".as_ptr()
}

exports! {
    nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint), None, |call| {
        put(version, length as usize, call.state.driver())
    }
    nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint), None, |call| {
        put(version, length as usize, &format!("13.{}", call.state.driver()))
    }
    nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int), None, |call| {
        *version = call.state.number("cuda", 13000);
        OK
    }
    nvmlSystemGetCudaDriverVersion(version: *mut c_int), None, |call| {
        *version = call.state.number("cuda", 13000);
        OK
    }
    nvmlDeviceGetCount_v2(count: *mut c_uint), None, |call| {
        *count = call.state.number("gpus", 2);
        OK
    }
    nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t), Some(Device::gpu(index).handle()), |call| {
        *device = call.device.handle();
        OK
    }
    nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t), None, |call| {
        let uuid = CStr::from_ptr(uuid).to_string_lossy();
        let mut known = (0..call.state.number("gpus", 2)).map(Device::gpu);
        known.find(|known| device::uuid(*known) == uuid).map_or(NOT_FOUND, |known| { *device = known.handle(); OK })
    }
    nvmlDeviceGetHandleByPciBusId_v2(address: *const c_char, device: *mut nvmlDevice_t), None, |call| {
        let address = CStr::from_ptr(address).to_string_lossy();
        let mut known = (0..call.state.number("gpus", 2)).map(Device::gpu);
        known.find(|known| device::address(known.gpu) == address).map_or(NOT_FOUND, |known| { *device = known.handle(); OK })
    }
    nvmlDeviceGetMigMode(device: nvmlDevice_t, current: *mut c_uint, pending: *mut c_uint), Some(device), |call| {
        if call.device.mig.is_some() {
            return INVALID_ARGUMENT;
        }
        *current = c_uint::from(call.text("mig").is_some());
        *pending = *current;
        OK
    }
    nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint), Some(device), |_call| {
        *count = 7;
        OK
    }
    nvmlDeviceGetMigDeviceHandleByIndex(device: nvmlDevice_t, index: c_uint, mig: *mut nvmlDevice_t), Some(device), |call| {
        if index >= call.number("mig", 0) {
            return NOT_FOUND;
        }
        *mig = Device { mig: Some(index), ..call.device }.handle();
        OK
    }
    nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig: nvmlDevice_t, device: *mut nvmlDevice_t), Some(mig), |call| {
        *device = Device::gpu(call.device.gpu).handle();
        OK
    }
    nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, id: *mut c_uint), Some(device), |call| {
        let Some(mig) = call.device.mig else {
            ptr::write(id, c_uint::MAX);
            return NOT_SUPPORTED;
        };
        *id = mig + 1;
        OK
    }
}
