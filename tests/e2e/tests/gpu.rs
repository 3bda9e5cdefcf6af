//! GPUs, by the real binary with its own intervals, and a fake driver.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fake_nvml::control::Fake;
use observer_e2e::{
    http,
    metrics::Metrics,
    net::{free_address, free_port},
    observer::{self, Observer},
    process::Process,
    require,
    scratch::Scratch,
    stats,
    wait::{self, SOON},
};

/// A call into the driver that has not returned for so long is told of.
const UNRESPONSIVE: Duration = Duration::from_secs(10);
/// A scrape takes no longer, whatever the driver does.
const SCRAPE: Duration = Duration::from_millis(10);

struct Host {
    fake: Fake,
    observer: Observer,
    _scratch: Scratch,
}

fn fake(scratch: &Scratch, values: &[(&str, &str)]) -> Fake {
    let mut fake = Fake::new(scratch.path()).expect("a fake");
    fake.set(values).expect("a state");
    fake
}

fn library(fake: &Fake) -> &str {
    fake.library().to_str().expect("a plain path")
}

impl Host {
    fn new(mode: &str, values: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new();
        let fake = fake(&scratch, values);
        let port = free_port().to_string();
        let settings = [("OBSERVER_GPU_LIBRARY", library(&fake))];
        let observer = Observer::tuned(&["--ports", &port, "--gpu", mode], &settings);
        Self { fake, observer, _scratch: scratch }
    }

    fn set(&mut self, values: &[(&str, &str)]) {
        self.fake.set(values).expect("a state");
    }

    fn until(&self, what: &str, limit: Duration, condition: impl Fn(&Metrics) -> bool) {
        wait::until(what, limit, || condition(&self.observer.metrics()).then_some(()));
    }

    /// Tells it something by the command that people type.
    fn tell(&self, command: &str) -> (bool, String) {
        let mut told = observer::command();
        told.args(["gpu", command, "--url", &format!("http://{}", self.observer.address())]);
        let (status, said) = observer::run(told);
        (status.success(), said.join("\n"))
    }

    fn maps(&self) -> String {
        fs::read_to_string(format!("/proc/{}/maps", self.observer.pid())).expect("it runs")
    }

    /// Threads that call the driver, with the time that each had a CPU.
    fn threads(&self) -> BTreeMap<String, Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.observer.pid())).expect("it runs");
        let thread = |path: PathBuf| {
            let name = fs::read_to_string(path.join("comm")).ok()?.trim().to_owned();
            let ran = fs::read_to_string(path.join("schedstat")).ok()?;
            let ran = ran.split(' ').next()?.parse().ok()?;
            name.starts_with("observer-gpu").then(|| (name, Duration::from_nanos(ran)))
        };
        let found: Vec<_> = tasks.filter_map(|task| thread(task.expect("readable").path())).collect();
        let threads: BTreeMap<_, _> = found.iter().cloned().collect();
        assert_eq!(threads.len(), found.len(), "there is one of each: {found:?}");
        threads
    }
}

/// A scrape: what it took, and how much of that the observer's threads or this one worked or were ready to: on a busy
/// machine they wait for a CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    all: Duration,
    busy: Duration,
}

impl Took {
    /// What everybody slept: who waits for the driver does.
    fn slept(self) -> Duration {
        self.all.saturating_sub(self.busy)
    }
}

/// Nanoseconds in which each thread of the observer, and this one, ran or was ready to.
fn busy(observer: &Observer) -> BTreeMap<PathBuf, u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", observer.pid())).expect("it runs");
    let threads = tasks.filter_map(|task| Some(task.ok()?.path().join("schedstat")));
    let of = |path: PathBuf| {
        // Threads come and go.
        let text = fs::read_to_string(&path).ok()?;
        let times: Option<u64> = text.split_whitespace().take(2).map(|time| time.parse::<u64>().ok()).sum();
        Some((path, times?))
    };
    threads.chain(["/proc/thread-self/schedstat".into()]).filter_map(of).collect()
}

