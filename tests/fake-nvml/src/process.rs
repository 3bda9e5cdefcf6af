//! Processes on a GPU.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessInfo_t, nvmlProcessInfo_v2_t, nvmlProcessUtilizationSample_t, nvmlReturn_t,
};

use crate::{
    INSUFFICIENT_SIZE, NOT_FOUND, OK, exports,
    state::{Call, now},
};

/// Entries of the list as drivers 535.43 to 535.86 had them.
#[repr(C)]
struct Longer {
    pid: c_uint,
    memory: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
    protected: c_ulonglong,
}

/// Pid and bytes; all bits set: not known.
fn processes(call: &Call) -> Vec<(u32, u64)> {
    let entry = |entry: &str| {
        let (pid, bytes) = entry.split_once(':')?;
        Some((pid.trim().parse().ok()?, bytes.trim().parse().unwrap_or(u64::MAX)))
    };
    call.text("procs").unwrap_or("").split(',').filter_map(entry).collect()
}

fn has_longer_entries(driver: &str) -> bool {
    let mut parts = driver.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    parts.next() == Some(535) && parts.next().is_some_and(|minor| (43..=86).contains(&minor))
}

/// # Safety
/// `count` is valid, and `entries` for so many of the size that this driver has.
unsafe fn list(call: &Call, count: *mut c_uint, entries: *mut nvmlProcessInfo_t, longer: bool) -> nvmlReturn_t {
    let mut all = processes(call);
    // SAFETY: valid by contract.
    let room = unsafe { *count } as usize;
    if !entries.is_null() && room > 0 {
        all.extend((0..call.number("procs_burst", 0)).map(|more| (900_000 + more, 1 << 30)));
    }
    // SAFETY: as above.
    unsafe { *count = u32::try_from(all.len()).unwrap_or(u32::MAX) };
    if room < all.len() {
        return INSUFFICIENT_SIZE;
    }
    for (index, (pid, memory)) in all.into_iter().enumerate() {
        let (gpu_instance, compute_instance) = (u32::MAX, u32::MAX);
        // SAFETY: there is room for so many.
        unsafe {
            if longer {
                *entries.cast::<Longer>().add(index) =
                    Longer { pid, memory, gpu_instance, compute_instance, protected: 0 };
            } else {
                *entries.add(index) = nvmlProcessInfo_v2_t {
                    pid,
                    usedGpuMemory: memory,
                    gpuInstanceId: gpu_instance,
                    computeInstanceId: compute_instance,
                };
            }
        }
    }
    OK
}

fn utilization(call: &Call) -> Vec<[u32; 3]> {
    let entry = |entry: &str| {
        let numbers: Vec<u32> = entry.split(':').filter_map(|number| number.trim().parse().ok()).collect();
        <[u32; 3]>::try_from(numbers).ok()
    };
    call.text("proc_util").unwrap_or("").split(',').filter_map(entry).collect()
}

exports! {
    nvmlDeviceGetComputeRunningProcesses_v3(device: nvmlDevice_t, count: *mut c_uint, entries: *mut nvmlProcessInfo_t), Some(device), |call| {
        list(&call, count, entries, has_longer_entries(call.state.driver()))
    }
    nvmlDeviceGetComputeRunningProcesses_v2(device: nvmlDevice_t, count: *mut c_uint, entries: *mut nvmlProcessInfo_v2_t), Some(device), |call| {
        list(&call, count, entries, false)
    }
    nvmlDeviceGetMPSComputeRunningProcesses_v3(device: nvmlDevice_t, count: *mut c_uint, _entries: *mut nvmlProcessInfo_t), Some(device), |_call| {
        *count = 0;
        OK
    }
    nvmlDeviceGetProcessUtilization(device: nvmlDevice_t, samples: *mut nvmlProcessUtilizationSample_t, count: *mut c_uint, since: c_ulonglong), Some(device), |call| {
        let time = call.number("proc_util_ts", now());
        let all = utilization(&call);
        if samples.is_null() {
            // The real one tells the size of its buffer, not how many there are.
            *count = 100;
            return INSUFFICIENT_SIZE;
        }
        if all.is_empty() || time <= since {
            *count = 0;
            return NOT_FOUND;
        }
        if (*count as usize) < all.len() {
            *count = u32::try_from(all.len()).unwrap_or(u32::MAX);
            return INSUFFICIENT_SIZE;
        }
        for (index, [pid, sm, memory]) in all.iter().enumerate() {
            *samples.add(index) = nvmlProcessUtilizationSample_t {
                pid: *pid,
                timeStamp: time,
                smUtil: *sm,
                memUtil: *memory,
                encUtil: 0,
                decUtil: 0,
            };
        }
        *count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        OK
    }
}
