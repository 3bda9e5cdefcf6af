//! The files of Docker Compose: judged by who knows their formats, and brought up where their images can be had.
//!
//! Prometheus, its node exporter and Alertmanager are the distribution's, in images of the names that the files ask for;
//! cAdvisor and DCGM's exporter are recorded answers. Grafana, Loki, Promtail and Alloy are not run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use observer_e2e::{
    deploy,
    http::{self, Client},
    net::{free_address, free_port},
    podman::Podman,
    require,
    scratch::Scratch,
    servers::Server,
    traffic, wait,
};
use serde_json::Value;

const REQUESTS: u64 = 12;
/// Two scrapes of what is scraped least often.
const SCRAPED: Duration = Duration::from_secs(60);
const SETTINGS: &str = include_str!("../../../docs/configuration.md");

fn compose() -> Value {
    deploy::document("compose/compose.yaml")
}

/// `${NAME:-default}` and `${NAME-default}`, wherever they are: names and defaults.
fn variables(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (at, _) in text.match_indices("${") {
        if text[..at].ends_with('$') {
            continue;
        }
        let rest = &text[at + 2..];
        let inside = &rest[..rest.find('}').expect("it is closed")];
        let (name, default) = inside.split_once('-').unwrap_or_else(|| panic!("no default: {inside}"));
        let name = name.trim_end_matches(':').to_owned();
        if let Some(earlier) = found.insert(name.clone(), default.to_owned()) {
            assert_eq!(earlier, default, "two defaults of {name}");
        }
    }
    found
}

#[test]
fn the_files_keep_to_the_format() {
    require!(python);
    for file in ["compose.yaml", "compose.restricted.yaml"] {
        let path = deploy::path("compose").join(file);
        let arguments = ["--builtin-schema", "vendor.compose-spec", deploy::plain(&path)];
        let _said = deploy::success(file, &deploy::python("check-jsonschema", &arguments, ""));
    }
    // Where the tool itself is there, it judges, too.
    if Command::new("docker").args(["compose", "version"]).output().is_ok_and(|output| output.status.success()) {
        for files in [&["compose.yaml"][..], &["compose.yaml", "compose.restricted.yaml"]] {
            let mut command = Command::new("docker");
            command.arg("compose").current_dir(deploy::path("compose"));
            for file in files {
                command.args(["--file", file]);
            }
            command.args(["--profile", "*", "config", "--quiet"]);
            let _said = deploy::success("docker compose config", &command.output().expect("it runs"));
        }
    }
}

#[test]
fn every_setting_is_in_the_example_with_its_default() {
    let mut wanted = variables(&deploy::text("compose/compose.yaml"));
    wanted.extend(variables(&deploy::text("compose/compose.restricted.yaml")));
    let example = deploy::text("compose/.env.example");
    let lines = example.lines().filter_map(|line| line.strip_prefix('#').unwrap_or(line).split_once('='));
    let said: BTreeMap<_, _> = lines.filter(|(name, _)| !name.contains(' ')).collect();
    for (name, default) in &wanted {
        assert_eq!(said.get(&**name).copied(), Some(&**default), "{name}");
    }
    let of_observer = |name: &str| SETTINGS.contains(&format!("- Variable: `{name}`"));
    for name in said.keys() {
        assert!(wanted.contains_key(*name) || of_observer(name) || *name == "COMPOSE_PROFILES", "{name} does nothing");
    }
}

#[test]
fn every_setting_of_the_observer_is_passed_on() {
    require!(python);
    let passed = deploy::texts(&compose()["services"]["observer"]["environment"]);
    let passed: BTreeSet<_> = passed.iter().map(|variable| variable.split('=').next().expect("a name")).collect();
    let known = SETTINGS.lines().filter_map(|line| line.strip_prefix("- Variable: `")?.strip_suffix('`'));
    assert_eq!(passed, known.chain(["OBSERVER_CONFIG"]).collect());
}