/// Asks for metrics, and how long the answer took.
fn scrape(observer: &Observer) -> (Metrics, Took) {
    let (before, begun) = (busy(observer), Instant::now());
    let response = http::get(observer.address(), "/metrics").expect("the observer answers");
    let all = begun.elapsed();
    let more = |(path, after): (PathBuf, u64)| after.saturating_sub(before.get(&path).copied().unwrap_or(0));
    let busy = Duration::from_nanos(busy(observer).into_iter().map(more).sum());
    (Metrics::parse(&response.text()), Took { all, busy })
}

/// Demands that scrapes wait for nothing but a CPU, and that most are quick however busy the machine is.
fn expect_quick(what: &str, mut times: Vec<Took>) {
    times.sort_by_key(|took| took.all);
    let (median, slowest) = (times[times.len() / 2].all, times[times.len() - 1].all);
    let mut slept: Vec<Duration> = times.iter().map(|took| took.slept()).collect();
    let (most, longest) = (stats::quantile(&mut slept, 0.98), stats::quantile(&mut slept, 1.0));
    println!("{what}: {} scrapes, median {median:?}, slowest {slowest:?}; asleep {most:?}, {longest:?}", times.len());
    assert!(median < SCRAPE && most < SCRAPE, "median {median:?}, {most:?} asleep");
    // A virtual machine that is not given its CPU looks like sleep, too.
    assert!(longest < 10 * SCRAPE, "{longest:?} asleep");
}

