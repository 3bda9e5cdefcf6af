//! `cargo xtask run -- ARGS`: `observer run ARGS` from a release build.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    build, paths,
    process::{is_root, note, shown},
};

/// What to run.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// For `observer run`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(args: &RunArgs) -> Result<()> {
    build::release(&["observer"])?;
    if !is_root() {
        note("not root: unless its capabilities were granted, the kernel will refuse; try sudo -E cargo xtask run");
    }
    let mut command = Command::new(paths::release("observer"));
    command.arg("run").args(&args.arguments);
    note(&shown(&command));
    // In the place of this process: signals and the exit status are the observer's own.
    Err(command.exec()).with_context(|| format!("start `{}`", shown(&command)))
}
