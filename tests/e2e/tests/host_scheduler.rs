//! Run-queue latency, CPU time and page faults of workloads, against what `/proc` says of the same processes.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use observer_e2e::{
    http::Client,
    metrics::Metrics,
    noise,
    observer::Observer,
    process::{Process, cpu_nanos, descriptors, status_kib},
    require,
    servers::Server,
    traffic,
    wait::{self, SOON},
    worker::Worker,
};

/// What the kernel tells of threads, in nanoseconds and faults.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    running: u64,
    waiting: u64,
    minor: u64,
    major: u64,
    /// CPU time of children that ended and were waited for.
    ended: u64,
}

fn ask_proc(worker: &Worker) -> Told {
    let mut told = Told::default();
    for pid in &worker.pids {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it lives");
        let numbers =
            |text: &str| -> Vec<u64> { text.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
        let schedule = numbers(&read("schedstat"));
        told.running += schedule[0];
        told.waiting += schedule[1];
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
        // Counted from the state, which is the third.
        let field = |number: usize| -> u64 { fields[number - 3].parse().expect("a number") };
        told.minor += field(10);
        told.major += field(12);
        told.ended += (field(16) + field(17)) * 10_000_000;
    }
    told
}

/// What was added to a family meanwhile.
fn added(before: &Metrics, after: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
    after.sum(name, labels) - before.sum(name, labels)
}

/// Counts within 2 % of each other, or `slack`.
fn same(what: &str, seen: f64, told: f64, slack: f64) {
    println!("{what}: seen {seen}, told {told}");
    assert!((seen - told).abs() <= (0.02 * told).max(slack), "{what}: seen {seen}, told {told}");
}

const FORKS: &str = env!("CARGO_BIN_EXE_forks");
const RUN_QUEUE: &str = "workload_run_queue_latency_seconds_sum";

#[test]
fn time_running_and_waiting_is_that_of_schedstat() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[]);
    let _measured = worker.measured();
    noise::settles(|| {
        let before = (worker.observer.metrics(), ask_proc(&worker));
        // More runnable threads than CPUs, and many short sleeps.
        let rivals: Vec<Process> = (0..2)
            .map(|_| {
                let mut command = Command::new(require::python());
                command.args(["-c", "while True: pass"]);
                Process::spawn("rival", command)
            })
            .collect();
        worker.work("spin", 700);
        worker.work("nap", 300);
        drop(rivals);
        worker.work("spin", 5);
        let (told, seen) = (ask_proc(&worker), worker.observer.metrics());
        let seconds = |after: u64, before: u64| (after - before) as f64 / 1e9;
        let (running, waiting) = (seconds(told.running, before.1.running), seconds(told.waiting, before.1.waiting));
        assert!(running > 1.4 && waiting > 0.3, "there was work, and rivals: {running} {waiting}");
        // A thread that has not left its CPU since it last told has at most a tick or two to tell.
        let added = |name| added(&before.0, &seen, name, &[]);
        noise::near("running", added("workload_cpu_seconds_total"), running, 0.02, 0.02)?;
        noise::near("waiting", added(RUN_QUEUE), waiting, 0.02, 0.02)?;
        let naps = added("workload_run_queue_latency_seconds_count");
        assert!(naps >= 300.0, "one sample for each time that a thread left the CPU: {naps}");
        let off = added("workload_off_cpu_seconds_total");
        assert!(off > 0.3, "300 sleeps of a millisecond: {off}");
        Ok(())
    });
}

#[test]
fn page_faults_are_those_of_stat() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[]);
    let before = (worker.measured(), ask_proc(&worker));
    worker.work("touch", 5000);
    worker.work("page", 400);
    worker.work("nap", 2);
    let (told, seen) = (ask_proc(&worker), worker.observer.metrics());
    let (minor, major) = (told.minor - before.1.minor, told.major - before.1.major);
    assert!(minor >= 5000 && major >= 300, "{minor} {major}");
    let added = |kind| added(&before.0, &seen, "workload_page_faults_total", &[("kind", kind)]);
    same("minor faults", added("minor"), minor as f64, 30.0);
    same("major faults", added("major"), major as f64, 2.0);
}

#[test]
fn short_lived_processes_count_and_leave_nothing_behind() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[]);
    let _measured = worker.measured();
    let members = |metrics: &Metrics| metrics.sum("observer_map_entries", &[("map", "members")]);
    worker.work("run", 2000);
    let (before, told) = (worker.observer.metrics(), ask_proc(&worker));
    let memory = status_kib(worker.observer.pid(), "VmRSS");
    assert_eq!(members(&before), 3.0);
    worker.work("run", 20_000);
    worker.work("nap", 2);
    let (after, told_after) = (worker.observer.metrics(), ask_proc(&worker));
    assert_eq!(members(&after), 3.0, "who ended is no member");
    assert_eq!(after.sum("observer_map_insert_failures_total", &[("map", "members")]), 0.0);
    assert_eq!(after.sum("observer_events_lost_total", &[("source", "thread")]), 0.0);
    let grown = status_kib(worker.observer.pid(), "VmRSS").saturating_sub(memory);
    assert!(grown < 2048, "{grown} KiB more");
    // Of each child every moment counts, from its birth to its last switch.
    let running = (told_after.running - told.running + told_after.ended - told.ended) as f64 / 1e9;
    let seen = added(&before, &after, "workload_cpu_seconds_total", &[]);
    noise::near("running, children included", seen, running, 0.02, 0.05).expect("counted by the kernel itself");
}

