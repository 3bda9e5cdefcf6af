//! The image, built and run as it is meant to be: with every privilege, and with five capabilities.

use std::{net::SocketAddr, time::Duration};

use observer_e2e::{
    deploy,
    http::{self, Client},
    metrics::Metrics,
    net::free_port,
    netns::Cable,
    podman::Podman,
    request_log::{RequestLine, RequestLog},
    require,
    servers::Server,
    traffic, wait,
};
use serde_json::Value;

const IMAGE: &str = "observer:test";
const REQUESTS: u64 = 6;
const TOKENS: u64 = 8;
const STARTED: Duration = Duration::from_secs(30);

/// What the restricted profile of compose and Kubernetes is, in podman's words.
fn restricted() -> Vec<String> {
    let observer = deploy::document("compose/compose.restricted.yaml")["services"]["observer"].take();
    assert_eq!((&observer["privileged"], &observer["read_only"]), (&Value::Bool(false), &Value::Bool(true)));
    let dropped = deploy::texts(&observer["cap_drop"]).into_iter().map(|name| format!("--cap-drop={name}"));
    let added = deploy::texts(&observer["cap_add"]).into_iter().map(|name| format!("--cap-add={name}"));
    let options = deploy::texts(&observer["security_opt"]);
    assert_eq!(options, ["no-new-privileges:true", "apparmor=unconfined"]);
    let options = options.into_iter().map(|option| format!("--security-opt={}", option.trim_end_matches(":true")));
    dropped.chain(added).chain(options).chain(["--read-only".to_owned()]).collect()
}

