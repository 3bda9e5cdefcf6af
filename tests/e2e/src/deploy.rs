//! The files in `deploy/`, read by parsers that others wrote.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{podman::Podman, require, scratch::Scratch};

/// A path in `deploy/`.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    require::workspace().join("deploy").join(name)
}

/// The text of a file in `deploy/`.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn text(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

/// What a program of the tests' Python environment, or its interpreter, did with this input.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn python(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(require::python().with_file_name(program));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {program}: {error}"));
    let mut pipe = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // Who ends without reading it all says so by its status.
    let writer = std::thread::spawn(move || drop(pipe.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic");
    output
}

/// Demands success, and gives what was printed.
///
/// # Panics
/// If it failed.
#[must_use]
pub fn success(what: &str, output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    out
}

/// The documents of a YAML text.
///
/// # Panics
/// If it is no YAML.
#[must_use]
pub fn yaml(text: &str) -> Vec<Value> {
    // Dates stay text: JSON has none.
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin)), default=str))";
    let documents = success("reading YAML", &python("python", &["-c", script], text));
    let documents: Vec<Value> = serde_json::from_str(&documents).expect("what Python printed");
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The one document of a YAML file in `deploy/`.
///
/// # Panics
/// If it has another number of them.
#[must_use]
pub fn document(name: &str) -> Value {
    let mut documents = yaml(&text(name));
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// The texts of a list.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|text| text.as_str().unwrap_or_else(|| panic!("no text: {text}")).to_owned()).collect()
}

/// Builds the image of the observer from the binary under test, on the stand-in for its base.
///
/// # Panics
/// If that fails.
pub fn build_image(podman: &Podman, name: &str) {
    let base = require::base_image();
    podman.command(&["import", "--quiet", plain(&base), "docker.io/library/debian:bookworm-slim"]);
    let context = Scratch::new();
    // Its tables of lines are three quarters of it.
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(context.file("observer")).arg(require::observer());
    assert!(strip.status().expect("strip runs").success(), "stripping the observer");
    let file = path("docker/Dockerfile");
    let options = ["build", "--quiet", "--format", "docker", "--pull=never", "--network=host"];
    let arguments = ["--build-arg=BINARY=prebuilt", "--build-arg=VERSION=1.2.3", "--tag", name, "--file"];
    podman.command(&[&options[..], &arguments, &[plain(&file), plain(context.path())]].concat());
}

/// A path as text.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
