//! `cargo xtask bench`: the benchmarks of the tracker and of the whole.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{
    build, paths,
    process::{cargo, run as execute, step},
    setup, test,
};

/// What to measure.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Only measurements with this in their names, such as `host` or `tracker`.
    what: Option<String>,
    /// For the benchmark program.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Name of the benchmark program in the package `observer-e2e`.
const PROGRAM: &str = "bench";

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    setup::build_tools()?;
    setup::tests::run()?;
    build::release(&["observer", "sample-llm", "observer-e2e"])?;
    if args.what.as_deref().is_none_or(|what| "tracker".contains(what)) {
        step("benchmark of the tracker");
        let mut command = build::with_object(cargo());
        execute(command.args(["bench", "--package", "observer", "--bench", "tracker"]))?;
    }
    step("benchmarks");
    let mut command = Command::new(paths::release(PROGRAM));
    test::find_tools(&mut command);
    command.env("OBSERVER_VENV", paths::venv());
    execute(command.current_dir(paths::root()).args(&args.what).args(&args.arguments))
}
