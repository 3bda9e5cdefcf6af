//! Text and JSON; who it runs as, where, and beside whom.

use std::{os::unix::process::CommandExt, process::Command};

use observer_e2e::{
    cgroup::Cgroup,
    observer::{self, Observer},
    raw::Listener,
    require,
    scratch::Scratch,
    traffic::{self, Answer},
};
use serde_json::Value;

use super::{command, finding, json};

#[test]
fn text_and_json_say_the_same() {
    require!(kernel);
    let (status, said) = observer::run(command(&[]));
    let (ready, report) = json(command(&["--json"]));
    assert!(status.success() && ready, "{said:#?}");
    let findings = report["findings"].as_array().expect("findings");
    let subjects = [
        "kernel",
        "type information",
        "lockdown",
        "privileges",
        "seccomp",
        "locked memory",
        "tracefs",
        "cgroups",
        "PID namespace",
        "other processes",
        "network namespaces",
        "trampolines",
        "other observers",
        "traffic",
    ];
    for subject in subjects {
        let (level, found, advice) = finding(&report, subject);
        assert!(!found.is_empty() && (level == "ok") >= advice.is_empty(), "{subject}: {level}, {found}, {advice:?}");
    }
    // Others may come and go between the two.
    for finding in findings.iter().filter(|finding| finding["subject"] != "other observers") {
        let text = |key: &str| finding[key].as_str().expect("text");
        let line = format!("{:<7}  {:<18} {}", text("level"), text("subject"), text("found"));
        assert!(said.iter().any(|said| said.starts_with(&line)), "no {line:?} in {said:#?}");
    }
    for probe in report["probes"].as_array().expect("probes") {
        let text = |key: &str| probe[key].as_str().expect("text");
        let is_it = |line: &&String| line.contains(text("name")) && line.contains(text("mechanism"));
        let line = said.iter().find(is_it).unwrap_or_else(|| panic!("no line of {probe}"));
        assert!(line.contains(text("target")) && line.contains(text("intent")), "{line}");
        assert!(probe["status"] == "attached" || line.contains(text("reason")), "{line}");
    }
    assert!(said.iter().all(|line| !line.contains('\x1b')), "no colours in a pipe");
}

#[test]
fn a_scope_that_run_would_refuse() {
    require!(kernel);
    let (ready, report) = json(command(&["--json", "--cgroups", "/no/such.slice"]));
    assert!(!ready && report["ready"] == false, "{report:#}");
    let (level, found, _) = finding(&report, "scope");
    assert!(level == "error" && found.contains("/no/such.slice"), "{found}");
}

#[test]
fn colours_at_a_terminal() {
    require!(kernel, script);
    let observer = require::observer();
    let line = format!("{} doctor --gpu off", observer.display());
    let mut command = Command::new(require::tool("script").expect("required"));
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_remove("NO_COLOR");
    let (status, said) = observer::run(command);
    assert!(status.success() && said.iter().any(|line| line.contains("\x1b[32mok")), "{said:#?}");
}

#[test]
fn without_privileges_it_says_what_to_do() {
    require!(kernel, setpriv);
    let scratch = Scratch::new();
    let mut command = observer::command_of_nobody(&scratch);
    command.args(["doctor", "--gpu", "off", "--json", "--for", "1s"]);
    let (ready, report) = json(command);
    assert!(!ready, "{report:#}");
    let (level, found, advice) = finding(&report, "privileges");
    assert_eq!(level, "error");
    assert!(found.contains("no capability") && found.contains("CAP_BPF (") && found.contains("CAP_SYS_PTRACE ("));
    assert!(advice.contains("run as root") && advice.contains("CAP_PERFMON"), "{advice}");
    let (level, found, _) = finding(&report, "traffic");
    assert!(level == "warning" && found.contains("not counted"), "{found}");
}

#[test]
fn in_a_pid_namespace_of_its_own() {
    require!(kernel, unshare);
    let mut command = Command::new(require::tool("unshare").expect("required"));
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(require::observer());
    command.args(["doctor", "--gpu", "off", "--json"]);
    let (ready, report) = json(command);
    let (level, found, advice) = finding(&report, "PID namespace");
    assert!(ready && level == "warning" && found.contains("--pids means nothing"), "{found}");
    assert!(advice.contains("hostPID") && advice.contains("--pid=host"), "{advice}");
}

/// Without cgroup v2, as the mounts of this process have it.
#[test]
fn without_cgroup_v2() {
    require!(kernel, unshare, cgroup);
    let hide = "umount -l \"$1\" && shift && exec \"$@\"";
    let root = observer_e2e::cgroup::root().expect("required");
    let mut command = Command::new(require::tool("unshare").expect("required"));
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(root).arg(require::observer());
    command.args(["doctor", "--gpu", "off", "--json"]);
    let (ready, report) = json(command);
    let (level, found, advice) = finding(&report, "cgroups");
    assert!(ready && level == "warning" && found.contains("--cgroups cannot be used"), "{found}");
    assert!(advice.contains("--ports"), "{advice}");
}

