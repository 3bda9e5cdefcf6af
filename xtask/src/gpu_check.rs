//! `cargo xtask gpu-check`: the observer on a host with real GPUs, compared with NVML and `nvidia-smi`.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{build, paths, process::step, setup};

/// What to check.
#[derive(Args)]
pub(crate) struct GpuCheckArgs {
    /// For the program, see `-- --help`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Name of the program in the package `observer-e2e`.
const PROGRAM: &str = "gpu-check";

pub(crate) fn run(args: &GpuCheckArgs) -> Result<()> {
    setup::build_tools()?;
    build::release(&["observer", "observer-e2e"])?;
    step("check GPUs");
    let program = paths::release(PROGRAM);
    let status = Command::new(&program).current_dir(paths::root()).args(&args.arguments).status();
    if !status.with_context(|| format!("start {}", program.display()))?.success() {
        bail!("not all checks passed");
    }
    Ok(())
}
