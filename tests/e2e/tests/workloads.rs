//! What processes belong together, and what they are called: real process trees, real cgroups, a real container.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use observer::{
    time::KernelTime,
    workload::{Identity, Key, Places, Resolver},
};
use observer_e2e::{
    cgroup::{self, Cgroup},
    http::{self, Client},
    net::free_address,
    observer::Observer,
    podman::Podman,
    process::{Process, cpu_nanos},
    request_log::RequestLine,
    require,
    scratch::Scratch,
    servers::{self, Server, listening},
    traffic,
    wait::{self, SOON},
};

/// Importing Python's servers takes seconds on a loaded machine.
const SLOWLY: Duration = Duration::from_secs(60);
const ID: &str = "3f7a0c9be1d24c5f8a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b";

/// Asks on a connection of its own, and returns what the log says of it.
fn ask(observer: &Observer, address: SocketAddr, id: &str) -> RequestLine {
    let mut client = Client::connect(address).expect("it listens");
    let body = traffic::sample_body(false, 1, 1, 2).to_string();
    let answer = client.ask(&traffic::post("/v1/chat/completions", id, "", &body)).expect("an answer");
    assert_eq!(answer.status, 200);
    drop(client);
    observer.line(id)
}

/// Asks until `count` processes have answered: their ids.
fn ask_all(observer: &Observer, address: SocketAddr, count: usize, workload: &str) -> BTreeSet<u32> {
    let mut pids = BTreeSet::new();
    for number in 0..200 {
        let line = ask(observer, address, &format!("all-{number}-{}", pids.len()));
        assert_eq!((&*line.workload, &*line.outcome), (workload, "ok"), "{line:#?}");
        pids.insert(line.pid);
        if pids.len() == count {
            return pids;
        }
    }
    panic!("only {pids:?} answered")
}

fn observe(addresses: &[SocketAddr]) -> Observer {
    Observer::start(&addresses.iter().map(SocketAddr::port).collect::<Vec<_>>())
}

/// A label of the one row of `workload_info` with this workload.
fn info(observer: &Observer, workload: &str, label: &str) -> String {
    let metrics = observer.metrics();
    let rows = metrics.select("workload_info", &[("workload", workload)]);
    let [row] = rows[..] else { panic!("{workload}: {rows:#?}") };
    assert_eq!(row.value, 1.0);
    row.labels.iter().find(|(name, _)| name == label).map(|(_, value)| value.clone()).unwrap_or_default()
}

fn places() -> Places {
    Places::find(Path::new("")).expect("the host's PID namespace")
}

fn identity(pid: u32, address: SocketAddr) -> Identity {
    let found = Resolver::new(places()).resolve(pid, Some(address.port()), KernelTime::default());
    (*found.expect("it runs").0).clone()
}

fn root(identity: &Identity) -> u32 {
    match identity.key {
        Key::Tree { pid, .. } => pid,
        ref key => panic!("{key:?}"),
    }
}

fn members(identity: &Identity) -> BTreeSet<u32> {
    places().members(identity).into_iter().collect()
}

/// Children of a process.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    text.split_ascii_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

/// A process and all its descendants.
fn tree(pid: u32) -> BTreeSet<u32> {
    children(pid).into_iter().flat_map(tree).chain([pid]).collect()
}

fn python(name: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(require::python());
    command.current_dir(servers::scripts()).env("PYTHONDONTWRITEBYTECODE", "1").args(arguments);
    Process::spawn(name, command)
}

/// A server of one of the shapes of `workloads.py`.
fn shape(arguments: &[&str]) -> Process {
    let mut process = python(arguments[0], &[&["workloads.py"], arguments].concat());
    process.line(SLOWLY, |line| line.contains("listening on"));
    process
}

/// Python's program as it is called in `/proc`: the interpreter's file has a name of its own.
fn program(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs").trim_end().to_owned()
}

#[test]
fn an_engine_and_its_workers_are_one_workload() {
    require!(kernel, python);
    let address = free_address();
    let port = address.port().to_string();
    let server = shape(&["engine", &port]);
    let observer = observe(&[address]);
    let line = ask(&observer, address, "engine");
    let name = format!("{}:{port}", program(server.pid()));
    assert_eq!((line.workload.clone(), line.pid), (name.clone(), server.pid()));
    let found = identity(line.pid, address);
    assert_eq!((&*found.name, root(&found)), (&*name, server.pid()));
    // The engine, and two workers that are its children.
    assert_eq!(tree(server.pid()).len(), 4);
    assert_eq!(members(&found), tree(server.pid()));
    assert_eq!(info(&observer, &name, "command"), format!("{} workloads.py engine {port}", program_file()));
    assert_eq!(info(&observer, &name, "cgroup"), &*found.cgroup);
    assert_eq!(info(&observer, &name, "container_id"), "");
}

