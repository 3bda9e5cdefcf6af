//! Families of GPUs, from what the thread that asks the driver saw last.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::{
    families::{Family, gpu as family},
    registry::{Families, counter_value, flag, number},
};
use crate::gpu::{Gpu, View, snapshot::Identity};

/// Families of `view`. `workload`: the name of the workload that a process belongs to.
pub(super) fn collect(view: &View, workload: &dyn Fn(u32) -> Option<Arc<str>>) -> Vec<MetricFamily> {
    let mut families = Families::default();
    families.add(&family::AVAILABLE, &[], flag(view.is_available()));
    families.add(&family::UNRESPONSIVE, &[], flag(view.unresponsive));
    for xid in &view.xids {
        let Identity { index, uuid, .. } = &*xid.identity;
        families.add(&family::XID, &[index, uuid, &*xid.xid.to_string()], number(xid.count));
    }
    for gpu in &view.snapshot.gpus {
        let Identity { index, uuid, name, .. } = &*gpu.identity;
        // What was last heard of it is no longer so.
        let up = gpu.up && !view.unresponsive;
        families.add(&family::UP, &[index, uuid], flag(up));
        if !up {
            continue;
        }
        if let Some(driver) = &view.snapshot.driver {
            families.add(&family::INFO, &[&**index, &**uuid, &**name, &driver.version, &driver.cuda], 1.0);
        }
        values(gpu, |family, labels, value| {
            let labels: Vec<&str> = [&**index, &**uuid].into_iter().chain(labels.iter().copied()).collect();
            families.add(family, &labels, value);
        });
        processes(gpu, workload, &mut families);
    }
    families.all()
}

fn processes(gpu: &Gpu, workload: &dyn Fn(u32) -> Option<Arc<str>>, families: &mut Families) {
    let Identity { index, uuid, .. } = &*gpu.identity;
    for process in gpu.processes.iter().flatten() {
        let (pid, workload) = (process.pid.to_string(), workload(process.pid).unwrap_or_default());
        let labels = [&**index, &**uuid, &*pid, &*workload];
        if let Some(memory) = process.memory {
            families.add(&family::PROCESS_MEMORY, &labels, number(memory));
        }
        if let Some(utilization) = process.sm_utilization {
            families.add(&family::PROCESS_SM, &labels, utilization);
        }
    }
}

/// Calls `add` with each value of one GPU that there is: its family, its labels after the GPU's, and itself.
fn values(gpu: &Gpu, mut add: impl FnMut(&'static Family, &[&str], f64)) {
    let Gpu { fast, slow, .. } = gpu;
    let thousandth = |value: Option<u64>| value.map(|value| number(value) / 1000.0);
    for (family, labels, value) in [
        (&family::UTILIZATION, &[][..], fast.utilization),
        (&family::MEMORY_UTILIZATION, &[], fast.memory_utilization),
        (&family::MEMORY_USED, &[], fast.memory_used.map(number)),
        (&family::MEMORY_TOTAL, &[], fast.memory_total.map(number)),
        (&family::POWER, &[], thousandth(fast.power_milliwatts)),
        (&family::POWER_LIMIT, &[], thousandth(slow.power_limit_milliwatts)),
        (&family::ENERGY, &[], thousandth(fast.energy_millijoules)),
        (&family::TEMPERATURE, &[], fast.temperature.map(f64::from)),
        (&family::CLOCK, &["sm"], fast.sm_clock.map(number)),
        (&family::CLOCK, &["memory"], fast.memory_clock.map(number)),
        (&family::PCIE, &["transmit"], fast.pcie.transmit.map(number)),
        (&family::PCIE, &["receive"], fast.pcie.receive.map(number)),
        (&family::NVLINK, &["transmit"], fast.nvlink.transmit.map(number)),
        (&family::NVLINK, &["receive"], fast.nvlink.receive.map(number)),
        (&family::ECC, &["corrected"], slow.ecc_corrected.map(number)),
        (&family::ECC, &["uncorrected"], slow.ecc_uncorrected.map(number)),
        (&family::ROW_REMAPS, &["correctable"], slow.row_remap.map(|rows| number(rows.correctable))),
        (&family::ROW_REMAPS, &["uncorrectable"], slow.row_remap.map(|rows| number(rows.uncorrectable))),
        (&family::ROW_REMAP_PENDING, &[], slow.row_remap.map(|rows| flag(rows.pending))),
        (&family::ROW_REMAP_FAILED, &[], slow.row_remap.map(|rows| flag(rows.failed))),
        (&family::SM_ACTIVE, &[], fast.gpm.sm_active),
        (&family::SM_OCCUPANCY, &[], fast.gpm.sm_occupancy),
        (&family::TENSOR_ACTIVE, &[], fast.gpm.tensor_active),
        (&family::DRAM_ACTIVE, &[], fast.gpm.dram_active),
    ] {
        if let Some(value) = value {
            add(family, labels, value);
        }
    }
    for (reason, time) in &slow.throttled {
        add(&family::THROTTLE, &[reason], counter_value(&family::THROTTLE, *time));
    }
}

/// Names of the families that this GPU has values for, and of those that it has none for.
#[must_use]
pub fn supported(gpu: &Gpu) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut has = Vec::new();
    values(gpu, |family, _, _| has.push(family.name));
    if gpu.processes.is_some() {
        has.push(family::PROCESS_MEMORY.name);
    }
    if gpu.processes.iter().flatten().any(|process| process.sm_utilization.is_some()) {
        has.push(family::PROCESS_SM.name);
    }
    // What is there of every GPU, or tells what happened rather than what is.
    let others = [&family::AVAILABLE, &family::UNRESPONSIVE, &family::UP, &family::INFO, &family::XID];
    let of_gpu = family::ALL.iter().filter(|family| !others.iter().any(|other| other.name == family.name));
    of_gpu.map(|family| family.name).partition(|name| has.contains(name))
}
