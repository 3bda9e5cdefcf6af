//! What a running observer has given up, thread by thread, and that it goes on doing all that it is for.

use std::{collections::BTreeMap, fs, os::unix::fs::chown, time::Duration};

use observer_e2e::{
    http::Client,
    net::free_port,
    netns::Cable,
    observer::Observer,
    require,
    scratch::Scratch,
    servers::{Server, listening},
    traffic,
    wait::{self, SOON},
};

const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;

/// What the kernel says of a thread.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    permitted: u64,
    effective: u64,
    bounding: u64,
    no_new_privileges: bool,
    filtered: bool,
}

/// [`threads`], once each has confined itself: that is what it does first, and it may have to wait for a CPU.
fn confined(pid: u32) -> BTreeMap<String, Thread> {
    let is_waiting = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
        let mut said = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        // The last that goes; CHOWN, the lowest of all, is kept by nobody.
        let permitted =
            |status: &str| status.lines().find_map(|line| line.strip_prefix("CapPrm:")?.chars().last()?.to_digit(16));
        said.any(|status| permitted(&status).is_some_and(|lowest| lowest & 1 != 0))
    };
    // One that never does is found by who looks at it.
    let _all = wait::try_until(SOON, || (!is_waiting()).then_some(()));
    threads(pid)
}

/// Threads by their names; those of one name must be alike.
fn threads(pid: u32) -> BTreeMap<String, Thread> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten() {
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.unwrap_or_else(|| panic!("no {name}")).to_owned()
        };
        let set = |name| u64::from_str_radix(&field(name), 16).expect("hexadecimal");
        assert_eq!((set("CapInh"), set("CapAmb")), (0, 0));
        let thread = Thread {
            permitted: set("CapPrm"),
            effective: set("CapEff"),
            bounding: set("CapBnd"),
            no_new_privileges: field("NoNewPrivs") == "1",
            filtered: field("Seccomp") == "2",
        };
        if let Some(other) = threads.get(&field("Name")) {
            assert_eq!(*other, thread, "{}", field("Name"));
        }
        threads.insert(field("Name"), thread);
    }
    threads
}

fn expect(threads: &BTreeMap<String, Thread>, special: &[(&str, u64)]) {
    for (name, thread) in threads {
        let capabilities =
            special.iter().find(|(its, _)| its == name).map_or(SYS_PTRACE | DAC_READ_SEARCH, |(_, set)| *set);
        let wanted = Thread {
            permitted: capabilities,
            effective: capabilities,
            bounding: capabilities,
            no_new_privileges: true,
            filtered: true,
        };
        assert_eq!(*thread, wanted, "{name}");
    }
    for (name, _) in special {
        assert!(threads.contains_key(*name), "no thread {name} of {:?}", threads.keys());
    }
}

#[test]
fn every_thread_keeps_what_it_needs_and_nothing_more() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let observer = Observer::start(&[server.port()]);
    let mut client = Client::connect(server.address).expect("it listens");
    assert_eq!(client.ask(&traffic::sample_chat("confined", 20, 5, 4)).expect("an answer").status, 200);
    observer.line("confined");
    let metrics = observer.metrics();
    for family in
        ["workload_info", "workload_cpu_seconds_total", "workload_tcp_unsent_bytes", "observer_probe_attached"]
    {
        assert!(metrics.has(family), "{family}");
    }
    let special = [
        ("observer-http", 0),
        ("request-log", 0),
        ("observer-netns", SYS_ADMIN),
        ("observer-govern", SYS_ADMIN),
        ("observer-gpu", SYS_PTRACE | DAC_READ_SEARCH | SYS_ADMIN),
    ];
    let threads = confined(observer.pid());
    expect(&threads, &special);
    assert!(
        ["observer", "observer-work", "observer-drain"].iter().all(|name| threads.contains_key(*name)),
        "{threads:?}"
    );
    let said = observer.output();
    let line = said.iter().find(|line| line.contains("sandbox: ")).expect("a line of the log");
    assert!(line.contains("kept: DAC_READ_SEARCH SYS_PTRACE; dropped: ") && line.contains("SYS_MODULE"), "{line}");
    assert!(line.contains("no new privileges; system calls filtered"), "{line}");
    // What is off needs no thread, and no privilege.
    let settings =
        [("OBSERVER_SIGNALS_TCP", "false"), ("OBSERVER_GPU_GPM", "false"), ("OBSERVER_GOVERNOR_BUDGET", "0")];
    let observer = Observer::tuned(&["--ports", &free_port().to_string()], &settings);
    let threads = confined(observer.pid());
    expect(&threads, &[("observer-http", 0), ("request-log", 0)]);
    for name in ["observer-netns", "observer-govern"] {
        assert!(!threads.contains_key(name), "{threads:?}");
    }
}

/// Sockets in a container's network are looked at by the one thread that may go there.
#[test]
fn other_networks_are_still_seen() {
    require!(kernel, sample, ip);
    let (cable, port) = (Cable::new(), free_port());
    let observer = Observer::start(&[port]);
    let listen = cable.at(port).to_string();
    let mut server = cable.server.spawn("sample-llm", require::sample(), &["serve", "--listen", &listen]);
    listening(&mut server);
    let mut client = cable.client.within(|| Client::connect(cable.at(port)).expect("it listens"));
    assert_eq!(client.ask(&traffic::sample_chat("elsewhere", 20, 5, 4)).expect("an answer").status, 200);
    observer.line("elsewhere");
    wait::until("its sockets", SOON, || observer.metrics().has("workload_listen_overflows_total").then_some(()));
    let warned: Vec<_> = observer.output().into_iter().filter(|line| line.contains("are missing of some")).collect();
    assert!(warned.is_empty(), "{warned:?}");
}

/// A folder that only another user may write to: who opens the log there at the start can do so after a rotation.
#[test]
fn a_log_among_another_users_files_is_reopened() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let scratch = Scratch::new();
    let folder = scratch.file("logs");
    fs::create_dir(&folder).expect("ours");
    chown(&folder, Some(64_217), Some(64_217)).expect("root may");
    let log = folder.join("requests.jsonl");
    let port = server.port().to_string();
    let mut observer = Observer::bare(&["--ports", &port, "--request-log", log.to_str().expect("plain")]);
    let overrides = confined(observer.pid()).get("request-log").map(|thread| thread.effective);
    assert_eq!(overrides, Some(DAC_OVERRIDE), "and no other thread has it");
    assert_eq!(threads(observer.pid())["observer-drain"].effective, SYS_PTRACE | DAC_READ_SEARCH);
    fs::rename(&log, folder.join("requests.jsonl.1")).expect("root may");
    observer.signal(libc::SIGHUP);
    wait::until("a new log", SOON, || log.exists().then_some(()));
    let mut client = Client::connect(server.address).expect("it listens");
    assert_eq!(client.ask(&traffic::sample_chat("rotated", 20, 5, 4)).expect("an answer").status, 200);
    wait::until("its line", SOON, || fs::read_to_string(&log).ok()?.contains("rotated").then_some(()));
}

#[test]
fn it_can_be_switched_off() {
    require!(kernel);
    let observer = Observer::tuned(&["--ports", &free_port().to_string()], &[("OBSERVER_SECURITY_SANDBOX", "false")]);
    std::thread::sleep(Duration::from_millis(200));
    for (name, thread) in threads(observer.pid()) {
        assert!(!thread.no_new_privileges && !thread.filtered, "{name}");
        assert!(thread.effective.count_ones() > 10, "{name}");
    }
    assert!(observer.output().iter().any(|line| line.contains("sandbox: off")), "{:#?}", observer.output());
}