/// The interpreter as the command line has it.
fn program_file() -> String {
    require::python().file_name().expect("a file").to_string_lossy().into_owned()
}

#[test]
fn workers_of_uvicorn_are_one_workload() {
    require!(kernel, python);
    let address = free_address();
    let arguments = ["-m", "uvicorn", "app:app", "--workers", "2", "--log-level", "warning", "--port"];
    expect_workers(address, &[&arguments[..], &[&*address.port().to_string()]].concat(), "uvicorn app:app");
}

#[test]
fn workers_of_gunicorn_are_one_workload() {
    require!(kernel, python);
    let address = free_address();
    let bind = format!("--bind={address}");
    let arguments = ["-m", "gunicorn", "workloads:application", "--workers=2", "--log-level=warning", &*bind];
    expect_workers(address, &arguments, "gunicorn workloads:application");
}

/// Two workers answer, both as the workload of the process that started them; and so does one that comes later.
fn expect_workers(address: SocketAddr, arguments: &[&str], command: &str) {
    let server = python("a server with workers", arguments);
    wait::until("the server to answer", SLOWLY, || http::get(address, "/health").ok());
    let observer = observe(&[address]);
    let name = format!("{}:{}", program(server.pid()), address.port());
    let workers = ask_all(&observer, address, 2, &name);
    assert!(!workers.contains(&server.pid()), "the first process serves nothing itself");
    // What a worker's own command line says is something else.
    assert_eq!(info(&observer, &name, "command"), format!("{} -m {command}", program_file()));
    for worker in &workers {
        let found = identity(*worker, address);
        assert_eq!(root(&found), server.pid(), "of {worker}");
        assert_eq!(members(&found), tree(server.pid()));
        assert!(members(&found).is_superset(&workers));
    }
    let ended = *workers.first().expect("two");
    // SAFETY: a child of our own child, which answered just now.
    assert_eq!(unsafe { libc::kill(ended as i32, libc::SIGKILL) }, 0);
    let others = wait::until("another worker", SLOWLY, || {
        let line = ask(&observer, address, &format!("again-{}", observer.lines().len()));
        assert_eq!(line.workload, name);
        (!workers.contains(&line.pid)).then_some(line.pid)
    });
    assert_eq!(root(&identity(others, address)), server.pid());
}

/// Ollama's shape: whoever asks the one, asks the other through it.
#[test]
fn a_server_and_the_server_that_it_starts_are_one_workload() {
    require!(kernel, python);
    let (address, below) = (free_address(), free_address());
    let (port, child) = (address.port().to_string(), below.port().to_string());
    let server = shape(&["runner", &port, &child]);
    let observer = observe(&[address, below]);
    let name = format!("{}:{port}", program(server.pid()));
    // The very first request, too: that the outer one serves is known before it asks the inner one.
    let mut client = Client::connect(address).expect("it listens");
    let body = traffic::sample_body(false, 1, 1, 2).to_string();
    assert_eq!(client.ask(&traffic::post("/v1/chat/completions", "x", "", &body)).expect("an answer").status, 200);
    let lines = observer.lines_when(2, SOON);
    let mut seen: Vec<_> =
        lines.iter().map(|line| (line.role.as_deref(), line.pid == server.pid(), &*line.workload)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(Some("backend"), false, &*name), (Some("proxy"), true, &*name)]);
    assert_eq!(info(&observer, &name, "command"), format!("{} workloads.py runner {port}", program_file()));
    let metrics = observer.metrics();
    for port in [&port, &child] {
        assert_eq!(metrics.sum("llm_requests_total", &[("workload", &name), ("server_port", port)]), 1.0);
    }
    assert_eq!(members(&identity(server.pid(), address)), tree(server.pid()));
}

/// Neither an interpreter that starts a server with itself, nor a shell, nor this test.
#[test]
fn who_starts_a_server_is_not_it() {
    require!(kernel, python, sample, timeout);
    let address = free_address();
    let harness = shape(&["harness", "serve", &address.port().to_string()]);
    let mut shell = servers::Parent::new(servers::Descent::Straight);
    let below_shell = shell.serve();
    let observer = observe(&[address, below_shell]);
    let line = ask(&observer, address, "harness");
    assert_eq!(children(harness.pid()), [line.pid]);
    let found = identity(line.pid, address);
    assert_eq!((root(&found), line.workload.as_str()), (line.pid, &*found.name));
    let line = ask(&observer, below_shell, "shell");
    assert_eq!(line.workload, format!("sample-llm:{}", below_shell.port()));
    assert_eq!(root(&identity(line.pid, below_shell)), line.pid);
}

