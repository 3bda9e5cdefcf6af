use std::{fs, path::Path, sync::Arc};

use super::{
    Identity, Key, Places, Resolver,
    fixture::{Fake, ID, Scratch},
};
use crate::time::KernelTime;

const PYTHON: &str = "/usr/bin/python3.11";
const SPAWNED: &str = "python3 -c from multiprocessing.spawn import spawn_main --multiprocessing-fork";

/// A host with these processes.
struct Host {
    scratch: Scratch,
    resolver: Resolver,
    seconds: u64,
}

impl Host {
    fn new(processes: &[Fake]) -> Self {
        let scratch = Scratch::new();
        let proc = scratch.processes(processes);
        let places = Places::new(&proc, &scratch.path().join("host"));
        let mut resolver = Resolver::new(places);
        resolver.ephemeral = 32_768..=60_999;
        Self { scratch, resolver, seconds: 0 }
    }

    fn now(&self) -> KernelTime {
        KernelTime::from_nanos(self.seconds * 1_000_000_000)
    }

    fn find(&mut self, pid: u32, port: u16) -> Arc<Identity> {
        let now = self.now();
        self.resolver.resolve(pid, Some(port), now).expect("it runs").0
    }

    fn name(&mut self, pid: u32, port: u16) -> String {
        self.find(pid, port).name.to_string()
    }

    fn members(&self, identity: &Identity) -> Vec<u32> {
        let mut members = self.resolver.places.members(identity);
        members.sort_unstable();
        members
    }

    /// The root of the tree that a process is in.
    fn root(&mut self, pid: u32, port: u16) -> u32 {
        match self.find(pid, port).key {
            Key::Tree { pid, .. } => pid,
            ref key => panic!("{key:?}"),
        }
    }
}

fn shell() -> [Fake; 3] {
    [Fake::new(1, 0, "systemd"), Fake::new(10, 1, "sshd"), Fake::new(20, 10, "-bash")]
}

fn host(processes: &[Fake]) -> Host {
    Host::new(&[&shell(), processes].concat())
}

#[test]
fn one_process_is_its_own_root() {
    let mut host = host(&[Fake::new(100, 20, "sample-llm").listening(7, 41_000)]);
    assert_eq!((host.name(100, 41_000), host.root(100, 41_000)), ("sample-llm:41000".to_owned(), 100));
    assert_eq!(host.resolver.resolve(4242, Some(1), KernelTime::default()), None);
}

#[test]
fn an_engine_and_its_workers_belong_to_the_server() {
    let mut host = host(&[
        Fake::new(100, 20, "vllm")
            .running(PYTHON, "/usr/bin/python3 /usr/bin/vllm serve m --api-key k")
            .listening(7, 8000),
        Fake::new(101, 100, "VLLM::EngineCor").running(PYTHON, "VLLM::EngineCore"),
        Fake::new(102, 101, "VLLM::Worker_TP").running(PYTHON, "VLLM::Worker_TP0"),
        Fake::new(103, 101, "VLLM::Worker_TP").running(PYTHON, "VLLM::Worker_TP1"),
        Fake::new(200, 20, "stranger"),
    ]);
    let server = host.find(100, 8000);
    assert_eq!((&*server.name, &*server.command), ("vllm:8000", "python3 /usr/bin/vllm serve m"));
    assert_eq!(host.members(&server), [100, 101, 102, 103]);
    assert_eq!((&*server.cgroup, server.container_id.as_deref(), server.unit.as_deref()), ("/", None, None));
}

#[test]
fn workers_that_share_a_socket_belong_to_who_made_it() {
    // uvicorn --workers 2: spawned, through a tracker that holds nothing. gunicorn: forked.
    let mut host = host(&[
        Fake::new(100, 20, "uvicorn").running(PYTHON, "python3 uvicorn app:app --workers 2").listening(7, 8000),
        Fake::new(101, 100, "python3").running(PYTHON, SPAWNED).listening(7, 8000),
        Fake::new(102, 100, "python3").running(PYTHON, SPAWNED).listening(7, 8000),
        Fake::new(300, 20, "gunicorn").listening(9, 9000),
        Fake::new(301, 300, "gunicorn").listening(9, 9000),
    ]);
    let [first, second] = [101, 102].map(|pid| host.find(pid, 8000));
    assert_eq!((&*first.name, first.key.clone()), ("uvicorn:8000", second.key.clone()));
    assert_eq!(host.members(&first), [100, 101, 102]);
    assert_eq!((host.name(301, 9000), host.root(301, 9000)), ("gunicorn:9000".to_owned(), 300));
}

