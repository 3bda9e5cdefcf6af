//! What virtual machines run on: qemu, and Debian's kernels, unpacked below `target/vm`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::action::{Action, carry_out, fetch, has_apt, has_candidate, names, update};
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

/// Programs and their packages: the machine, and what makes the list of its modules.
const PROGRAMS: [(&str, &str); 3] = [("qemu-system-x86_64", "qemu-system-x86"), ("depmod", "kmod"), ("xz", "xz-utils")];

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
    if let Some((program, package)) = PROGRAMS.iter().find(|(program, _)| paths::find(program).is_none())
        && !(is_root() && has_apt())
    {
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
    kernels.iter().try_for_each(|kernel| unpack(*kernel))
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
