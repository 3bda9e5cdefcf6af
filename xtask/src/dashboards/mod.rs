//! `cargo xtask dashboards`: writes `dashboards/*.json`, Grafana's dashboards, from one typed source.
//!
//! `model` has what a dashboard is made of, `json` how Grafana writes it, and each dashboard a file of its own.

mod gpu;
mod health;
mod host;
mod json;
mod latency;
mod model;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{paths, process::note};

fn folder() -> PathBuf {
    paths::root().join("dashboards")
}

/// Each file with what belongs into it.
fn files() -> Vec<(PathBuf, String)> {
    [latency::dashboard(), gpu::dashboard(), host::dashboard(), health::dashboard()]
        .iter()
        .map(|dashboard| {
            (folder().join(format!("{}.json", dashboard.uid)), format!("{:#}\n", json::dashboard(dashboard)))
        })
        .collect()
}

pub(crate) fn run() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for (path, text) in files() {
        if fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        note(&format!("wrote {}", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_current() {
        let wanted = files();
        for (path, text) in &wanted {
            let found = fs::read_to_string(path).unwrap_or_default();
            assert!(found == *text, "{} is out of date: run `cargo xtask dashboards`", path.display());
        }
        let found = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
        for path in found.filter(|path| path.extension().is_some_and(|ending| ending == "json")) {
            assert!(wanted.iter().any(|(known, _)| *known == path), "{} has no source", path.display());
        }
    }
}