#[test]
fn names_stay_and_rows_go() {
    require!(kernel, sample);
    let address = free_address();
    let listen = address.to_string();
    let settings = [("OBSERVER_METRICS_SERIES_TTL", "10s")];
    let observer = Observer::tuned(&["--ports", &address.port().to_string()], &settings);
    let name = format!("sample-llm:{}", address.port());
    let mut keys = BTreeSet::new();
    for round in ["first", "second"] {
        let server = Server::sample_at(&listen, &[]);
        let line = ask(&observer, address, round);
        assert_eq!((&line.workload, line.pid), (&name, server.process.pid()));
        keys.insert(root(&identity(line.pid, address)));
    }
    assert_eq!(keys.len(), 2, "another process of the same name");
    assert_eq!(info(&observer, &name, "command"), "sample-llm serve");
    assert_eq!(observer.metrics().sum("llm_requests_total", &[("workload", &name)]), 2.0);
    wait::until("the series to go", Duration::from_secs(20), || {
        let metrics = observer.metrics();
        let left = ["workload_info", "llm_requests_total"].iter().any(|name| metrics.has(name));
        (!left).then_some(())
    });
}

/// Process ids are the host's, wherever the server runs.
#[test]
fn a_server_in_a_pid_namespace_of_its_own() {
    require!(kernel, sample, unshare);
    let mut command = Command::new(require::tool("unshare").expect("required"));
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(require::sample());
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    let mut process = Process::spawn("unshare", command);
    let address = listening(&mut process);
    let observer = observe(&[address]);
    let line = ask(&observer, address, "nested");
    let [server] = children(process.pid())[..] else { panic!("one child") };
    assert_eq!((line.pid, line.workload), (server, format!("sample-llm:{}", address.port())));
    assert_eq!(info(&observer, &format!("sample-llm:{}", address.port()), "command"), "sample-llm serve");
    assert_eq!(members(&identity(server, address)), BTreeSet::from([server]));
}

/// Files that runtimes keep, below a root of the test's own.
fn host() -> Scratch {
    let host = Scratch::new();
    let write = |path: String, text: &str| {
        let path = host.file(&path);
        fs::create_dir_all(path.parent().expect("below")).expect("writable");
        fs::write(path, text).expect("writable");
    };
    write(
        format!("var/lib/docker/containers/{ID}/config.v2.json"),
        r#"{"Name":"/models-vllm-1","Config":{"Labels":{"com.docker.compose.service":"vllm"}}}"#,
    );
    write(
        format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json", pod_container()),
        r#"{"annotations":{"io.kubernetes.cri.container-name":"server","io.kubernetes.cri.sandbox-name":"vllm-0"}}"#,
    );
    host
}

fn pod_container() -> String {
    ID.replace('a', "b")
}

/// A cgroup below others: each is kept until its owner goes, the innermost first.
struct Nested {
    groups: Vec<Cgroup>,
}

impl Nested {
    fn at(root: &Path, path: &[&str]) -> Self {
        let mut groups = vec![Cgroup::at(root, "workloads")];
        for name in path {
            groups.push(groups.last().expect("one at least").below(name));
        }
        Self { groups }
    }

    fn innermost(&self) -> &Cgroup {
        self.groups.last().expect("one at least")
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        while self.groups.pop().is_some() {}
    }
}

/// A server, and a process that is no relative of it, moved into a cgroup: the workload's name, and its row's labels.
fn expect_in_cgroup(root: &Path, path: &[&str], name: &str, labels: &[(&str, &str)]) {
    let group = Nested::at(root, path);
    let server = Server::sample(&[]);
    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    let other = Process::spawn("sleep", sleep);
    for pid in [server.process.pid(), other.pid()] {
        group.innermost().add(pid);
    }
    let host = host();
    let settings = [("OBSERVER_HOST_ROOT", host.path().to_str().expect("a plain path"))];
    let observer = Observer::tuned(&["--ports", &server.port().to_string()], &settings);
    let line = ask(&observer, server.address, "in-cgroup");
    assert_eq!(line.workload, name, "{path:?}");
    for (label, value) in labels {
        assert_eq!(info(&observer, name, label), *value, "{label} of {path:?}");
    }
    let below = group.innermost().path().strip_prefix(root).expect("below its root").display().to_string();
    let cgroup = info(&observer, name, "cgroup");
    assert!(format!("/{below}").starts_with(&cgroup) && cgroup.len() > 1, "{cgroup} of {below}");
    // Members are those of the cgroup, not of the tree.
    let found = identity(line.pid, server.address);
    assert_eq!(members(&found), BTreeSet::from([server.process.pid(), other.pid()]), "{found:?}");
    drop((observer, server, other));
}

