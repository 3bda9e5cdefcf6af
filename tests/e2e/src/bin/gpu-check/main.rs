//! Checks the observer on a host with real GPUs: runs it with a small load, and compares what it says with NVML, field by
//! field, and with `nvidia-smi`.
//!
//! - `nvml`: what the driver's library says, asked directly
//! - `smi`: what `nvidia-smi` says
//! - `load`: a server with a worker on a GPU, and clients
//! - `measure`, `compare`, `checks`: the same time as all of them saw it, and whether that agrees
//!
//! It changes no setting of a GPU. It ends with 0 if all passed, 1 if something did not, and says what it left out.

mod checks;
mod compare;
mod load;
mod measure;
mod nvml;
mod report;
mod smi;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use observer_e2e::{
    http,
    observer::{self, Observer},
    require,
    scratch::Scratch,
};
use serde_json::Value;

use crate::{
    load::{CLIENTS, Clients, Load},
    nvml::Nvml,
    report::Report,
};

/// Checks the observer on a host with real GPUs. Needs root, Python 3, and the observer (OBSERVER_BIN, or the release
/// build).
#[derive(Parser)]
#[command(name = "gpu-check")]
struct Args {
    /// The driver's library, for the observer as well; default: what the loader finds for NVML's own values, and what the
    /// observer finds.
    #[arg(long)]
    library: Option<PathBuf>,
    /// Leave out what needs a card: the load only sleeps, and is joined only if the driver lists its worker.
    #[arg(long)]
    no_load: bool,
    /// How long to compare, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// The Python that runs the load; with PyTorch that does the work.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

/// The driver lists the load's worker by then.
const LISTED: Duration = Duration::from_secs(10);
/// From SIGTERM to the end.
const END: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match check(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAIL  {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(args: &Args) -> Result<bool> {
    if !require::is_root() {
        bail!("the observer loads programs into the kernel, which takes root");
    }
    let binary = require::observer();
    if !binary.is_file() {
        bail!("{} is not there: cargo xtask gpu-check builds it, OBSERVER_BIN names another one", binary.display());
    }
    let mut report = Report::default();
    let mut nvml = Nvml::open(args.library.as_deref().unwrap_or(Path::new("libnvidia-ml.so.1")))?;
    println!("driver {}, {} GPUs", nvml.driver, nvml.gpus.len());
    for gpu in &nvml.gpus {
        report.note(&format!("GPU {}: {}, {}", gpu.index, gpu.name, gpu.uuid));
    }
    doctor(&mut report, args, &nvml)?;

    let scratch = Scratch::new();
    let load = Load::start(&args.python, !args.no_load, &scratch)?;
    println!("load: server {}, worker {}, work {}", load.pid(), load.serving.worker, load.serving.work);
    load.serving.reasons.iter().for_each(|reason| report.note(reason));
    let works = !args.no_load;
    if works {
        report.check(load.serving.work != "none", "load: it works on a GPU");
    } else {
        report.left_out("load: --no-load");
    }
    let processes = [load.pid(), load.serving.worker];
    await_worker(&nvml, &processes);

    let mut observer = observe(args, load.address().port());
    let clients = Clients::default();
    let mut measured = thread::scope(|scope| {
        let (clients, server) = (&clients, load.address());
        let asking: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || clients.run(server, number))).collect();
        // The first requests make the workload known.
        thread::sleep(2 * checks::FAST);
        let has_smi = require::tool("nvidia-smi").is_some();
        let measured = measure::measure(&observer, &mut nvml, Duration::from_secs(args.seconds), has_smi);
        clients.over.store(true, Ordering::Relaxed);
        for client in asking {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        measured
    })?;
    observer.settle();

    checks::values(&mut report, &measured, &nvml);
    checks::smi(&mut report, &measured);
    checks::cost(&mut report, &mut measured, &nvml);
    let asked = (clients.requests.load(Ordering::Relaxed), clients.tokens.load(Ordering::Relaxed));
    checks::join(&mut report, &measured, &observer, &processes, asked, works);
    release(&mut report, args, &observer)?;
    let begun = Instant::now();
    observer.stop(libc::SIGTERM);
    let took = begun.elapsed();
    report.check(took < END, &format!("end: {took:?} after SIGTERM"));
    Ok(report.end())
}

fn library(args: &Args) -> Option<&str> {
    args.library.as_deref().and_then(Path::to_str)
}

fn observe(args: &Args, port: u16) -> Observer {
    let [fast, slow] = [checks::FAST, checks::SLOW].map(|time| format!("{}s", time.as_secs()));
    let mut settings = vec![("OBSERVER_GPU_INTERVAL", &*fast), ("OBSERVER_GPU_SLOW_INTERVAL", &*slow)];
    settings.extend(library(args).map(|path| ("OBSERVER_GPU_LIBRARY", path)));
    Observer::tuned(&["--ports", &port.to_string(), "--gpu", "require"], &settings)
}

/// Waits until the driver lists one of these processes, or does not.
fn await_worker(nvml: &Nvml, processes: &[u32]) {
    let begun = Instant::now();
    let is_listed = || {
        let mut values = nvml.gpus.iter().flat_map(|gpu| nvml.read(gpu).into_keys());
        values.any(|name| nvml::pid(&name).is_some_and(|pid| processes.contains(&pid)))
    };
    while !is_listed() && begun.elapsed() < LISTED {
        thread::sleep(Duration::from_millis(200));
    }
}

/// What the doctor says is what NVML says.
fn doctor(report: &mut Report, args: &Args, nvml: &Nvml) -> Result<()> {
    let mut command = observer::command();
    command.args(["doctor", "--json"]);
    command.envs(library(args).map(|path| ("OBSERVER_GPU_LIBRARY", path)));
    let output = command.output().context("start observer doctor")?;
    let said: Value = serde_json::from_slice(&output.stdout).context("read what observer doctor says")?;
    let gpus = said["gpu"]["gpus"].as_array().map(Vec::as_slice).unwrap_or_default();
    let uuids: Vec<_> =
        gpus.iter().filter_map(|gpu| gpu["uuid"].as_str()).filter(|uuid| !uuid.starts_with("MIG-")).collect();
    let same = nvml.gpus.iter().map(|gpu| &*gpu.uuid).eq(uuids.iter().copied());
    let driver = said["gpu"]["driver"].as_str().unwrap_or("none");
    report.check(same && driver == nvml.driver, &format!("doctor: driver {driver}, {} GPUs", uuids.len()));
    for gpu in gpus {
        let names = |key: &str| gpu[key].as_array().map(Vec::len).unwrap_or_default();
        let index = gpu["index"].as_str().unwrap_or_default();
        let (families, missing) = (names("families"), &gpu["missing"]);
        report.note(&format!("GPU {index}: {families} families; none now of {missing}"));
    }
    Ok(())
}

/// The driver can be let go, and taken back.
fn release(report: &mut Report, args: &Args, observer: &Observer) -> Result<()> {
    let tell = |command: &str| -> Result<String> {
        let mut told = observer::command();
        told.args(["gpu", command, "--url", &format!("http://{}", observer.address())]);
        let output = told.output().with_context(|| format!("start observer gpu {command}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Mapped by its own name, not by that of a link to it.
    let named = args.library.as_deref().and_then(|path| path.canonicalize().ok());
    let name = named.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "libnvidia-ml.so".to_owned());
    let is_loaded = || {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", observer.pid())).unwrap_or_default();
        maps.contains(&name)
    };
    let had_it = is_loaded();
    let said = tell("release")?;
    report.check(had_it && !is_loaded(), &format!("release: {said}; nothing of the library is left loaded"));
    let said = tell("acquire")?;
    let answer = http::get(observer.address(), "/metrics").context("scrape the observer")?;
    report.check(answer.text().contains("\ngpu_available 1"), &format!("acquire: {said}"));
    Ok(())
}
