//! Rules of Prometheus as they stand in `deploy/prometheus/rules`, in the form in which they are written there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A rule.
pub(crate) struct Rule {
    /// Of the alert, or of what is recorded.
    pub(crate) name: String,
    /// Whether it is an alert.
    pub(crate) alert: bool,
    pub(crate) expr: String,
    /// Labels and annotations.
    pub(crate) says: BTreeMap<String, String>,
}

/// The folder of this name beside the rules.
pub(crate) fn folder(name: &str) -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = ours.ancestors().find(|folder| folder.join("deploy/prometheus").is_dir());
    root.expect("within the repository").join("deploy/prometheus").join(name)
}

/// All rules of all files.
///
/// # Panics
/// If there are none, or they are not written as the others are.
pub(crate) fn all() -> Vec<Rule> {
    let entries = fs::read_dir(folder("rules")).expect("the rules");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let rules: Vec<_> = paths.iter().flat_map(|path| read(&fs::read_to_string(path).expect("readable"))).collect();
    assert!(rules.len() > 30, "only {} rules are found", rules.len());
    rules
}

/// A rule begins with its name; its keys follow with 8 spaces before them, what they hold with more.
fn read(text: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut key = String::new();
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let begun = [("- alert: ", true), ("- record: ", false)];
        if let Some((name, alert)) = begun.iter().find_map(|(start, alert)| Some((line.strip_prefix(start)?, *alert))) {
            rules.push(Rule { name: name.to_owned(), alert, expr: String::new(), says: BTreeMap::new() });
            key.clear();
            continue;
        }
        let Some(rule) = rules.last_mut() else { continue };
        if depth < 8 {
            key = "none".to_owned();
        } else if depth == 8 {
            let (name, value) = line.split_once(':').expect("a key");
            name.clone_into(&mut key);
            match (name, value.trim()) {
                ("expr", ">-" | "|") => {}
                ("expr", value) => value.clone_into(&mut rule.expr),
                ("for", value) => drop(rule.says.insert("for".to_owned(), value.to_owned())),
                ("labels" | "annotations", "") => {}
                other => panic!("{}: {other:?} is not written as elsewhere", rule.name),
            }
        } else if key == "expr" {
            rule.expr.push_str(line);
            rule.expr.push('\n');
        } else if key == "labels" || key == "annotations" {
            let (name, value) = line.split_once(": ").expect("a name and a value");
            rule.says.insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    rules
}
