use super::{text::text, *};
use crate::kernel::{HeldProgram, probes::PROBES};

fn holder(pid: Option<u32>, probes: &[(&str, bool)]) -> Holder {
    let held = |(id, (name, attached)): (usize, &(&str, bool))| HeldProgram {
        id: u32::try_from(id).unwrap(),
        probe: PROBES.iter().find(|probe| probe.name == *name).unwrap(),
        attached: *attached,
    };
    Holder {
        observer: OtherObserver { pid, listens: vec![([127, 0, 0, 1], 9478).into()] },
        programs: probes.iter().enumerate().map(held).collect(),
    }
}

fn cost(runs: u64, nanoseconds: u64) -> ProbeCost {
    ProbeCost { runs, nanoseconds, recursion_misses: 0 }
}

fn measured() -> Report {
    let holder = holder(Some(42), &[("socket_send", true), ("tcp_sockets", false), ("file_read", false)]);
    let costs = vec![cost(10_000, 9_000_000), cost(10, 1_000_000), cost(0, 0)];
    let ticks = procfs::ticks_per_second();
    let measured = Measured { elapsed: Duration::from_secs(2), costs, user: ticks / 10, system: ticks / 50 };
    let hook = HookReport {
        kind: HookKind::BtfTracepoint,
        nanoseconds: 100.0,
        measured: true,
        source: "measured here".to_owned(),
    };
    report(holder, &measured, false, vec![hook], Some(31.4))
}

fn near(left: f64, right: f64) {
    assert!((left - right).abs() < 1e-9, "{left} {right}");
}

#[test]
fn shares_are_of_programs_and_their_hooks_and_add_up() {
    let report = measured();
    // 900 ns and a hook of 100 ns, 5,000 times a second.
    near(report.programs[0].core_ratio, 0.005);
    // An iterator hooks nothing.
    near(report.programs[1].core_ratio, 0.0005);
    near(report.programs_core_ratio, 0.0055);
    near(report.process.core_ratio, 0.06);
    near(report.core_ratio, 0.0655);
    assert_eq!(report.programs[2].nanoseconds_per_run, None, "what did not run took no time that is known");
}

#[test]
fn the_table_shows_what_ran_and_says_where_numbers_are_from() {
    let text = text(&measured());
    assert!(text.starts_with("observer, pid 42 at 127.0.0.1:9478: 2.0 s with BPF run statistics; they are off again"));
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}"));
    let words: Vec<&str> = line("socket_send").split_whitespace().collect();
    let told = ["socket_send", "btf_tracepoint", "sock_send_length", "10000", "5000.0", "900", "100", "0.5000", "0"];
    assert_eq!(words, told);
    assert!(line("all programs").contains("10010") && line("all programs").contains("0.5500"));
    assert!(line("process:").contains("6.0000 % of a core (5.0000 % user, 1.0000 % system)"));
    assert!(text.contains("not hooked in now: file_read\n") && text.contains("100 ns, measured here"), "{text}");
    assert!(text.contains("31 ns for a program that does nothing"));
}

#[test]
fn one_is_found_and_of_several_one_must_be_named() {
    let one = |pid| holder(Some(pid), &[("socket_send", true)]);
    assert_eq!(choose(vec![one(7)], None).unwrap().1, 7);
    assert_eq!(choose(vec![one(7), one(8)], Some(8)).unwrap().1, 8);
    assert!(matches!(choose(Vec::new(), None), Err(OverheadError::NoneRuns)));
    assert!(matches!(choose(Vec::new(), Some(7)), Err(OverheadError::NoneRuns)));
    assert!(matches!(choose(vec![holder(None, &[])], None), Err(OverheadError::Hidden)));
    let several = choose(vec![one(7), one(8)], None).unwrap_err().to_string();
    assert!(several.contains("pid 7 at 127.0.0.1:9478, pid 8 at") && several.contains("--pid"), "{several}");
    let other = choose(vec![one(7)], Some(9)).unwrap_err().to_string();
    assert!(other.contains("process 9") && other.contains("pid 7"), "{other}");
}

#[test]
fn who_does_not_run_has_ended() {
    assert!(matches!(stat(u32::MAX), Err(OverheadError::Ended { pid: u32::MAX })));
    assert!(stat(std::process::id()).is_ok());
}
