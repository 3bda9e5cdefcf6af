//! Files, pipes and sockets of workloads, against what they were told to do and `/proc/PID/io` of the same processes.

use std::fs;

use observer_e2e::{
    metrics::Metrics,
    net::free_port,
    noise,
    observer::Observer,
    require,
    wait::{self, SOON},
    worker::Worker,
};

const BYTES: &str = "workload_io_bytes_total";
const OPERATIONS: &str = "workload_io_operations_total";
const LATENCY: &str = "workload_io_latency_seconds";
const READS: &str = "workload_file_read_bytes_total";
const FILLS: &str = "workload_page_cache_fill_bytes_total";
const FORKS: &str = env!("CARGO_BIN_EXE_forks");
const ON: (&str, &str) = ("OBSERVER_SIGNALS_IO", "on");

/// What the kernel tells of processes: bytes that calls read and wrote, and how many these were.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    read: f64,
    written: f64,
    reads: f64,
    writes: f64,
}

fn ask_proc(worker: &Worker) -> Told {
    let mut told = Told::default();
    for pid in &worker.pids {
        let text = fs::read_to_string(format!("/proc/{pid}/io")).expect("it lives");
        let number = |key: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("in every kernel");
            line.trim().parse().expect("a number")
        };
        told.read += number("rchar:");
        told.written += number("wchar:");
        told.reads += number("syscr:");
        told.writes += number("syscw:");
    }
    told
}

/// What was added meanwhile.
struct Added {
    before: Metrics,
    after: Metrics,
    answer: String,
}

impl Added {
    /// While the worker does something that many times.
    fn by(worker: &Worker, what: &str, count: u32) -> Self {
        let before = worker.observer.metrics();
        let answer = worker.work(what, count);
        Self { before, after: worker.observer.metrics(), answer }
    }

    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.after.sum(name, labels) - self.before.sum(name, labels)
    }

    fn of(&self, name: &str, kind: &str, direction: &str) -> f64 {
        self.sum(name, &[("kind", kind), ("direction", direction)])
    }

    fn of_kind(&self, name: &str, kind: &str) -> f64 {
        self.sum(name, &[("kind", kind)])
    }
}

/// Whether a number is that, or up to 2 % or `slack` more: what the worker does besides.
fn near(what: &str, seen: f64, told: f64, slack: f64) {
    println!("{what}: seen {seen}, told {told}");
    assert!((seen - told).abs() <= (0.02 * told).max(slack), "{what}: seen {seen}, told {told}");
}

#[test]
fn bytes_and_calls_are_those_that_were_made() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[ON]);
    let _measured = worker.measured();
    let written = Added::by(&worker, "write_file", 1000);
    assert_eq!(written.of(BYTES, "file", "write"), 4_000_000.0);
    assert_eq!(written.of(OPERATIONS, "file", "write"), 4000.0);
    assert_eq!(written.of(LATENCY_COUNT, "file", "write"), 4000.0);
    let read = Added::by(&worker, "read_file", 1000);
    near("bytes of files", read.of(BYTES, "file", "read"), 4_000_000.0, 0.0);
    near("reads of files", read.of(OPERATIONS, "file", "read"), 4001.0, 0.0);
    assert_eq!(read.of(OPERATIONS, "file", "write"), 1.0, "the file that is read");
    let pipe = Added::by(&worker, "pipe", 2000);
    for direction in ["read", "write"] {
        assert_eq!(pipe.of(BYTES, "pipe", direction), 200_000.0);
        assert_eq!(pipe.of(OPERATIONS, "pipe", direction), 2000.0, "calls that would have to wait are none");
    }
    let socket = Added::by(&worker, "socket", 2000);
    for direction in ["read", "write"] {
        // Those of the request and its answer come to it.
        near("bytes of sockets", socket.of(BYTES, "socket", direction), 1_800_000.0, 1000.0);
        near("calls on sockets", socket.of(OPERATIONS, "socket", direction), 6000.0, 10.0);
    }
    let device = Added::by(&worker, "device", 2000);
    assert_eq!(device.of_kind(OPERATIONS, "file") + device.of_kind(OPERATIONS, "pipe"), 0.0, "it is neither");
    assert_eq!(device.after.sum("observer_events_lost_total", &[]), 0.0);
}

