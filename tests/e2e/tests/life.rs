//! The observer's own life: starts that fail, ends, signals, settings, scopes.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use observer_e2e::{
    bpf,
    cgroup::Cgroup,
    http::Client,
    net::{free_address, free_port},
    observer::{self, Observer},
    raw::Listener,
    request_log::RequestLog,
    require,
    scratch::Scratch,
    servers::Server,
    traffic::{self, Answer},
    wait::{self, SOON},
};

/// Whether a command of the observer succeeded, and what it said.
fn observer(arguments: &[&str]) -> (bool, Vec<String>) {
    let mut command = observer::command();
    command.args(arguments);
    let (status, said) = observer::run(command);
    (status.success(), said)
}

/// Starts on a port of its own must fail with a message that holds all of `words`.
fn expect_refusal(arguments: &[&str], words: &[&str]) {
    let (success, said) = observer(arguments);
    let all = said.join("\n");
    assert!(!success, "{arguments:?} succeeded: {all}");
    for word in words {
        assert!(all.contains(word), "{arguments:?}: no {word:?} in {all}");
    }
    assert!(!all.contains("panicked"), "{all}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// One request by both ends of a new connection.
fn ask(listener: &Listener, id: &str) {
    let link = listener.link();
    link.client.send(&traffic::chat(id));
    assert!(!link.server.take().bytes.is_empty());
    let answer = Answer::new(3, 10).bytes();
    link.server.send(&answer);
    link.client.drain(answer.len());
}

fn ask_server(server: &Server, id: &str) {
    let mut client = Client::connect(server.address).expect("it listens");
    assert_eq!(client.ask(&traffic::sample_chat(id, 5, 2, 3)).expect("an answer").status, 200);
}

#[test]
fn without_privileges() {
    require!(kernel, setpriv);
    let scratch = Scratch::new();
    let mut command = observer::command_of_nobody(&scratch);
    command.args(["run", "--ports", &free_port().to_string(), "--listen", &free_address().to_string()]);
    let (status, said) = observer::run(command);
    assert!(!status.success(), "{said:#?}");
    assert_eq!(said.len(), 1, "one clear line: {said:#?}");
    let clear = ["CAP_BPF", "root", "privilege", "permi"].iter().any(|word| said[0].contains(word));
    assert!(clear, "{said:#?}");
}

/// In a mount namespace of its own, where the kernel's type information is hidden.
#[test]
fn without_type_information() {
    require!(kernel, unshare);
    let hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" \"$@\"";
    let unshared = |arguments: &[&str]| {
        let mut command = Command::new(require::tool("unshare").expect("required"));
        command.args(["--mount", "sh", "-c", hide]).arg(require::observer()).args(arguments);
        observer::run(command)
    };
    let (port, listen) = (free_port().to_string(), free_address().to_string());
    let (status, said) = unshared(&["run", "--ports", &port, "--listen", &listen]);
    assert!(!status.success() && said.len() == 1, "one clear line: {said:#?}");
    assert!(said[0].contains("/sys/kernel/btf/vmlinux") && said[0].contains("CONFIG_DEBUG_INFO_BTF"), "{said:#?}");
    let (status, said) = unshared(&["doctor"]);
    assert!(!status.success(), "{said:#?}");
    assert!(said.iter().any(|line| line.starts_with("error    type information")), "{said:#?}");
}

#[test]
fn port_taken() {
    require!(kernel);
    let address = free_address();
    let _taken = TcpListener::bind(address).expect("it is free");
    let port = free_port().to_string();
    expect_refusal(&["run", "--ports", &port, "--listen", &address.to_string()], &[&address.to_string()]);
}

#[test]
fn broken_settings() {
    require!(observer);
    let scratch = Scratch::new();
    let port = free_port().to_string();
    let listen = free_address().to_string();
    let missing = scratch.file("missing.toml");
    let broken = scratch.write("broken.toml", "[scope\nports = [1]\n");
    let wrong_type = scratch.write("type.toml", "[scope]\nports = \"many\"\n");
    let unknown = scratch.write("unknown.toml", "[scope]\nprots = [1]\n");
    let cases: [(&Path, &[&str]); 4] = [
        (&missing, &["missing.toml"]),
        (&broken, &["broken.toml"]),
        (&wrong_type, &["ports"]),
        // The nearest known key is named.
        (&unknown, &["prots", "ports"]),
    ];
    for (file, words) in cases {
        expect_refusal(&["run", "--ports", &port, "--listen", &listen, "--config", text(file)], words);
        expect_refusal(&["run", "--config", text(file), "--check-config"], words);
    }
    let good = scratch.write("good.toml", &format!("[scope]\nports = [{port}]\n"));
    let (success, said) = observer(&["run", "--config", text(&good), "--check-config"]);
    assert!(success, "{said:#?}");
    expect_refusal(&["run", "--ports", "70000"], &["70000"]);
    expect_refusal(&["run", "--no-such-flag"], &["--no-such-flag"]);
}

/// Every program that it held is gone once it is.
#[test]
fn signals_end_it_and_nothing_stays() {
    require!(kernel);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let listener = Listener::v4();
        let mut observer = Observer::start(&[listener.port()]);
        ask(&listener, "before-the-end");
        let held = bpf::held_by(observer.pid());
        assert!(!held.is_empty(), "it holds BPF programs");
        let log = observer.log().clone();
        observer.line("before-the-end");
        let begun = Instant::now();
        observer.stop(signal);
        println!("signal {signal}: {} programs, ended after {:?}", held.len(), begun.elapsed());
        // The kernel frees programs after a grace period.
        let stays = || bpf::programs().intersection(&held).copied().collect::<BTreeSet<_>>();
        let gone = wait::try_until(SOON, || stays().is_empty().then_some(()));
        assert!(gone.is_some(), "programs stayed: {:?}", stays());
        assert_eq!(log.read().len(), 1);
    }
}

/// A request under way does not hold up the end.
#[test]
fn ends_amid_requests() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let mut observer = Observer::start(&[server.port()]);
    let mut client = Client::connect(server.address).expect("it listens");
    client.send(&traffic::sample_chat("endless", 10, 100, 1000)).expect("it reads");
    std::thread::sleep(Duration::from_millis(200));
    observer.stop(libc::SIGTERM);
}

