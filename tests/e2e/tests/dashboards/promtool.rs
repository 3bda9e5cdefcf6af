//! promtool's word on rules, alerts, and their tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use observer_e2e::{require, scratch::Scratch};

use crate::rules;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

/// Whether promtool is content, and what it says.
fn promtool(arguments: &[&str], files: &[PathBuf]) -> (bool, String) {
    let mut command = Command::new(require::tool("promtool").expect("required"));
    let output = command.args(arguments).args(files).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn promtool_takes_rules_and_their_tests() {
    require!(promtool);
    let (good, said) = promtool(&["check", "rules"], &files(&rules::folder("rules")));
    assert!(good, "{said}");
    let tests = files(&rules::folder("tests"));
    assert!(tests.len() >= 5);
    let (good, said) = promtool(&["test", "rules"], &tests);
    assert!(good, "{said}");
}

/// The tests of alerts are no better than what they notice: each fails where its alert never fires, and where it always
/// does.
#[test]
fn promtool_notices_alerts_that_are_wrong() {
    require!(promtool);
    for wrong in ["vector(0) > 1", "vector(1)"] {
        let scratch = Scratch::new();
        for folder in ["rules", "tests"] {
            fs::create_dir(scratch.file(folder)).expect("a folder");
            for file in files(&rules::folder(folder)) {
                let name = file.file_name().expect("a name").to_string_lossy().into_owned();
                let text = fs::read_to_string(&file).expect("readable");
                let text = if name.ends_with(".alerts.yml") { with_expressions(&text, wrong) } else { text };
                let _written = scratch.write(&format!("{folder}/{name}"), &text);
            }
        }
        let (good, said) = promtool(&["check", "rules"], &files(&scratch.file("rules")));
        assert!(good, "{said}");
        let (good, said) = promtool(&["test", "rules"], &files(&scratch.file("tests")));
        assert!(!good);
        for alert in rules::all().iter().filter(|rule| rule.alert) {
            assert!(said.contains(&format!("alertname: {},", alert.name)), "{} = {wrong} goes unnoticed", alert.name);
        }
    }
}

/// The alerts with this in place of each expression.
fn with_expressions(text: &str, expression: &str) -> String {
    let mut within = false;
    let mut all = String::new();
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        within = within && depth > 8;
        if line.trim() == "expr: >-" {
            all.push_str(&format!("        expr: {expression}\n"));
            within = true;
        } else if !within {
            all.push_str(line);
            all.push('\n');
        }
    }
    all
}
