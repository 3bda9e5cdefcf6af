//! `cargo xtask deny`: what dependencies may be (`deny.toml`), by cargo-deny.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    paths,
    process::{cargo, run as execute, step},
};

/// What to check.
#[derive(Args)]
pub(crate) struct DenyArgs {
    /// Also look up advisories on dependencies, in a database that is downloaded.
    #[arg(long)]
    advisories: bool,
}

/// What needs nothing but the registry.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

pub(crate) fn run(args: &DenyArgs) -> Result<()> {
    if paths::find("cargo-deny").is_none() {
        // Minutes of one core: for who asks for it, not part of every setup.
        step("install cargo-deny to target/tools");
        execute(cargo().args(["install", "--locked", "cargo-deny", "--root"]).arg(paths::tools()))?;
    }
    check(args.advisories)
}

/// The same, with cargo-deny installed.
pub(crate) fn check(advisories: bool) -> Result<()> {
    let program = paths::find("cargo-deny").context("find cargo-deny")?;
    // Workspaces of their own have a `Cargo.lock` of their own.
    for manifest in [paths::root().join("Cargo.toml"), paths::ebpf_crate().join("Cargo.toml")] {
        let mut command = Command::new(&program);
        command.current_dir(paths::root()).arg("--manifest-path").arg(manifest);
        command.arg("--config").arg(paths::root().join("deny.toml")).args(["--log-level", "error", "check"]);
        command.args(advisories.then_some("advisories")).args(CHECKS);
        execute(&mut command)?;
    }
    Ok(())
}
