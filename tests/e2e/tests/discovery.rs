//! Servers that nobody named: ports are learnt when a process in scope listens, processes when one in scope forks.

use std::{net::SocketAddr, path::Path, process::Command, thread, time::Duration};

use observer_e2e::{
    cgroup::Cgroup,
    http::Client,
    observer::Observer,
    process::Process,
    raw::Listener,
    require,
    scratch::Scratch,
    servers::{self, Descent, Parent, Server},
    traffic,
    wait::{self, SOON},
};

fn ask(address: SocketAddr, id: &str) {
    let mut client = Client::connect(address).expect("it listens");
    assert_eq!(client.ask(&traffic::sample_chat(id, 20, 2, 5)).expect("an answer").status, 200);
}

/// The very first request to a server is seen, from its arrival on.
fn expect_seen(observer: &Observer, address: SocketAddr, id: &str) {
    ask(address, id);
    let line = observer.line(id);
    assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(5)), "{line:#?}");
    assert_eq!((line.comm.as_str(), line.server), ("sample-llm", Some(address.to_string())), "{:?}", line.pid);
    observer.line(id).expect_order(true);
}

/// No request to these servers is seen, and no metric names their ports.
fn expect_unseen(observer: &Observer, servers: &[&Server]) {
    for server in servers {
        for round in 0..3 {
            ask(server.address, &format!("stranger-{round}"));
        }
    }
    observer.settle();
    let lines = observer.lines();
    let metrics = observer.metrics();
    for server in servers {
        let address = server.address.to_string();
        assert!(lines.iter().all(|line| line.server.as_ref() != Some(&address)), "{lines:#?}");
        let port = server.port().to_string();
        assert_eq!(metrics.sum("llm_requests_total", &[("server_port", &port)]), 0.0);
    }
}

fn listened(observer: &Observer) -> f64 {
    observer.metrics().sum("observer_events_total", &[("source", "listen")])
}

fn observe_pid(process: &Process, more: &[&str]) -> Observer {
    Observer::with(&[&["--pids", &process.pid().to_string()], more].concat())
}

/// The server of `parent` is seen, others that start before and after the observer are not.
fn expect_only_its_server(mut parent: Parent, observer: &Observer, before: &Server) {
    assert_eq!(listened(observer), 0.0, "nobody in scope listens yet");
    let after = Server::sample(&[]);
    let address = parent.serve();
    expect_seen(observer, address, "first");
    expect_unseen(observer, &[before, &after]);
    expect_seen(observer, address, "last");
    assert_eq!(observer.lines().len(), 2);
    assert_eq!(listened(observer), 1.0);
}

#[test]
fn a_descendant_that_starts_later() {
    require!(kernel, sample, timeout);
    let before = Server::sample(&[]);
    let parent = Parent::new(Descent::Straight);
    let observer = observe_pid(&parent.process, &[]);
    expect_only_its_server(parent, &observer, &before);
}

/// Who was forked by a process in scope stays in it, whoever its parent is by now.
#[test]
fn a_descendant_whose_parent_has_ended() {
    require!(kernel, sample, timeout);
    let before = Server::sample(&[]);
    let parent = Parent::new(Descent::Orphaned);
    let observer = observe_pid(&parent.process, &[]);
    expect_only_its_server(parent, &observer, &before);
}

/// They stay when the scope is read anew, although `/proc` no longer says whose descendants they are.
#[test]
fn a_reload_keeps_descendants() {
    require!(kernel, sample, timeout);
    let mut parents = [Parent::new(Descent::Straight), Parent::new(Descent::Orphaned)];
    let pids = parents.each_ref().map(|parent| parent.process.pid().to_string()).join(",");
    let mut observer = Observer::with(&["--pids", &pids]);
    let addresses = parents.each_mut().map(Parent::serve);
    for round in ["before", "after"] {
        for (number, address) in addresses.into_iter().enumerate() {
            expect_seen(&observer, address, &format!("{round}-{number}"));
        }
        observer.signal(libc::SIGHUP);
        observer.settle();
    }
}

/// No moment of the observer's start is blind: neither for forks nor for listeners.
#[test]
fn a_server_that_starts_while_the_observer_does() {
    require!(kernel, sample, timeout);
    for delay in (0..8).map(|step| Duration::from_millis(40 * step)) {
        let mut parent = Parent::new(Descent::Straight);
        let pid = parent.process.pid().to_string();
        let (observer, address) = thread::scope(|scope| {
            let server = scope.spawn(|| {
                thread::sleep(delay);
                parent.serve()
            });
            let observer = Observer::with(&["--pids", &pid]);
            println!("ready after {:?}, told to start after {delay:?}", observer.attached_after());
            (observer, server.join().expect("it listens"))
        });
        expect_seen(&observer, address, "meanwhile");
    }
}