#[test]
fn every_service_is_bounded_pinned_and_watched() {
    require!(python);
    let compose = compose();
    for (name, service) in compose["services"].as_object().expect("services") {
        let image = service["image"].as_str().expect("an image");
        let version = image.trim_end_matches('}').rsplit(':').next().expect("a version");
        assert!(version != "latest" && !version.contains('/'), "{name}: {image}");
        assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
        let limits = &service["deploy"]["resources"]["limits"];
        assert!(limits["cpus"].is_string() && limits["memory"].is_string(), "{name} has no limits");
        assert_eq!(service["network_mode"], "host", "{name}");
        assert_eq!(service["ports"], Value::Null, "{name} publishes past the firewall");
        for volume in service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let source = volume.split(':').next().expect("a source");
            let named = compose["volumes"].get(source).is_some() || source.starts_with("${");
            let read_only = volume.rsplit(':').next().is_some_and(|options| options.starts_with("ro"));
            assert!(named && !source.starts_with("${") || read_only, "{name} may write {volume}");
        }
    }
    // Every address is this host's own, unless .env says otherwise.
    let all = variables(&deploy::text("compose/compose.yaml"));
    for (name, default) in all.iter().filter(|(name, _)| name.ends_with("_LISTEN") || name.ends_with("_IP")) {
        assert!(default.starts_with("127.0.0.1"), "{name}={default}");
    }
    let grafana = &compose["services"]["grafana"]["environment"];
    assert_eq!(grafana["GF_AUTH_ANONYMOUS_ENABLED"], "false");
    assert_eq!(grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"], "/run/secrets/grafana-admin-password");
    assert_eq!(all["GRAFANA_PORT"], "23000");
}

/// The folder of the files as a user has it, with what Prometheus loads beside its configuration.
#[test]
fn prometheus_and_alertmanager_take_their_files() {
    require!(promtool, amtool, python);
    let scratch = Scratch::new();
    fs::create_dir(scratch.file("rules")).expect("writable");
    let mut rules = BTreeSet::new();
    for entry in fs::read_dir(deploy::path("prometheus/rules")).expect("it is there") {
        let entry = entry.expect("readable");
        let name = entry.file_name().into_string().expect("text");
        fs::copy(entry.path(), scratch.file("rules").join(&name)).expect("writable");
        if !name.ends_with(".test.yml") {
            rules.insert(name);
        }
    }
    let config = scratch.write("prometheus.yml", &deploy::text("compose/prometheus/prometheus.yml"));
    let mut command = Command::new(require::tool("promtool").expect("required"));
    let said = deploy::success("promtool", &command.args(["check", "config"]).arg(&config).output().expect("it runs"));
    for name in rules {
        assert!(said.contains(&format!("rules/{name}")), "{name} is not loaded: {said}");
    }
    let file = deploy::path("compose/alertmanager/alertmanager.yml");
    let mut command = Command::new(require::tool("amtool").expect("required"));
    let _said = deploy::success("amtool", &command.arg("check-config").arg(file).output().expect("it runs"));
}

/// None of these can be asked here what it thinks of its file. What they must agree on is checked.
#[test]
fn grafana_loki_and_shippers_agree() {
    require!(python);
    let sources = deploy::document("compose/grafana/provisioning/datasources/datasources.yml");
    let uids: Vec<_> = sources["datasources"].as_array().expect("a list").iter().map(|one| &one["uid"]).collect();
    assert_eq!(uids, ["prometheus", "loki"]);
    let environment = &compose()["services"]["grafana"]["environment"];
    let text = sources.to_string();
    for (at, _) in
        text.match_indices('$').filter(|(at, _)| text[at + 1..].starts_with(|c: char| c.is_ascii_uppercase()))
    {
        let name: String = text[at + 1..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        assert!(environment[&name].is_string(), "nothing sets {name}");
    }
    let dashboards = deploy::document("compose/grafana/provisioning/dashboards/dashboards.yml");
    let path = dashboards["providers"][0]["options"]["path"].as_str().expect("a path").to_owned();
    let volumes = deploy::texts(&compose()["services"]["grafana"]["volumes"]);
    assert!(volumes.contains(&format!("../../dashboards:{path}:ro")), "{volumes:?}");

    let home = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().expect("a path");
    let home = home.strip_prefix(&format!("{path}/")).expect("among the dashboards");
    let folder = require::workspace().join("dashboards");
    let mut files = fs::read_dir(&folder).expect("it is there").map(|entry| entry.expect("readable").path());
    let any = files.any(|file| file.extension().is_some_and(|extension| extension == "json"));
    assert!(!any || folder.join(home).is_file(), "{home} is not there");

    let loki = deploy::document("compose/loki/loki.yml");
    assert_eq!(loki["limits_config"]["allow_structured_metadata"], true);
    assert_eq!(loki["schema_config"]["configs"][0]["schema"], "v13");

    // What shippers take out of a line is in a line, and labels are few.
    let promtail = deploy::document("compose/promtail/promtail.yml");
    let [container, file] = &promtail["scrape_configs"].as_array().expect("a list")[..] else { panic!("two") };
    let metadata: Vec<_> = ["request_id", "trace_id"].into();
    let stages = file["pipeline_stages"].as_array().expect("stages");
    let taken: Vec<_> = stages[0]["json"]["expressions"].as_object().expect("names").keys().collect();
    assert_eq!(taken, ["request_id", "trace_id", "workload"], "keys of the request log");
    assert_eq!(stages[1]["labels"].as_object().expect("labels").keys().collect::<Vec<_>>(), ["workload"]);
    assert_eq!(stages[2]["structured_metadata"].as_object().expect("names").keys().collect::<Vec<_>>(), metadata);
    let place = |config: &Value| config["static_configs"][0]["labels"]["__path__"].as_str().expect("a path").to_owned();
    let alloy = deploy::text("compose/alloy/config.alloy");
    let drop = "{job=\"observer\", tag!=\"observer\"}";
    assert!(container["pipeline_stages"].to_string().contains(&drop.replace('"', "\\\"")), "others' lines are dropped");
    for said in [place(container), place(file), drop.replace('"', "\\\""), "request_id = \"request_id\"".to_owned()] {
        assert!(alloy.contains(&said), "Alloy does not say {said}");
    }
    let observer = &compose()["services"]["observer"];
    assert_eq!(observer["logging"]["options"]["tag"], "observer");
}

/// Serves a recorded answer to whoever asks, until the test ends.
fn recorded(name: &str) -> SocketAddr {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)).expect("it is there");
    let listener = TcpListener::bind(free_address()).expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut head = [0; 4096];
            let _read = stream.read(&mut head);
            let length = text.len();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
            let _written = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{text}");
        }
    });
    address
}