#[test]
fn workers_that_are_handed_connections_belong_to_who_accepts_them() {
    let mut host = host(&[Fake::new(100, 20, "node").listening(7, 3000), Fake::new(101, 100, "node")]);
    assert_eq!((host.name(101, 3000), host.root(101, 3000)), ("node:3000".to_owned(), 100));
}

#[test]
fn workers_behind_a_process_that_holds_nothing() {
    let mut host = host(&[
        Fake::new(100, 20, "python3").running(PYTHON, "python3 serve.py").listening(7, 8000),
        Fake::new(101, 100, "python3").running(PYTHON, "python3 -c from multiprocessing.forkserver import main"),
        Fake::new(102, 101, "python3").running(PYTHON, "VLLM::ApiServer_1").listening(7, 8000),
    ]);
    assert_eq!(host.root(102, 8000), 100);
}

#[test]
fn forks_that_each_open_their_own_socket() {
    let forked =
        |pid, parent| Fake { group: 100, ..Fake::new(pid, parent, "python3").running(PYTHON, "python3 serve.py") };
    let mut host = host(&[
        Fake { group: 100, ..Fake::new(100, 20, "python3").running(PYTHON, "python3 serve.py") },
        forked(101, 100).listening(7, 8000),
        forked(102, 100).listening(8, 8001),
        // The same program, started anew, and in a group of its own.
        Fake { group: 100, ..Fake::new(103, 100, "python3").running(PYTHON, "python3 other.py") }.listening(9, 8002),
        Fake { group: 104, ..forked(104, 100) }.listening(10, 8003),
    ]);
    assert_eq!((host.root(101, 8000), host.root(102, 8001)), (100, 100));
    assert_eq!((host.root(103, 8002), host.root(104, 8003)), (103, 104));
}

/// A harness is never the root: neither of what it starts nor of what it forks.
#[test]
fn who_starts_things_for_others_is_no_root() {
    for (comm, command) in [
        ("pytest", "/venv/bin/python3 /venv/bin/pytest tests"),
        ("python3", "python3 -X dev -m pytest -q"),
        ("python3", "/venv/bin/python3 -m unittest discover"),
        ("bash", "bash serve.sh"),
        ("containerd-shim", "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io"),
        ("tini", "tini -- python3 serve.py"),
        ("supervisord", "python3 supervisord"),
        ("tmux: server", "tmux"),
        ("systemd", "/lib/systemd/systemd --user"),
        ("timeout", "timeout 60 python3 serve.py"),
    ] {
        let group = |process: Fake| Fake { group: 100, ..process };
        let mut host = host(&[
            group(Fake::new(100, 20, comm).running(PYTHON, command)).listening(7, 8000),
            group(Fake::new(101, 100, "python3").running(PYTHON, command)).listening(7, 8000),
            group(Fake::new(102, 100, "python3").running(PYTHON, SPAWNED)).listening(8, 8001),
        ]);
        assert_eq!((host.root(101, 8000), host.root(102, 8001)), (101, 102), "{command}");
    }
    // Any other parent that neither listens nor serves.
    let mut host = host(&[Fake::new(100, 20, "harness"), Fake::new(101, 100, "server").listening(7, 8000)]);
    assert_eq!(host.root(101, 8000), 101);
}

/// systemd holds the sockets that it opens for services.
#[test]
fn the_first_process_is_no_root() {
    let mut host =
        Host::new(&[Fake::new(1, 0, "my-init").listening(7, 8000), Fake::new(100, 1, "server").listening(7, 8000)]);
    assert_eq!(host.root(100, 8000), 100);
}

#[test]
fn children_of_a_server_that_serves_belong_to_it() {
    let mut host = host(&[
        Fake::new(100, 20, "ollama").running("/usr/bin/ollama", "ollama serve").listening(7, 11_434),
        Fake::new(101, 100, "llama-server").listening(8, 40_111),
        Fake::new(102, 100, "llama-server").listening(9, 40_222),
    ]);
    let alone = host.find(101, 40_111);
    assert_eq!(&*alone.name, "llama-server:40111", "nobody knows yet that its parent serves");
    assert!(host.resolver.serves(100) && !host.resolver.serves(100));
    for (pid, port) in [(101, 40_111), (102, 40_222), (100, 11_434)] {
        assert_eq!((host.name(pid, port), host.root(pid, port)), ("ollama:11434".to_owned(), 100), "{pid}");
    }
    let ollama = host.find(100, 11_434);
    assert_eq!(host.members(&ollama), [100, 101, 102]);
    // What was taken for a workload of its own, before, has no processes beside it.
    let mut members = host.resolver.places.members_of(&[alone.clone(), ollama]);
    members[1].sort_unstable();
    assert_eq!(members, [vec![], vec![100, 101, 102]]);
    assert_eq!(host.resolver.places.members_of(&[alone.clone(), alone]), [[101], [101]], "the same twice");
    // Another process of the same number is another one.
    host.resolver.exited(100);
    host.resolver.changed(101);
    assert_eq!(host.root(101, 40_111), 101);
}

