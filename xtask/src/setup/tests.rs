//! What the tests run: packet capture, Prometheus, Python servers and clients.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::action::{Action, carry_out, has_apt, know};
use crate::{
    paths,
    process::{note, run as execute, step, succeeds},
};

/// Sees to it that all of it is there.
pub(crate) fn run() -> Result<()> {
    let missing: Vec<_> = ["tcpdump", "curl"].into_iter().filter(|program| paths::find(program).is_none()).collect();
    if !missing.is_empty() {
        carry_out("install programs that tests run", &[Action::apt(&missing)])?;
    }
    if paths::find("prometheus").is_none() || paths::find("promtool").is_none() {
        prometheus()?;
    }
    python()?;
    step("tests: tcpdump, curl, prometheus, promtool, Python packages");
    Ok(())
}

/// Unpacks the distribution's package below `target`. Installing it would start a service on this machine, and
/// stopping that again would not be ours to do if somebody wants it.
fn prometheus() -> Result<()> {
    if !has_apt() {
        bail!("tests need prometheus and promtool in PATH");
    }
    step("unpack Prometheus");
    know(&["prometheus"])?;
    let (packages, unpacked, programs) =
        (paths::tools().join("packages"), paths::tools().join("prometheus"), paths::tools().join("bin"));
    for folder in [&packages, &unpacked] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("empty {}", folder.display()))?;
        }
    }
    for folder in [&packages, &unpacked, &programs] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    execute(Command::new("apt-get").args(["--quiet=2", "download", "prometheus"]).current_dir(&packages))
        .context("fetch Prometheus; if apt's lists are old: sudo apt-get update")?;
    for package in fs::read_dir(&packages).context("list the packages")? {
        execute(Command::new("dpkg-deb").arg("--extract").arg(package?.path()).arg(&unpacked))?;
    }
    for name in ["prometheus", "promtool"] {
        let (program, link) = (unpacked.join("usr/bin").join(name), programs.join(name));
        if !succeeds(Command::new(&program).arg("--version")) {
            bail!("{} does not run", program.display());
        }
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
        }
        symlink(&program, &link).with_context(|| format!("link {}", link.display()))?;
    }
    Ok(())
}

/// A virtual environment with exactly the pinned packages. What it was made of is written into it last: half a one is
/// made anew.
fn python() -> Result<()> {
    let list = paths::root().join("tests/requirements.txt");
    let wanted = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
    let venv = paths::venv();
    let (stamp, interpreter) = (venv.join("requirements.txt"), venv.join("bin/python"));
    if interpreter.is_file() && fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == wanted) {
        return Ok(());
    }
    step("make the tests' Python environment");
    create(&venv)?;
    execute(Command::new(&interpreter).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&list))?;
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))
}

fn create(venv: &Path) -> Result<()> {
    let make = |python: &str| succeeds(Command::new(python).args(["-m", "venv", "--clear"]).arg(venv));
    if make("python3") {
        return Ok(());
    }
    // Debian's Python comes without the part of it that makes environments.
    carry_out("install Python's venv", &[Action::apt(&["python3", "python3-venv"])])?;
    if !make("/usr/bin/python3") {
        bail!("python3 -m venv {} fails", venv.display());
    }
    note("made with /usr/bin/python3");
    Ok(())
}