/// A copy of what a user has, with settings of its own.
struct Project {
    podman: Podman,
    name: String,
    folder: PathBuf,
}

impl Project {
    fn new(settings: &[(&str, String)]) -> Self {
        let podman = Podman::new();
        let root = podman.scratch().file("project");
        fs::create_dir_all(root.join("dashboards")).expect("writable");
        let status = Command::new("cp").arg("-r").arg(deploy::path("")).arg(root.join("deploy")).status();
        assert!(status.expect("cp runs").success());
        let folder = root.join("deploy/compose");
        let lines: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fs::write(folder.join(".env"), lines.concat()).expect("writable");
        fs::write(folder.join("secrets/grafana-admin-password"), "not a secret\n").expect("writable");
        Self { podman, name: format!("observer-e2e-{}", std::process::id()), folder }
    }

    fn try_compose(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(require::python().with_file_name("podman-compose"));
        command.current_dir(&self.folder).arg("--podman-path").arg(self.podman.program());
        command.args(["--in-pod=false", "--project-name", &self.name]).args(arguments);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OBSERVER_")) {
            command.env_remove(name);
        }
        command.output().expect("it runs")
    }

    fn compose(&self, arguments: &[&str]) -> String {
        deploy::success(&format!("podman-compose {arguments:?}"), &self.try_compose(arguments))
    }

    fn container(&self, service: &str) -> String {
        format!("{}_{service}_1", self.name)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _down = self.try_compose(&["--profile", "alerts", "down", "--volumes", "--timeout", "2"]);
    }
}

fn encode(expression: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    expression.bytes().map(byte).collect()
}

fn ask(address: SocketAddr, path: &str) -> Option<Value> {
    serde_json::from_slice(&http::get(address, path).ok().filter(|answer| answer.status == 200)?.body).ok()
}

