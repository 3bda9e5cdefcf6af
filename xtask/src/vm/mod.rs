//! `cargo xtask vm`: end-to-end tests on other kernels, in virtual machines.
//!
//! `checks` says what runs where, `initramfs` packs it, `machine` boots it and reads what it says. Kernels are Debian's
//! (`setup::vm`). The first program in a machine is `tests/e2e/src/bin/vm-init.rs`.

mod checks;
mod initramfs;
mod machine;
mod plan;

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::{
    checks::{CHECKS, Check},
    machine::Machine,
    plan::Plan,
};
use crate::{
    build,
    process::{cargo, note, shown, step, timed},
    setup::{self, vm::Kernel},
};

/// Which machines, and what they run.
#[derive(Args)]
pub(crate) struct VmArgs {
    /// Which kernel.
    #[arg(value_enum, default_value = "all")]
    kernel: Kernels,
    /// Only machines that are locked down so; default: both.
    #[arg(long, value_enum)]
    lockdown: Option<Lockdown>,
    /// Only this file of tests/e2e/tests, whatever the table says of it; may be repeated.
    #[arg(long = "test", value_name = "FILE")]
    tests: Vec<String>,
    /// Only tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Set this in the tests' environment; may be repeated.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    /// Show what tests print, also those that pass.
    #[arg(long)]
    show_output: bool,
    /// Run the observer with these arguments (after --) instead of tests.
    #[arg(last = true)]
    observer: Vec<String>,
}

impl VmArgs {
    /// Whether it is for looking at one thing, and not the table.
    fn is_by_hand(&self) -> bool {
        !self.tests.is_empty() || !self.observer.is_empty()
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Kernels {
    #[value(name = "6.1")]
    Six1,
    #[value(name = "6.12")]
    Six12,
    All,
}

impl Kernels {
    fn list(self) -> &'static [Kernel] {
        match self {
            Self::Six1 => &[Kernel::Six1],
            Self::Six12 => &[Kernel::Six12],
            Self::All => &[Kernel::Six1, Kernel::Six12],
        }
    }
}

/// What a kernel bars itself from, by its command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Lockdown {
    /// Nothing.
    None,
    /// Even root from reading the kernel's memory.
    Confidentiality,
}

impl VmArgs {
    /// The whole table.
    pub(crate) const ALL: Self = Self {
        kernel: Kernels::All,
        lockdown: None,
        tests: Vec::new(),
        filter: None,
        environment: Vec::new(),
        show_output: false,
        observer: Vec::new(),
    };

    /// One test of one file, in the plain machine with the newer kernel.
    pub(crate) fn one(file: &str, test: &str) -> Self {
        Self { kernel: Kernels::Six12, tests: vec![file.to_owned()], filter: Some(test.to_owned()), ..Self::ALL }
    }
}

pub(crate) fn run(args: &VmArgs) -> Result<()> {
    setup::build_tools()?;
    setup::vm::run(args.kernel.list())?;
    timed("build what the machines run", || build::release(&["observer", "sample-llm"]))?;
    let machines = machines(args);
    let mut files: Vec<_> = machines.iter().flat_map(|(_, checks)| checks).map(|check| check.file.to_owned()).collect();
    files.sort_unstable();
    files.dedup();
    let programs = test_programs(&files)?;
    let mut failures = Vec::new();
    for (machine, checks) in &machines {
        let plan = Plan::new(machine, checks, &programs, args)?;
        let outcome = timed(&format!("boot Linux {machine}"), || machine.run_emulated(&plan))?;
        outcome.tell(machine);
        if !outcome.passed(!args.observer.is_empty()) {
            failures.push(machine.to_string());
        }
    }
    if !failures.is_empty() {
        bail!("not all checks passed on Linux {}", failures.join(", "));
    }
    step("virtual machines: all checks passed");
    Ok(())
}

/// Every machine that has something to do.
fn machines(args: &VmArgs) -> Vec<(Machine, Vec<Check<'_>>)> {
    let lockdowns = [Lockdown::None, Lockdown::Confidentiality];
    let wanted = |lockdown: &Lockdown| match args.lockdown {
        Some(wanted) => wanted == *lockdown,
        // By hand, the plain one is meant.
        None => !args.is_by_hand() || *lockdown == Lockdown::None,
    };
    let machines =
        args.kernel.list().iter().flat_map(|kernel| {
            lockdowns.into_iter().filter(wanted).map(|lockdown| Machine { kernel: *kernel, lockdown })
        });
    let machines = machines.map(|machine| {
        let checks: Vec<_> = if !args.is_by_hand() {
            CHECKS.iter().filter(|check| check.on.contains(&machine)).cloned().collect()
        } else {
            args.tests.iter().map(|file| Check::whole(file)).collect()
        };
        (machine, checks)
    });
    machines.filter(|(_, checks)| !checks.is_empty() || args.is_by_hand()).collect()
}

/// Builds these files of `tests/e2e/tests`, and with them all programs of their package; the program of each.
fn test_programs(files: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let mut command = build::with_object(cargo());
    command.args(["test", "--release", "--package", "observer-e2e", "--no-run"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    for file in files {
        command.args(["--test", file]);
    }
    if files.is_empty() {
        command.arg("--bins");
    }
    note(&shown(&command));
    let output = command.stderr(Stdio::inherit()).output().context("start cargo")?;
    if !output.status.success() {
        bail!("the tests cannot be built ({})", output.status);
    }
    let program = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str().filter(|name| files.iter().any(|file| file == name))?;
        Some((name.to_owned(), PathBuf::from(message["executable"].as_str()?)))
    };
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(program).collect())
}
