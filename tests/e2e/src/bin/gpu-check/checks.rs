//! What is checked, once all is measured.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use observer_e2e::{observer::Observer, request_log::RequestLine};

use crate::{
    compare::{Sample, Series, Verdict, compare},
    measure::Measured,
    nvml::{self, Nvml},
    report::Report,
};

/// Between two polls, of fast and slow values, as the observer is run here.
pub(crate) const FAST: Duration = Duration::from_secs(1);
pub(crate) const SLOW: Duration = Duration::from_secs(5);
/// For a poll, a scrape, and a pass over all GPUs to take.
const TAKE: Duration = Duration::from_secs(1);
/// A share of one core, for polling.
const CPU: f64 = 0.005;
const SCRAPE: Duration = Duration::from_millis(10);
/// Fewer samples than this say nothing of whether a series is there.
const FEW: usize = 5;

/// How long before a scrape NVML may have said the same.
fn back(name: &str) -> Duration {
    let slow = ["gpu_power_limit", "gpu_ecc_", "gpu_row_remap", "gpu_throttle_"];
    let counters = ["gpu_sm_active", "gpu_sm_occupancy", "gpu_tensor_active", "gpu_dram_active"];
    match name {
        name if slow.iter().any(|slow| name.starts_with(slow)) => SLOW + 2 * TAKE,
        name if counters.iter().any(|counter| name.starts_with(counter)) => 3 * FAST + TAKE,
        _ => FAST + TAKE,
    }
}

/// What is told of together: all processes, all GPUs.
fn group(name: &str) -> &str {
    name.split("{pid=").next().unwrap_or(name)
}

/// Each value of `seen` against those of `told`; both ways, whether it is there at all.
fn fields(report: &mut Report, who: [&str; 2], seen: &Series, told: &Series, window: &dyn Fn(&str) -> [Duration; 2]) {
    let names: BTreeSet<_> = seen.keys().chain(told.keys()).map(|(_, name)| group(name).to_owned()).collect();
    for name in names {
        let (mut all, mut wrong) = (Verdict::default(), Vec::new());
        let keys: BTreeSet<_> = seen.keys().chain(told.keys()).filter(|(_, its)| group(its) == name).collect();
        for key in &keys {
            let none = Vec::new();
            let (seen, told) = (seen.get(*key).unwrap_or(&none), told.get(*key).unwrap_or(&none));
            let [back, ahead] = window(&key.1);
            let verdict = compare(&key.1, seen, told, back, ahead);
            let (uuid, its) = key;
            if told.is_empty() && seen.len() >= FEW {
                wrong.push(format!("{uuid} {its}: {} has it, {} does not", who[0], who[1]));
            } else if seen.is_empty() && told.len() >= FEW {
                wrong.push(format!("{uuid} {its}: {} has it, {} does not", who[1], who[0]));
            } else if verdict.checked > 0 && !verdict.passes() {
                let outside = verdict.outside.len();
                let (value, low, high) = verdict.outside[outside / 2];
                let bounds = format!("{value} where {} says {low} to {high}", who[1]);
                wrong.push(format!("{uuid} {its}: {outside} of {} differ, one is {bounds}", verdict.checked));
            }
            all.checked += verdict.checked;
        }
        let text = format!("{name}: {} values of {} series", all.checked, keys.len());
        report.check(wrong.is_empty() && all.checked > 0, &format!("{}, {text}", who.join(" and ")));
        for text in wrong.iter().take(8) {
            report.note(text);
        }
    }
}

