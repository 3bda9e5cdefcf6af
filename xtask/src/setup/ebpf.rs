//! A compiler and a linker for the kernel side.

use anyhow::{Result, bail};

use super::action::{Action, carry_out, has_apt, has_candidate, know};
use crate::{
    paths,
    process::{is_root, note, output, step},
    toolchain::{self, Found, SYSTEM_RUSTC, Toolchain},
};

/// The release of bpf-linker that the kernel side is tested with.
const LINKER_VERSION: &str = "0.13.0";
/// The distribution's compiler with `core` for BPF.
const COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Sees to it that the kernel side can be built; says how.
pub(crate) fn run() -> Result<()> {
    let mut found = toolchain::find();
    if found.toolchain.is_none() {
        if found.compiler.is_none() {
            know(&COMPILER)?;
            carry_out("install a compiler for the kernel side", &[compiler(&found)?])?;
            found = toolchain::find();
        }
        if let (Some(compiler), None) = (&found.compiler, &found.linker) {
            carry_out("install the linker for the kernel side", &linker(compiler)?)?;
            found = toolchain::find();
        }
    }
    match found.toolchain {
        Some(toolchain) => {
            step(&format!("kernel side: {}, bpf-linker", toolchain.describe()));
            Ok(())
        }
        None => bail!("the kernel side still cannot be built: {}", found.missing.join("; ")),
    }
}

/// Debian's compiler where there is one: it comes with `core` compiled, and changes only by security updates.
fn compiler(found: &Found) -> Result<Action> {
    if has_apt() && COMPILER.iter().all(|package| has_candidate(package)) {
        return Ok(Action::apt(&COMPILER));
    }
    if paths::find("rustup").is_some() {
        let command = ["rustup", "toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
        return Ok(Action::run(&[], &command));
    }
    bail!("neither apt's {} nor rustup can be had: {}", COMPILER[0], found.missing.join("; "))
}

/// The linker must speak the compiler's LLVM.
fn linker(compiler: &Toolchain) -> Result<Vec<Action>> {
    if *compiler == Toolchain::Nightly {
        let wanted = format!("bpf-linker@{LINKER_VERSION}");
        if paths::find("cargo-binstall").is_some() {
            return Ok(vec![Action::run(&[], &["cargo", "binstall", "--no-confirm", &wanted])]);
        }
        bail!(
            "bpf-linker {LINKER_VERSION} is missing. It carries LLVM, so its authors publish it compiled: run \
             `cargo install --locked cargo-binstall`, then this again; or put a release of it into PATH"
        );
    }
    let version = output(SYSTEM_RUSTC, &["--version", "--verbose"]).unwrap_or_default();
    let Some(llvm) = llvm_major(&version) else { bail!("{SYSTEM_RUSTC} does not say its LLVM version: {version}") };
    let libraries = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"), format!("clang-{llvm}")];
    let libraries: Vec<_> = libraries.iter().map(String::as_str).chain(["zlib1g-dev", "libzstd-dev"]).collect();
    let (prefix, feature) = (format!("/usr/lib/llvm-{llvm}"), format!("llvm-{llvm}"));
    let command = ["cargo", "install", "bpf-linker", "--locked", "--version", LINKER_VERSION];
    let command: Vec<_> = command.into_iter().chain(["--no-default-features", "--features", &feature]).collect();
    Ok(vec![Action::apt(&libraries), Action::run(&[("LLVM_PREFIX", prefix)], &command)])
}

/// From `rustc --version --verbose`.
fn llvm_major(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

/// Tries to get the clippy of the distribution's compiler; without it the kernel side is checked less, that is all.
pub(crate) fn distribution_clippy() {
    if !is_root() || !has_apt() {
        return;
    }
    if let Err(error) = carry_out("install clippy for the kernel side", &[Action::apt(&["rust-web-clippy"])]) {
        note(&format!("{error:#}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_compiler_is_read() {
        assert_eq!(llvm_major("rustc 1.96.0\nhost: x\nLLVM version: 22.1.8"), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0"), None);
    }
}
