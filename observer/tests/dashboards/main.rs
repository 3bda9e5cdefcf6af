//! Dashboards, rules and alerts name what there is, and are made as Grafana's and Prometheus's own advice has it.
//! `cargo xtask dashboards` writes the dashboards.

mod absent;
mod alerts;
mod grafana;
mod known;
mod promql;
mod rules;

use std::path::{Path, PathBuf};

/// Root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files of a folder with this ending, sorted.
///
/// # Panics
/// If there are none.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    assert!(!files.is_empty(), "no *{ending} in {folder}");
    files
}

fn name(path: &Path) -> String {
    path.file_name().expect("files have names").to_string_lossy().into_owned()
}
