//! `cargo xtask pictures`: the dashboards as pictures for the documentation.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{
    build, paths,
    process::{run as execute, step},
    setup, test,
};

/// What to draw.
#[derive(Args)]
pub(crate) struct PicturesArgs {
    /// Draw again what the last run was answered, without a new load.
    #[arg(long)]
    redraw: bool,
}

/// Name of the program in the package `observer-e2e`.
const PROGRAM: &str = "pictures";

pub(crate) fn run(args: &PicturesArgs) -> Result<()> {
    setup::build_tools()?;
    if !args.redraw {
        setup::tests::prometheus()?;
        setup::tests::python()?;
    }
    build::release(&["observer", "sample-llm", "observer-e2e"])?;
    step("draw dashboards");
    let mut command = Command::new(paths::release(PROGRAM));
    test::find_tools(&mut command);
    command.current_dir(paths::root()).env("OBSERVER_VENV", paths::venv());
    if args.redraw {
        command.arg("--redraw");
    }
    execute(&mut command)
}
