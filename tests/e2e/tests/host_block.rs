//! Block I/O of workloads, against `/proc/diskstats` and fio, on loop devices of the tests' own.

use std::{fs::File, process::Command};

use observer_e2e::{
    disk::{Account, Books, Loop},
    metrics::Metrics,
    noise, require,
    scratch::Scratch,
    worker::Worker,
};
use serde_json::Value;

const LATENCY: &str = "workload_block_io_latency_seconds";
const QUEUE: &str = "workload_block_io_queue_seconds";
const BYTES: &str = "workload_block_io_bytes_total";

/// A workload that does what a script says.
struct Busy {
    worker: Worker,
    device: Loop,
    scripts: Scratch,
}

impl Busy {
    fn start(settings: &[(&str, &str)]) -> Self {
        let scripts = Scratch::new();
        let program = scripts.program("run", &format!("#!/bin/sh\nexec sh {}/script\n", scripts.path().display()));
        let worker = Worker::start(program.to_str().expect("text"), settings);
        Self { worker, device: Loop::new(64), scripts }
    }

    /// Has a process of the workload run this; `DEVICE` stands for the device. What it prints.
    fn run(&self, script: &str) -> String {
        let _path = self.scripts.write("script", &script.replace("DEVICE", self.device.path()));
        self.worker.work("run", 0)
    }

    /// Has the workload run fio: its own account of this job.
    fn fio(&self, options: &str) -> Value {
        account(&self.run(&format!("exec fio --name=job --filename=DEVICE {FIO} {options}")))
    }

    /// What the observer and the kernel say of the device.
    fn look(&self) -> (Seen, Books) {
        let metrics = self.worker.observer.metrics();
        let seen = Seen::of(&metrics, self.device.name());
        println!("{} requests, of {} the end was not seen", seen.count(), seen.unseen);
        // More are unseen the busier the machine's other processes are: 1 in 130 at the most so far.
        assert!(seen.unseen <= (seen.count() / 50.0).max(10.0), "a few of many: {seen:?}");
        (seen, self.device.books())
    }
}

const FIO: &str = "--direct=1 --output-format=json --allow_mounted_write=0";

fn account(output: &str) -> Value {
    let json = output.find('{').map_or("", |start| &output[start..]);
    let account: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("fio: {error}: {output}"));
    account["jobs"][0].clone()
}

/// One operation, as the observer has it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Operation {
    count: f64,
    bytes: f64,
    /// At the device.
    seconds: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    read: Operation,
    write: Operation,
    discard: Operation,
    flush: Operation,
    queued: f64,
    queue_seconds: f64,
    /// Upper bounds of the buckets of reads, and how many are at most so long.
    reads: Vec<(f64, f64)>,
    /// Requests whose end was not seen, as is known already, or by their being there long after it.
    unseen: f64,
}

impl Seen {
    fn of(metrics: &Metrics, device: &str) -> Self {
        let operation = |operation| {
            let labels = [("device", device), ("operation", operation)];
            let sum = |name: &str| metrics.sum(name, &labels);
            Operation {
                count: sum(&format!("{LATENCY}_count")),
                bytes: sum(BYTES),
                seconds: sum(&format!("{LATENCY}_sum")),
            }
        };
        let buckets = metrics.select(&format!("{LATENCY}_bucket"), &[("device", device), ("operation", "read")]);
        let bound = |labels: &[(String, String)]| {
            let text = labels.iter().find(|(name, _)| name == "le").map_or("", |(_, value)| value);
            if text == "+Inf" { f64::INFINITY } else { text.parse().expect("a number") }
        };
        Self {
            read: operation("read"),
            write: operation("write"),
            discard: operation("discard"),
            flush: operation("flush"),
            queued: metrics.sum(&format!("{QUEUE}_count"), &[("device", device)]),
            queue_seconds: metrics.sum(&format!("{QUEUE}_sum"), &[("device", device)]),
            unseen: metrics.sum("observer_events_lost_total", &[("source", "block_complete")])
                + metrics.sum("observer_map_entries", &[("map", "block_requests")]),
            reads: buckets.iter().map(|sample| (bound(&sample.labels), sample.value)).collect(),
        }
    }

