//! Families of workloads and the GPUs that their processes use.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::{
    families::{join as family, own},
    registry::{Families, counter_value, flag},
};
use crate::correlate::Joined;

/// What a scrape sees.
#[derive(Clone, Debug, Default)]
pub struct JoinView {
    /// Whether workloads can be joined with their GPUs now.
    pub available: bool,
    /// Each workload that has, or had, processes on GPUs, by name.
    pub workloads: Vec<(Arc<str>, Joined)>,
}

/// All of these families. What was not measured has no sample.
pub(super) fn collect(view: &JoinView) -> Vec<MetricFamily> {
    let mut families = Families::default();
    families.add(&own::GPU_JOIN, &[], flag(view.available));
    for (name, joined) in &view.workloads {
        if view.available {
            for gpu in &joined.gpus {
                families.add(&family::GPU_INFO, &[name, &gpu.index, &gpu.uuid], 1.0);
            }
        }
        for (estimated, nanojoules) in [("", joined.energy.exclusive), ("true", joined.energy.estimated)] {
            if let Some(nanojoules) = nanojoules {
                // As nanoseconds are of a second.
                families.add(&family::ENERGY, &[name, estimated], counter_value(&family::IDLE, nanojoules));
            }
        }
        if let Some(idle) = joined.idle_in_flight {
            families.add(&family::IDLE, &[name], idle.as_secs_f64());
        }
    }
    families.all()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{correlate::Energy, gpu::snapshot::Identity};

    #[test]
    fn what_is_not_known_is_absent() {
        let gpu = Identity { index: "0".into(), uuid: "GPU-0".into(), name: "H100".into(), parent: None };
        let joined = Joined {
            gpus: vec![gpu.into()],
            energy: Energy { exclusive: Some(2_500_000_000), estimated: None },
            idle_in_flight: None,
        };
        let view = |available| JoinView { available, workloads: vec![("vllm".into(), joined.clone())] };
        let value = |families: &[MetricFamily], name: &str| {
            let family = families.iter().find(|family| family.name() == name)?;
            let metric = family.get_metric().first()?;
            Some(if name.ends_with("_total") {
                metric.get_counter().get_value()
            } else {
                metric.get_gauge().get_value()
            })
        };
        let families = collect(&view(true));
        assert_eq!(value(&families, "llm_workload_energy_joules_total"), Some(2.5));
        assert_eq!(value(&families, "llm_workload_gpu_info"), Some(1.0));
        assert_eq!(value(&families, "observer_gpu_join_available"), Some(1.0));
        assert_eq!(value(&families, "llm_gpu_idle_in_flight_seconds_total"), None);
        let families = collect(&view(false));
        assert_eq!(value(&families, "llm_workload_gpu_info"), None);
        assert_eq!(value(&families, "observer_gpu_join_available"), Some(0.0));
        assert_eq!(value(&families, "llm_workload_energy_joules_total"), Some(2.5), "a counter does not go away");
        let idle = Joined { idle_in_flight: Some(Duration::from_millis(1500)), ..Joined::default() };
        let families = collect(&JoinView { available: true, workloads: vec![("vllm".into(), idle)] });
        assert_eq!(value(&families, "llm_gpu_idle_in_flight_seconds_total"), Some(1.5));
    }
}
