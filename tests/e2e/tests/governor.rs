//! The governor of optional probes: under a load that takes more than their budget, and afterwards.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    disk_workload::DiskWorkload,
    http::Client,
    metrics::Metrics,
    observer::{self, Observer},
    process::Process,
    require, traffic,
    wait::{self, SOON},
    worker::Worker,
};

const SWITCHES: &str = env!("CARGO_BIN_EXE_switches");
const SHED: &str = "observer_signal_shed";
const DECISIONS: &str = "observer_governor_decisions_total";
/// It takes the governor some samples, and what was restored too early is away for longer.
const LONG: Duration = Duration::from_secs(90);

/// One percent of a core, sampled as often as may be.
const SETTINGS: [(&str, &str); 3] = [
    ("OBSERVER_GOVERNOR_BUDGET", "0.01"),
    ("OBSERVER_GOVERNOR_INTERVAL", "2s"),
    ("OBSERVER_GOVERNOR_RESTORE_AFTER", "5s"),
];

/// Two processes that do nothing but hand the CPU to each other: some 300,000 context switches a second, of which the
/// scheduler's probe takes some 150 ns each.
fn storm() -> Process {
    let mut command = Command::new(SWITCHES);
    command.arg("4000000000");
    Process::spawn("switches", command)
}

fn is_shed(metrics: &Metrics, signal: &str) -> bool {
    let found = metrics.select(SHED, &[("signal", signal)]);
    assert_eq!(found.len(), 1, "{signal} is governed");
    found[0].value == 1.0
}

fn decided(metrics: &Metrics, action: &str, signal: &str) -> f64 {
    metrics.sum(DECISIONS, &[("action", action), ("signal", signal)])
}

/// Programs of this process that are hooked in, by the kernel's numbers.
fn hooked_in(pid: u32) -> BTreeSet<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs");
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let links = texts.filter(|text| text.lines().any(|line| line.starts_with("link_type:")));
    links.filter_map(|text| text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())).collect()
}

/// Waits until a signal is shed, or not; the scrape that says so.
fn when(observer: &Observer, signal: &str, shed: bool) -> Metrics {
    wait::until("the governor to decide", LONG, || {
        // Each scrape may look at all TCP sockets, which is a cost, too.
        thread::sleep(Duration::from_millis(500));
        let metrics = observer.metrics();
        (metrics.has(SHED) && is_shed(&metrics, signal) == shed).then_some(metrics)
    })
}

