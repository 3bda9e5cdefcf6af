//! `cargo xtask build-ebpf`: the kernel side, for `bpfel-unknown-none`.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    paths,
    process::{cargo, note, run as execute, step},
    toolchain::{self, BPF_TARGET, SYSTEM_RUSTC, Toolchain},
};

/// Builds the object and returns its path.
pub(crate) fn run() -> Result<PathBuf> {
    let folder = paths::ebpf_crate();
    if !folder.join("Cargo.toml").is_file() {
        bail!("{} has no Cargo.toml: the kernel side is not in this tree", folder.display());
    }
    let toolchain = choose()?;
    step(&format!("build the kernel side with {}", toolchain.describe()));
    let target = paths::target().join("bpf-build");
    let mut command = command(&toolchain, ARCH, &folder, &target, &["build", "--release"], &[]);
    execute(&mut command).context("build the kernel side")?;
    let built = target.join(BPF_TARGET).join("release/observer-ebpf");
    install(&built, &paths::bpf_object())?;
    Ok(paths::bpf_object())
}

/// The first way that is there.
pub(crate) fn choose() -> Result<Toolchain> {
    let found = toolchain::find();
    found.toolchain.with_context(|| {
        format!(
            "nothing here can build the kernel side: {}; `cargo xtask setup` installs what is missing",
            found.missing.join("; ")
        )
    })
}

/// cargo for the kernel side of an observer for `architecture`: `arguments` are its command, `flags` more flags for the
/// compiler.
pub(crate) fn command(
    toolchain: &Toolchain,
    architecture: &str,
    folder: &Path,
    target: &Path,
    arguments: &[&str],
    flags: &[&str],
) -> Command {
    let mut command = match toolchain {
        Toolchain::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo"]);
            // Of the toolchain that runs this command.
            for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
                command.env_remove(name);
            }
            command
        }
        Toolchain::Distribution => {
            let mut command = cargo();
            // `core` comes compiled, but BPF is a target of nightly features all the same.
            command.env("RUSTC", SYSTEM_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            command
        }
    };
    command.current_dir(folder).args(arguments).args(["--target", BPF_TARGET]);
    if *toolchain == Toolchain::Nightly {
        command.args(["-Z", "build-std=core"]);
    }
    let linker = paths::find("bpf-linker").unwrap_or_else(|| "bpf-linker".into());
    let architecture = format!("--cfg=bpf_target_arch=\"{architecture}\"");
    let linker = format!("-Clinker={}", linker.display());
    let mut all = vec![linker.as_str(), "-Clink-arg=--btf", "-Cdebuginfo=2", &architecture];
    all.extend_from_slice(flags);
    command.env("CARGO_ENCODED_RUSTFLAGS", all.join("\x1f")).env_remove("RUSTFLAGS").env("CARGO_TARGET_DIR", target);
    command
}

/// Copies the object where the observer's build looks for it; untouched if it is the same, so that nothing is built
/// again for it.
fn install(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("read {}", built.display()))?;
    if bytes.get(..4) != Some(b"\x7fELF") {
        bail!("{} is not an ELF object", built.display());
    }
    let changed = fs::read(object).ok().as_ref() != Some(&bytes);
    if changed {
        if let Some(folder) = object.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        // Never half an object, even if two builds run at once.
        let partial = object.with_extension(format!("o.{}", std::process::id()));
        fs::write(&partial, &bytes).with_context(|| format!("write {}", partial.display()))?;
        fs::rename(&partial, object).with_context(|| format!("write {}", object.display()))?;
    }
    let state = if changed { "" } else { ", unchanged" };
    note(&format!("{} ({} KiB{state})", object.display(), bytes.len().div_ceil(1024)));
    Ok(())
}