#[test]
fn a_launcher_is_the_root_of_what_it_starts_side_by_side() {
    let mut host = host(&[
        Fake::new(100, 20, "text-generation").running("/usr/bin/text-generation-launcher", "text-generation-launcher"),
        Fake::new(101, 100, "text-generation").running("/usr/bin/text-generation-router", "r").listening(7, 3000),
        Fake::new(102, 100, "text-generation").running(PYTHON, "text-generation-server"),
    ]);
    let router = host.find(101, 3000);
    assert_eq!((&*router.name, host.root(101, 3000)), ("text-generation:3000", 100));
    assert_eq!(host.members(&router), [100, 101, 102]);
}

#[test]
fn the_port_of_a_name_is_one_that_somebody_chose() {
    let mut host = host(&[
        Fake::new(100, 20, "a").listening(1, 9000).listening(2, 8000).listening(3, 40_000),
        Fake::new(101, 20, "b").listening(4, 40_001).listening(5, 40_002),
        Fake::new(102, 20, "c"),
    ]);
    assert_eq!((host.name(100, 40_000), host.name(100, 9000)), ("a:8000".to_owned(), "a:8000".to_owned()));
    assert_eq!((host.name(101, 40_002), host.name(101, 40_001)), ("b:40002".to_owned(), "b:40002".to_owned()));
    assert_eq!(host.name(102, 5), "c:5");
    host.resolver.changed(102);
    host.resolver.workloads.clear();
    let unix = host.resolver.resolve(102, None, KernelTime::default()).expect("it runs").0;
    assert_eq!(&*unix.name, "c:unix");
}

#[test]
fn units_are_named_by_themselves_and_hold_their_cgroup() {
    let cgroup = "/system.slice/vllm.service";
    let mut host = host(&[
        Fake::new(100, 1, "vllm").in_cgroup(cgroup).listening(7, 8000),
        Fake::new(101, 100, "worker").in_cgroup(&format!("{cgroup}/sub")),
        // Reparented: it is of the unit all the same.
        Fake::new(102, 1, "orphan").in_cgroup(cgroup),
        Fake::new(103, 100, "elsewhere").in_cgroup("/system.slice/other.service"),
        Fake::new(104, 100, "contained").in_cgroup(&format!("{cgroup}/docker-ID.scope")),
    ]);
    let unit = host.find(101, 8000);
    assert_eq!((&*unit.name, unit.unit.as_deref(), &*unit.cgroup), ("vllm.service", Some("vllm.service"), cgroup));
    assert_eq!(unit.key, Key::Unit(cgroup.into()));
    assert_eq!(host.members(&unit), [100, 101, 102]);
}

#[test]
fn containers_are_named_by_their_files() {
    let path = "/kubepods.slice/kubepods-pod8c5a1f0e_6a3b_4f0e_9d53_0c2f6c1d7b44.slice/cri-containerd-ID.scope";
    let mut host = host(&[
        Fake::new(90, 1, "containerd-shim").in_cgroup("/system.slice/containerd.service"),
        Fake::new(100, 90, "bash").in_cgroup(path),
        Fake::new(101, 100, "python3").in_cgroup(path).listening(7, 8000),
    ]);
    let file = format!("host/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json");
    let text =
        r#"{"annotations":{"io.kubernetes.cri.container-name":"server","io.kubernetes.cri.sandbox-name":"vllm-0"}}"#;
    host.scratch.write(&file, text);
    let found = host.find(101, 8000);
    assert_eq!((&*found.name, found.container_id.as_deref()), ("vllm-0/server", Some(ID)));
    assert_eq!(found.pod_uid.as_deref(), Some("8c5a1f0e-6a3b-4f0e-9d53-0c2f6c1d7b44"));
    assert_eq!(*found.cgroup, path.replace("ID", ID));
    assert_eq!(host.members(&found), [100, 101]);
    // Who joins later is of it, too.
    assert!(Arc::ptr_eq(&host.find(100, 9), &found));
}