#[test]
fn ends_by_itself() {
    require!(kernel);
    let port = free_port().to_string();
    let begun = Instant::now();
    let mut observer = Observer::with(&["--ports", &port, "--for", "2s"]);
    observer.wait(SOON);
    let took = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&took), "{took:?}");
}

#[test]
fn request_log_is_reopened() {
    require!(kernel);
    let listener = Listener::v4();
    let mut observer = Observer::start(&[listener.port()]);
    ask(&listener, "first");
    observer.line("first");
    let rotated = observer.scratch().file("rotated.jsonl");
    std::fs::rename(&observer.log().0, &rotated).expect("ours to rename");
    observer.signal(libc::SIGHUP);
    wait::until("a new log", SOON, || observer.log().0.exists().then_some(()));
    ask(&listener, "second");
    observer.line("second");
    assert!(observer.lines_of("first").is_empty());
    let old = RequestLog(rotated).read();
    assert_eq!(old.len(), 1, "{old:#?}");
    observer.expect_alive();
}

/// The scope follows its file: what left it is no longer seen, what came is.
#[test]
fn scope_changes_while_it_runs() {
    require!(kernel);
    let scratch = Scratch::new();
    let (one, other) = (Listener::v4(), Listener::v4());
    let write = |port: u16| scratch.write("observer.toml", &format!("[scope]\nports = [{port}]\n"));
    let file = write(one.port());
    let mut observer = Observer::with(&["--config", text(&file)]);
    ask(&one, "one-in-scope");
    ask(&other, "other-out-of-scope");
    observer.line("one-in-scope");
    assert_eq!(write(other.port()), file);
    observer.signal(libc::SIGHUP);
    let mut number = 0;
    wait::until("the other port to be observed", SOON, || {
        number += 1;
        let id = format!("other-{number}");
        ask(&other, &id);
        wait::try_until(Duration::from_millis(200), || observer.lines_of(&id).pop())
    });
    ask(&one, "one-out-of-scope");
    ask(&other, "other-in-scope");
    observer.line("other-in-scope");
    // A broken file changes nothing.
    assert_eq!(scratch.write("observer.toml", "[scope\n"), file);
    observer.signal(libc::SIGHUP);
    observer.settle();
    ask(&other, "still-in-scope");
    observer.line("still-in-scope");
    for id in ["one-out-of-scope", "other-out-of-scope"] {
        assert!(observer.lines_of(id).is_empty(), "{id} was seen");
    }
    observer.expect_alive();
}

/// Of two servers, only the one in scope is seen.
fn expect_only(observer: &Observer, inside: &Server, outside: &Server) {
    for round in 0..3 {
        ask_server(outside, &format!("outside-{round}"));
        ask_server(inside, &format!("inside-{round}"));
        let line = observer.line(&format!("inside-{round}"));
        assert_eq!((line.outcome.as_str(), line.pid), ("ok", inside.process.pid()), "{line:#?}");
    }
    observer.settle();
    assert_eq!(observer.lines().len(), 3, "{:#?}", observer.lines());
}

#[test]
fn scope_of_processes() {
    require!(kernel, sample);
    let (inside, outside) = (Server::sample(&[]), Server::sample(&[]));
    let observer = Observer::with(&["--pids", &inside.process.pid().to_string()]);
    expect_only(&observer, &inside, &outside);
}

#[test]
fn scope_of_cgroups() {
    require!(kernel, sample, cgroup);
    let group = Cgroup::new("scope");
    let (inside, outside) = (Server::sample(&[]), Server::sample(&[]));
    group.add(inside.process.pid());
    let observer = Observer::with(&["--cgroups", text(group.path())]);
    expect_only(&observer, &inside, &outside);
    drop(observer);
    // The group goes with its last process.
    drop(inside);
}

/// Both lists must be satisfied.
#[test]
fn scopes_are_narrowed_by_one_another() {
    require!(kernel, sample);
    let (inside, outside) = (Server::sample(&[]), Server::sample(&[]));
    let ports = format!("{},{}", inside.port(), outside.port());
    let observer = Observer::with(&["--ports", &ports, "--pids", &inside.process.pid().to_string()]);
    expect_only(&observer, &inside, &outside);
}

#[test]
fn doctor() {
    require!(kernel);
    let (success, said) = observer(&["doctor"]);
    let all = said.join("\n");
    println!("{all}");
    assert!(success, "{all}");
    assert!(all.to_lowercase().contains("btf") && all.contains("sock_send_length"), "{all}");
}
