//! The systemd unit: by systemd's own tools, and the observer as that user with these capabilities.

use std::{os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use observer_e2e::{
    deploy,
    http::{self, Client},
    metrics::Metrics,
    net::free_address,
    process::Process,
    request_log::RequestLog,
    require,
    scratch::Scratch,
    servers::Server,
    traffic, wait,
};
use serde_json::Value;

/// As `systemd-analyze security` counts: 0 is sealed, 10 is open.
const MOST_EXPOSED: f64 = 4.0;

/// All values of a setting of the unit.
fn setting(name: &str) -> Vec<String> {
    let unit = deploy::text("systemd/observer.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// The unit with the program under test, which is not where it is installed to.
fn unit(scratch: &Scratch) -> String {
    let unit = deploy::text("systemd/observer.service");
    let here = unit.replace("/usr/bin/observer", deploy::plain(&require::observer()));
    assert_ne!(unit, here);
    deploy::plain(&scratch.write("observer.service", &here)).to_owned()
}

fn analyze(arguments: &[&str]) -> String {
    let mut command = Command::new(require::tool("systemd-analyze").expect("required"));
    let output = command.args(arguments).env("SYSTEMD_LOG_LEVEL", "warning").output().expect("it runs");
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{arguments:?}: {complaints}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn systemd_takes_the_unit_and_finds_it_closed() {
    require!(observer, systemd_analyze);
    let scratch = Scratch::new();
    let unit = unit(&scratch);
    let _said = analyze(&["verify", "--man=no", &unit]);
    let report = analyze(&["security", "--offline=true", "--no-pager", &unit]);
    let line = report.lines().find(|line| line.contains("Overall exposure level")).expect("a sum");
    let level = line.split(": ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let level: f64 = level.and_then(|level| level.parse().ok()).unwrap_or_else(|| panic!("no number: {line}"));
    assert!(level <= MOST_EXPOSED, "{line}");
}

#[test]
fn capabilities_are_the_same_everywhere() {
    require!(python);
    let compose = deploy::document("compose/compose.restricted.yaml");
    let compose = deploy::texts(&compose["services"]["observer"]["cap_add"]);
    let wanted: Vec<_> = compose.iter().map(|name| format!("CAP_{name}")).collect();
    assert_eq!(setting("CapabilityBoundingSet"), wanted);
    assert_eq!(setting("AmbientCapabilities"), wanted);
    let security = std::fs::read_to_string(require::workspace().join("SECURITY.md")).expect("it is there");
    for name in wanted {
        assert!(security.contains(&format!("`{name}`")), "SECURITY.md does not say what {name} is for");
    }
}

/// No root: a user that owns nothing, with the unit's capabilities.
#[test]
fn these_capabilities_are_enough_for_a_user_of_its_own() {
    require!(kernel, sample, setpriv);
    let server = Server::sample(&[]);
    let scratch = Scratch::new();
    // It may be where only root gets; a copy is not.
    let program = scratch.file("observer");
    std::fs::copy(require::observer(), &program).expect("writable");
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).expect("the test's own");
    let log = scratch.write("requests.jsonl", "");
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o666)).expect("the test's own");

    let names = setting("CapabilityBoundingSet");
    let names: Vec<_> =
        names.iter().map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    let set = format!("-all,{}", names.join(","));
    let address = free_address();
    let mut command = Command::new(require::tool("setpriv").expect("required"));
    command.args(["--reuid=64217", "--regid=64217", "--clear-groups", "--no-new-privs"]);
    command.args(["--bounding-set", "--inh-caps", "--ambient-caps"].map(|option| format!("{option}={set}")));
    command.arg(&program).args(["run", "--ports", &server.port().to_string(), "--listen", &address.to_string()]);
    command.args(["--log-format", "json", "--request-log", deploy::plain(&log)]);
    let mut observer = Process::spawn("observer", command);
    wait::until("the observer to be ready", Duration::from_secs(20), || {
        if let Some(status) = observer.exited() {
            panic!("it ended with {status}: {:#?}", observer.settled_output());
        }
        http::get(address, "/readyz").ok().filter(|answer| answer.status == 200)
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", observer.pid())).expect("it runs");
    assert!(status.lines().any(|line| line.starts_with("Uid:\t64217")), "{status}");

    let mut client = Client::connect(server.address).expect("it listens");
    assert_eq!(client.ask(&traffic::sample_chat("by-a-user", 20, 5, 4)).expect("an answer").status, 200);
    let lines = || RequestLog(log.clone()).read();
    let line = wait::until("its line", wait::SOON, || lines().pop());
    assert_eq!((line.pid, &*line.outcome), (server.process.pid(), "ok"));
    let metrics = Metrics::parse(&http::get(address, "/metrics").expect("it answers").text());
    let workload = format!("sample-llm:{}", server.port());
    assert_eq!(metrics.sum("llm_requests_total", &[("workload", &workload)]), 1.0);
    for family in ["workload_info", "workload_cpu_seconds_total", "workload_tcp_unsent_bytes"] {
        assert!(metrics.has(family), "{family}");
    }
    assert!(observer.stop(libc::SIGTERM, Duration::from_secs(5)).success());
    let said = observer.settled_output();
    for line in said.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        assert_eq!(line["level"], "INFO", "{line}");
    }
}