/// With a part of cgroup v2 in the place of all of it, as a container sees it.
#[test]
fn with_a_part_of_cgroup_v2() {
    require!(kernel, unshare, cgroup);
    let group = Cgroup::new("part");
    let bind = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
    let root = observer_e2e::cgroup::root().expect("required");
    let mut command = Command::new(require::tool("unshare").expect("required"));
    command.args(["--mount", "sh", "-c", bind, "sh"]).arg(group.path()).arg(root).arg(require::observer());
    command.args(["doctor", "--gpu", "off", "--json"]);
    let (ready, report) = json(command);
    let (_, found, advice) = finding(&report, "cgroups");
    assert!(ready && found.contains("only a part") && advice.contains("cgroupns"), "{found}: {advice}");
}

/// A limit of locked memory of nothing hinders nothing on kernels that count BPF's memory by cgroup.
#[test]
fn under_a_limit_of_locked_memory() {
    require!(kernel, prlimit);
    let mut command = Command::new(require::tool("prlimit").expect("required"));
    command.arg("--memlock=0:0").arg(require::observer()).args(["doctor", "--gpu", "off", "--json"]);
    let (ready, report) = json(command);
    let (level, found, _) = finding(&report, "locked memory");
    assert!(found.starts_with("at most 0 bytes"), "{found}");
    // Where it is held against the limit, nothing loads.
    assert_eq!(ready, level == "ok", "{report:#}");
    assert_eq!(ready, found.contains("does not matter"), "{found}");
}

/// A filter that lets everything pass but `bpf()`.
fn refuse_bpf() -> std::io::Result<()> {
    let (load, jump, leave) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        // `seccomp_data.nr` is its first member.
        step(load, 0, 0, 0),
        step(jump | libc::BPF_K, 0, 1, libc::SYS_bpf as u32),
        step(leave | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(leave | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: a valid program, which the kernel copies.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn under_a_filter_of_system_calls() {
    require!(kernel);
    let mut command = command(&["--json"]);
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(refuse_bpf) };
    let (ready, report) = json(command);
    let (level, found, advice) = finding(&report, "seccomp");
    assert!(!ready && level == "error", "{report:#}");
    assert!(found.starts_with("a filter is in force; bpf() is refused") && found.contains("by the filter"), "{found}");
    assert!(found.contains("perf_event_open() passes") && advice.contains("seccomp"), "{found}: {advice}");
}

fn ask(listener: &Listener, id: &str) {
    let link = listener.link();
    link.client.send(&traffic::chat(id));
    assert!(!link.server.take().bytes.is_empty());
    let answer = Answer::new(3, 10).bytes();
    link.server.send(&answer);
    link.client.drain(answer.len());
}

fn pids(report: &Value) -> Vec<u64> {
    let others = report["other_observers"].as_array().expect("a list");
    others.iter().filter_map(|other| other["pid"].as_u64()).collect()
}

/// One is noticed and asked; two are too many, and still both measure right.
#[test]
fn beside_other_observers() {
    require!(kernel);
    let listener = Listener::v4();
    let one = Observer::start(&[listener.port()]);
    ask(&listener, "first");
    one.line("first");
    let (_, report) = json(command(&["--json"]));
    assert!(pids(&report).contains(&one.pid().into()), "{report:#}");
    let (_, found, _) = finding(&report, "other observers");
    let named = format!("pid {} at {}", one.pid(), one.address());
    assert!(found.contains(&named), "{found}");
    // What it has counted, if no other was asked before it.
    let traffic = &report["traffic"];
    if traffic["source"].as_str().expect("somebody was asked").contains(&one.address().to_string()) {
        let asked = traffic::chat("first").len() as u64;
        assert_eq!(traffic["bytes"]["plain"]["received"].as_u64(), Some(asked), "{traffic:#}");
        assert_eq!(traffic["bytes"]["plain"]["sent"].as_u64(), Some(Answer::new(3, 10).bytes().len() as u64));
        assert_eq!(traffic["opaque_ratio"].as_f64(), Some(0.0));
    }

    let two = Observer::start(&[listener.port()]);
    ask(&listener, "second");
    for observer in [&one, &two] {
        let line = observer.line("second");
        assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(3)), "{line:#?}");
    }
    let (ready, report) = json(command(&["--json"]));
    assert!(ready && [&one, &two].iter().all(|observer| pids(&report).contains(&observer.pid().into())), "{report:#}");
    let (level, found, advice) = finding(&report, "other observers");
    assert!(level == "warning" && found.contains("pays for all of them") && !advice.is_empty(), "{found}");
}

#[test]
fn its_exit_codes_are_in_its_help() {
    require!(observer);
    let (status, said) = observer::run(command(&["--help"]));
    let help = said.join("\n");
    assert!(status.success() && help.contains("Exit codes: 0 `observer run` can observe"), "{help}");
    assert!(help.contains("--for <DURATION>"), "{help}");
    let (status, _) = observer::run(command(&["--for", "soon"]));
    assert_eq!(status.code(), Some(2));
}
