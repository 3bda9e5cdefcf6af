//! The same stretch of time as the observer, NVML and `nvidia-smi` saw it.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use observer_e2e::{
    http,
    metrics::{self, Metrics},
    observer::Observer,
};

use crate::{
    compare::{Sample, Series},
    nvml::Nvml,
    smi,
};

/// NVML is asked this often, so that it is asked before and after each poll of the observer.
const ASKED: Duration = Duration::from_millis(100);
const SCRAPED: Duration = Duration::from_millis(500);
const SMI: Duration = Duration::from_secs(2);
/// NVML is asked for this long before the first scrape, and after the last one.
const MARGIN: Duration = Duration::from_secs(3);

/// All of it.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) observer: Series,
    pub(crate) nvml: Series,
    /// Empty: there is none.
    pub(crate) smi: Series,
    pub(crate) smi_error: Option<String>,
    /// How long NVML took for all values of all GPUs.
    pub(crate) passes: Vec<Duration>,
    /// There are MIG devices.
    pub(crate) has_mig: bool,
    /// How long scrapes took.
    pub(crate) scrapes: Vec<Duration>,
    /// Energy of each workload at each scrape: when, its name, joules.
    pub(crate) energy: Vec<(Instant, String, f64)>,
    /// CPU time that the observer's threads for GPUs took, as a share of one core.
    pub(crate) cpu: f64,
}

/// GPU and name of a sample; `None`: it is none of a GPU's values.
fn key(sample: &metrics::Sample) -> Option<(String, String)> {
    let uuid = sample.labels.iter().find(|(name, _)| name == "uuid").map(|(_, value)| value.clone())?;
    if uuid.starts_with("MIG-") || ["gpu_up", "gpu_info", "gpu_xid_errors_total"].contains(&&*sample.name) {
        return None;
    }
    let others = sample.labels.iter().filter(|(name, _)| !["gpu", "uuid", "workload"].contains(&&**name));
    let others: Vec<_> = others.map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let labels = if others.is_empty() { String::new() } else { format!("{{{}}}", others.join(",")) };
    Some((uuid, format!("{}{labels}", sample.name)))
}

/// CPU time of the threads that ask the driver.
fn cpu(pid: u32) -> Duration {
    let of = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let ran = fs::read_to_string(task.path().join("schedstat")).ok()?;
        name.starts_with("observer-gpu").then(|| ran.split(' ').next()?.parse::<u64>().ok())?
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    Duration::from_nanos(tasks.filter_map(|task| of(task.ok()?)).sum())
}

fn ask_nvml(nvml: &Nvml, over: &AtomicBool) -> (Series, Vec<Duration>) {
    let (mut series, mut passes) = (Series::new(), Vec::new());
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        for gpu in &nvml.gpus {
            let at = Instant::now();
            for (name, value) in nvml.read(gpu) {
                series.entry((gpu.uuid.clone(), name)).or_default().push(Sample { at, value });
            }
        }
        passes.push(begun.elapsed());
        thread::sleep(ASKED);
    }
    (series, passes)
}

fn ask_smi(over: &AtomicBool) -> Result<Series> {
    let mut series = Series::new();
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let told = smi::ask()?;
        // Somewhere within.
        let at = begun + begun.elapsed() / 2;
        for (uuid, values) in told {
            for (name, value) in values {
                series.entry((uuid.clone(), name)).or_default().push(Sample { at, value });
            }
        }
        thread::sleep(SMI);
    }
    Ok(series)
}

fn scrape(observer: &Observer, measured: &mut Measured) -> Result<()> {
    let at = Instant::now();
    let answer = http::get(observer.address(), "/metrics").context("scrape the observer")?;
    measured.scrapes.push(at.elapsed());
    let metrics = Metrics::parse(&answer.text());
    for sample in metrics.select_prefix("gpu_") {
        measured.has_mig |= sample.labels.iter().any(|(name, value)| name == "uuid" && value.starts_with("MIG-"));
        if let Some(key) = key(sample) {
            measured.observer.entry(key).or_default().push(Sample { at, value: sample.value });
        }
    }
    let mut energy: BTreeMap<String, f64> = BTreeMap::new();
    for sample in metrics.select("llm_workload_energy_joules_total", &[]) {
        let workload = sample.labels.iter().find(|(name, _)| name == "workload");
        *energy.entry(workload.map(|(_, name)| name.clone()).unwrap_or_default()).or_default() += sample.value;
    }
    measured.energy.extend(energy.into_iter().map(|(name, joules)| (at, name, joules)));
    Ok(())
}

/// Looks for this long, all at once.
pub(crate) fn measure(observer: &Observer, nvml: &mut Nvml, duration: Duration, has_smi: bool) -> Result<Measured> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = &over;
        let nvml = scope.spawn(move || ask_nvml(nvml, over));
        let smi = has_smi.then(|| scope.spawn(move || ask_smi(over)));
        let mut measured = Measured::default();
        thread::sleep(MARGIN);
        let (begun, before) = (Instant::now(), cpu(observer.pid()));
        let mut result = Ok(());
        while begun.elapsed() < duration && result.is_ok() {
            result = scrape(observer, &mut measured);
            thread::sleep(SCRAPED);
        }
        let ran = cpu(observer.pid()).saturating_sub(before);
        measured.cpu = ran.as_secs_f64() / begun.elapsed().as_secs_f64();
        thread::sleep(MARGIN);
        over.store(true, Ordering::Relaxed);
        // A panic there has said what it is.
        (measured.nvml, measured.passes) = nvml.join().unwrap_or_default();
        match smi.map(|smi| smi.join()) {
            Some(Ok(Ok(series))) => measured.smi = series,
            Some(Ok(Err(error))) => measured.smi_error = Some(format!("{error:#}")),
            Some(Err(_)) => measured.smi_error = Some("its thread panicked".to_owned()),
            None => {}
        }
        result.map(|()| measured)
    })
}