/// Processes that end leave the list: it would fill up else.
#[test]
fn the_list_of_processes_forgets() {
    require!(kernel, sample);
    let mut command = Command::new("sh");
    command.args(["-c", "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done; echo forked; exec sleep 30"]);
    // It waits for nothing: what it forks before the observer is there ends just the same.
    let mut process = Process::spawn("sh", command);
    let observer = observe_pid(&process, &[]);
    process.line(Duration::from_secs(30), |line| line == "forked");
    observer.settle();
    let pids = observer.metrics().sum("observer_map_entries", &[("map", "pids")]);
    assert_eq!(pids, 1.0, "the shell alone is left");
}

/// A process stays itself when a thread other than its first replaces its program: the kernel ends the first one.
#[test]
fn a_program_replaced_from_a_thread() {
    require!(kernel, sample, python);
    let scratch = Scratch::new();
    let mut command = Command::new(require::python());
    command.arg(servers::scripts().join("exec_from_thread.py")).arg(scratch.file("go")).arg(require::sample());
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    let mut process = Process::spawn("python", command);
    let observer = observe_pid(&process, &[]);
    let _go = scratch.write("go", "");
    let address = servers::listening(&mut process);
    expect_seen(&observer, address, "replaced");
    assert_eq!(observer.line("replaced").pid, process.pid());
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn a_server_that_starts_later_in_a_cgroup() {
    require!(kernel, sample, cgroup, timeout);
    let group = Cgroup::new("discovery");
    let before = Server::sample(&[]);
    let parent = Parent::new(Descent::Straight);
    group.add(parent.process.pid());
    let observer = Observer::with(&["--cgroups", text(group.path())]);
    expect_only_its_server(parent, &observer, &before);
}

/// What is below a cgroup is in it, even if it was made later.
#[test]
fn a_server_that_starts_later_below_a_cgroup() {
    require!(kernel, sample, cgroup, timeout);
    let group = Cgroup::new("discovery-above");
    let before = Server::sample(&[]);
    let observer = Observer::with(&["--cgroups", text(group.path())]);
    let below = group.below("later");
    let parent = Parent::new(Descent::Straight);
    below.add(parent.process.pid());
    expect_only_its_server(parent, &observer, &before);
    drop(observer);
}

/// A listener of Multipath TCP is learnt as any other, and plain TCP connections to it are plain.
#[test]
fn a_listener_of_multipath_tcp() {
    require!(kernel, mptcp);
    let observer = Observer::with(&["--pids", &std::process::id().to_string()]);
    let listener = Listener::multipath().expect("required");
    let link = listener.link();
    link.client.send(&traffic::chat("plain"));
    assert!(!link.server.take().bytes.is_empty());
    let answer = traffic::Answer::new(3, 10);
    for part in answer.parts() {
        link.server.send(part);
        link.client.drain(part.len());
    }
    let line = observer.line("plain");
    assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(3)), "{line:#?}");
    line.expect_order(true);
}

/// The kernel side says which port it learnt, and says nothing where it was not told to.
#[test]
fn the_kernel_log_names_a_learnt_port() {
    require!(kernel, sample, timeout);
    let mut parents = [Parent::new(Descent::Straight), Parent::new(Descent::Straight)];
    let [with, without] = [&["--log-kernel"][..], &[]];
    let observers = [observe_pid(&parents[0].process, with), observe_pid(&parents[1].process, without)];
    let addresses = parents.each_mut().map(Parent::serve);
    let said = |observer: &Observer, address: SocketAddr| {
        let port = format!("port {} is listened on", address.port());
        observer.output().into_iter().find(|line| line.contains(&port))
    };
    let line = wait::until("the line about the port", SOON, || said(&observers[0], addresses[0]));
    println!("{line}");
    observers[1].settle();
    assert_eq!(said(&observers[1], addresses[1]), None);
    for (observer, address) in observers.iter().zip(addresses) {
        expect_seen(observer, address, "logged");
    }
}

/// Without any scope every server is found. Of what the observer then says, only what names our ports is read.
#[test]
fn without_a_scope() {
    require!(kernel, sample);
    const REQUESTS: u64 = 5;
    let before = Server::sample(&[]);
    let observer = Observer::bare(&["--for", "8s", "--log-level", "error"]);
    let after = Server::sample(&[]);
    for server in [&before, &after] {
        for _ in 0..REQUESTS {
            ask(server.address, "unscoped");
        }
    }
    for server in [&before, &after] {
        let port = server.port();
        wait::until("all requests to be counted", SOON, || {
            let metrics = observer.metrics_of_port(port);
            let done = metrics.sum("llm_requests_total", &[("outcome", "ok")]) == REQUESTS as f64;
            done.then(|| {
                let first_tokens = metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]);
                assert_eq!(first_tokens, REQUESTS as f64, "of port {port}");
                assert_eq!(metrics.sum("llm_output_chunks_total", &[]), 5.0 * REQUESTS as f64, "of port {port}");
            })
        });
    }
}
