//! Data flows one way: a module imports only from modules above it. The order is that of the table in `lib.rs`.

use std::{fs, path::Path};

/// From the first to the last; modules of one row may use each other.
const ROWS: &[&[&str]] = &[
    &["docs"], // a helper of tests
    &["time"],
    &["event"],
    &["config", "cli"],
    &["sandbox"],
    &["kernel"],
    &["governor"],
    &["workload"],
    &["host"],
    &["connection"],
    &["protocol"],
    &["llm"],
    &["request"],
    &["recording"],
    &["gpu"],
    &["correlate"],
    &["metrics"],
    &["export"],
    &["top"],
    &["doctor"],
    &["overhead"],
    &["control"],
    &["pipeline"],
];

fn row(module: &str) -> usize {
    ROWS.iter()
        .position(|row| row.contains(&module))
        .unwrap_or_else(|| panic!("module {module} has no row: give it one here, in lib.rs and in ARCHITECTURE.md"))
}

/// Modules named by `crate::name` in a source text, comments left out.
fn imports(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for part in code.split("crate::").skip(1) {
        let Some(group) = part.strip_prefix('{') else {
            found.push(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        // The first name of each item at the first level of a group: `crate::{a::B, c::{D, E}, f}`.
        let (mut depth, mut item) = (0, String::new());
        let mut items = Vec::new();
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => items.push(std::mem::take(&mut item)),
                c if depth == 0 => item.push(c),
                _ => {}
            }
        }
        items.push(item);
        let names = items.iter().map(|item| item.trim().split("::").next().unwrap_or_default().to_owned());
        found.extend(names.filter(|name| !name.is_empty()));
    }
    found
}

fn visit(path: &Path, module: &str, errors: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder of sources") {
            visit(&entry.expect("readable").path(), module, errors);
        }
        return;
    }
    // Tests of a module may look at what others make of it.
    if path.file_name().is_some_and(|name| name == "tests.rs") {
        return;
    }
    for import in imports(&fs::read_to_string(path).expect("readable")) {
        if row(&import) > row(module) {
            errors.push(format!("{}: {module} imports {import}, which comes after it", path.display()));
        }
    }
}

#[test]
fn modules_import_only_from_above() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut errors = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(&source).expect("sources").map(|entry| entry.expect("readable").path()) {
        let name = entry.file_stem().expect("named").to_string_lossy().into_owned();
        if name != "lib" && name != "main" {
            seen += 1;
            visit(&entry, &name, &mut errors);
        }
    }
    assert!(seen >= 10, "only {seen} modules found in {}", source.display());
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::time::KernelTime;\nuse crate::{\n    event::{Event, Open},\n    config, llm::json::Scanner,\n};\n\
                // crate::top is only a comment\nfn f() -> crate::export::X {}";
    let mut found = imports(text);
    found.sort();
    assert_eq!(found, ["config", "event", "export", "llm", "time"]);
}
