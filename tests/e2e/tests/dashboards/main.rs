//! Dashboards, rules and alerts, as Grafana's types and a real Prometheus have it. What needs neither is tested in
//! `observer/tests/dashboards`.

#[path = "../../../../observer/tests/dashboards/absent.rs"]
mod absent;
mod live;
mod promtool;
#[path = "../../../../observer/tests/dashboards/rules.rs"]
mod rules;
mod schema;

use std::fs;

use observer_e2e::require;
use serde_json::Value;

/// Each file's name and what is in it.
///
/// # Panics
/// If there are not four.
fn dashboards() -> Vec<(String, Value)> {
    let folder = require::workspace().join("dashboards");
    let paths = fs::read_dir(folder).expect("dashboards").map(|entry| entry.expect("readable").path());
    let mut all: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, serde_json::from_str(&fs::read_to_string(&path).expect("readable")).expect("JSON"))
        })
        .collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(all.len(), 4);
    all
}