#[test]
fn thousands_of_short_lived_processes_make_nothing_grow() {
    require!(kernel, python);
    const EACH: u32 = 20_000;
    let worker = Worker::start(FORKS, &[]);
    let _measured = worker.measured();
    let pid = worker.observer.pid();
    let maps = ["members", "pids", "block_requests", "block_targets", "served_ports"];
    let entries = |metrics: &Metrics| maps.map(|map| metrics.sum("observer_map_entries", &[("map", map)]));
    let outside = |count: u32| {
        let mut command = Command::new(FORKS);
        command.arg(count.to_string());
        Process::spawn("forks", command)
    };
    // All that grows once does so now.
    let mut others = outside(2000);
    worker.work("run", 2000);
    assert!(others.wait(SOON).success());
    let before = worker.observer.metrics();
    let (memory, open, used) = (status_kib(pid, "VmRSS"), descriptors(pid), cpu_nanos(pid));
    let begun = Instant::now();
    // Children of a workload's process, and of somebody else's, at the same time.
    let mut others = outside(EACH);
    worker.work("run", EACH);
    assert!(others.wait(Duration::from_secs(60)).success());
    let seconds = begun.elapsed().as_secs_f64();
    let share = (cpu_nanos(pid) - used) as f64 / 1e9 / seconds;
    let after = worker.observer.metrics();
    let grown = status_kib(pid, "VmRSS").saturating_sub(memory);
    let rate = f64::from(2 * EACH) / seconds;
    println!(
        "{rate:.0} processes a second for {seconds:.1} s: {:.2} % of a core for the observer, {grown} KiB more",
        share * 100.0
    );
    assert_eq!(entries(&after), entries(&before), "{maps:?}");
    // It may be looking into a file in `/proc`, or still be closing the scrape's connection.
    assert!(descriptors(pid) <= open + 4, "{} descriptors, {open} before", descriptors(pid));
    assert!(grown < 2048, "{grown} KiB more");
    assert!(share < 0.05, "{share} cores");
    assert_eq!(after.sum("observer_map_insert_failures_total", &[]), 0.0);
    assert_eq!(after.sum("observer_events_lost_total", &[("source", "thread")]), 0.0);
}

#[test]
fn what_is_off_has_no_sample_and_no_probe() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[("OBSERVER_SIGNALS_SCHEDULER", "false")]);
    worker.work("nap", 10);
    std::thread::sleep(Duration::from_secs(1));
    let metrics = worker.observer.metrics();
    assert_eq!(metrics.sum("llm_requests_total", &[]), 1.0);
    for family in ["workload_cpu_seconds_total", "workload_page_faults_total", RUN_QUEUE] {
        assert!(!metrics.has(family), "{family}");
    }
    assert_eq!(metrics.sum("observer_probe_attached", &[("probe", "scheduler_switch")]), 0.0);
}

#[test]
fn threads_of_a_server_under_load() {
    require!(kernel);
    let server = Server::sample(&["--workers", "2"]);
    let observer = Observer::start(&[server.address.port()]);
    let mut client = Client::connect(server.address).expect("it listens");
    let mut ask = |count: u32| {
        for number in 0..count {
            let request = traffic::sample_chat(&format!("r{number}"), 1, 1, 5);
            assert_eq!(client.ask(&request).expect("an answer").status, 200);
        }
    };
    ask(3);
    wait::until("the workload to be measured", SOON, || {
        ask(1);
        observer.metrics().has("workload_cpu_seconds_total").then_some(())
    });
    let pid = server.process.pid();
    let threads = || -> BTreeMap<String, (u64, u64)> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
        let read = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
            Some((task.file_name().to_string_lossy().into_owned(), (numbers.next()?, numbers.next()?)))
        };
        tasks.filter_map(|task| read(task.ok()?)).collect()
    };
    noise::settles(|| {
        ask(50);
        let (told, seen) = (threads(), observer.metrics());
        ask(400);
        let (told_after, seen_after) = (threads(), observer.metrics());
        assert!(told.keys().eq(told_after.keys()), "no thread came or went: {told:?} {told_after:?}");
        let sum =
            |told: &BTreeMap<String, (u64, u64)>, which: fn(&(u64, u64)) -> u64| told.values().map(which).sum::<u64>();
        for (name, which) in
            [("workload_cpu_seconds_total", (|told| told.0) as fn(&(u64, u64)) -> u64), (RUN_QUEUE, |told| told.1)]
        {
            let added = seen_after.sum(name, &[]) - seen.sum(name, &[]);
            let told = sum(&told_after, which) - sum(&told, which);
            noise::near(name, added, told as f64 / 1e9, 0.02, 0.002)?;
        }
        Ok(())
    });
}