const LATENCY_COUNT: &str = "workload_io_latency_seconds_count";
const LATENCY_SUM: &str = "workload_io_latency_seconds_sum";

#[test]
fn files_and_pipes_are_what_the_kernel_accounts_for() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[ON]);
    let before = (worker.measured(), ask_proc(&worker));
    for (what, count) in [("write_file", 2000), ("read_file", 3000), ("read_weights", 1000), ("pipe", 3000)] {
        worker.work(what, count);
    }
    let (told, after) = (ask_proc(&worker), worker.observer.metrics());
    let added = Added { before: before.0, after, answer: String::new() };
    let told = Told {
        read: told.read - before.1.read,
        written: told.written - before.1.written,
        reads: told.reads - before.1.reads,
        writes: told.writes - before.1.writes,
    };
    let both = |name, direction| added.of(name, "file", direction) + added.of(name, "pipe", direction);
    near("read", both(BYTES, "read"), told.read, 0.0);
    near("written", both(BYTES, "write"), told.written, 0.0);
    // The kernel counts those, too, that found the pipe empty.
    near("reads", both(OPERATIONS, "read") + 3000.0, told.reads, 0.0);
    near("writes", both(OPERATIONS, "write"), told.writes, 0.0);
}

#[test]
fn calls_are_timed() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[ON]);
    let _measured = worker.measured();
    noise::settles(|| {
        let added = Added::by(&worker, "late_pipe", 50);
        let (reads, seconds) = (added.of(LATENCY_COUNT, "pipe", "read"), added.of(LATENCY_SUM, "pipe", "read"));
        assert_eq!(reads, 50.0);
        let told: f64 = added.answer.parse().expect("seconds");
        assert!(told > 0.95, "50 waits of 20 ms: {told}");
        noise::near("seconds in reads", seconds, told, 0.02, 0.0)?;
        let bounded = |bound: &str| {
            let labels = [("kind", "pipe"), ("direction", "read"), ("le", bound)];
            added.sum("workload_io_latency_seconds_bucket", &labels)
        };
        // A busy machine makes some longer.
        let (short, long) = (bounded("0.016777216"), bounded("0.134217728"));
        noise::holds(short <= 2.0 && long >= 40.0, || format!("each in its bucket: {short} {long}"))?;
        noise::holds(added.of(LATENCY_SUM, "pipe", "write") < 0.1, || "writers do not wait".to_owned())
    });
    let socket = Added::by(&worker, "socket", 1000);
    let timed = socket.of(LATENCY_COUNT, "socket", "write");
    // The kernel's functions for files are not those for sockets.
    let by_call = socket.after.sum("observer_probe_attached", &[("probe", "syscall_exit")]) == 1.0;
    assert!(if by_call { timed >= 3000.0 } else { timed == 0.0 }, "all ways to write to one, or none: {timed}");
}

#[test]
fn without_times_the_rest_stays_right() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[ON, ("OBSERVER_SIGNALS_IO_LATENCY", "false")]);
    let measured = worker.measured();
    for probe in ["syscall_enter", "file_read_begin", "file_writev_begin"] {
        assert_eq!(measured.sum("observer_probe_attached", &[("probe", probe)]), 0.0, "{probe}");
    }
    assert!(!measured.has(LATENCY_COUNT) && measured.has(BYTES));
    let written = Added::by(&worker, "write_file", 1000);
    assert_eq!(written.of(BYTES, "file", "write"), 4_000_000.0);
    assert_eq!(written.of(OPERATIONS, "file", "write"), 4000.0);
}

