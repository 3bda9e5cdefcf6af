//! Dashboards against the types that Grafana generates from its own schema: those of the releases that shall load them.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use observer_e2e::{require, scratch::Scratch};
use serde_json::Value;

use crate::dashboards;

/// Releases, with the folder of their types and what those files are called.
const RELEASES: [(&str, &str, &str); 3] = [
    ("grafana-schema-10", "dist/esm/raw", "_types.gen"),
    ("grafana-schema-11", "dist/esm/raw", "_types.gen"),
    ("grafana-schema-12", "dist/types/raw", "types.gen"),
];

/// Panels by their type, with the folder of their options, and whether their fields have some of their own.
const PANELS: [(&str, &str, bool); 6] = [
    ("heatmap", "heatmap", true),
    ("logs", "logs", false),
    ("stat", "stat", false),
    ("state-timeline", "statetimeline", true),
    ("table", "table", true),
    ("timeseries", "timeseries", true),
];

/// JSON has words where the types have constants; those are taken for their words.
const PLAIN: &str = "type Plain<T> = T extends string ? `${T}` : T extends Array<infer Item> ? Plain<Item>[]\n  \
    : T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;\n\
    type Part<T> = T extends Array<infer Item> ? Part<Item>[] : T extends object ? { [Key in keyof T]?: Part<T[Key]> } : T;\n";

/// The module of types in this folder, for an import.
fn module(folder: &Path, ending: &str) -> PathBuf {
    let ending = format!("{ending}.d.ts");
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names = entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
    let name = names.find(|name| name.ends_with(&ending)).unwrap_or_else(|| panic!("none in {}", folder.display()));
    folder.join(name.trim_end_matches(".d.ts"))
}

/// A program that assigns every dashboard, and every panel's options, to its type.
fn program(root: &Path, ending: &str) -> String {
    let mut text = PLAIN.to_owned();
    let import = |folder: &str| module(&root.join(folder), ending).display().to_string();
    let _ok = writeln!(text, "import type {{ Dashboard }} from {:?};", import("dashboard/x"));
    for (index, (_, folder, fields)) in PANELS.iter().enumerate() {
        let more = if *fields { format!(", FieldConfig as Field{index}") } else { String::new() };
        let from = import(&format!("composable/{folder}/panelcfg/x"));
        let _ok = writeln!(text, "import type {{ Options as Options{index}{more} }} from {from:?};");
    }
    for (number, (_, dashboard)) in dashboards().iter().enumerate() {
        let _ok = writeln!(text, "export const dashboard{number}: Plain<Dashboard> = {dashboard:#};");
        for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
            let kind = panel["type"].as_str().expect("a type");
            let index = PANELS.iter().position(|(name, ..)| *name == kind);
            let index = index.unwrap_or_else(|| panic!("no types of {kind} are looked at"));
            let id = &panel["id"];
            let _ok = writeln!(
                text,
                "export const options{number}_{id}: Part<Plain<Options{index}>> = {:#};",
                panel["options"]
            );
            let fields = &panel["fieldConfig"]["defaults"]["custom"];
            if PANELS[index].2 && *fields != Value::Null {
                let _ok = writeln!(text, "export const fields{number}_{id}: Part<Plain<Field{index}>> = {fields:#};");
            }
        }
    }
    // What is wrong is told: an error is demanded of each of these.
    text.push_str(
        "// @ts-expect-error\nexport const wrong1: Plain<Dashboard> = { schemaVersion: \"39\" };\n\
         // @ts-expect-error\nexport const wrong2: Plain<Dashboard> = { schemaVersion: 39, colour: 1 };\n\
         // @ts-expect-error\nexport const wrong3: Plain<Dashboard> = { schemaVersion: 39, graphTooltip: 7 };\n\
         // @ts-expect-error\nexport const wrong4: Part<Plain<Options0>> = { showValue: \"sometimes\" };\n",
    );
    text
}

#[test]
fn dashboards_are_of_grafanas_types() {
    require!(tsc);
    let scratch = Scratch::new();
    for (package, folder, ending) in RELEASES {
        let package = require::node_modules().join(package);
        let _program = scratch.write("check.ts", &program(&package.join(folder), ending));
        // Types of panels name the whole package: this release's, not another's.
        let settings = serde_json::json!({
            "compilerOptions": {
                "strict": true, "noEmit": true, "skipLibCheck": true, "module": "esnext", "target": "es2022",
                "moduleResolution": "bundler", "types": [], "paths": {"@grafana/schema": [package]},
            },
            "files": ["check.ts"],
        });
        let project = scratch.write("tsconfig.json", &settings.to_string());
        let mut command = Command::new(require::tool("node").expect("required"));
        let output = command.arg(require::tsc()).arg("-p").arg(project).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let first: Vec<_> = said.lines().take(20).collect();
        assert!(output.status.success(), "{}: {first:#?}", package.display());
    }
}