    fn count(&self) -> f64 {
        self.read.count + self.write.count + self.discard.count
    }

    /// In the queue and at the device.
    fn seconds(&self) -> f64 {
        let operations = [self.read, self.write, self.discard, self.flush];
        operations.iter().map(|operation| operation.seconds).sum::<f64>() + self.queue_seconds
    }
}

/// As many bytes as fio counted, but for some requests whose end was not seen: up to 1 in 50, large ones maybe.
fn same_bytes(seen: f64, told: &Value) {
    let told = told.as_f64().expect("fio counts");
    assert!((seen - told).abs() <= 0.05 * told, "bytes: seen {seen}, fio {told}");
}

/// Counts and bytes must be the same, but for so many requests whose end was not seen.
fn same(what: &str, seen: Operation, told: Account, unseen: f64) {
    println!("{what}: seen {seen:?}, told {told:?}, {unseen} unseen");
    let missing = told.done as f64 - seen.count;
    assert!((0.0..=unseen).contains(&missing), "{what}: {missing} are missing");
    assert!((seen.bytes - told.bytes as f64).abs() <= 0.05 * told.bytes as f64, "{what}: seen {seen:?}, told {told:?}");
    assert!(missing > 0.0 || seen.bytes == told.bytes as f64, "{what}: seen {seen:?}, told {told:?}");
}

#[test]
fn block_requests_are_those_of_diskstats_and_only_the_workloads() {
    require!(kernel, python, loop_device, fio);
    let busy = Busy::start(&[]);
    let _measured = busy.worker.measured();
    let (seen, before) = busy.look();
    assert_eq!((seen.count(), seen.queued), (0.0, 0.0), "no request, no sample");
    let job = busy.fio("--ioengine=psync --rw=randrw --bsrange=4k-64k --size=48m --randseed=1");
    busy.fio("--ioengine=psync --rw=randtrim --bs=128k --size=16m");
    busy.fio("--ioengine=psync --rw=randwrite --bs=16k --size=4m --fsync=1");
    let (seen, after) = busy.look();
    let mut told = after.since(before);
    // There, what asks for a flush is a write of nothing besides.
    told.write.done -= told.flushes;
    same("reads", seen.read, told.read, seen.unseen);
    same("writes", seen.write, told.write, seen.unseen);
    same("discards", seen.discard, told.discard, seen.unseen);
    assert!(told.read.done > 100 && told.write.done > 500 && told.discard.done == 128, "{told:?}");
    same_bytes(seen.read.bytes, &job["read"]["io_bytes"]);
    assert!(told.flushes >= 255, "one between each two writes of the last job: {told:?}");
    let missing = told.flushes as f64 - seen.flush.count;
    assert!(seen.flush.bytes == 0.0 && (0.0..=seen.unseen).contains(&missing), "{seen:?} {told:?}");
    assert_eq!(seen.queued, seen.count(), "each but flushes");
    // The same device, and nobody of the workload.
    let mut command = Command::new(require::tool("fio").expect("required"));
    command.args(["--name=other", "--rw=randread", "--bs=4k", "--size=4m"]).args(FIO.split(' '));
    let other = command.arg(format!("--filename={}", busy.device.path())).output().expect("it runs");
    let other = account(&String::from_utf8_lossy(&other.stdout));
    assert_eq!(other["read"]["io_bytes"].as_u64(), Some(4 << 20));
    let (unchanged, books) = busy.look();
    assert_eq!(books.since(after).read.bytes, 4 << 20, "it read");
    assert_eq!((unchanged.read, unchanged.count()), (seen.read, seen.count()), "and that was not the workload's");
    let metrics = busy.worker.observer.metrics();
    for map in ["block_requests", "block_targets"] {
        assert_eq!(metrics.sum("observer_map_insert_failures_total", &[("map", map)]), 0.0);
    }
}