#[test]
fn a_call_that_hangs_for_30_s() {
    require!(kernel);
    let mut host = Host::new("require", &[("gpus", "8"), ("gpu7.power_mw", "400000")]);
    host.until("GPUs", SOON, |metrics| metrics.select("gpu_power_watts", &[]).len() == 8);
    assert_eq!(host.observer.metrics().sum("gpu_power_watts", &[("gpu", "7")]), 400.0);

    host.set(&[("nvmlDeviceGetTotalEnergyConsumption.delay_ms", "30000")]);
    let begun = Instant::now();
    let mut times = Vec::new();
    let told_after = loop {
        let (metrics, took) = scrape(&host.observer);
        times.push(took);
        if metrics.sum("gpu_driver_unresponsive", &[]) == 1.0 {
            assert_eq!(metrics.select("gpu_up", &[]).len(), 8);
            assert_eq!(metrics.sum("gpu_up", &[]) + metrics.sum("gpu_available", &[]), 0.0);
            assert!(!metrics.has("gpu_power_watts") && !metrics.has("gpu_memory_total_bytes"));
            break begun.elapsed();
        }
        assert!(begun.elapsed() < UNRESPONSIVE + SOON, "nobody told of it");
        thread::sleep(Duration::from_millis(100));
    };
    println!("told after {told_after:?}");
    expect_quick("while a call hangs", times);
    assert!(told_after > UNRESPONSIVE - Duration::from_secs(2), "{told_after:?}");
    assert_eq!(host.threads().keys().filter(|name| *name == "observer-gpu").count(), 1);
    host.observer.expect_alive();
    let begun = Instant::now();
    host.observer.stop(libc::SIGTERM);
    println!("ended {:?} after SIGTERM", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_driver_that_hangs_while_it_is_opened() {
    require!(kernel);
    let mut host = Host::new("auto", &[("nvmlInit_v2.delay_ms", "30000")]);
    let (metrics, took) = scrape(&host.observer);
    assert!(took.slept() < SCRAPE && metrics.select("gpu_available", &[]).len() == 1);
    let begun = Instant::now();
    host.observer.stop(libc::SIGTERM);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

/// Wherever a call hangs: in a poll, in the wait for XID errors, or in letting the driver go.
#[test]
fn an_end_while_a_call_hangs() {
    require!(kernel);
    for call in ["nvmlDeviceGetFieldValues", "nvmlEventSetWait_v2", "nvmlShutdown"] {
        let mut host = Host::new("require", &[("gpus", "8")]);
        host.until("GPUs", SOON, |metrics| metrics.select("gpu_power_watts", &[]).len() == 8);
        host.set(&[(&format!("{call}.delay_ms"), "30000")]);
        thread::sleep(Duration::from_millis(1500));
        let begun = Instant::now();
        host.observer.stop(libc::SIGTERM);
        println!("{call}: ended {:?} after SIGTERM", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(3), "{call}");
    }
}

/// One observer through all of them, at its own pace: scrapes are quick throughout, and no counter ever falls.
#[test]
fn scrapes_through_every_trouble() {
    require!(kernel);
    let rich: Vec<_> = (0..8)
        .flat_map(|gpu| {
            [(format!("gpu{gpu}.gpm2"), "40".to_owned()), (format!("gpu{gpu}.procs"), format!("{}:9", 5000 + gpu))]
        })
        .chain([("gpus".to_owned(), "8".to_owned()), ("gpu3.field197".to_owned(), "4000".to_owned())])
        .collect();
    let rich: Vec<_> = rich.iter().map(|(key, value)| (&**key, &**value)).collect();
    let mut host = Host::new("auto", &rich);
    host.until("GPUs", SOON, |metrics| metrics.select("gpu_sm_active_ratio", &[]).len() == 8);
    let (mut times, mut highest) = (Vec::new(), BTreeMap::<String, f64>::new());
    let mut until = |host: &mut Host, what: &str, values: &[(&str, &str)], condition: &dyn Fn(&Metrics) -> bool| {
        host.set(values);
        let begun = Instant::now();
        loop {
            let (metrics, took) = scrape(&host.observer);
            times.push(took);
            for sample in metrics.select_prefix("gpu_").filter(|sample| sample.name.ends_with("_total")) {
                let before = highest.entry(format!("{}{:?}", sample.name, sample.labels)).or_insert(sample.value);
                assert!(sample.value >= *before, "{what}: {sample:?} was {before}");
                *before = sample.value;
            }
            if condition(&metrics) {
                return;
            }
            assert!(begun.elapsed() < UNRESPONSIVE + SOON, "no {what}");
            thread::sleep(Duration::from_millis(50));
        }
    };
    let available = |value: f64| move |metrics: &Metrics| metrics.sum("gpu_available", &[]) == value;
    let has = |name: &'static str, count: usize| move |metrics: &Metrics| metrics.select(name, &[]).len() == count;
    until(&mut host, "lost GPU", &[("gpu5.xid", "79"), ("gpu5.ret", "15")], &has("gpu_power_watts", 7));
    until(&mut host, "GPU that is back", &[("gpu5.ret", ""), ("gpu5.energy_mj", "30")], &has("gpu_power_watts", 8));
    let missing = ("gpu2.nvmlDeviceGetTemperature.ret", "3");
    until(&mut host, "missing call", &[missing], &has("gpu_temperature_celsius", 7));
    until(&mut host, "lost GPUs", &[("all.ret", "15")], &available(0.0));
    until(&mut host, "GPUs that are back", &[("all.ret", ""), ("gpu3.field197", "12")], &available(1.0));
    until(&mut host, "lost driver", &[("nvmlDeviceGetTemperature.ret", "1")], &available(0.0));
    until(&mut host, "driver that is back", &[("nvmlDeviceGetTemperature.ret", "")], &available(1.0));
    let is_new = |metrics: &Metrics| !metrics.select("gpu_info", &[("driver", "590.10")]).is_empty();
    until(&mut host, "new driver", &[("driver", "590.10"), ("gpu3.energy_mj", "12")], &is_new);
    let races = |metrics: &Metrics| metrics.select("gpu_process_memory_bytes", &[("gpu", "1")]).is_empty();
    until(&mut host, "list that grows all the time", &[("gpu1.procs_burst", "20")], &races);
    let slow = ("nvmlDeviceGetPowerUsage.delay_ms", "60");
    let hot = |metrics: &Metrics| metrics.sum("gpu_temperature_celsius", &[("gpu", "0")]) == 99.0;
    until(&mut host, "slow values", &[slow, ("gpu0.temp", "99")], &hot);
    let hangs = ("nvmlDeviceGetPowerUsage.delay_ms", "30000");
    let unresponsive = |metrics: &Metrics| metrics.sum("gpu_driver_unresponsive", &[]) == 1.0;
    until(&mut host, "word of a call that hangs", &[hangs], &unresponsive);
    until(&mut host, "its end", &[("nvmlDeviceGetPowerUsage.delay_ms", "")], &available(1.0));
    assert!(host.tell("release").0);
    until(&mut host, "release", &[("gpu0.energy_mj", "1")], &available(0.0));
    assert!(host.tell("acquire").0);
    until(&mut host, "way back", &[], &available(1.0));
    assert!(highest.len() > 8 * 2, "{highest:#?}");
    // The fake tells it once to whoever opens it.
    assert!(host.observer.metrics().sum("gpu_xid_errors_total", &[("gpu", "5"), ("xid", "79")]) >= 1.0);
    expect_quick("through every trouble", times);
}

#[test]
fn release_and_acquire() {
    require!(kernel);
    let mut host = Host::new("auto", &[]);
    host.until("GPUs", SOON, |metrics| metrics.sum("gpu_available", &[]) == 1.0);
    let library = library(&host.fake).to_owned();
    assert!(host.maps().contains(&library));
    assert_eq!(host.tell("status"), (true, "up: 2 GPUs, driver 580.95.05".to_owned()));
    let (done, said) = host.tell("release");
    assert!(done && said.starts_with("released"), "{said}");
    assert!(!host.maps().contains(&library), "the driver can be unloaded");
    let metrics = host.observer.metrics();
    assert_eq!((metrics.sum("gpu_available", &[]), metrics.sum("gpu_driver_unresponsive", &[])), (0.0, 0.0));
    assert!(!metrics.has("gpu_power_watts"));
    // Another driver is there when it is taken back.
    host.set(&[("driver", "590.10"), ("gpus", "3")]);
    assert_eq!(host.tell("acquire"), (true, "up: 3 GPUs, driver 590.10".to_owned()));
    assert_eq!(host.observer.metrics().select("gpu_power_watts", &[]).len(), 3);
    host.set(&[("init.ret", "9")]);
    assert!(host.tell("release").0);
    let (done, said) = host.tell("acquire");
    assert!(!done && said.starts_with("absent: ") && said.contains("driver is not loaded"), "{said}");
}

#[test]
fn without_a_driver() {
    require!(kernel);
    let scratch = Scratch::new();
    let missing = scratch.file("libnvidia-ml.so.1");
    let (port, listen) = (free_port().to_string(), free_address().to_string());
    let missing = missing.to_str().expect("a plain path");
    // Where one is required, that is an error.
    let mut command = observer::command();
    command.env("OBSERVER_GPU_LIBRARY", missing);
    command.args(["run", "--ports", &port, "--listen", &listen, "--gpu", "require"]);
    let (status, said) = observer::run(command);
    let error = said.iter().find(|line| line.starts_with("observer: ")).expect("an error");
    assert!(!status.success() && error.contains("no GPU can be observed") && error.contains(missing), "{said:#?}");
    // Elsewhere it is one line.
    let observer = Observer::tuned(&["--ports", &port], &[("OBSERVER_GPU_LIBRARY", missing)]);
    thread::sleep(Duration::from_secs(1));
    let lines = observer.output();
    let of_gpus: Vec<_> = lines.iter().filter(|line| line.contains("GPU")).collect();
    assert!(
        of_gpus.len() == 1 && of_gpus[0].contains("no GPUs are observed") && of_gpus[0].contains("INFO"),
        "{lines:#?}"
    );
    assert_eq!(observer.metrics().sum("gpu_available", &[]), 0.0);
    drop(observer);
    let off = Observer::with(&["--ports", &port, "--gpu", "off"]);
    let metrics = off.metrics();
    assert!(!metrics.has("gpu_available") && !metrics.has("gpu_driver_unresponsive"));
    let mut command = observer::command();
    command.args(["gpu", "status", "--url", &format!("http://{}", off.address())]);
    let (status, said) = observer::run(command);
    assert!(!status.success() && said.concat().contains("gpu.mode is off"), "{said:#?}");
}

#[test]
fn doctor_says_what_each_gpu_has() {
    require!(kernel);
    let scratch = Scratch::new();
    let mut fake = fake(
        &scratch,
        &[("gpu0.gpm2", "10"), ("gpu0.procs", "4242:1"), ("gpu1.nvmlDeviceGetPowerUsage.ret", "3"), ("gpu1.gpm", "0")],
    );
    let path = library(&fake).to_owned();
    let doctor = |arguments: &[&str]| {
        let mut command = observer::command();
        command.env("OBSERVER_GPU_LIBRARY", &path).arg("doctor").args(arguments);
        command
    };
    let (status, said) = observer::run(doctor(&[]));
    assert!(status.success(), "{said:#?}");
    let line =
        |start: &str| said.iter().find(|line| line.contains(start)).unwrap_or_else(|| panic!("no {start}: {said:#?}"));
    assert!(line("GPU driver").contains(&format!("580.95.05, CUDA up to 13.0, library {path}")));
    let (first, second) = (line("GPU 0, NVIDIA H100"), line("GPU 1, NVIDIA H100"));
    assert!(!first.contains("gpu_sm_active_ratio") && !first.contains("gpu_power_watts"), "{first}");
    assert!(second.contains("gpu_sm_active_ratio") && second.contains("gpu_power_watts"), "{second}");
    assert!(line("GPU processes").contains("ids"));

    let mut process = Process::spawn("doctor", doctor(&["--json"]));
    let status = process.wait(SOON);
    let report: serde_json::Value = serde_json::from_str(&process.settled_output().join("\n")).expect("JSON");
    assert!(status.success() && report["ready"] == true && report["gpu"]["driver"] == "580.95.05", "{report:#}");
    let families = report["gpu"]["gpus"][0]["families"].as_array().expect("families");
    assert!(families.iter().any(|family| family == "gpu_sm_active_ratio"));

    // A driver that hangs holds up neither the report nor the end.
    fake.set(&[("nvmlDeviceGetTemperature.delay_ms", "60000")]).expect("a state");
    let mut process = Process::spawn("doctor", doctor(&[]));
    let status = process.wait(Duration::from_secs(40));
    let said = process.settled_output();
    assert!(status.success() && said.iter().any(|line| line.contains("the driver does not answer")), "{said:#?}");

    let mut command: Command = doctor(&["--gpu", "require"]);
    command.env("OBSERVER_GPU_LIBRARY", scratch.file("missing.so"));
    let (status, said) = observer::run(command);
    assert!(!status.success() && said.iter().any(|line| line.starts_with("error    GPU driver")), "{said:#?}");
}

/// Eight GPUs each second, with calls that take their time. The fake library does its work on the same thread.
#[test]
fn what_polling_costs() {
    require!(kernel);
    // Those that ask the GPU's firmware, or gather; the rest answers from what the driver knows.
    let calls = ["nvmlDeviceGetFieldValues", "nvmlDeviceGetProcessUtilization", "nvmlGpmSampleGet"];
    let delays: Vec<_> = calls.iter().map(|call| format!("{call}.delay_ms")).collect();
    let mut values: Vec<(&str, &str)> = delays.iter().map(|key| (&**key, "2")).collect();
    values.push(("gpus", "8"));
    let processes: Vec<_> = (0..8).map(|gpu| (format!("gpu{gpu}.procs"), format!("{}:1000", 5000 + gpu))).collect();
    values.extend(processes.iter().map(|(key, value)| (&**key, &**value)));
    let host = Host::new("require", &values);
    host.until("GPUs", SOON, |metrics| metrics.select("gpu_process_memory_bytes", &[]).len() == 8);
    thread::sleep(Duration::from_secs(2));
    let (begun, before) = (Instant::now(), host.threads());
    thread::sleep(Duration::from_secs(20));
    let (took, after) = (begun.elapsed(), host.threads());
    assert_eq!(before.len(), 2, "{before:?}");
    let mut all = 0.0;
    for (name, ran) in &after {
        let share = (*ran - before[name]).as_secs_f64() / took.as_secs_f64();
        println!("{name}: {:.3} % of a core", share * 100.0);
        all += share;
    }
    println!("polling 8 GPUs each second: {:.3} % of a core", all * 100.0);
    assert!(all < 0.005, "{all}");
}