pub(crate) fn values(report: &mut Report, measured: &Measured, nvml: &Nvml) {
    let mut without: Vec<&str> = Vec::new();
    if !nvml.lists_are_known() {
        report.left_out("processes: this driver's lists have another layout than is read here");
        without.push("gpu_process_");
    }
    if measured.has_mig {
        report.left_out("MIG devices, and processes and performance counters of GPUs: they are the devices' own");
        without.extend(["gpu_process_", "gpu_sm_", "gpu_tensor_", "gpu_dram_"]);
    }
    let with = |series: &Series| -> Series {
        let with = series.iter().filter(|((_, name), _)| !without.iter().any(|start| name.starts_with(start)));
        with.map(|(key, samples)| (key.clone(), samples.clone())).collect()
    };
    let window = |name: &str| [back(name), TAKE / 2];
    fields(report, ["observer", "NVML"], &with(&measured.observer), &with(&measured.nvml), &window);
    report.left_out("gpu_xid_errors_total: an error of a GPU cannot be caused without harm");
}

pub(crate) fn smi(report: &mut Report, measured: &Measured) {
    if let Some(error) = &measured.smi_error {
        report.check(false, &format!("nvidia-smi: {error}"));
        return;
    }
    if measured.smi.is_empty() {
        report.left_out("nvidia-smi: it is not in the path");
        return;
    }
    let asked: BTreeSet<_> = measured.smi.keys().map(|(_, name)| name).collect();
    let observer = measured.observer.iter().filter(|((_, name), _)| asked.contains(name));
    let observer: Series = observer.map(|(key, samples)| (key.clone(), samples.clone())).collect();
    // It looks now and then: the observer shows the same a little later.
    let window = |name: &str| [TAKE, back(name) + TAKE];
    fields(report, ["nvidia-smi", "observer"], &measured.smi, &observer, &window);
}

/// A table of what calls cost, and what the observer does.
pub(crate) fn cost(report: &mut Report, measured: &mut Measured, nvml: &Nvml) {
    println!("      NVML's calls, in microseconds          calls   median      p99  slowest");
    for (name, mut times) in nvml.times() {
        times.sort();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let (median, p99, slowest) = (micros(at(50)), micros(at(99)), micros(times[times.len() - 1]));
        println!("      {name:<38} {:>5} {median:>8.1} {p99:>8.1} {slowest:>8.1}", times.len());
    }
    measured.passes.sort();
    let pass = measured.passes.get(measured.passes.len() / 2).copied().unwrap_or_default();
    let text = format!("NVML: {pass:?} for all values of all GPUs, of {FAST:?} between polls");
    report.check(!pass.is_zero() && pass < FAST / 2, &text);
    report.check(
        measured.cpu <= CPU,
        &format!("polling: {:.3} % of a core, at most {} %", measured.cpu * 100.0, CPU * 100.0),
    );
    measured.scrapes.sort();
    let (median, slowest) =
        (measured.scrapes[measured.scrapes.len() / 2], measured.scrapes[measured.scrapes.len() - 1]);
    report.check(median < SCRAPE, &format!("scrapes: median {median:?}, slowest {slowest:?}"));
}

/// The first value at or after a time, and the last one at or before it.
fn around(samples: &[Sample], at: Instant) -> Option<(f64, f64)> {
    let after = samples.iter().find(|sample| sample.at >= at)?;
    let before = samples.iter().rev().find(|sample| sample.at <= at)?;
    Some((before.value, after.value))
}

/// Energy of these GPUs over a stretch of time that begins and ends anywhere within two polls before these times: least
/// and most.
fn energy(nvml: &Series, gpus: &BTreeSet<String>, from: Instant, to: Instant) -> Option<(f64, f64)> {
    let (mut least, mut most) = (0.0, 0.0);
    for uuid in gpus {
        let samples = nvml.get(&(uuid.clone(), "gpu_energy_joules_total".to_owned()))?;
        let slack = FAST + TAKE;
        let (_, early_from) = around(samples, from - slack).map(|(before, after)| (after, before))?;
        let (_, late_from) = around(samples, from)?;
        let (early_to, _) = around(samples, to - slack)?;
        let (_, late_to) = around(samples, to)?;
        least += (early_to - late_from).max(0.0);
        most += late_to - early_from;
    }
    Some((least, most))
}