#[test]
fn block_times_are_those_of_diskstats() {
    require!(kernel, python, loop_device, fio);
    let busy = Busy::start(&[]);
    let _measured = busy.worker.measured();
    noise::settles(|| {
        let (seen_before, before) = busy.look();
        // Many at once, so that each takes long: the kernel's account begins where a request is made and ends after its
        // completion, on some machines ten microseconds more than from its start to its end at the device.
        let many = "--ioengine=libaio --iodepth=32 --size=48m --randseed=1";
        busy.fio(&format!("{many} --rw=randrw --bsrange=4k-64k"));
        busy.fio(&format!("{many} --rw=randtrim --bs=128k"));
        let (seen, after) = busy.look();
        let told = after.since(before);
        let told = [told.read, told.write, told.discard].map(|account| account.milliseconds).iter().sum::<u64>();
        noise::near("time in all", seen.seconds() - seen_before.seconds(), told as f64 / 1e3, 0.05, 0.0)
    });
}

#[test]
fn block_times_are_those_of_fio() {
    require!(kernel, python, loop_device, fio);
    let busy = Busy::start(&[]);
    let _measured = busy.worker.measured();
    noise::settles(|| {
        let (before, _) = busy.look();
        // One after another, and so large that the way there and back is little: else what fio waits for is rather its
        // turn on a CPU than the device.
        let job = busy.fio("--ioengine=psync --rw=randread --bs=1m --size=64m --loops=8");
        let (seen, _) = busy.look();
        let count = seen.read.count - before.read.count;
        same_bytes(seen.read.bytes - before.read.bytes, &job["read"]["io_bytes"]);
        let clat = &job["read"]["clat_ns"];
        let mean = clat["mean"].as_f64().expect("fio measures") / 1e9;
        let own = (seen.read.seconds - before.read.seconds + seen.queue_seconds - before.queue_seconds) / count;
        println!("mean: seen {:.2} us, fio {:.2} us", own * 1e6, mean * 1e6);
        noise::holds(own <= mean && mean <= 2.0 * own, || format!("mean: seen {own}, fio {mean}"))?;
        // Before the first request there are none.
        let earlier = |index: usize| before.reads.get(index).map_or(0.0, |(_, count)| *count);
        let buckets = || seen.reads.iter().enumerate().map(|(index, (bound, count))| (*bound, count - earlier(index)));
        for percentile in [50, 90] {
            let told = clat["percentile"][format!("{percentile}.000000")].as_f64().expect("fio measures") / 1e9;
            let rank = count * f64::from(percentile) / 100.0;
            let above = buckets().find(|(_, count)| *count >= rank).expect("the last has all").0;
            println!("p{percentile}: {:.2} to {:.2} us seen, fio {:.2} us", above * 5e5, above * 1e6, told * 1e6);
            // fio's own percentiles are of buckets, 1 % wide; its tail is of turns on busy CPUs, too.
            let most = if percentile == 50 { 2.0 * above } else { f64::INFINITY };
            let right = told >= 0.98 * above / 2.0 && told <= most;
            noise::holds(right, || format!("p{percentile}: at most {above} seen, fio {told}"))?;
        }
        Ok(())
    });
}

#[test]
fn block_requests_wait_in_the_queue_apart_from_the_device() {
    require!(kernel, python, loop_device, fio);
    noise::settles(|| {
        let busy = Busy::start(&[]);
        let _measured = busy.worker.measured();
        // The device takes 128 at a time, the scheduler twice as many.
        busy.device.set("scheduler", "mq-deadline");
        let (_, before) = busy.look();
        let job = busy.fio("--ioengine=libaio --rw=randread --bs=4k --iodepth=256 --time_based --runtime=3 --size=64m");
        busy.device.set("scheduler", "none");
        let (seen, after) = busy.look();
        let told = after.since(before);
        same("reads", seen.read, told.read, seen.unseen);
        same_bytes(seen.read.bytes, &job["read"]["io_bytes"]);
        let milliseconds = told.read.milliseconds as f64;
        noise::near("queue and device", seen.read.seconds + seen.queue_seconds, milliseconds / 1e3, 0.02, 0.0)?;
        // By Little's law as many requests wait as are at the device: 128 of 256, if all were always made.
        let rate = seen.read.count / (job["read"]["runtime"].as_f64().expect("fio measures") / 1e3);
        let (at_device, in_queue) =
            (seen.read.seconds / seen.read.count * rate, seen.queue_seconds / seen.queued * rate);
        println!("mean number of requests: {at_device:.1} at the device, {in_queue:.1} in the queue");
        assert!(at_device <= 128.0 * 1.02 && in_queue <= 256.0, "no more than there is room for");
        // How full fio keeps the two is a matter of this machine's CPUs.
        noise::holds(at_device > 4.0 && in_queue > 1.0, || "both were busy".to_owned())
    });
}

