//! Every query and every variable of every dashboard, and every rule, on a real Prometheus that scrapes the observer while
//! a sample server has load and another workload uses a disk.

use std::{
    collections::BTreeSet,
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fake_nvml::control::Fake;
use observer_e2e::{
    disk_workload::DiskWorkload,
    http,
    observer::Observer,
    process::Process,
    prometheus::{Found, Prometheus, encode},
    require,
    scratch::Scratch,
    servers::Server,
    wait,
};
use serde_json::Value;

use crate::{absent::ABSENT, dashboards, rules};

/// How long there is load. Rates need two scrapes, what is read each [`SLOW`] as well.
const LOAD: Duration = Duration::from_secs(25);
const SLOW: &str = "2s";

/// What a dashboard has in place of its variables.
const CHOSEN: [(&str, &str); 8] = [
    ("$__rate_interval", "20s"),
    ("$__range", "1m"),
    ("$job", ".+"),
    ("$instance", ".+"),
    ("$workload", ".*"),
    ("$model", ".*"),
    ("$gpu", ".*"),
    ("$hops", "backend"),
];

/// A server under load with two GPUs, one that uses a disk, the observer, and a Prometheus.
struct Host {
    prometheus: Prometheus,
    /// Or why there is none.
    disk: Result<DiskWorkload, String>,
    _observer: Observer,
    _server: Server,
    _clients: Vec<Process>,
    _scratch: Scratch,
}

/// Clients of a model: `sample` tells the server how to answer them.
fn clients(server: &Server, model: &str, sample: &str) -> Process {
    let mut command = Command::new(require::sample());
    command.args(["load", "--url", &server.url(), "--model", model, "--sample", sample, "--id-prefix", model]);
    command.args(["--for", &format!("{}s", LOAD.as_secs() + 30), "--rate", "20", "--concurrency", "16"]);
    command.args(["--cancel-rate", "0.1", "--tokens", "12", "--stream", "mixed", "--route", "mixed"]);
    Process::spawn("clients", command)
}

impl Host {
    fn new() -> Self {
        let server = Server::sample(&[
            "--ttft=30ms",
            "--ttft-jitter=20ms",
            "--token-interval=5ms",
            "--error-rate=0.05",
            "--stream-error-rate=0.05",
            "--cut-rate=0.05",
        ]);
        let scratch = Scratch::new();
        let mut fake = Fake::new(scratch.path()).expect("a fake");
        let pid = server.process.pid();
        for gpu in 0..2 {
            let key = |name: &str| format!("gpu{gpu}.{name}");
            let processes = (format!("{pid}:17179869184"), format!("{pid}:71:30"));
            let values = [("procs", &*processes.0), ("proc_util", &processes.1), ("energy_auto", "1")];
            for (name, value) in values {
                fake.set(&[(&key(name), value)]).expect("a state");
            }
            // Bytes over PCIe and NVLink.
            for field in ["field197", "field198", "field138.all", "field139.all"] {
                fake.set(&[(&key(field), "1000000")]).expect("a state");
            }
            // Performance counters: SM active and occupancy, tensor cores, memory.
            for metric in [2, 3, 5, 10] {
                fake.set(&[(&key(&format!("gpm{metric}")), "40")]).expect("a state");
            }
        }
        let library = fake.library().to_str().expect("a plain path").to_owned();
        let settings = [
            ("OBSERVER_GPU_LIBRARY", &*library),
            ("OBSERVER_GPU_SLOW_INTERVAL", SLOW),
            // Also where the kernel's own functions cannot be hooked.
            ("OBSERVER_SIGNALS_IO", "on"),
            // All of them, whatever this host is doing; and soon.
            ("OBSERVER_GOVERNOR_BUDGET", "1"),
            ("OBSERVER_GOVERNOR_INTERVAL", "5s"),
            ("OBSERVER_SLO_OBJECTIVES", "interactive:ttft:0.05,steady:tpot:0.1"),
        ];
        let missing = ["python", "loop_device"].into_iter().find_map(require::missing);
        let mut disk = missing.map_or_else(|| Ok(DiskWorkload::start()), Err);
        let ports = [Some(server.port()), disk.as_ref().ok().map(|disk| disk.server.port())];
        let ports: Vec<_> = ports.iter().flatten().map(u16::to_string).collect();
        let observer = Observer::tuned(&["--ports", &ports.join(","), "--gpu", "require"], &settings);
        if let Ok(disk) = &mut disk {
            disk.begin();
        }
        let prometheus = Prometheus::scraping(observer.address());
        let clients = vec![clients(&server, "small", "{}"), clients(&server, "thinker", r#"{"reasoning": 3}"#)];
        thread::sleep(LOAD);
        Self { prometheus, disk, _observer: observer, _server: server, _clients: clients, _scratch: scratch }
    }

    /// What a query yields that is a number.
    fn numbers(&self, expr: &str) -> Vec<Found> {
        let mut found = self.prometheus.all(expr).unwrap_or_else(|| panic!("no answer to {expr}"));
        found.retain(|sample| !sample.value.is_nan());
        found
    }

    fn get(&self, path: &str) -> Value {
        let answer = http::get(self.prometheus.address(), path).expect("Prometheus answers");
        let value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer.status, 200, "{path}: {value}");
        value
    }

    /// How many exemplars the series of this query have.
    fn exemplars(&self, expr: &str) -> usize {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let (start, end) = (now - 300, now + 60);
        let found = self.get(&format!("/api/v1/query_exemplars?query={}&start={start}&end={end}", encode(expr)));
        let series = found["data"].as_array().expect("series");
        series.iter().map(|series| series["exemplars"].as_array().map_or(0, Vec::len)).sum()
    }
}

fn chosen(expr: &str) -> String {
    let expr = CHOSEN.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value));
    let expr = expr.replace("$objective", "0.99");
    assert!(!expr.contains('$'), "a variable is left: {expr}");
    expr
}