/// Workload and GPUs. `processes`: of the server; `asked`: requests that were answered, and their tokens.
pub(crate) fn join(
    report: &mut Report,
    measured: &Measured,
    observer: &Observer,
    processes: &[u32],
    asked: (u64, u64),
    works: bool,
) {
    let metrics = observer.metrics();
    let lines = observer.lines();
    let of_load: Vec<_> =
        lines.iter().filter(|line| line.request_id.as_ref().is_some_and(|id| id.starts_with("check-"))).collect();
    let tokens = metrics.sum("llm_tokens_total", &[("gen_ai_token_type", "output")]);
    let seen = (of_load.len() as u64, tokens as u64);
    report.check(
        seen == asked && asked.0 > 0,
        &format!("requests and output tokens: seen {seen:?}, asked for {asked:?}"),
    );
    let of_server = |((uuid, name), _): (&(String, String), &Vec<Sample>)| {
        nvml::pid(name).is_some_and(|pid| processes.contains(&pid)).then(|| uuid.clone())
    };
    let gpus: BTreeSet<String> = measured.nvml.iter().filter_map(of_server).collect();
    if gpus.is_empty() {
        let why = "the driver lists no process of the load's on any GPU";
        if works {
            report.check(false, &format!("join: {why} (is this the host's PID namespace?)"));
        } else {
            report.left_out(&format!("join: {why}"));
        }
        return;
    }
    let Some(name) = of_load.first().map(|line| line.workload.clone()) else { return };
    let info = metrics.select("llm_workload_gpu_info", &[("workload", &name)]);
    let joined = info.iter().filter_map(|sample| sample.labels.iter().find(|(name, _)| name == "uuid"));
    let joined: BTreeSet<String> = joined.map(|(_, uuid)| uuid.clone()).collect();
    report.check(joined == gpus, &format!("join: workload {name} has GPUs {joined:?}, NVML says {gpus:?}"));

    let mut of_workload: Vec<_> = measured.energy.iter().filter(|(_, its, _)| *its == name).collect();
    of_workload.sort_by_key(|(at, ..)| *at);
    let others = measured
        .nvml
        .keys()
        .any(|(uuid, key)| gpus.contains(uuid) && nvml::pid(key).is_some_and(|pid| !processes.contains(&pid)));
    match of_workload[..] {
        _ if others => report.left_out("energy of the workload: others are on its GPUs, and its share is an estimate"),
        [(from, _, before), .., (to, _, after)] => {
            let spent = after - before;
            match energy(&measured.nvml, &gpus, *from, *to) {
                Some((least, most)) => report.check(
                    (least - 0.01..=most + 0.01).contains(&spent) && spent > 0.0,
                    &format!("energy of the workload: {spent:.1} J, by NVML {least:.1} to {most:.1} J"),
                ),
                None => report.left_out("energy of the workload: its GPUs do not count it"),
            }
        }
        _ => report.check(false, "energy of the workload: it is not there"),
    }
    uses(report, &of_load, works);
}

/// What requests tell of the GPUs.
fn uses(report: &mut Report, lines: &[&RequestLine], works: bool) {
    // The first ones were over before anybody knew the workload.
    let half = &lines[lines.len() / 2..];
    let number = |line: &RequestLine, key: &str| line.gpu.as_ref()?.get(key)?.as_f64();
    let known = half.iter().filter(|line| line.gpu.as_ref().is_some_and(|gpu| !gpu.is_null())).count();
    report.check(known == half.len(), &format!("request log: {known} of {} later requests tell of GPUs", half.len()));
    let mean = |key: &str| {
        let values: Vec<_> = half.iter().filter_map(|line| number(line, key)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let [busy, memory, power] = ["utilization", "memory_utilization", "power_watts"].map(mean);
    report.note(&format!("utilization {busy:.3?}, of memory {memory:.3?}, {power:.1?} W on average"));
    if works {
        report.check(busy.is_some_and(|busy| busy > 0.2), "request log: the GPU was busy while requests were computed");
    }
}