/// Findings of the doctor that runs in a container, by their subjects.
fn doctor(podman: &Podman, container: &str) -> Vec<(String, String)> {
    let report = podman.command(&["exec", container, "observer", "doctor", "--json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["ready"], true, "{report}");
    let attached = |probe: &Value| (probe["name"].to_string(), probe["status"].to_string());
    let probes = report["probes"].as_array().expect("probes").iter().map(attached);
    let level = |finding: &Value| (finding["subject"].to_string(), finding["level"].to_string());
    report["findings"].as_array().expect("findings").iter().map(level).chain(probes).collect()
}

fn ask(server: &Server, prefix: &str) {
    let mut client = Client::connect(server.address).expect("it listens");
    for number in 0..REQUESTS {
        let request = traffic::sample_chat(&format!("{prefix}-{number}"), 40, 5, TOKENS);
        assert_eq!(client.ask(&request).expect("an answer").status, 200);
    }
}

fn expect(server: &Server, metrics: &Metrics, lines: &[RequestLine], prefix: &str) {
    let port = server.port().to_string();
    let workload = format!("sample-llm:{port}");
    let labels = [("server_port", &*port), ("workload", &*workload)];
    let sum = |name: &str| metrics.sum(name, &labels);
    assert_eq!(metrics.sum("llm_requests_total", &[labels[0], labels[1], ("outcome", "ok")]), REQUESTS as f64);
    assert_eq!(sum("llm_requests_total"), REQUESTS as f64);
    assert_eq!(sum("llm_output_chunks_total"), (REQUESTS * TOKENS) as f64);
    let mean = sum("gen_ai_server_time_to_first_token_seconds_sum") / REQUESTS as f64;
    assert!((0.039..0.2).contains(&mean), "mean time to first token {mean}");
    assert_eq!(metrics.sum("workload_info", &[("workload", &*workload)]), 1.0);
    assert!(metrics.has("workload_cpu_seconds_total"), "the scheduler's signal");
    assert!(metrics.sum("observer_events_total", &[]) > 0.0, "events");
    assert_eq!(lines.len() as u64, REQUESTS, "{prefix}: {lines:#?}");
    assert!(lines.iter().all(|line| line.pid == server.process.pid()), "process ids are the host's");
}

#[test]
fn the_image_observes_with_every_privilege_and_with_five_capabilities() {
    require!(kernel, sample, python, podman, runc, base_image, ip);
    let podman = Podman::new();
    deploy::build_image(&podman, IMAGE);
    what_it_is_made_of(&podman);

    let server = Server::sample(&[]);
    let ports = format!("OBSERVER_PORTS={}", server.port());
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let address = format!("OBSERVER_LISTEN={listen}");
    let options = ["--detach", "--pid=host", "--env", &ports, "--env"];
    let command = [IMAGE, "run", "--request-log", "-"];

    let place = [&address, "--privileged", "--network=host", "--name=privileged"];
    podman.run(&[&options[..], &place, &command].concat());
    wait::until("the observer to be well", STARTED, || podman.is_healthy("privileged").then_some(()));
    podman.command(&["exec", "privileged", "observer", "health", "--ready"]);
    ask(&server, "privileged");
    let log = || requests(&podman, "privileged");
    wait::until("its requests", wait::SOON, || (log().len() as u64 == REQUESTS).then_some(()));
    let metrics = Metrics::parse(&http::get(listen, "/metrics").expect("it answers").text());
    expect(&server, &metrics, &log(), "privileged");
    let everything = doctor(&podman, "privileged");
    stop(&podman, "privileged");

    // In a network of its own, as a pod is: what it observes is in the host's.
    let cable = Cable::new();
    let namespace = format!("--network=ns:{}", cable.server.file().display());
    let listen = SocketAddr::from((cable.server.address, 9478));
    let limits = restricted();
    let mut place = vec!["OBSERVER_LISTEN=0.0.0.0:9478", &namespace, "--name=restricted"];
    place.extend(limits.iter().map(String::as_str));
    podman.run(&[&options[..], &place, &command].concat());
    wait::until("the observer to be well", STARTED, || podman.is_healthy("restricted").then_some(()));
    podman.command(&["exec", "restricted", "observer", "health", "--ready"]);
    ask(&server, "restricted");
    let log = || requests(&podman, "restricted");
    wait::until("its requests", wait::SOON, || (log().len() as u64 == REQUESTS).then_some(()));
    let answer = cable.client.within(|| http::get(listen, "/metrics").expect("it answers").text());
    expect(&server, &Metrics::parse(&answer), &log(), "restricted");
    assert_eq!(doctor(&podman, "restricted"), everything, "what is permitted");
    stop(&podman, "restricted");
}

/// Lines of the request log on standard output.
fn requests(podman: &Podman, container: &str) -> Vec<RequestLine> {
    let output = podman.output(&["logs", container]);
    let file = podman.scratch().write("requests.jsonl", &String::from_utf8_lossy(&output.stdout));
    RequestLog(file).read()
}

/// Its own log is on standard error, JSON all of it, and it ends in order.
fn stop(podman: &Podman, container: &str) {
    podman.command(&["stop", "--time", "5", container]);
    let state = podman.command(&["inspect", "--format", "{{.State.ExitCode}}", container]);
    assert_eq!(state.trim(), "0", "{container}");
    let output = podman.output(&["logs", container]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["message"].is_string()), "{log}");
    assert!(log.contains("observing"), "{log}");
}

fn what_it_is_made_of(podman: &Podman) {
    let inspected: Value = serde_json::from_str(&podman.command(&["inspect", IMAGE])).expect("JSON");
    let image = &inspected[0];
    let config = &image["Config"];
    let labels = &image["Labels"];
    for label in ["title", "description", "licenses", "revision", "source", "documentation"] {
        assert!(labels[&format!("org.opencontainers.image.{label}")].is_string(), "{label}: {labels}");
    }
    assert_eq!(labels["org.opencontainers.image.version"], "1.2.3");
    assert_eq!(deploy::texts(&config["Entrypoint"]), ["/usr/bin/observer"]);
    assert_eq!(deploy::texts(&config["Cmd"]), ["run"]);
    let variables = deploy::texts(&config["Env"]);
    for variable in ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility", "OBSERVER_LOG_FORMAT=json"] {
        assert!(variables.iter().any(|set| set == variable), "{variables:?}");
    }

    // As nobody in particular: its program cannot be changed, its folder can be written, also by a root without
    // capabilities.
    let modes = "stat -c '%u:%g %a %n' /usr/bin/observer /var/log/observer; touch /var/log/observer/x";
    let command = ["--rm", "--network=none", "--entrypoint=/bin/sh"];
    for user in ["--user=observer", "--user=root"] {
        let said = podman.run(&[&command[..], &["--cap-drop=ALL", user, IMAGE, "-c", modes]].concat());
        assert_eq!(said, "0:0 755 /usr/bin/observer\n9478:0 775 /var/log/observer\n");
    }
    let nobody = ["run", "--rm", "--network=none", "--user=observer", "--cap-drop=ALL", IMAGE, "health"];
    let output = podman.output(&nobody);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("127.0.0.1:9478"), "{said}");
}
