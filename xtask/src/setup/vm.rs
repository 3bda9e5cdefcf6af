//! What virtual machines run on: qemu, and Debian's kernels, unpacked below `target/vm`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::action::{Action, carry_out, fetch, has_apt, has_candidate, names, update, with_missing};
use crate::{
    paths,
    process::{is_root, step},
};

/// A line of kernels that Debian keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kernel {
    /// Debian 12's own.
    Six1,
    /// Debian 13's, which Debian 12 offers besides.
    Six12,
}

/// The machine, and its package.
const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");
/// Programs and their packages: what makes the list of a machine's modules.
const PROGRAMS: [(&str, &str); 2] = [("depmod", "kmod"), ("xz", "xz-utils")];

impl Kernel {
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Six1 => "6.1",
            Self::Six12 => "6.12",
        }
    }

    /// What the names of its packages begin with; they end with [`FLAVOUR`].
    fn packages(self) -> &'static str {
        match self {
            Self::Six1 => "linux-image-6.1.0-",
            Self::Six12 => "linux-image-6.12.",
        }
    }

    /// Where it is unpacked, as in `/`.
    pub(crate) fn folder(self) -> PathBuf {
        paths::target().join("vm/kernels").join(self.version())
    }

    /// Its image.
    pub(crate) fn image(self) -> Result<PathBuf> {
        only(&self.folder().join("boot"), "vmlinuz-")
    }

    /// Its modules, by the name of its release.
    pub(crate) fn modules(self) -> Result<PathBuf> {
        only(&self.folder().join("lib/modules"), "")
    }
}

/// Small, and without drivers for hardware that no machine here has.
const FLAVOUR: &str = "-cloud-amd64";

/// The one file in a folder whose name begins so.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let found = files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.with_context(|| format!("{} has no {prefix}*", folder.display()))
}

/// Why no machine can run here, if that is so; nothing is installed to find out.
pub(crate) fn missing() -> Option<String> {
    let here = |kernel: Kernel| kernel.image().is_ok() || known(kernel).is_ok_and(|package| package.is_some());
    let not_there = |(program, _): &&(&str, &str)| paths::find(program).is_none();
    if let Some((program, package)) = PROGRAMS.iter().find(not_there)
        && !(is_root() && has_apt())
    {
        return Some(format!("{program} is not installed (package {package})"));
    }
    let (program, package) = QEMU;
    if qemu().is_none() && !has_candidate(package) && !(is_root() && has_apt()) {
        return Some(format!("{program} is not installed (package {package})"));
    }
    let kernel = [Kernel::Six1, Kernel::Six12].into_iter().find(|kernel| !here(*kernel))?;
    Some(format!("neither target/vm nor apt has a kernel {}*{FLAVOUR}", kernel.packages()))
}

/// Sees to it that qemu and these kernels are there.
pub(crate) fn run(kernels: &[Kernel]) -> Result<()> {
    let missing: Vec<_> =
        PROGRAMS.iter().filter(|(program, _)| paths::find(program).is_none()).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        carry_out("install what virtual machines run on", &[Action::apt(&missing)])?;
    }
    if qemu().is_none() {
        unpack_qemu()?;
    }
    kernels.iter().try_for_each(|kernel| unpack(*kernel))
}

/// Where qemu is unpacked, as in `/`.
fn qemu_folder() -> PathBuf {
    paths::target().join("vm/qemu")
}

/// qemu: this host's, else the one that was unpacked.
pub(crate) fn qemu() -> Option<Command> {
    let (program, _) = QEMU;
    if let Some(program) = paths::find(program) {
        return Some(Command::new(program));
    }
    let folder = qemu_folder();
    let program = folder.join("usr/bin").join(program);
    if !program.is_file() {
        return None;
    }
    let libraries = folder.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", &libraries).env("QEMU_MODULE_DIR", libraries.join("qemu"));
    for firmware in ["qemu", "seabios"] {
        command.arg("-L").arg(folder.join("usr/share").join(firmware));
    }
    Some(command)
}

/// Not installed: on a host with other parts of qemu, of another version, these would have to go.
fn unpack_qemu() -> Result<()> {
    let (program, package) = QEMU;
    if is_root() && has_apt() && !has_candidate(package) {
        update()?;
    }
    step(&format!("unpack {package}"));
    let folder = qemu_folder();
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    let packages = with_missing(package)?;
    fetch(&packages.iter().map(String::as_str).collect::<Vec<_>>(), &folder)?;
    let command = qemu().with_context(|| format!("{package} has no usr/bin/{program}"))?;
    run_quietly(command).with_context(|| format!("{program} below {}: install {package} by hand", folder.display()))
}

/// Whether a program can say its version.
fn run_quietly(mut command: Command) -> Result<()> {
    let output = command.arg("--version").output().context("start it")?;
    if output.status.success() { Ok(()) } else { bail!("{}", String::from_utf8_lossy(&output.stderr).trim()) }
}

/// The newest package of it that apt can install, with new lists if these have none.
fn known(kernel: Kernel) -> Result<Option<String>> {
    if newest(kernel).is_none() && is_root() && has_apt() {
        update()?;
    }
    Ok(newest(kernel))
}

/// The newest package of it in apt's lists.
fn newest(kernel: Kernel) -> Option<String> {
    let mut packages: Vec<_> =
        names(kernel.packages()).into_iter().filter(|name| name.ends_with(FLAVOUR) && has_candidate(name)).collect();
    packages.sort_by_key(|name| numbers(name));
    packages.pop()
}

/// The numbers in a name, in order.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit()).filter_map(|text| text.parse().ok()).collect()
}

fn unpack(kernel: Kernel) -> Result<()> {
    if kernel.image().is_ok() {
        return Ok(());
    }
    let version = kernel.version();
    let Some(package) = known(kernel)? else {
        bail!("apt knows no {}*{FLAVOUR}: virtual machines need Debian 12's package sources", kernel.packages());
    };
    step(&format!("unpack {package}"));
    // Half a one must not be taken for a whole one.
    let unfinished = paths::target().join("vm/kernels/unfinished");
    for folder in [&unfinished, &kernel.folder()] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("empty {}", folder.display()))?;
        }
    }
    fetch(&[&package], &unfinished)?;
    fs::rename(&unfinished, kernel.folder()).with_context(|| format!("name the kernel {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        assert!(numbers("linux-image-6.1.0-56-cloud-amd64") > numbers("linux-image-6.1.0-9-cloud-amd64"));
        assert!(numbers("linux-image-6.12.101+deb12-cloud-amd64") > numbers("linux-image-6.12.48+deb12-cloud-amd64"));
    }
}