#[test]
fn merged_block_requests_count_once_with_all_their_bytes() {
    require!(kernel, python, loop_device, fio);
    let busy = Busy::start(&[]);
    let _measured = busy.worker.measured();
    for scheduler in ["none", "mq-deadline"] {
        busy.device.set("scheduler", scheduler);
        let (seen_before, before) = busy.look();
        let batches = "--iodepth=32 --iodepth_batch_submit=32 --iodepth_batch_complete_min=32";
        let job = busy.fio(&format!("--ioengine=libaio --rw=write --bs=4k --size=32m {batches}"));
        busy.device.set("scheduler", "none");
        let (seen, after) = busy.look();
        let told = after.since(before);
        assert!(told.write.merged > 1000, "{scheduler}: neighbours were merged: {told:?}");
        let added = Operation {
            count: seen.write.count - seen_before.write.count,
            bytes: seen.write.bytes - seen_before.write.bytes,
            seconds: seen.write.seconds - seen_before.write.seconds,
        };
        same("writes", added, told.write, seen.unseen);
        same_bytes(added.bytes, &job["write"]["io_bytes"]);
    }
}

#[test]
fn a_block_request_that_is_done_in_parts_counts_once() {
    require!(kernel, python, loop_device);
    let busy = Busy::start(&[]);
    let _measured = busy.worker.measured();
    // The file behind the device ends within the request: it reads 16 KiB, is given the rest again, and fails.
    busy.device.cut((1 << 20) + (16 << 10));
    let answer = busy.run("dd if=DEVICE of=/dev/null bs=64k skip=16 count=1 iflag=direct 2>/dev/null || echo failed");
    assert_eq!(answer.trim(), "failed");
    let (seen, _) = busy.look();
    assert_eq!((seen.read.count, seen.queued, seen.read.bytes), (1.0, 1.0, f64::from(16 << 10)), "{seen:?}");
}

#[test]
fn buffered_writes_are_of_who_waits_for_them() {
    require!(kernel, python, loop_device);
    let busy = Busy::start(&[]);
    let _measured = busy.worker.measured();
    // Open elsewhere, or who closes it last would have to write.
    let held = File::options().write(true).open(busy.device.path()).expect("it is there");
    let fill = "exec dd if=/dev/zero of=DEVICE bs=64k count=64 conv=notrunc";
    let (_, before) = busy.look();
    busy.run(&format!("{fill} 2>/dev/null"));
    held.sync_all().expect("it is written");
    let (seen, after) = busy.look();
    assert_eq!(after.since(before).write.bytes, 4 << 20, "written, by this process and the kernel's threads");
    assert_eq!(seen.write, Operation::default());
    busy.run(&format!("{fill},fsync 2>/dev/null"));
    let (seen, synced) = busy.look();
    let mut told = synced.since(after);
    told.write.done -= told.flushes;
    same("writes", seen.write, told.write, seen.unseen);
}

#[test]
fn block_signal_off_has_no_sample_and_no_probe() {
    require!(kernel, python, loop_device);
    let busy = Busy::start(&[("OBSERVER_SIGNALS_BLOCK", "false")]);
    let _measured = busy.worker.measured();
    let before = busy.device.books();
    busy.run("exec dd if=DEVICE of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null");
    assert_eq!(busy.device.books().since(before).read.bytes, 1 << 20);
    let metrics = busy.worker.observer.metrics();
    assert!(metrics.has("workload_cpu_seconds_total"));
    for family in [format!("{LATENCY}_count"), format!("{QUEUE}_count"), BYTES.to_owned()] {
        assert!(!metrics.has(&family), "{family}");
    }
    assert_eq!(metrics.sum("observer_probe_attached", &[("probe", "block_start")]), 0.0);
}