fn layouts(root: &Path) {
    let docker = format!("docker-{ID}.scope");
    expect_in_cgroup(root, &["docker", ID], "vllm", &[("container_id", ID), ("unit", ""), ("pod_uid", "")]);
    expect_in_cgroup(root, &["system.slice", &docker, "init"], "vllm", &[("container_id", ID)]);
    let (pod, container) = ("kubepods-pod8c5a1f0e_6a3b_4f0e_9d53_0c2f6c1d7b44.slice", pod_container());
    let scope = format!("cri-containerd-{container}.scope");
    let labels = [("container_id", &*container), ("pod_uid", "8c5a1f0e-6a3b-4f0e-9d53-0c2f6c1d7b44")];
    expect_in_cgroup(root, &["kubepods.slice", pod, &scope], "vllm-0/server", &labels);
    let labels = [("container_id", ""), ("unit", "vllm@qwen.service"), ("command", "sample-llm serve")];
    expect_in_cgroup(root, &["system.slice", "vllm@qwen.service", "payload"], "vllm@qwen.service", &labels);
}

#[test]
fn containers_and_units_by_cgroups_of_v2() {
    require!(kernel, sample, cgroup);
    layouts(&cgroup::root().expect("required"));
}

/// In one of the hierarchies only: elsewhere, v2 among them, the processes are where they were.
#[test]
fn containers_and_units_by_cgroups_of_v1() {
    require!(kernel, sample, cgroup_v1);
    for controller in ["name=systemd", "pids"] {
        layouts(&cgroup::root_of(controller).expect("required"));
    }
}

/// What a process of the same container does counts, though it is no relative of the server's.
#[test]
fn all_of_a_container_is_measured() {
    require!(kernel, sample, cgroup);
    let group = Nested::at(&cgroup::root().expect("required"), &["docker", ID]);
    let server = Server::sample(&[]);
    let scratch = Scratch::new();
    let script =
        "while [ ! -e \"$0\" ]; do sleep 0.05; done; i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done; times";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(scratch.file("go"));
    let mut other = Process::spawn("sh", command);
    for pid in [server.process.pid(), other.pid()] {
        group.innermost().add(pid);
    }
    let host = host();
    let settings = [("OBSERVER_HOST_ROOT", host.path().to_str().expect("a plain path"))];
    let observer = Observer::tuned(&["--ports", &server.port().to_string()], &settings);
    let cpu = || observer.metrics().sum("workload_cpu_seconds_total", &[("workload", "vllm")]);
    ask(&observer, server.address, "counted");
    wait::until("the workload to be measured", SOON, || {
        observer.metrics().has("workload_cpu_seconds_total").then_some(())
    });
    let before = cpu();
    let burnt_before = cpu_nanos(other.pid());
    let _go = scratch.write("go", "");
    let burnt = wait::until("the work to be done", SLOWLY, || {
        let burnt = cpu_nanos(other.pid()) - burnt_before;
        (burnt > 500_000_000).then_some(burnt)
    });
    assert!(other.wait(SLOWLY).success());
    let counted = cpu() - before;
    assert!(counted > burnt as f64 / 1e9 * 0.9, "{counted} s counted, of {burnt} ns and more");
    drop((observer, server));
}

/// Starts the sample server in a container of this name: its id.
fn serve(podman: &Podman, root: &str, address: SocketAddr) -> String {
    let options = ["--detach", "--replace", "--name", "vllm-chat", "--network", "host"];
    let listen = address.to_string();
    let program = ["--rootfs", root, "/bin/sample-llm", "serve", "--listen", &listen];
    let output = podman.run(&[&options[..], &program].concat());
    wait::until("the container to answer", SLOWLY, || http::get(address, "/health").ok());
    // Above it stands the id of the one that it replaces.
    output.lines().last().expect("an id").trim().to_owned()
}

#[test]
fn a_container_of_podman() {
    require!(kernel, sample, podman, runc);
    let podman = Podman::new();
    let root = podman.root_file_system("sample", &[(&require::sample(), "bin/sample-llm")]);
    let root = root.to_str().expect("a plain path");
    let address = free_address();
    let observer = observe(&[address]);
    let mut ids = BTreeSet::new();
    for round in ["first", "after-a-restart"] {
        let id = serve(&podman, root, address);
        let line = ask(&observer, address, round);
        assert_eq!((line.workload.as_str(), line.comm.as_str()), ("vllm-chat", "sample-llm"));
        let metrics = observer.metrics();
        let row = metrics.select("workload_info", &[("workload", "vllm-chat"), ("container_id", &id)]);
        assert_eq!(row.len(), 1, "{id}: {:#?}", metrics.select("workload_info", &[]));
        let found = identity(line.pid, address);
        assert_eq!((&*found.name, found.container_id.as_deref()), ("vllm-chat", Some(&*id)));
        assert!(members(&found).contains(&line.pid));
        ids.insert(id);
    }
    assert_eq!(ids.len(), 2, "another container of the same name");
    assert_eq!(observer.metrics().sum("llm_requests_total", &[("workload", "vllm-chat"), ("outcome", "ok")]), 2.0);
}