/// Why a query may yield nothing: the first family of the list that it names, or no disk to use.
fn excuse(host: &Host, expr: &str) -> Option<String> {
    if let Some(reason) = host.disk.as_ref().err().filter(|_| expr.contains("workload_block_io_")) {
        return Some(format!("no workload uses a disk: {reason}"));
    }
    let found = ABSENT.iter().find(|absent| expr.contains(absent.family))?;
    let state = if found.registered { "" } else { " (not registered yet)" };
    Some(format!("{}{state}: {}", found.family, found.reason))
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What is wrong with a panel's query.
fn fault_of_target(host: &Host, target: &Value) -> Option<String> {
    let expr = chosen(target["expr"].as_str().expect("a query"));
    let found = host.numbers(&expr);
    if found.is_empty() {
        return Some(format!("yields nothing: {expr}"));
    }
    if target["format"] == "heatmap" {
        let bounds: Vec<_> = found.iter().map(|sample| sample.labels.get("le").cloned().unwrap_or_default()).collect();
        let unique: BTreeSet<_> = bounds.iter().collect();
        if unique.len() != bounds.len() || bounds.iter().filter(|bound| *bound == "+Inf").count() != 1 {
            return Some(format!("its buckets are {bounds:?}"));
        }
        if bounds.iter().any(|bound| bound.parse::<f64>().is_err()) {
            return Some(format!("bounds are no numbers: {bounds:?}"));
        }
        // A rate of buckets that is lower in a higher one cannot be drawn.
        let mut rates: Vec<(f64, f64)> =
            found.iter().map(|sample| (sample.labels["le"].parse().unwrap_or(f64::NAN), sample.value)).collect();
        rates.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        if rates.windows(2).any(|pair| pair[1].1 < pair[0].1 - 1e-9)
            || rates.last().is_none_or(|(_, rate)| *rate <= 0.0)
        {
            return Some(format!("buckets are not cumulative, or empty: {rates:?}"));
        }
    }
    if target["exemplar"] == true && host.exemplars(&expr) == 0 {
        return Some(format!("has no exemplars: {expr}"));
    }
    None
}

/// What is wrong with a variable that is looked up.
fn fault_of_variable(host: &Host, variable: &Value) -> Option<String> {
    let query = variable["query"]["query"].as_str().expect("a query");
    let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect("label_values");
    let (selector, label) = inner.rsplit_once(", ").expect("a selector and a label");
    let path = format!("/api/v1/label/{label}/values?match[]={}", encode(&chosen(selector)));
    let values = host.get(&path)["data"].as_array().map_or(0, Vec::len);
    (values == 0).then(|| format!("{} has no values: {query}", variable["name"]))
}

#[test]
fn dashboards_and_rules_have_data() {
    require!(kernel, sample, prometheus);
    let host = Host::new();
    let newest = r#"llm_slo_requests_total{slo="steady"}"#;
    wait::until("objectives to be judged", Duration::from_secs(20), || {
        (!host.numbers(newest).is_empty()).then_some(())
    });
    let mut faults = Vec::new();
    let (mut queries, mut heatmaps) = (0, 0);
    for (file, dashboard) in dashboards() {
        for variable in items(&dashboard, "/templating/list").iter().filter(|variable| variable["type"] == "query") {
            faults.extend(fault_of_variable(&host, variable).map(|fault| format!("{file}: {fault}")));
        }
        for panel in items(&dashboard, "/panels") {
            for target in items(panel, "/targets").iter().filter(|target| target["datasource"]["type"] == "prometheus")
            {
                queries += 1;
                heatmaps += usize::from(target["format"] == "heatmap");
                let Some(fault) = fault_of_target(&host, target) else { continue };
                let place = format!("{file}: {}: {fault}", panel["title"]);
                match excuse(&host, target["expr"].as_str().expect("a query")) {
                    Some(reason) => println!("{}: nothing to see, {reason}", panel["title"]),
                    None => faults.push(place),
                }
            }
        }
    }
    for rule in rules::all() {
        let found = host.numbers(&rule.expr);
        // What is recorded of other rules is not here.
        let of_rules = rule.expr.contains("llm:");
        // The server sends errors within streams, and all is well with GPUs and the observer.
        let fault = if !rule.alert && !of_rules && found.is_empty() {
            "yields nothing"
        } else if rule.name == "LlmErrorsInStream" && found.is_empty() {
            "does not see the errors"
        } else if (rule.name.starts_with("Observer") || rule.name.starts_with("Gpu")) && !found.is_empty() {
            "fires without a reason"
        } else {
            continue;
        };
        faults.push(format!("{} {fault}: {} yields {found:?}", rule.name, rule.expr));
    }
    println!("{queries} queries, {heatmaps} of them heatmaps");
    assert!(queries > 100 && heatmaps > 10);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    host.prometheus.stop();
}
