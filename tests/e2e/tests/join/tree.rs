//! Single requests to the tree: whose GPUs, their energy, their idle time, what a request tells.

use std::{process::Command, thread, time::Duration};

use observer_e2e::{
    http::{self, Client},
    metrics::Metrics,
    net::free_address,
    observer::{self, Observer},
    process::Process,
    require,
    scratch::Scratch,
    traffic,
    wait::{self, SOON},
};

use crate::host::{ENERGY, Host, IDLE, JOIN, Tree, driver};

/// A request that takes this long is in flight at a hundred polls.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn gpus_and_their_energy_belong_to_the_whole_tree() {
    require!(kernel, python);
    let mut host = Host::new();
    let metrics = host.observer.metrics();
    let name = host.name();
    let of = |gpu: &str| metrics.sum("llm_workload_gpu_info", &[("workload", &name), ("gpu", gpu)]);
    assert_eq!([of("0"), of("1"), of("2")], [1.0, 1.0, 0.0]);
    assert_eq!(metrics.sum(JOIN, &[]), 1.0);
    let labels = [("workload", &*name), ("pid", &*host.tree.workers[0].to_string())];
    assert_eq!(metrics.sum("gpu_process_memory_bytes", &labels), 1_000_000.0);

    // 500 J and 250 J on GPUs of its own; what the third one spends is nobody's.
    host.set(&[("gpu0.energy_mj", "1500000"), ("gpu1.energy_mj", "2250000"), ("gpu2.energy_mj", "9000000")]);
    let metrics = host.observer.metrics();
    assert_eq!(metrics.sum(ENERGY, &[("workload", &name)]), 750.0);
    assert!(metrics.select(ENERGY, &[("estimated", "true")]).is_empty());

    // Now another process has a quarter of the second one's SM time: 300 J of 400 J, and an estimate.
    let (worker, stranger) = (host.tree.workers[1], std::process::id());
    let (processes, utilization) =
        (format!("{worker}:1000000,{stranger}:5000"), format!("{worker}:60:10,{stranger}:20:10"));
    host.set(&[("gpu1.procs", &processes), ("gpu1.proc_util", &utilization)]);
    host.until("both processes' SM time", |metrics| {
        metrics.select("gpu_process_sm_utilization_ratio", &[("gpu", "1")]).len() == 2
    });
    host.set(&[("gpu1.energy_mj", "2650000"), ("gpu0.energy_mj", "1600000")]);
    let metrics = host.observer.metrics();
    let estimated = metrics.sum(ENERGY, &[("workload", &name), ("estimated", "true")]);
    assert!((estimated - 300.0).abs() < 0.01 * 300.0, "{estimated}");
    let near = |seen: f64, told: f64| assert!((seen - told).abs() < 1e-6 * told, "{seen} J of {told} J");
    near(metrics.sum(ENERGY, &[("workload", &name)]) - estimated, 850.0);

    // A driver that starts over takes nothing back: 5 J since then are 5 J more.
    host.set(&[("gpu0.energy_mj", "5000")]);
    near(host.observer.metrics().sum(ENERGY, &[("workload", &name)]), 855.0 + estimated);
}

#[test]
fn seconds_of_idle_gpus_with_requests_in_flight() {
    require!(kernel, python);
    let mut host = Host::new();
    let name = host.name();
    let idle = |host: &Host| host.observer.metrics().sum(IDLE, &[("workload", &name)]);
    let before = idle(&host);
    // Nothing in flight.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(idle(&host), before);
    host.ask("long", u64::try_from(LONG.as_millis()).expect("short enough"));
    host.set(&[]);
    let line = host.observer.line("long");
    let told = (line.t_end_ns.expect("it ended") - line.t_arrive_ns.expect("it arrived")) as f64 / 1e9;
    let seen = idle(&host) - before;
    println!("idle with requests in flight: seen {seen:.3} s of {told:.3} s");
    // 1 %, which is one poll at either end.
    assert!((seen - told).abs() < 0.01 * told + 0.2, "seen {seen} s of {told} s");
    // One busy GPU is enough not to be idle.
    host.set(&[("gpu1.util", "80")]);
    let before = idle(&host);
    host.ask("busy", 3000);
    host.set(&[]);
    assert_eq!(idle(&host), before);
}

