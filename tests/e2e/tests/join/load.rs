//! The tree under load: energy per token and idle time against sums made by hand.

use std::{thread, time::Duration};

use observer_e2e::{clock, require};
use serde_json::Value;

use crate::host::{ENERGY, Host, IDLE, tokens, within_1_percent};

/// Half a second each, with 20 tokens; six at a time.
const REQUESTS: [&str; 4] = ["--concurrency", "6", "--sample", r#"{"ttft_ms": 120, "interval_ms": 20, "tokens": 20}"#];
const TOKENS: &str = "llm_tokens_total";

/// Steps of a second: first the tree has both GPUs alone, then it shares the second one.
const ALONE: u64 = 10;
const SHARED: u64 = 10;
/// What each GPU spends in a step, in joules; the third one is nobody's.
const JOULES: [u64; 3] = [300, 150, 500];

fn energy(step: u64) -> Vec<(String, String)> {
    let spent = |(gpu, joules): (u64, u64)| {
        let begun = (gpu + 1) * 1_000_000;
        (format!("gpu{gpu}.energy_mj"), (begun + step * joules * 1000).to_string())
    };
    (0..).zip(JOULES).map(spent).collect()
}

#[test]
fn energy_per_token_under_load() {
    require!(kernel, python, sample);
    let mut host = Host::new();
    let name = host.name();
    host.set(&[
        ("gpu0.util", "80"),
        ("gpu1.util", "40"),
        ("gpu0.mem_util", "50"),
        ("gpu1.mem_util", "30"),
        ("gpu0.power_mw", "300000"),
        ("gpu1.power_mw", "150000"),
    ]);
    let of = |host: &Host, family: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> = [("workload", &*name)].iter().chain(labels).copied().collect();
        host.observer.metrics().sum(family, &labels)
    };
    let output = [("gen_ai_token_type", "output")];
    let (before, tokens_before) = (of(&host, ENERGY, &[]), of(&host, TOKENS, &output));

    // 25 s of it, the steps lie within.
    let load = host.load(&[&REQUESTS[..], &["--requests", "300"]].concat());
    let step = |host: &mut Host, step: u64, more: &[(&str, &str)]| {
        let energy = energy(step);
        let values: Vec<_> = energy.iter().map(|(key, value)| (&**key, &**value)).chain(more.iter().copied()).collect();
        host.fake.set(&values).expect("a state");
        thread::sleep(Duration::from_secs(1));
    };
    for number in 1..=ALONE {
        step(&mut host, number, &[]);
    }
    // A stranger has a quarter of the second GPU's SM time from here on, and its clocks are held down.
    let (worker, stranger) = (host.tree.workers[1], std::process::id());
    let (processes, busy) = (format!("{worker}:1000000,{stranger}:5000"), format!("{worker}:60:10,{stranger}:20:10"));
    let held_from = clock::monotonic();
    host.set(&[("gpu1.procs", &processes), ("gpu1.proc_util", &busy), ("gpu1.throttle", "4")]);
    let held_by = clock::monotonic();
    for number in ALONE + 1..=ALONE + SHARED {
        step(&mut host, number, &[]);
    }
    let told = load.lines();
    host.set(&[]);

    let (seen, seen_tokens) = (of(&host, ENERGY, &[]) - before, of(&host, TOKENS, &output) - tokens_before);
    let estimated = of(&host, ENERGY, &[("estimated", "true")]);
    let told_estimated = (SHARED * JOULES[1]) as f64 * 0.75;
    let told_all = (ALONE * (JOULES[0] + JOULES[1]) + SHARED * JOULES[0]) as f64 + told_estimated;
    assert_eq!(seen_tokens, tokens(&told), "output tokens");
    within_1_percent(estimated, told_estimated, "joules, estimated");
    within_1_percent(seen, told_all, "joules");
    within_1_percent(seen / seen_tokens, told_all / tokens(&told), "joules per output token");

    // Every request tells what the GPUs did meanwhile.
    let lines = host.observer.lines();
    let of_load: Vec<_> =
        lines.iter().filter(|line| line.request_id.as_ref().is_some_and(|id| id.starts_with("load"))).collect();
    assert_eq!(of_load.len(), told.len());
    let mut held = [0, 0];
    for line in of_load {
        let gpu = line.gpu.as_ref().unwrap_or_else(|| panic!("not known: {line:#?}"));
        let near = |key: &str, told: f64| gpu[key].as_f64().is_some_and(|seen| (seen - told).abs() < 1e-6);
        assert!(near("utilization", 0.6) && near("memory_utilization", 0.4) && near("power_watts", 450.0), "{gpu}");
        assert!(gpu["samples"].as_u64().is_some_and(|samples| samples >= 1), "{gpu}");
        let (begun, ended) = (line.t_arrive_ns.expect("known"), line.t_end_ns.expect("known"));
        if ended < held_from {
            assert_eq!(gpu["throttled"], Value::Bool(false), "{line:#?}");
            held[0] += 1;
        } else if begun > held_by {
            assert_eq!(gpu["throttled"], Value::Bool(true), "{line:#?}");
            held[1] += 1;
        }
    }
    assert!(held[0] > 60 && held[1] > 60, "{held:?}");
}

#[test]
fn idle_seconds_under_load() {
    require!(kernel, python, sample);
    let mut host = Host::new();
    let name = host.name();
    let before = host.observer.metrics().sum(IDLE, &[("workload", &name)]);
    // 33 s of it; the GPUs begin to work after 28 s, as if the first requests had waited for weights.
    let mut load = host.load(&[&REQUESTS[..], &["--requests", "400"]].concat());
    thread::sleep(Duration::from_secs(28));
    let busy = clock::monotonic();
    host.fake.set(&[("gpu0.util", "90"), ("gpu1.util", "90")]).expect("a state");
    assert!(!load.ended(), "requests are in flight all the time");
    let told = load.lines();
    host.set(&[]);
    let begun = told.iter().map(|line| line.start_ns).min().expect("requests");
    let seen = host.observer.metrics().sum(IDLE, &[("workload", &name)]) - before;
    within_1_percent(seen, (busy - begun) as f64 / 1e9, "seconds idle with requests in flight");
}
