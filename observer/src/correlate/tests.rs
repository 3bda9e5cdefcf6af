use super::*;
use crate::gpu::{
    State,
    snapshot::{Fast, Process, Slow, Slowdown},
};

fn at(seconds: f64) -> KernelTime {
    KernelTime::from_nanos((seconds * 1e9) as u64)
}

/// A GPU of which the `index`-th process has pid `10 * index`.
fn gpu(index: u32, seconds: f64, watts: u64, utilization: f64) -> Gpu {
    let identity = Identity {
        index: index.to_string().into(),
        uuid: format!("GPU-{index}").into(),
        name: "H100".into(),
        parent: None,
    };
    Gpu {
        identity: identity.into(),
        up: true,
        time: Some(at(seconds)),
        fast: Fast {
            utilization: Some(utilization),
            memory_utilization: Some(utilization / 2.0),
            power_milliwatts: Some(watts * 1000),
            energy_millijoules: Some((seconds * watts as f64 * 1000.0) as u64),
            slowdown: Some(Slowdown(0)),
            ..Fast::default()
        },
        slow: Slow { power_limit_milliwatts: Some(700_000), ..Slow::default() },
        processes: Some(vec![Process { pid: 10 + index, memory: None, sm_utilization: Some(utilization) }]),
    }
}

fn all(seconds: f64, gpus: Vec<Gpu>) -> Snapshot {
    Snapshot { state: State::Up, driver: None, gpus, time: Some(at(seconds)) }
}

/// Process ids from 10 to 19 are vllm's, from 20 on tgi's; from 90 on nobody's.
fn workload(pid: u32) -> Option<Arc<str>> {
    match pid {
        10..20 => Some("vllm".into()),
        20..90 => Some("tgi".into()),
        _ => None,
    }
}

fn joined(join: &Join, name: &str) -> Joined {
    join.workloads().find(|(its, _)| ***its == *name).map(|(_, joined)| joined.clone()).expect("it was seen")
}

#[test]
fn energy_of_gpus_that_nobody_else_uses_is_all_theirs() {
    let mut join = Join::default();
    for second in 0..=10 {
        let second = f64::from(second);
        join.snapshot(&all(second, vec![gpu(0, second, 300, 0.9), gpu(1, second, 100, 0.0)]), &workload, &|_| true);
    }
    let vllm = joined(&join, "vllm");
    assert_eq!(vllm.energy, Energy { exclusive: Some(4_000 * 1_000_000_000), estimated: None });
    assert_eq!(vllm.gpus.len(), 2);
    // One of its GPUs was busy.
    assert_eq!(vllm.idle_in_flight, Some(Duration::ZERO));
}

#[test]
fn shared_energy_is_split_by_sm_time_and_called_an_estimate() {
    let mut join = Join::default();
    for second in 0..=4 {
        let second = f64::from(second);
        let mut shared = gpu(0, second, 100, 0.6);
        shared.processes = Some(vec![
            Process { pid: 10, memory: None, sm_utilization: Some(0.45) },
            Process { pid: 20, memory: None, sm_utilization: Some(0.15) },
        ]);
        join.snapshot(&all(second, vec![shared]), &workload, &|_| true);
    }
    let estimated = |name| joined(&join, name).energy;
    assert_eq!(estimated("vllm"), Energy { exclusive: None, estimated: Some(300 * 1_000_000_000) });
    assert_eq!(estimated("tgi"), Energy { exclusive: None, estimated: Some(100 * 1_000_000_000) });
}

#[test]
fn idle_seconds_count_with_requests_in_flight_only() {
    let mut join = Join::default();
    for second in 0..=10 {
        let now = f64::from(second);
        join.snapshot(&all(now, vec![gpu(0, now, 80, 0.01)]), &workload, &|_| second > 4);
    }
    assert_eq!(joined(&join, "vllm").idle_in_flight, Some(Duration::from_secs(6)));
}

