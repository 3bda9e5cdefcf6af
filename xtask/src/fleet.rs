//! `cargo xtask fleet`: many nodes in front of a real Prometheus.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{
    build, paths,
    process::{run as execute, step},
    setup, test,
};

/// What to measure.
#[derive(Args)]
pub(crate) struct FleetArgs {
    /// Only this: `scrape` (10 to 100 nodes, live) or `query` (an hour of 1,000); else both. Each needs the recording.
    what: Option<String>,
}

/// Name of the program in the package `observer-e2e`.
const PROGRAM: &str = "fleet";

pub(crate) fn run(args: &FleetArgs) -> Result<()> {
    setup::build_tools()?;
    setup::tests::prometheus()?;
    build::release(&["observer", "sample-llm", "observer-e2e"])?;
    step("a fleet in front of Prometheus");
    let mut command = Command::new(paths::release(PROGRAM));
    test::find_tools(&mut command);
    execute(command.current_dir(paths::root()).args(&args.what))
}