/// What makes containers inside a container has its files there.
#[test]
fn a_container_in_a_container_is_named_by_the_outer_ones_files() {
    let outer = "0123456789abcdef".repeat(4);
    let mut host = host(&[
        Fake::new(90, 1, "systemd").in_cgroup(&format!("/docker/{outer}/init.scope")),
        Fake::new(95, 90, "containerd-shim").in_cgroup(&format!("/docker/{outer}/system.slice/containerd.service")),
        Fake::new(100, 95, "python3").in_cgroup(&format!("/docker/{outer}/kubepods/burstable/ID")).listening(7, 8000),
    ]);
    let state = format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json");
    let annotations = |pod: &str| {
        format!(
            r#"{{"annotations":{{"io.kubernetes.cri.container-name":"c","io.kubernetes.cri.sandbox-name":"{pod}"}}}}"#
        )
    };
    host.scratch.write(&format!("proc/95/root/{state}"), &annotations("inner"));
    host.scratch.write(&format!("host/{state}"), &annotations("wrong"));
    assert_eq!(host.name(100, 8000), "inner/c");
}

#[test]
fn a_container_without_a_readable_name_has_that_of_its_unit_or_program() {
    let mut host = host(&[
        Fake::new(90, 1, "containerd-shim"),
        Fake::new(100, 90, "entry").in_cgroup("/docker/ID"),
        Fake::new(101, 100, "python3").in_cgroup("/docker/ID").listening(7, 8000),
    ]);
    let found = host.find(101, 8000);
    assert_eq!((&*found.name, found.container_id.as_deref()), ("python3:8000", Some(ID)));
    let mut host = Host::new(&[
        Fake::new(1, 0, "systemd"),
        Fake::new(100, 1, "python3").in_cgroup("/system.slice/vllm.service/libpod-payload-ID").listening(7, 8000),
    ]);
    let found = host.find(100, 8000);
    assert_eq!((&*found.name, found.unit.as_deref()), ("vllm.service", Some("vllm.service")));
    assert!(matches!(found.key, Key::Container(_)));
}

#[test]
fn what_is_known_is_kept_until_it_changes() {
    let server = Fake::new(100, 20, "sh-like").listening(7, 8000);
    let mut host = host(std::slice::from_ref(&server));
    let first = host.find(100, 8000);
    // It became another program, and within the time that a look holds nobody notices, unless told.
    let other = Fake { comm: "server", ..server };
    host.scratch.processes(&[&shell()[..], std::slice::from_ref(&other)].concat());
    assert_eq!(host.name(100, 8000), "sh-like:8000");
    host.resolver.changed(100);
    assert_eq!(host.name(100, 8000), "server:8000");
    // A look that finds nothing new changes nothing.
    let second = host.find(100, 8000);
    host.seconds = 11;
    assert!(Arc::ptr_eq(&second, &host.find(100, 8000)));
    assert!(first.key == second.key && first.name != second.name);
    // Another process of the same number.
    host.scratch.processes(&[&shell()[..], &[Fake { start: 777_777, ..other }]].concat());
    host.seconds = 22;
    let third = host.find(100, 8000);
    assert_eq!((&*third.name, third.key == second.key), ("server:8000", false));
    assert!(host.members(&second).is_empty(), "it ended");
    assert_eq!(host.members(&third), [100]);
}

#[test]
fn memory_is_bounded() {
    const ROOM: usize = 7;
    let mut host = host(&(1000..1020).map(|pid| Fake::new(pid, 20, "x")).collect::<Vec<_>>());
    host.resolver.room = ROOM;
    for pid in 1000..1020 {
        assert_eq!(host.name(pid, 1), "x:1");
        assert!((1..=ROOM).contains(&host.resolver.workloads.len()));
    }
}

/// The real `/proc`, a real child, and the real lists of cgroups.
#[test]
fn of_this_machine() {
    let places = Places::new(Path::new("/proc"), Path::new("/"));
    let own = std::process::id();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    let found = Resolver::new(places.clone()).resolve(own, Some(port), KernelTime::default()).expect("it runs").0;
    let mut child = std::process::Command::new("sleep").arg("20").spawn().expect("sleep runs");
    let members = places.members(&found);
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    assert!(members.contains(&child.id()), "{found:?}");
    assert!(!members.contains(&own), "the observer is no part of what it observes");
    let comm = fs::read_to_string("/proc/self/comm").expect("mounted");
    if let Key::Tree { pid, .. } = found.key {
        assert_eq!((pid, &*found.name), (own, &*format!("{}:{port}", comm.trim_end())));
    }
}
