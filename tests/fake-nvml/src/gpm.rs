//! GPU performance monitoring: two samples, and what happened between them.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t};

use crate::{
    INVALID_ARGUMENT, NOT_SUPPORTED, OK, VERSION_MISMATCH, exports,
    state::{Device, now},
};

/// Device, and when the sample was taken.
struct Sample {
    device: Device,
    time: u64,
}

/// Two samples must lie so far apart, in microseconds.
const APART: u64 = 100_000;

exports! {
    nvmlGpmQueryDeviceSupport(device: nvmlDevice_t, support: *mut nvmlGpmSupport_t), Some(device), |call| {
        let support = &mut *support;
        if support.version != 1 {
            return VERSION_MISMATCH;
        }
        support.isSupportedDevice = call.number("gpm", 1);
        OK
    }
    nvmlGpmSampleAlloc(sample: *mut nvmlGpmSample_t), None, |_call| {
        *sample = Box::into_raw(Box::new(Sample { device: Device::gpu(0), time: 0 })).cast();
        OK
    }
    nvmlGpmSampleFree(sample: nvmlGpmSample_t), None, |_call| {
        drop(Box::from_raw(sample.cast::<Sample>()));
        OK
    }
    nvmlGpmSampleGet(device: nvmlDevice_t, sample: nvmlGpmSample_t), Some(device), |call| {
        *sample.cast::<Sample>() = Sample { device: call.device, time: now() };
        OK
    }
    nvmlGpmMigSampleGet(device: nvmlDevice_t, instance: c_uint, sample: nvmlGpmSample_t), Some(device), |call| {
        let device = Device { mig: instance.checked_sub(1), ..call.device };
        *sample.cast::<Sample>() = Sample { device, time: now() };
        OK
    }
    nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t), None, |call| {
        let request = &mut *request;
        if request.version != 1 {
            return VERSION_MISMATCH;
        }
        let (first, second) = (&*request.sample1.cast::<Sample>(), &*request.sample2.cast::<Sample>());
        if first.device != second.device || first.time + APART > second.time {
            return INVALID_ARGUMENT;
        }
        for metric in request.metrics.iter_mut().take(request.numMetrics as usize) {
            match call.state.text(&format!("{}.gpm{}", first.device.name(), metric.metricId)) {
                Some(text) => {
                    metric.nvmlReturn = OK;
                    metric.value = text.parse().unwrap_or(0.0);
                }
                None => metric.nvmlReturn = NOT_SUPPORTED,
            }
        }
        OK
    }
}
