//! `observer overhead`: what it counts of a running observer, and that nothing stays on afterwards.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use observer_e2e::{
    net::free_port,
    noise::{holds, settles},
    observer::{self, Observer},
    process::Process,
    require,
    scratch::Scratch,
    wait::{self, SOON},
};
use serde_json::Value;

fn overhead(arguments: &[&str]) -> Command {
    let mut command = observer::command();
    command.arg("overhead").args(arguments);
    command
}

/// Runs of this process's programs so far, by id, as the kernel counts them while statistics are on.
fn runs(pid: u32) -> BTreeMap<u32, u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs");
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let number = |text: &str, key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    texts.filter_map(|text| Some((number(&text, "prog_id:")? as u32, number(&text, "run_cnt:")?))).collect()
}

fn sum(pid: u32) -> u64 {
    runs(pid).values().sum()
}

/// Two ends of a connection: each exchange is two writes and two reads.
struct Pair(TcpStream, TcpStream);

impl Pair {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (server, _) = listener.accept().expect("a client");
        for side in [&client, &server] {
            side.set_nodelay(true).expect("an open socket");
        }
        Self(client, server)
    }

    fn exchange(&mut self, count: u32) {
        let mut byte = [0];
        for _ in 0..count {
            self.0.write_all(b"x").expect("open");
            self.1.read_exact(&mut byte).expect("open");
            self.1.write_all(b"y").expect("open");
            self.0.read_exact(&mut byte).expect("open");
        }
    }
}

