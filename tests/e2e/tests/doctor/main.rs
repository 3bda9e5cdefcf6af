//! `observer doctor` on this host: what it finds, under what, and what it says of bytes that cannot be read.

mod surroundings;
mod traffic;

use std::process::Command;

use observer_e2e::{observer, process::Process, wait};
use serde_json::Value;

/// The doctor with these arguments, and without GPUs.
fn command(arguments: &[&str]) -> Command {
    let mut command = observer::command();
    command.args(["doctor", "--gpu", "off"]).args(arguments);
    command
}

/// Whether it calls the host ready (its exit status says the same), and its JSON.
fn json(command: Command) -> (bool, Value) {
    report(Process::spawn("doctor", command))
}

/// The same of one that was started with `--json`.
fn report(mut process: Process) -> (bool, Value) {
    let status = process.wait(4 * wait::SOON);
    let text = process.settled_output().join("\n");
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let ready = report["ready"].as_bool().expect("a verdict");
    assert_eq!(status.code(), Some(if ready { 0 } else { 1 }), "{text}");
    (ready, report)
}

/// Level, what was found, and advice of the only finding on a subject.
fn finding<'a>(report: &'a Value, subject: &str) -> (&'a str, &'a str, &'a str) {
    let findings = report["findings"].as_array().expect("findings");
    let mut found = findings.iter().filter(|finding| finding["subject"] == subject);
    let (Some(one), None) = (found.next(), found.next()) else { panic!("one {subject:?} in {findings:#?}") };
    let text = |key: &str| one[key].as_str().expect("text");
    (text("level"), text("found"), text("advice"))
}
