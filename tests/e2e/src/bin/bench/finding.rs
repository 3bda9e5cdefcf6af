//! What was measured, and how it is told.

use std::{fs, path::PathBuf, thread};

use observer_e2e::require;
use serde_json::{Value, json};

/// One target and what was measured.
pub(crate) struct Finding {
    pub(crate) name: &'static str,
    /// Infinite: none is set.
    pub(crate) target: f64,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) note: String,
}

impl Finding {
    pub(crate) fn met(&self) -> bool {
        self.value <= self.target
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "target": self.target, "value": self.value, "unit": self.unit,
            "met": self.met(), "note": self.note,
        })
    }
}

/// A table of `docs/overhead.md`.
pub(crate) struct Table {
    /// Which: `<!-- bench: ID -->` stands before it, `<!-- end -->` behind.
    pub(crate) id: &'static str,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(id: &'static str, head: &[&str]) -> Self {
        Self { id, head: head.iter().map(|cell| (*cell).to_owned()).collect(), rows: Vec::new() }
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{rule}{rows}", line(&self.head))
    }
}

/// Everything that one run of the benchmarks found.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) findings: Vec<Finding>,
    pub(crate) tables: Vec<Table>,
}

impl Results {
    pub(crate) fn met(&self) -> bool {
        self.findings.iter().all(Finding::met)
    }

    /// Prints all of it, and writes `target/bench/results.json`.
    pub(crate) fn report(&self) {
        println!("{:38} {:>10} {:>10} {:9} {:7} ", "", "target", "measured", "", "");
        for finding in &self.findings {
            let Finding { name, target, value, unit, note } = finding;
            let verdict = if finding.met() { "met" } else { "MISSED" };
            println!("{name:38} {target:>10.3} {value:>10.3} {unit:9} {verdict:7} {note}");
        }
        for table in &self.tables {
            println!("\n{}:\n{}", table.id, table.markdown());
        }
        let folder = target_folder().join("bench");
        let file = folder.join("results.json");
        fs::create_dir_all(&folder).expect("the target directory is ours");
        let results = Value::from_iter(self.findings.iter().map(Finding::json));
        let tables: Value = self
            .tables
            .iter()
            .map(|table| (table.id.to_owned(), json!({ "head": table.head, "rows": table.rows })))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let (kernel, cores) = machine();
        let whole = json!({"kernel": kernel, "cores": cores, "results": results, "tables": tables});
        fs::write(&file, format!("{whole:#}\n")).expect("the target directory is ours");
        println!("written to {}", file.display());
    }

    /// Puts the tables into `docs/overhead.md`.
    ///
    /// # Panics
    /// If a table has no place there.
    pub(crate) fn document(&self) {
        let file = require::workspace().join("docs/overhead.md");
        let mut text = fs::read_to_string(&file).expect("docs/overhead.md is there");
        let (kernel, cores) = machine();
        for table in &self.tables {
            let begin = format!("<!-- bench: {} -->\n", table.id);
            let start = text.find(&begin).unwrap_or_else(|| panic!("docs/overhead.md has no {begin}")) + begin.len();
            let end = start + text[start..].find("<!-- end -->").expect("an end behind each beginning");
            let table = format!("{}\nLinux {kernel}, {cores} cores.\n", table.markdown());
            text.replace_range(start..end, &table);
        }
        fs::write(&file, text).expect("docs/overhead.md is ours");
        println!("written to {}", file.display());
    }
}

/// Kernel release, without what a builder added, and number of cores.
fn machine() -> (String, usize) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    (version, thread::available_parallelism().map_or(0, usize::from))
}

pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| require::workspace().join("target"), PathBuf::from)
}