/// Does `calls` exchanges while `observer overhead` measures; its JSON. `None`: it ended before these did.
fn measured(observer: &Observer, calls: u32) -> Option<Value> {
    let pid = observer.pid();
    let mut pair = Pair::new();
    let before = sum(pid);
    let mut command =
        Process::spawn("overhead", overhead(&["--for", "3s", "--pid", &pid.to_string(), "--format", "json"]));
    wait::until("statistics to be on", SOON, || {
        pair.exchange(1);
        (sum(pid) > before).then_some(())
    });
    // It looks at the programs at once.
    thread::sleep(Duration::from_millis(300));
    pair.exchange(calls);
    if command.exited().is_some() {
        return None;
    }
    let status = command.wait(SOON);
    let text = command.settled_output().join("\n");
    assert!(status.success(), "{text}");
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn float(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// Programs of sockets run at each call of the host, so that other processes' calls may add to these.
#[test]
fn every_call_is_a_run_and_shares_add_up() {
    require!(kernel);
    const EXCHANGES: u32 = 10_000;
    let observer = Observer::start(&[free_port()]);
    let mut report = Value::Null;
    settles(|| {
        report = measured(&observer, EXCHANGES).ok_or("the machine is too slow for so many calls")?;
        Ok(())
    });
    assert_eq!(report["observer"]["pid"], observer.pid());
    assert_eq!(report["observer"]["listens"][0], observer.address().to_string());
    let seconds = float(&report, "seconds");
    assert!((3.0..8.0).contains(&seconds), "{seconds}");
    let programs = report["programs"].as_array().expect("programs");
    let find = |probe: &str| programs.iter().find(|program| program["probe"] == probe);
    // What sees calls depends on the kernel; each of these sees at least one side of an exchange.
    let calls = u64::from(2 * EXCHANGES);
    let of_sockets: Vec<_> = ["socket_send", "socket_receive", "tcp_send", "tcp_receive", "socket_syscall"]
        .iter()
        .filter_map(|name| find(name))
        .collect();
    assert!(!of_sockets.is_empty(), "{report:#}");
    for program in of_sockets.iter().chain(&find("data_ready")) {
        let runs = program["runs"].as_u64().expect("a count");
        assert!(program["attached"] == true && runs >= calls, "{calls} calls, and {program:#}");
        let time = float(program, "nanoseconds_per_run");
        assert!((5.0..1e6).contains(&time), "{program:#}");
    }
    let mut sum = 0.0;
    for program in programs {
        let runs = float(program, "runs");
        let time = program["nanoseconds_per_run"].as_f64().unwrap_or(0.0) + float(program, "hook_nanoseconds");
        let (told, expected) = (float(program, "core_ratio"), runs * time / 1e9 / seconds);
        assert!((told - expected).abs() < 1e-9, "{expected} of {program:#}");
        sum += told;
    }
    let (programs, process) = (float(&report, "programs_core_ratio"), float(&report["process"], "core_ratio"));
    assert!((programs - sum).abs() < 1e-9 && programs > 0.0, "{sum} of {report:#}");
    assert!((float(&report, "core_ratio") - programs - process).abs() < 1e-9);
    let hooks = report["hooks"].as_array().expect("hooks");
    let tracepoint = hooks.iter().find(|hook| hook["kind"] == "btf_tracepoint").expect("some are in place");
    assert!(tracepoint["measured"] == true && float(tracepoint, "nanoseconds") < 5_000.0, "{tracepoint}");
}

#[test]
fn statistics_are_off_afterwards_and_the_setting_is_as_it_was() {
    require!(kernel);
    let setting = || fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").expect("a setting");
    if setting().trim() != "0" {
        println!("skipped: kernel.bpf_stats_enabled is set");
        return;
    }
    let observer = Observer::start(&[free_port()]);
    let pid = observer.pid();
    let (status, said) = observer::run(overhead(&["--for", "1s", "--pid", &pid.to_string()]));
    assert!(status.success() && setting().trim() == "0", "{said:#?}");
    assert!(said[0].contains(&format!("pid {pid}")) && said[0].contains("off again"), "{said:#?}");
    let mut pair = Pair::new();
    let counted = || {
        let before = sum(pid);
        pair.exchange(500);
        sum(pid) - before
    };
    // Others on this host may have them on for a moment.
    let mut counted = counted;
    settles(|| {
        let runs = counted();
        holds(runs == 0, || format!("{runs} runs were counted"))
    });
    // Nor do they stay on for one that is ended half way.
    let mut command = Process::spawn("overhead", overhead(&["--for", "60s", "--pid", &pid.to_string()]));
    wait::until("statistics to be on", SOON, || (counted() > 0).then_some(()));
    command.stop(libc::SIGINT, SOON);
    settles(|| {
        let runs = counted();
        holds(runs == 0, || format!("{runs} runs were counted"))
    });
}

/// The table has a line for each program that the JSON has as hooked in.
#[test]
fn the_table_says_what_json_says() {
    require!(kernel);
    let observer = Observer::start(&[free_port()]);
    let pid = observer.pid().to_string();
    let (status, said) = observer::run(overhead(&["--for", "200ms", "--pid", &pid]));
    assert!(status.success(), "{said:#?}");
    let (status, json) = observer::run(overhead(&["--for", "200ms", "--pid", &pid, "--format", "json"]));
    let report: Value = serde_json::from_str(&json.join("\n")).expect("JSON");
    assert!(status.success());
    let programs = report["programs"].as_array().expect("programs");
    let hooked: Vec<_> = programs.iter().filter(|program| program["attached"] == true).collect();
    assert!(hooked.len() >= 4, "{report:#}");
    for program in hooked {
        let text = |key: &str| program[key].as_str().expect("text");
        let is_it = |line: &&String| line.split_whitespace().next() == Some(text("probe"));
        let line = said.iter().find(is_it).unwrap_or_else(|| panic!("no line of {program}: {said:#?}"));
        assert!(line.contains(&format!("{} {}", text("mechanism"), text("target"))), "{line}");
    }
    for start in ["all programs", "process:", "all:", "What a hook costs", "NS/RUN is"] {
        assert!(said.iter().any(|line| line.starts_with(start)), "no {start:?} in {said:#?}");
    }
}

#[test]
fn what_cannot_be_measured_says_what_to_do() {
    require!(kernel, setpriv);
    let fails = |command: Command, wanted: &[&str]| {
        let (status, said) = observer::run(command);
        let said = said.join("\n");
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(wanted.iter().all(|wanted| said.contains(wanted)), "{said}");
    };
    let observer = Observer::start(&[free_port()]);
    let (own, pid) = (std::process::id().to_string(), observer.pid());
    let not = format!("process {own} holds no programs of an observer");
    fails(overhead(&["--for", "1s", "--pid", &own]), &[&not, &format!("pid {pid} at {}", observer.address())]);
    let scratch = Scratch::new();
    let mut nobody = observer::command_of_nobody(&scratch);
    nobody.args(["overhead", "--for", "1s"]);
    fails(nobody, &["cannot list", "run this as root", "CAP_SYS_ADMIN"]);
    let other = Observer::start(&[free_port()]);
    let both = [format!("pid {pid} at"), format!("pid {} at", other.pid()), "--pid".to_owned()];
    fails(overhead(&["--for", "1s"]), &both.each_ref().map(String::as_str));
    drop(other);
    // One that ends meanwhile.
    let mut observer = observer;
    let mut command = Process::spawn("overhead", overhead(&["--for", "60s", "--pid", &pid.to_string()]));
    thread::sleep(Duration::from_millis(500));
    observer.stop(libc::SIGTERM);
    let status = command.wait(SOON);
    let said = command.settled_output().join("\n");
    assert!(status.code() == Some(1) && said.contains("ended meanwhile"), "{said}");
}
