//! `cargo xtask build`: the kernel side, then what embeds it.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{
    build_ebpf, paths,
    process::{cargo, run as execute, step},
};

/// How to build.
#[derive(Args)]
pub(crate) struct BuildArgs {
    /// Optimized.
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(args: &BuildArgs) -> Result<()> {
    build_ebpf::run()?;
    step("build the observer");
    let mut command = with_object(cargo());
    command.args(["build", "--package", "observer"]);
    if args.release {
        command.arg("--release");
    }
    execute(&mut command)
}

/// The kernel side, and release builds of these packages' binaries.
pub(crate) fn release(packages: &[&str]) -> Result<()> {
    build_ebpf::run()?;
    step(&format!("build {}", packages.join(" and ")));
    let mut command = with_object(cargo());
    command.args(["build", "--release"]);
    for package in packages {
        command.args(["--package", package]);
    }
    execute(&mut command)
}

/// Tells the observer's build script which object to embed. Every cargo command here says the same, so that none
/// makes the next one build again.
pub(crate) fn with_object(mut command: Command) -> Command {
    command.env("OBSERVER_BPF_OBJECT", paths::bpf_object());
    command
}