#[test]
fn weights_are_told_apart() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[ON]);
    let _measured = worker.measured();
    let added = Added::by(&worker, "read_weights", 500);
    assert_eq!(added.of_kind(READS, "weights"), 5_000_000.0);
    assert_eq!(added.of_kind(READS, "other"), 500_000.0);
    let added = Added::by(&worker, "read_blob", 500);
    assert_eq!(added.of_kind(READS, "weights"), 5_000_000.0);
    assert_eq!(added.of(BYTES, "file", "read"), 5_000_000.0);
}

#[test]
fn the_page_cache_is_filled_for_whoever_reads_or_touches() {
    require!(kernel, python);
    const PAGES: u32 = 4096;
    let size = f64::from(PAGES) * 4096.0;
    // As it is by itself: this needs no costly hook.
    let worker = Worker::start(FORKS, &[]);
    let _measured = worker.measured();
    let added = Added::by(&worker, "map_weights", PAGES);
    near("mapped weights", added.of_kind(FILLS, "weights"), size, 0.0);
    near("besides", added.of_kind(FILLS, "other"), 0.0, 100_000.0);
    let faults = added.sum("workload_page_faults_total", &[("kind", "major")]);
    assert!(faults > 0.0, "readahead leaves few, but some");
    near("mapped others", Added::by(&worker, "map_others", PAGES).of_kind(FILLS, "other"), size, 0.0);
    near("read weights", Added::by(&worker, "load_weights", PAGES).of_kind(FILLS, "weights"), size, 0.0);
    // In the cache already.
    near("written", Added::by(&worker, "write_file", 1000).of_kind(FILLS, "other"), 0.0, 100_000.0);
    assert_eq!(Added::by(&worker, "read_weights", 100).of_kind(FILLS, "weights"), 0.0);
}

/// Attached programs that a process holds.
fn links(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it lives");
    let text = |file: fs::DirEntry| fs::read_to_string(file.path()).unwrap_or_default();
    files.flatten().map(text).filter(|text| text.contains("link_type:")).count()
}

#[test]
fn hooks_are_in_place_while_there_is_a_workload() {
    require!(kernel, python);
    let settings = [ON, ("OBSERVER_METRICS_SERIES_TTL", "10s")];
    let idle = Observer::tuned(&["--ports", &free_port().to_string()], &settings);
    let without = links(idle.pid());
    drop(idle);
    let mut worker = Worker::start(FORKS, &settings);
    let _measured = worker.measured();
    let pid = worker.observer.pid();
    assert!(links(pid) >= without + 3, "reads and writes, and the page cache: {} {without}", links(pid));
    worker.server.process.stop(libc::SIGKILL, SOON);
    wait::until("the hooks to go with the workload", 3 * SOON, || (links(pid) == without).then_some(()));
}

#[test]
fn what_is_not_hooked_is_absent() {
    require!(kernel, python);
    let worker = Worker::start(FORKS, &[("OBSERVER_SIGNALS_IO", "off")]);
    worker.work("nap", 10);
    worker.work("write_file", 10);
    let measured = worker.measured();
    for family in [BYTES, OPERATIONS, LATENCY, LATENCY_COUNT, READS, FILLS] {
        assert!(!measured.has(family), "{family}");
    }
    drop(worker);
    // By itself only what no other process pays for.
    let worker = Worker::start(FORKS, &[]);
    let measured = worker.measured();
    let files = measured.select(BYTES, &[("kind", "file")]).len();
    let probes = |name| measured.sum("observer_probe_attached", &[("probe", name)]);
    assert_eq!(probes("syscall_exit") + probes("syscall_enter"), 0.0);
    assert_eq!(files > 0, probes("file_read") == 1.0);
    assert!(measured.sum(BYTES, &[("kind", "socket"), ("direction", "write")]) > 0.0 && measured.has(FILLS));
}
