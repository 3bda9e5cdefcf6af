//! node_exporter on the same host: it has what is of the host, the observer what is of workloads, and no name is both's.

use std::{collections::BTreeSet, net::SocketAddr, process::Command, time::Duration};

use observer::metrics::families;
use observer_e2e::{http, net::free_address, process::Process, require, wait, worker::Worker};

/// Names of families in a scrape.
fn names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

/// Names that samples of a family may have.
fn sample_names(family: &str) -> [String; 4] {
    ["", "_bucket", "_sum", "_count"].map(|end| format!("{family}{end}"))
}

fn scrape(address: SocketAddr) -> Option<String> {
    let answer = http::get(address, "/metrics").ok()?;
    (answer.status == 200).then(|| answer.text())
}

#[test]
fn node_exporter_has_the_host_and_the_observer_has_workloads() {
    require!(kernel, python, node_exporter);
    let address = free_address();
    let mut command = Command::new(require::tool("prometheus-node-exporter").expect("required"));
    command.arg(format!("--web.listen-address={address}"));
    let _node_exporter = Process::spawn("node_exporter", command);
    let worker = Worker::start("true", &[]);
    let _measured = worker.measured();
    let theirs = wait::until("node_exporter", Duration::from_secs(20), || scrape(address));
    let ours = scrape(worker.observer.address()).expect("the observer answers");
    let (theirs, scraped) = (names(&theirs), names(&ours));
    let has = |name: &str| theirs.contains(name);
    assert!(has("node_cpu_seconds_total") && has("node_memory_MemFree_bytes"), "it looks at the host");
    assert!(scraped.contains("workload_cpu_seconds_total"), "and the observer at a workload");
    let declared: BTreeSet<String> = families::all().map(|family| family.name.to_owned()).collect();
    let both: BTreeSet<_> = scraped.union(&declared).cloned().collect();
    println!("{} families of node_exporter, {} of the observer", theirs.len(), both.len());
    for name in &both {
        let common = sample_names(name).into_iter().find(|name| theirs.contains(name));
        assert_eq!(common, None, "node_exporter has it, too");
    }
    // Not by another name either: whatever is ours is a workload's, a GPU's or the observer's own.
    for family in families::all() {
        let labels: Vec<_> = family.labels().collect();
        let of = |prefix| family.name.starts_with(prefix);
        let is_ours = labels.contains(&"workload") || of("gpu_") || of("observer_");
        assert!(is_ours, "{} is nobody's: {labels:?}", family.name);
        assert!(!of("workload_") || labels[0] == "workload", "{}: {labels:?}", family.name);
        assert!(!labels.contains(&"device") || labels.contains(&"workload"), "{}: {labels:?}", family.name);
    }
    let unnamed = ours.lines().find(|line| line.starts_with("workload_") && !line.contains("workload=\""));
    assert_eq!(unnamed, None, "a sample of no workload");
}
