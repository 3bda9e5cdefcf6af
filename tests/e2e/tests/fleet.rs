//! A fleet: the agent's configuration sends a real observer's series on as they are, and the simulation of
//! `cargo xtask fleet` holds in a small form.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use observer_e2e::{
    fleet::{
        history::{History, PANELS},
        live,
        nodes::Nodes,
        recording::{MODELS, Recording},
    },
    http::Client,
    observer::Observer,
    prometheus::Prometheus,
    require,
    scratch::Scratch,
    servers::Server,
    traffic, wait,
};

const REQUESTS: u64 = 12;
const TOKENS: u64 = 5;

fn deploy(file: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/prometheus")).join(file)
}

/// Replaces what must be there exactly once.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replacen(from, to, 1)
}

fn promtool(arguments: &[&str]) {
    let mut command = Command::new(require::tool("promtool").expect("required"));
    let output = command.current_dir(deploy("rules")).args(arguments).output().expect("it runs");
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[test]
fn fleet_rules() {
    require!(promtool);
    promtool(&["test", "rules", "../tests/fleet.test.yml"]);
    promtool(&["check", "config", "--agent", "../agent.yml"]);
    let text = fs::read_to_string(deploy("rules/fleet.rules.yml")).expect("the rules");
    let families = fs::read_to_string(deploy("../../docs/metrics.md")).expect("the families");
    let names: BTreeSet<_> = text
        .split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .filter(|word| ["gen_ai_server_", "llm_", "workload_"].iter().any(|prefix| word.starts_with(prefix)))
        .collect();
    let counters = names.iter().filter(|name| name.ends_with("_total")).count();
    assert!(counters == 2 && names.len() >= 8, "{names:?}");
    for name in names {
        // A recorded name has the family's without what a rate takes away.
        let known =
            ["", "_total"].iter().any(|end| families.contains(&format!("`{}{end}`", name.trim_end_matches("_bucket"))));
        assert!(known, "{name}");
    }
}

/// observer -> agent -> remote write -> another Prometheus.
#[test]
fn fleet_agent_sends_everything_on() {
    require!(kernel, sample, prometheus);
    let scratch = Scratch::new();
    let receiver = Prometheus::start(
        &scratch.write("receiver.yml", "scrape_configs: []\n"),
        &[
            &format!("--storage.tsdb.path={}", scratch.file("tsdb").display()),
            "--web.enable-remote-write-receiver",
            "--enable-feature=exemplar-storage",
        ],
    );
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    // The file that people deploy, but for addresses, and the patience of a test.
    let text = fs::read_to_string(deploy("agent.yml")).expect("the agent's configuration");
    let text = replace(&text, "127.0.0.1:9478\"", &format!("{}\"", observer.address()));
    let text = replace(&text, "http://metrics.example:9090/", &format!("http://{}/", receiver.address()));
    let text = replace(&text, "scrape_interval: 15s", "scrape_interval: 1s\n  scrape_timeout: 1s");
    let agent = Prometheus::start_with(
        &scratch.write("agent.yml", &text),
        &[
            &format!("--storage.agent.path={}", scratch.file("agent").display()),
            "--enable-feature=agent,expand-external-labels",
        ],
        &[("NODE_NAME", "node-a"), ("CLUSTER", "test")],
    );
    let mut client = Client::connect(server.address).expect("it listens");
    for number in 0..REQUESTS {
        let id = format!("f{number}");
        let traceparent =
            format!("traceparent: 00-{:032x}-b7ad6b7169203331-01\r\n", 0x0af7_6519_u128 + u128::from(number));
        let body = traffic::sample_body(true, 115, 5, TOKENS).to_string();
        let request = traffic::post("/v1/chat/completions", &id, &traceparent, &body);
        assert_eq!(client.ask(&request).expect("an answer").status, 200);
    }
    let port = server.port();
    let selector = format!("{{cluster=\"test\",node=\"node-a\",instance=\"node-a\",server_port=\"{port}\"}}");
    let count = format!("sum(gen_ai_server_time_to_first_token_seconds_count{selector})");
    wait::until("every request to arrive", Duration::from_secs(20), || {
        (receiver.value(&count) == Some(REQUESTS as f64)).then_some(())
    });
    assert_eq!(receiver.value(&format!("sum(llm_requests_total{selector})")), Some(REQUESTS as f64));
    assert_eq!(receiver.value(&format!("sum(llm_output_chunks_total{selector})")), Some((REQUESTS * TOKENS) as f64));
    let quantile = format!(
        "histogram_quantile(0.5, sum by (cluster, le) (gen_ai_server_time_to_first_token_seconds_bucket{selector}))"
    );
    let median = receiver.value(&quantile).expect("a median");
    assert!((0.1..=0.15).contains(&median), "median time to first token {median}");
    // Nothing arrives without its labels, and all that the observer says does.
    assert_eq!(receiver.value("count({__name__!=\"\",node=\"\"} or {__name__!=\"\",cluster=\"\"})"), None);
    let own = observer.metrics();
    for family in ["observer_build_info", "workload_info", "observer_probe_attached"] {
        let arrived = receiver.value(&format!("count({family}{{cluster=\"test\"}})"));
        assert_eq!(arrived, Some(own.select(family, &[]).len() as f64), "{family}");
    }
    let exemplars =
        format!("query_exemplars?query=gen_ai_server_time_to_first_token_seconds_bucket&start=0&end={}", u32::MAX);
    wait::until("an exemplar", Duration::from_secs(10), || {
        let answer = receiver.api(&exemplars)?;
        answer["data"].as_array().filter(|series| !series.is_empty()).map(drop)
    });
    agent.stop();
    receiver.stop();
}

/// What `cargo xtask fleet` does at length.
#[test]
fn fleet_simulated() {
    require!(kernel, sample, prometheus, promtool);
    let recording = Arc::new(Recording::make(Duration::from_secs(4)));
    let budget = recording.budget();
    let series = recording.samples().count();
    let (workloads, models) = (recording.workloads().len(), MODELS.len());
    assert_eq!(workloads, 2);
    // No workload or model has more than the budget says; that they have as much is the load's doing.
    assert!(series <= budget.series(1, workloads, models), "{series} series, {budget:?}");
    assert!(series * 10 >= budget.series(1, workloads, models) * 9, "{series} series, {budget:?}");

    let nodes = Nodes::serve(Arc::clone(&recording));
    let interval = Duration::from_secs(1);
    let [few, many] = [2, 10].map(|count| live::run(&nodes, count, interval, Duration::from_secs(3)));
    for live in [few, many] {
        // `up` and four more of each scrape are Prometheus's.
        let expected = (live.nodes * (series + 5)) as f64;
        assert_eq!(live.series, expected, "{live:?}");
        // A scrape more or less may fall into the time.
        let scrapes = live.rate / (expected * interval.as_secs_f64());
        assert!((0.6..1.4).contains(&scrapes), "{live:?} of {expected}");
    }

    let scratch = Scratch::new();
    let count = 12;
    let history = History::make(&recording, count, 20, 12, scratch.path());
    assert_eq!(history.samples, history.series * 20);
    assert!(history.evaluate(1) < Duration::from_secs(5), "twelve nodes are few");
    let (_, recorded) = history.record(&deploy("rules/fleet.rules.yml"));
    // About as many as one node has, however many there are: fewer where a rule adds up what a node tells apart.
    let of_one = history.series / count;
    assert!(recorded <= of_one && recorded * 10 >= of_one * 9, "{recorded} of {of_one}");
    for panel in PANELS {
        let (timing, _) = history.time(panel, 1);
        assert!(timing.difference < 1e-6, "{timing:?}");
    }
}
