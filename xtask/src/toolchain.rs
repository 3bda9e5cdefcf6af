//! Which compiler can build the kernel side.

use std::path::{Path, PathBuf};

use crate::{
    paths,
    process::{output, succeeds},
};

/// The target of the kernel side.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";
/// The distribution's compiler.
pub(crate) const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Toolchain {
    /// rustup's nightly, which builds `core` from source.
    Nightly,
    /// The distribution's compiler, which comes with `core` for BPF.
    Distribution,
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The way to build, if a compiler and the linker are there.
    pub(crate) toolchain: Option<Toolchain>,
    /// A compiler is there (the linker may be missing).
    pub(crate) compiler: Option<Toolchain>,
    /// The linker.
    pub(crate) linker: Option<PathBuf>,
    /// What is missing, for each way.
    pub(crate) missing: Vec<String>,
}

/// Looks; takes a fraction of a second and changes nothing.
pub(crate) fn find() -> Found {
    let mut missing = Vec::new();
    let linker = paths::find("bpf-linker");
    if linker.is_none() {
        missing.push("bpf-linker is not in PATH".to_owned());
    }
    let compiler = match nightly() {
        Ok(()) => Some(Toolchain::Nightly),
        Err(reason) => {
            missing.push(format!("rustup: {reason}"));
            match distribution() {
                Ok(()) => Some(Toolchain::Distribution),
                Err(reason) => {
                    missing.push(format!("distribution: {reason}"));
                    None
                }
            }
        }
    };
    let toolchain = compiler.clone().filter(|_| linker.is_some());
    Found { toolchain, compiler, linker, missing }
}

fn nightly() -> Result<(), String> {
    if paths::find("rustup").is_none() {
        return Err("not installed".to_owned());
    }
    let root = output("rustup", &["run", "nightly", "rustc", "--print", "sysroot"]).ok_or("no nightly toolchain")?;
    let source = Path::new(&root).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if source.is_file() { Ok(()) } else { Err("the nightly toolchain has no rust-src".to_owned()) }
}

fn distribution() -> Result<(), String> {
    if !Path::new(SYSTEM_RUSTC).is_file() {
        return Err(format!("{SYSTEM_RUSTC} is not there"));
    }
    let libraries = output(SYSTEM_RUSTC, &["--print", "target-libdir", "--target", BPF_TARGET])
        .ok_or_else(|| format!("{SYSTEM_RUSTC} does not know the target {BPF_TARGET}"))?;
    let has_core = std::fs::read_dir(&libraries)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore")));
    if has_core { Ok(()) } else { Err(format!("{SYSTEM_RUSTC} has no core library for {BPF_TARGET}")) }
}

/// Whether clippy can look at the kernel side with this compiler.
pub(crate) fn has_clippy(toolchain: &Toolchain) -> bool {
    match toolchain {
        Toolchain::Nightly => {
            succeeds(std::process::Command::new("rustup").args(["run", "nightly", "cargo-clippy", "--version"]))
        }
        // Clippy reads what its own compiler wrote, so it must be of the same release.
        Toolchain::Distribution => {
            let release = |text: String| text.split_whitespace().nth(1).map(str::to_owned);
            let compiler = output(SYSTEM_RUSTC, &["--version"]).and_then(release);
            let driver = output(SYSTEM_CLIPPY, &["--rustc", "--version"]).and_then(release);
            compiler.is_some() && compiler == driver
        }
    }
}

/// The distribution's clippy.
pub(crate) const SYSTEM_CLIPPY: &str = "/usr/bin/clippy-driver";

impl Toolchain {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        let version = match self {
            Self::Nightly => output("rustup", &["run", "nightly", "rustc", "--version"]),
            Self::Distribution => output(SYSTEM_RUSTC, &["--version"]),
        };
        let version = version.unwrap_or_else(|| "unknown version".to_owned());
        match self {
            Self::Nightly => format!("rustup nightly with rust-src ({version})"),
            Self::Distribution => format!("the distribution's compiler ({version})"),
        }
    }
}
