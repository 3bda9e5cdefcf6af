//! `cargo xtask test`: everything that can be tested here.

use std::{env, process::Command};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    build, paths,
    process::{cargo, is_root, note, run as execute, shown, step, timed},
    setup,
    vm::{self, VmArgs},
};

/// What to test.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Leave out the end-to-end tests, which need root and the kernel.
    #[arg(long)]
    no_kernel: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// Says what a missing precondition of an end-to-end test means: skipped, or (for what it names) failed.
const REQUIRE: &str = "OBSERVER_REQUIRE";

pub(crate) fn run(args: &TestArgs) -> Result<()> {
    setup::build_tools()?;
    if !args.no_kernel {
        setup::tests::run()?;
    }
    let filter = args.filter.as_deref();
    if args.no_kernel {
        crate::build_ebpf::run()?;
    } else {
        timed("build what the end-to-end tests run", || build::release(&["observer", "sample-llm"]))?;
    }
    let mut stages = Stages::default();
    stages.run("unit and integration tests", || {
        let mut command = build::with_object(cargo());
        command.args(["test", "--no-fail-fast", "--workspace", "--exclude", "observer-e2e"]).args(filter);
        execute(&mut command)
    });
    if !args.no_kernel {
        stages.run("end-to-end tests", || {
            let mut command = build::with_object(cargo());
            command.args(["test", "--no-fail-fast", "--release", "--package", "observer-e2e", "--tests"]).args(filter);
            // They share the machine's kernel, ports and clocks: one at a time.
            command.args(["--", "--test-threads=1"]);
            environment(&mut command);
            execute(&mut command)
        });
        stages.run("pages in a browser", || pages(filter));
        // Chosen by name, it is `cargo xtask vm --test NAME`.
        if filter.is_none() {
            stages.run("other kernels", other_kernels);
        }
    }
    stages.end()
}

/// All that is tested, one after another: a stage that fails does not hide what the next ones would say.
#[derive(Default)]
struct Stages {
    failed: Vec<String>,
}

impl Stages {
    fn run(&mut self, name: &str, stage: impl FnOnce() -> Result<()>) {
        if let Err(error) = timed(name, stage) {
            note(&format!("{name}: {error:#}"));
            self.failed.push(format!("{name}: {error:#}"));
        }
    }

    fn end(self) -> Result<()> {
        if self.failed.is_empty() { Ok(()) } else { bail!("failed: {}", self.failed.join("; ")) }
    }
}

/// Other kernels, in virtual machines; where there can be none, it says why, as tests do.
fn other_kernels() -> Result<()> {
    if let Some(reason) = setup::vm::missing() {
        let demanded = env::var(REQUIRE).unwrap_or_default();
        if demanded.split(',').any(|name| matches!(name.trim(), "vm" | "all")) {
            bail!("{REQUIRE}={demanded}, but {reason}");
        }
        step(&format!("no virtual machines: {reason}"));
        return Ok(());
    }
    vm::run(&VmArgs::ALL)
}

/// pytest: no test has this name.
const NONE_CHOSEN: i32 = 5;

/// Pages in a real browser: `tests/e2e/pytest`.
fn pages(filter: Option<&str>) -> Result<()> {
    // Its filter is an expression: a path of Rust is none, and no name of its tests either.
    if filter.is_some_and(|filter| !filter.chars().all(|character| character.is_alphanumeric() || character == '_')) {
        return Ok(());
    }
    let mut command = Command::new(paths::venv().join("bin/python"));
    command.current_dir(paths::root()).env("PYTHONDONTWRITEBYTECODE", "1").args(["-m", "pytest", "tests/e2e/pytest"]);
    if let Some(filter) = filter {
        command.args(["-k", filter]);
    }
    environment(&mut command);
    note(&shown(&command));
    let status = command.status().context("start pytest")?;
    if !(status.success() || filter.is_some() && status.code() == Some(NONE_CHOSEN)) {
        bail!("pytest failed ({status})");
    }
    Ok(())
}

fn environment(command: &mut Command) {
    if env::var_os(REQUIRE).is_none() {
        if is_root() && env::var("CI").is_ok_and(|value| value == "true") {
            command.env(REQUIRE, "kernel");
        } else if !is_root() {
            step("not root: end-to-end tests that need the kernel are skipped");
        }
    } else if let Ok(value) = env::var(REQUIRE) {
        note(&format!("{REQUIRE}={value}"));
    }
    find_tools(command);
    command.env("OBSERVER_VENV", paths::venv());
}

/// Has a command find what `setup` unpacked.
pub(crate) fn find_tools(command: &mut Command) {
    let path = env::var_os("PATH").unwrap_or_default();
    // First: what was unpacked was, because nothing in the path would do.
    let folders = [paths::tools().join("bin")].into_iter().chain(env::split_paths(&path));
    // A folder with a colon in its name cannot be listed: then the path stays as it is.
    if let Ok(path) = env::join_paths(folders) {
        command.env("PATH", path);
    }
}