#[test]
fn a_load_above_the_budget_sheds_a_signal_and_its_end_restores_it() {
    require!(kernel, python);
    let mut settings = SETTINGS;
    // Time enough for the work below.
    settings[2].1 = "20s";
    let worker = Worker::start("/bin/true", &settings);
    let before = worker.measured();
    let (begun, cpu, off) = (Instant::now(), "workload_cpu_seconds_total", "workload_off_cpu_seconds_total");
    let pid = worker.observer.pid();
    when(&worker.observer, "scheduler", false);
    let in_place = hooked_in(pid);
    let load = storm();
    let shed = when(&worker.observer, "scheduler", true);
    let seen_until = begun.elapsed();
    // Gone, and absent rather than zero; what else is measured is still there.
    assert_eq!(in_place.difference(&hooked_in(pid)).count(), 1, "one program is not hooked in any more");
    for family in [cpu, off, "workload_run_queue_latency_seconds_count", "workload_page_faults_total"] {
        assert!(before.has(family) && !shed.has(family), "{family}");
    }
    assert!(shed.select("observer_probe_attached", &[("probe", "scheduler_switch")]).is_empty());
    assert!(shed.select("observer_governor_cost_ratio", &[("signal", "scheduler")]).is_empty());
    assert!(shed.has("workload_tcp_rtt_seconds_count") && !is_shed(&shed, "tcp"));
    assert!(decided(&shed, "shed", "scheduler") >= 1.0);
    assert_eq!(shed.sum("observer_governor_budget_ratio", &[]), 0.01);
    let said = worker.observer.output();
    assert!(said.iter().any(|line| line.contains("scheduler is shed") && line.contains("of 1.000 %")), "{said:#?}");
    // Requests are measured as ever.
    let mut client = Client::connect(worker.server.address).expect("it listens");
    assert_eq!(client.ask(&traffic::sample_chat("shed", 0, 0, 1)).expect("an answer").status, 200);
    worker.observer.line("shed");
    // The server has one connection at a time.
    drop(client);
    // Two children compute for a second and a half each while nobody looks.
    let away = Instant::now();
    for _ in 0..3 {
        worker.work("spin", 500);
    }
    let missed = worker.observer.metrics();
    assert_eq!(decided(&missed, "restore", "scheduler"), 0.0, "it was restored before {:?}", away.elapsed());
    drop(load);
    let restored = when(&worker.observer, "scheduler", false);
    // It may be a trial that fails: then it is not, a sample later.
    thread::sleep(Duration::from_secs(3));
    let stays = when(&worker.observer, "scheduler", false);
    let (gap, back) = (away.elapsed(), Instant::now());
    assert!(decided(&restored, "restore", "scheduler") >= 1.0);
    assert_eq!(decided(&stays, "shed", "scheduler") - decided(&stays, "restore", "scheduler"), 0.0);
    assert_eq!(hooked_in(pid), in_place, "and hooked in again");
    worker.work("nap", 20);
    worker.work("spin", 5);
    let after = worker.observer.metrics();
    let added = |name: &str, before: &Metrics| after.sum(name, &[]) - before.sum(name, &[]);
    for line in worker.observer.output().iter().filter(|line| line.contains("optional probes")) {
        println!("{line}");
    }
    println!("away for up to {gap:?}: {} s of CPU, {} s off", added(cpu, &before), added(off, &before));
    // Three seconds of computing are missing, and not told of afterwards.
    assert!(added(cpu, &before) < 1.5, "{}", added(cpu, &before));
    // Nor is the time off the CPU, of three processes: twenty seconds each.
    let most = 3.0 * (seen_until + back.elapsed() + Duration::from_secs(8)).as_secs_f64();
    assert!(added(off, &before) < most, "{} of at most {most}", added(off, &before));
    // What happens from now on counts, all of it.
    worker.work("spin", 500);
    worker.work("spin", 5);
    let later = worker.observer.metrics();
    let more = later.sum(cpu, &[]) - after.sum(cpu, &[]);
    assert!((0.9..2.0).contains(&more), "two children computed for half a second each: {more}");
}

/// Where every system call pays for reads and writes, these go first.
#[test]
fn reads_and_writes_go_before_other_signals_and_come_back_exact() {
    require!(kernel, python);
    let mut settings = SETTINGS.to_vec();
    settings.push(("OBSERVER_SIGNALS_IO", "on"));
    let worker = Worker::start("/bin/true", &settings);
    let before = worker.measured();
    let of_files = |metrics: &Metrics| !metrics.select("workload_io_calls_total", &[("kind", "file")]).is_empty();
    if !of_files(&before) {
        println!("skipped: files are not measured here");
        return;
    }
    // Calls of anybody, or reads of files where functions are hooked: both, some million a second.
    let mut command = Command::new(require::python());
    command.args(["-c", "import os\nfile = os.open('/proc/self/exe', os.O_RDONLY)\nwhile True: os.pread(file, 1, 0)"]);
    let load = Process::spawn("reads", command);
    let shed = when(&worker.observer, "io", true);
    assert!(!of_files(&shed) && !shed.has("workload_page_cache_fill_bytes_total"), "files are absent");
    assert!(!shed.select("workload_io_bytes_total", &[("kind", "socket")]).is_empty(), "sockets are not");
    assert_eq!(decided(&shed, "shed", "io"), 1.0);
    drop(load);
    let restored = when(&worker.observer, "io", false);
    assert!(of_files(&restored));
    // A trial may have failed; from here on nothing asks for more.
    thread::sleep(Duration::from_secs(3));
    let before = when(&worker.observer, "io", false);
    worker.work("read_file", 100);
    let after = wait::until("these reads", SOON, || {
        let metrics = worker.observer.metrics();
        let reads =
            |metrics: &Metrics| metrics.sum("workload_io_calls_total", &[("kind", "file"), ("direction", "read")]);
        (reads(&metrics) - reads(&before) >= 401.0).then(|| reads(&metrics) - reads(&before))
    });
    assert!((401.0..450.0).contains(&after), "as many as there were: {after}");
}