#[test]
fn a_request_tells_what_its_gpus_did() {
    require!(kernel, python);
    let mut host = Host::new();
    host.set(&[("gpu0.util", "80"), ("gpu1.util", "40"), ("gpu0.mem_util", "50"), ("gpu1.mem_util", "10")]);
    host.set(&[("gpu0.power_mw", "600000"), ("gpu1.power_mw", "400000")]);
    host.ask("measured", 2000);
    let line = host.observer.line("measured");
    let gpu = line.gpu.expect("known");
    let near = |value: &serde_json::Value, told: f64| (value.as_f64().expect("known") - told).abs() < 1e-6;
    assert!(near(&gpu["utilization"], 0.6) && near(&gpu["memory_utilization"], 0.3), "{gpu}");
    assert!(near(&gpu["power_watts"], 1000.0), "{gpu}");
    assert!(gpu["samples"].as_u64().expect("a number") >= 7, "{gpu}");
    assert!(gpu["throttled"].is_boolean(), "{gpu}");
    // Asked before anybody knew of a workload.
    assert!(host.observer.line("first").gpu.is_none());
}

/// In a PID namespace of its own the observer would take the driver's process ids for others: there is no join, and it is
/// said why.
#[test]
fn outside_the_hosts_pid_namespace_there_is_no_join() {
    require!(kernel, python, unshare);
    let (tree, scratch, listen) = (Tree::start(), Scratch::new(), free_address());
    let fake = driver(&scratch, &tree);
    let nested = |arguments: &[&str]| {
        let mut command = Command::new(require::tool("unshare").expect("required"));
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(require::observer()).args(arguments);
        command.env("OBSERVER_GPU_LIBRARY", fake.library());
        command
    };
    let (port, address) = (tree.server.port().to_string(), listen.to_string());
    let process = Process::spawn("observer", nested(&["run", "--ports", &port, "--listen", &address]));
    let metrics = || http::get(listen, "/metrics").ok().map(|answer| Metrics::parse(&answer.text()));
    wait::until("GPUs", SOON, || metrics().filter(|metrics| metrics.sum("gpu_available", &[]) == 1.0));
    let mut client = Client::connect(tree.server.address).expect("it listens");
    assert_eq!(client.ask(&traffic::sample_chat("nested", 0, 0, 1)).expect("an answer").status, 200);
    let metrics = wait::until("the request", SOON, || metrics().filter(|metrics| metrics.has("llm_tokens_total")));
    // The driver tells of processes, and nobody of workloads.
    assert_eq!(metrics.select("gpu_process_memory_bytes", &[]).len(), 2);
    assert_eq!((metrics.select(JOIN, &[]).len(), metrics.sum(JOIN, &[])), (1, 0.0));
    assert!(!metrics.has("llm_workload_gpu_info") && !metrics.has(ENERGY) && !metrics.has(IDLE));
    drop(process);

    let (_, said) = observer::run(nested(&["doctor"]));
    let line = said.iter().find(|line| line.contains("GPU processes")).unwrap_or_else(|| panic!("{said:#?}"));
    assert!(line.starts_with("warning") && line.contains("run in the host's PID namespace"), "{line}");
}

#[test]
fn without_processes_there_is_no_join() {
    require!(kernel, python);
    let (tree, scratch) = (Tree::start(), Scratch::new());
    let fake = driver(&scratch, &tree);
    let library = fake.library().to_str().expect("a plain path");
    let settings = [("OBSERVER_GPU_LIBRARY", library), ("OBSERVER_GPU_PROCESSES", "false")];
    let port = tree.server.port().to_string();
    let observer = Observer::tuned(&["--ports", &port, "--gpu", "require"], &settings);
    let metrics = observer.metrics();
    assert_eq!(metrics.sum("gpu_available", &[]), 1.0);
    assert_eq!((metrics.select(JOIN, &[]).len(), metrics.sum(JOIN, &[])), (1, 0.0));
    assert!(!metrics.has("gpu_process_memory_bytes") && !metrics.has("llm_workload_gpu_info"));
    let mut command = observer::command();
    command.envs(settings).arg("doctor");
    let (_, said) = observer::run(command);
    let line = said.iter().find(|line| line.contains("GPU processes")).unwrap_or_else(|| panic!("{said:#?}"));
    assert!(line.contains("gpu.processes is off"), "{line}");
}