#[test]
fn a_board_that_always_says_0_is_not_idle_while_it_burns() {
    let mut join = Join::default();
    for second in 0..=10 {
        let now = f64::from(second);
        join.snapshot(&all(now, vec![gpu(0, now, 500, 0.0)]), &workload, &|_| true);
    }
    assert_eq!(joined(&join, "vllm").idle_in_flight, Some(Duration::ZERO));
    // And one that does not say is absent, which is not zero.
    let mut join = Join::default();
    for second in 0..=3 {
        let now = f64::from(second);
        let mut silent = gpu(0, now, 80, 0.0);
        silent.fast.utilization = None;
        join.snapshot(&all(now, vec![silent]), &workload, &|_| true);
    }
    assert_eq!(joined(&join, "vllm").idle_in_flight, None);
}

#[test]
fn a_lost_gpu_a_reset_counter_and_a_long_pause_add_nothing() {
    let mut join = Join::default();
    let energy = |join: &Join| joined(join, "vllm").energy.exclusive;
    join.snapshot(&all(0.0, vec![gpu(0, 0.0, 100, 0.5)]), &workload, &|_| true);
    join.snapshot(&all(1.0, vec![gpu(0, 1.0, 100, 0.5)]), &workload, &|_| true);
    assert_eq!(energy(&join), Some(100_000_000_000));
    // The same snapshot again.
    join.snapshot(&all(1.0, vec![gpu(0, 1.0, 100, 0.5)]), &workload, &|_| true);
    assert_eq!(energy(&join), Some(100_000_000_000));
    join.snapshot(&all(2.0, vec![Gpu::down(gpu(0, 2.0, 100, 0.5).identity)]), &workload, &|_| true);
    assert!(joined(&join, "vllm").gpus.is_empty());
    let mut reset = gpu(0, 3.0, 100, 0.5);
    reset.fast.energy_millijoules = Some(5);
    join.snapshot(&all(3.0, vec![reset]), &workload, &|_| true);
    assert_eq!(energy(&join), Some(100_000_000_000));
    join.snapshot(&all(300.0, vec![gpu(0, 300.0, 100, 0.5)]), &workload, &|_| true);
    assert_eq!(energy(&join), Some(100_000_000_000));
    join.retain(|name| name != "vllm");
    assert_eq!(join.workloads().count(), 0);
}

#[test]
fn a_gpu_that_is_split_up_is_its_parts() {
    let mut whole = gpu(0, 1.0, 300, 0.5);
    let mut part = gpu(1, 1.0, 0, 0.3);
    part.identity = Identity { parent: Some(whole.identity.uuid.clone()), ..(*part.identity).clone() }.into();
    part.fast = Fast { memory_used: Some(1), ..Fast::default() };
    whole.processes = Some(vec![Process { pid: 20, memory: None, sm_utilization: None }]);
    let mut join = Join::default();
    join.snapshot(&all(1.0, vec![whole, part]), &workload, &|_| true);
    assert!(join.workloads().all(|(name, _)| &**name == "vllm"));
    assert_eq!(joined(&join, "vllm").energy, Energy::default());
}

#[test]
fn a_request_has_the_means_of_its_time() {
    let history = Arc::<History>::default();
    let mut join = Join::new(history.clone());
    for second in 0..=10 {
        let now = f64::from(second);
        let mut busy = gpu(0, now, 200, if second >= 5 { 0.8 } else { 0.0 });
        busy.fast.slowdown = Some(Slowdown(if second == 7 { 0x20 } else { 0 }));
        join.snapshot(&all(now, vec![busy, gpu(1, now, 100, 0.4)]), &workload, &|_| true);
    }
    let seen = history.over("vllm", at(5.5), at(7.5)).expect("two moments");
    assert_eq!((seen.samples, seen.power, seen.throttled), (2, Some(300.0), Some(true)));
    assert!((seen.utilization.expect("known") - 0.6).abs() < 1e-9);
    assert!((seen.memory_utilization.expect("known") - 0.3).abs() < 1e-9);
    let short = history.over("vllm", at(3.1), at(3.2)).expect("the one before");
    assert_eq!((short.samples, short.throttled), (1, Some(false)));
    assert_eq!(history.over("vllm", at(13.0), at(13.1)), None, "too long after");
    assert_eq!(history.over("tgi", at(5.5), at(7.5)), None);
}
