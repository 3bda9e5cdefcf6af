//! `cargo xtask chaos`: faults on the real kernel, in their long form, and a soak.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    build, paths,
    process::{cargo, end_with_this, is_root, note, run as execute, step},
    setup, test,
    vm::{self, VmArgs},
};

/// Which faults, and how long.
#[derive(Args)]
pub(crate) struct ChaosArgs {
    /// Only faults whose name contains this, such as `life` or `ten_thousand`.
    name: Option<String>,
    /// Then a load of 10,000 token events a second for this many minutes: memory and descriptors must stay, and nothing
    /// be lost.
    #[arg(long, value_name = "MINUTES", num_args = 0..=1, default_missing_value = "30")]
    soak: Option<u32>,
    /// Only the soak.
    #[arg(long, requires = "soak", conflicts_with = "name")]
    no_faults: bool,
    /// Faults in the short form that CI has.
    #[arg(long)]
    short: bool,
}

/// The file of tests, and the program of the soak, in the package `observer-e2e`.
const TESTS: &str = "chaos";
const SOAK: &str = "soak";
/// What a test says last of itself begins with this (`tests/e2e/tests/chaos/scene.rs`).
const FACTS: &str = "chaos: ";
/// The wall clock is everybody's: these are for a virtual machine.
const CLOCK: &str = "clock::";
const SKIPPED: &str = "skipped: ";

/// How one of them ended.
struct Row {
    name: String,
    result: &'static str,
    time: Duration,
    facts: String,
}

pub(crate) fn run(args: &ChaosArgs) -> Result<()> {
    if !is_root() {
        bail!("the observer loads programs into the kernel, which takes root: sudo -E cargo xtask chaos");
    }
    setup::build_tools()?;
    build::release(&["observer", "sample-llm", "observer-e2e"])?;
    let mut rows = Vec::new();
    if !args.no_faults {
        let names = faults(args.name.as_deref())?;
        let count = names.len();
        for (number, name) in names.into_iter().enumerate() {
            step(&format!("fault {} of {count}: {name}", number + 1));
            rows.push(if name.starts_with(CLOCK) { in_machine(name) } else { fault(name, args.short)? });
        }
    }
    table(&rows);
    if let Some(minutes) = args.soak {
        step(&format!("soak of {minutes} minutes"));
        execute(Command::new(paths::release(SOAK)).current_dir(paths::root()).arg(minutes.to_string()))?;
    }
    let failed: Vec<_> = rows.iter().filter(|row| row.result == "FAILED").map(|row| row.name.as_str()).collect();
    if !failed.is_empty() {
        bail!("the observer did not stand {}", failed.join(", "));
    }
    Ok(())
}

fn command() -> Command {
    let mut command = build::with_object(cargo());
    command.args(["test", "--quiet", "--release", "--package", "observer-e2e", "--test", TESTS, "--"]);
    test::find_tools(&mut command);
    command
}

/// Names of all faults that contain this.
fn faults(filter: Option<&str>) -> Result<Vec<String>> {
    let output = command().args(["--list", "--format", "terse"]).args(filter).stderr(Stdio::inherit()).output();
    let output = output.context("start cargo")?;
    if !output.status.success() {
        bail!("the tests cannot be built ({})", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<_> = text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    if names.is_empty() {
        bail!("no fault has {:?} in its name", filter.unwrap_or_default());
    }
    Ok(names)
}

/// One fault, in a process of its own; what it says is passed on as it comes.
fn fault(name: String, short: bool) -> Result<Row> {
    let mut command = command();
    command.args(["--exact", &name, "--nocapture"]).stdout(Stdio::piped());
    if !short {
        command.env("OBSERVER_CHAOS", "long");
    }
    end_with_this(&mut command);
    let begun = Instant::now();
    let mut child = command.spawn().context("start cargo")?;
    let stdout = child.stdout.take().context("its output is piped")?;
    let (mut facts, mut skipped) = (String::new(), false);
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read what the test says")?;
        note(&line);
        if let Some(said) = line.strip_prefix(FACTS) {
            said.clone_into(&mut facts);
        } else if let Some((_, reason)) = line.split_once(SKIPPED) {
            (facts, skipped) = (reason.to_owned(), true);
        }
    }
    let status = child.wait().context("wait for cargo")?;
    let result = match (status.success(), skipped) {
        (false, _) => "FAILED",
        (true, true) => "skipped",
        (true, false) => "passed",
    };
    Ok(Row { name, result, time: begun.elapsed(), facts })
}

/// One fault in a virtual machine, if there can be one.
fn in_machine(name: String) -> Row {
    let begun = Instant::now();
    let (result, facts) = match setup::vm::missing() {
        Some(reason) => ("skipped", reason),
        None => match vm::run(&VmArgs::one(TESTS, &name)) {
            Ok(()) => ("passed", "in a virtual machine".to_owned()),
            Err(error) => ("FAILED", format!("{error:#}")),
        },
    };
    Row { name, result, time: begun.elapsed(), facts }
}

fn table(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    step("faults");
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for Row { name, result, time, facts } in rows {
        note(&format!("{name:width$}  {result:7}  {:4.0} s  {facts}", time.as_secs_f64()));
    }
}
