//! Events: XID errors.

use std::{
    ffi::{c_uint, c_ulonglong},
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t};

use crate::{
    GPU_IS_LOST, OK, TIMEOUT, UNINITIALIZED, exports,
    state::{Device, State, memory},
};

const XID: c_ulonglong = 8;
/// Not looked into by anybody.
const SET: usize = 0xe5e5;

exports! {
    nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, types: *mut c_ulonglong), Some(device), |_call| {
        *types = 0xff9f;
        OK
    }
    nvmlEventSetCreate(set: *mut nvmlEventSet_t), None, |_call| {
        if let Some(memory) = &mut *memory() {
            memory.registered.clear();
        }
        *set = SET as nvmlEventSet_t;
        OK
    }
    nvmlEventSetFree(_set: nvmlEventSet_t), None, |_call| { OK }
    nvmlDeviceRegisterEvents(device: nvmlDevice_t, _types: c_ulonglong, _set: nvmlEventSet_t), Some(device), |call| {
        if let Some(memory) = &mut *memory() {
            memory.registered.push(call.device.gpu);
        }
        OK
    }
    nvmlEventSetWait_v2(_set: nvmlEventSet_t, data: *mut nvmlEventData_t, milliseconds: c_uint), None, |_call| {
        let end = Instant::now() + Duration::from_millis(milliseconds.into());
        loop {
            let state = State::now();
            if let Some(memory) = &mut *memory() {
                for gpu in memory.registered.clone() {
                    let xid: u64 = state.number(&format!("gpu{gpu}.xid"), 0);
                    if xid != 0 && memory.told.insert(gpu, xid) != Some(xid) {
                        *data = nvmlEventData_t {
                            device: Device::gpu(gpu).handle(),
                            eventType: XID,
                            eventData: xid,
                            gpuInstanceId: u32::MAX,
                            computeInstanceId: u32::MAX,
                        };
                        return OK;
                    }
                    if state.number(&format!("gpu{gpu}.ret"), 0) == GPU_IS_LOST {
                        return GPU_IS_LOST;
                    }
                }
            } else {
                return UNINITIALIZED;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return TIMEOUT;
            }
            // A real wait sleeps in the kernel: be nearly as cheap.
            thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}