fn query(prometheus: SocketAddr, expression: &str) -> Option<f64> {
    let answer = ask(prometheus, &format!("/api/v1/query?query={}", encode(expression)))?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

#[test]
fn restricted_takes_the_place_of_privileged() {
    require!(python, podman, runc);
    let project = Project::new(&[]);
    let said = project.compose(&["--file", "compose.yaml", "--file", "compose.restricted.yaml", "config"]);
    let observer = deploy::yaml(&said).remove(0)["services"]["observer"].take();
    assert_eq!((&observer["privileged"], &observer["read_only"]), (&Value::Bool(false), &Value::Bool(true)), "{said}");
    assert_eq!(deploy::texts(&observer["cap_drop"]), ["ALL"]);
    assert_eq!(observer["pid"], "host");
}

#[test]
fn one_command_shows_the_requests_in_prometheus() {
    require!(kernel, sample, python, podman, runc, busybox, base_image, prometheus);
    let (node_exporter, alertmanager) = ("prometheus-node-exporter", "prometheus-alertmanager");
    let tools =
        ["prometheus", node_exporter, alertmanager].map(|name| require::tool(name).expect("set up with Prometheus"));
    let server = Server::sample(&[]);
    let (cadvisor, dcgm) = (recorded("cadvisor.prom"), recorded("dcgm.prom"));
    let [observer, prometheus, node, alerts] = [(); 4].map(|()| free_address());
    let project = Project::new(&[
        ("OBSERVER_PORTS", server.port().to_string()),
        ("OBSERVER_LISTEN", observer.to_string()),
        ("PROMETHEUS_LISTEN", prometheus.to_string()),
        ("NODE_EXPORTER_LISTEN", node.to_string()),
        ("ALERTMANAGER_LISTEN", alerts.to_string()),
        ("CADVISOR_PORT", cadvisor.port().to_string()),
        ("DCGM_LISTEN", dcgm.to_string()),
        ("LOKI_PORT", free_port().to_string()),
    ]);
    let all = variables(&deploy::text("compose/compose.yaml"));
    let podman = &project.podman;
    deploy::build_image(podman, &format!("docker.io/library/{}", all["OBSERVER_IMAGE"]));
    podman.stand_in(&all["PROMETHEUS_IMAGE"], &tools[0], "bin/prometheus", &[]);
    podman.stand_in(&all["NODE_EXPORTER_IMAGE"], &tools[1], "bin/node_exporter", &[]);
    // Debian's reads its templates from files.
    let program = tools[2].canonicalize().expect("it is there");
    let unpacked = program.ancestors().nth(3).expect("it is in usr/bin");
    let templates = ["default.tmpl", "email.tmpl"].map(|name| format!("usr/share/prometheus/alertmanager/{name}"));
    let paths = templates.each_ref().map(|path| unpacked.join(path));
    let files: Vec<_> = paths.iter().map(PathBuf::as_path).zip(templates.iter().map(String::as_str)).collect();
    podman.stand_in(&all["ALERTMANAGER_IMAGE"], &tools[2], "bin/alertmanager", &files);

    let services = ["observer", "prometheus", "node-exporter", "alertmanager"];
    let group = format!("--podman-run-args=--cgroup-parent={}", podman.cgroup_parent());
    let up = [&[&*group, "--profile", "alerts", "up", "--detach", "--no-build"][..], &services].concat();
    let _said = project.compose(&up);
    for service in services {
        let container = project.container(service);
        let well = wait::try_until(SCRAPED, || podman.is_healthy(&container).then_some(()));
        assert!(well.is_some(), "{service}: {:#?}", podman.output(&["logs", "--tail", "5", &container]));
    }

    let mut client = Client::connect(server.address).expect("it listens");
    for number in 0..REQUESTS {
        let request = traffic::sample_chat(&format!("compose-{number}"), 30, 5, 6);
        assert_eq!(client.ask(&request).expect("an answer").status, 200);
    }
    let count = "sum(llm_requests_total{job=\"observer\",outcome=\"ok\"})";
    wait::until("every request in Prometheus", SCRAPED, || {
        (query(prometheus, count) == Some(REQUESTS as f64)).then_some(())
    });
    let buckets = "sum(gen_ai_server_time_to_first_token_seconds_bucket{le=\"+Inf\"})";
    assert_eq!(query(prometheus, buckets), Some(REQUESTS as f64), "what a heatmap is drawn from");
    for job in ["observer", "prometheus", "node", "cadvisor", "dcgm", "alertmanager"] {
        let expression = format!("up{{job=\"{job}\"}} == 1");
        wait::until(&expression, SCRAPED, || query(prometheus, &expression));
    }
    for expression in
        ["node_load1", "container_cpu_usage_seconds_total", "DCGM_FI_DEV_GPU_UTIL", "alertmanager_build_info"]
    {
        assert!(query(prometheus, expression).is_some(), "{expression}");
    }
    let rules = ask(prometheus, "/api/v1/rules").expect("an answer");
    assert!(rules["data"]["groups"].as_array().is_some_and(|groups| !groups.is_empty()), "{rules}");
    let known = ask(prometheus, "/api/v1/alertmanagers").expect("an answer");
    let url = known["data"]["activeAlertmanagers"][0]["url"].as_str().unwrap_or_default().to_owned();
    assert!(url.contains(&alerts.to_string()), "{known}");

    // What is shipped: its log on one stream, requests on the other.
    let logs = podman.output(&["logs", &project.container("observer")]);
    let [out, err] = [logs.stdout, logs.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(out.lines().filter(|line| line.contains("\"request_id\":\"compose-")).count() as u64, REQUESTS);
    for key in ["\"workload\":\"", "\"trace_id\":", "\"outcome\":\"ok\""] {
        assert!(out.contains(key), "shippers look for {key}: {out}");
    }
    assert!(err.lines().all(|line| line.starts_with("{\"timestamp\"")), "{err}");

    let _said = project.compose(&["--profile", "alerts", "down", "--volumes", "--timeout", "3"]);
    assert_eq!(podman.command(&["ps", "--all", "--quiet"]), "");
    assert_eq!(podman.command(&["volume", "ls", "--quiet"]), "");
}
