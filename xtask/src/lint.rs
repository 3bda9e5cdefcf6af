//! `cargo xtask lint`: what a machine can judge.

use std::env::consts::ARCH;

use anyhow::{Context as _, Result, bail};

use crate::{
    build, build_ebpf, deny, paths,
    process::{cargo, note, run as execute, timed},
    repository, setup,
    toolchain::{self, Toolchain},
};

pub(crate) fn run() -> Result<()> {
    timed("rules of the repository", rules)?;
    timed("formatting", formatting)?;
    setup::build_tools()?;
    let kernel_side = paths::ebpf_crate().join("Cargo.toml").is_file();
    if kernel_side {
        // The observer does not compile without it.
        timed("kernel side", build_ebpf::run)?;
        timed("clippy, kernel side", ebpf)?;
        timed("kernel side for the other architecture", other_architecture)?;
    } else {
        note("observer-ebpf is not in this tree: not checked");
    }
    timed("clippy", || {
        let mut command = build::with_object(cargo());
        execute(command.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    })?;
    licences()
}

fn rules() -> Result<()> {
    let findings = repository::check(&paths::root())?;
    for long in &findings.long {
        note(&format!("warning: {long}"));
    }
    for path in &findings.paths {
        note(&format!("error: {path}"));
    }
    if !findings.paths.is_empty() {
        bail!("{} lines name a path of one machine", findings.paths.len());
    }
    Ok(())
}

fn formatting() -> Result<()> {
    execute(cargo().args(["fmt", "--all", "--check"]))?;
    // Workspaces of their own.
    for manifest in [paths::ebpf_crate().join("Cargo.toml"), paths::root().join("tests/fuzz/Cargo.toml")] {
        if manifest.is_file() {
            execute(cargo().args(["fmt", "--check", "--manifest-path"]).arg(manifest))?;
        }
    }
    Ok(())
}

/// Clippy where it can judge code for BPF, else the compiler alone.
fn ebpf() -> Result<()> {
    let toolchain = build_ebpf::choose()?;
    if toolchain == Toolchain::Distribution && !toolchain::has_clippy(&toolchain) {
        setup::ebpf::distribution_clippy();
    }
    let folder = paths::ebpf_crate();
    // Other flags than the build's: in a place of their own, so that neither makes the other start over.
    let target = paths::target().join("bpf-lint");
    if !toolchain::has_clippy(&toolchain) {
        note("no clippy for this compiler: its own warnings only");
        let mut command = build_ebpf::command(&toolchain, ARCH, &folder, &target, &["check"], &["-Dwarnings"]);
        return execute(&mut command).context("check the kernel side");
    }
    let mut command = match toolchain {
        Toolchain::Nightly => build_ebpf::command(&toolchain, ARCH, &folder, &target, &["clippy"], &["-Dwarnings"]),
        Toolchain::Distribution => {
            // What cargo-clippy does, with the clippy of this compiler rather than of the one that runs cargo.
            let mut command = build_ebpf::command(&toolchain, ARCH, &folder, &target, &["check"], &["-Dwarnings"]);
            command.env("RUSTC_WORKSPACE_WRAPPER", toolchain::SYSTEM_CLIPPY);
            command
        }
    };
    execute(&mut command).context("clippy on the kernel side")
}

/// That the kernel side compiles for processors that are not here: only registers and numbers of system calls differ.
fn other_architecture() -> Result<()> {
    let toolchain = build_ebpf::choose()?;
    let other = if ARCH == "aarch64" { "x86_64" } else { "aarch64" };
    let target = paths::target().join("bpf-lint").join(other);
    let mut command =
        build_ebpf::command(&toolchain, other, &paths::ebpf_crate(), &target, &["check"], &["-Dwarnings"]);
    execute(&mut command).with_context(|| format!("check the kernel side for {other}"))
}

/// Licences and sources of dependencies, where cargo-deny is installed: `cargo xtask deny` does that. Advisories need a
/// download: CI asks for them.
fn licences() -> Result<()> {
    if paths::find("cargo-deny").is_none() {
        note("cargo-deny is not installed: licences of dependencies are not checked; `cargo xtask deny` does both");
        return Ok(());
    }
    timed("licences and sources of dependencies", || deny::check(false))
}