/// A request to a disk that was under way when the probes went is not measured when they are back, as if it had taken all
/// that time: the kernel uses its memory again, for requests whose beginning nobody saw.
#[test]
fn requests_to_disks_are_not_measured_across_a_gap() {
    require!(kernel, python, loop_device);
    // Whatever a disk does is too much, and what it does not do is within it.
    let settings = [
        ("OBSERVER_GOVERNOR_BUDGET", "0.00001"),
        ("OBSERVER_GOVERNOR_INTERVAL", "2s"),
        ("OBSERVER_GOVERNOR_RESTORE_AFTER", "5s"),
        ("OBSERVER_SIGNALS_SCHEDULER", "false"),
        ("OBSERVER_SIGNALS_IO", "off"),
        ("OBSERVER_SIGNALS_TCP", "false"),
    ];
    let mut disk = DiskWorkload::start();
    let observer = Observer::tuned(&["--ports", &disk.server.port().to_string()], &settings);
    let in_place = hooked_in(observer.pid());
    disk.begin();
    wait::until("requests to the disk", SOON, || {
        observer.metrics().has("workload_block_io_latency_seconds_count").then_some(())
    });
    // It goes and comes back, and goes again, for as long as the disk is used.
    for times in 1..=3 {
        let metrics = wait::until("the governor to shed it again", LONG, || {
            thread::sleep(Duration::from_millis(100));
            let metrics = observer.metrics();
            (decided(&metrics, "shed", "block") >= f64::from(times) && is_shed(&metrics, "block")).then_some(metrics)
        });
        assert!(
            !metrics.has("workload_block_io_latency_seconds_count") && !metrics.has("workload_block_io_bytes_total")
        );
        assert_eq!(in_place.difference(&hooked_in(observer.pid())).count(), 4, "all four programs, or none");
    }
    drop(disk);
    let after = wait::until("the totals to be there again", LONG, || {
        thread::sleep(Duration::from_millis(200));
        Some(observer.metrics()).filter(|metrics| metrics.has("workload_block_io_latency_seconds_count"))
    });
    // Each gap lasted for five seconds at least; no request of a loop device takes that long.
    for family in ["workload_block_io_latency_seconds", "workload_block_io_queue_seconds"] {
        let (count, short) = (format!("{family}_count"), format!("{family}_bucket"));
        let all = after.sum(&count, &[]);
        // The kernel's buckets are powers of two nanoseconds: this one ends at 4.3 seconds.
        let within = after.sum(&short, &[("le", "4.294967296")]);
        assert!(all > 0.0 && within == all, "{family}: {} of {all} took longer than a gap", all - within);
    }
}

/// Without the privilege nothing is sampled, and nothing shed; that is said once.
#[test]
fn without_the_privilege_nothing_is_shed() {
    require!(kernel, setpriv);
    if fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() != "0") {
        println!("skipped: kernel.bpf_stats_enabled is set");
        return;
    }
    let listen = observer_e2e::net::free_address();
    let mut command = Command::new(require::tool("setpriv").expect("required"));
    command.arg("--bounding-set=-sys_admin").arg(require::observer());
    command.args(["run", "--gpu", "off", "--ports", &listen.port().to_string(), "--listen", &listen.to_string()]);
    command.envs(SETTINGS);
    let mut process = Process::spawn("observer", command);
    let line = process.line(LONG, |line| line.contains("cannot be sampled"));
    assert!(line.contains("CAP_SYS_ADMIN") && line.contains("bpf_stats_enabled"), "{line}");
    let text = observer_e2e::http::get(listen, "/metrics").expect("it answers").text();
    assert!(text.contains("observer_probe_attached") && !text.contains(SHED), "no governor, no samples");
    assert!(process.stop(libc::SIGTERM, observer::STOP_LIMIT).success());
}
