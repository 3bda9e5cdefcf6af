//! `cargo xtask fuzz`: looks for inputs that break what the fuzz targets check.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    build, build_ebpf, paths,
    process::{note, run as execute, shown, step, succeeds},
};

/// What to look at, and for how long.
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// Only this target; all, one after another, if none is named.
    target: Option<String>,
    /// CPU minutes for each target.
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// Show the targets and stop.
    #[arg(long)]
    list: bool,
}

/// A target that takes more memory has failed, in MiB.
const MEMORY_MIB: u32 = 1024;
/// An input that takes longer has failed, in seconds.
const TIMEOUT: u32 = 10;
/// Longest input.
const LENGTH: u32 = 8192;

/// What one target came to.
#[derive(Default)]
struct Outcome {
    cpu: Duration,
    inputs: u64,
    finding: Option<PathBuf>,
}

pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    let all = targets()?;
    if args.list {
        all.iter().for_each(|target| println!("{target}"));
        return Ok(());
    }
    let chosen = match &args.target {
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("no fuzz target is called {name}; there are: {}", all.join(", ")),
        None => all,
    };
    tools()?;
    if !paths::bpf_object().is_file() {
        build_ebpf::run()?;
    }
    for target in &chosen {
        step(&format!("build fuzz target {target}"));
        // The code has no `unsafe` to check for: without a sanitizer it runs twice as often.
        let mut command = build::with_object(cargo_fuzz());
        execute(command.args(["build", "--fuzz-dir", "tests/fuzz", "--sanitizer", "none", target]))?;
    }
    let mut findings = 0;
    for target in &chosen {
        step(&format!("fuzz {target} for {} CPU minutes", args.minutes));
        let result = fuzz(target, Duration::from_secs(60 * args.minutes))?;
        let minutes = result.cpu.as_secs_f64() / 60.0;
        note(&format!("{target}: {} inputs in {minutes:.1} CPU minutes", result.inputs));
        if let Some(input) = result.finding {
            findings += 1;
            note(&format!("error: {target} fails for {}", input.display()));
            note(&format!(
                "to see it fail: copy that file into tests/fuzz/corpus/{target}, then `cargo test -p observer --test \
                 corpus {target}`; what the fuzzer said is in {}",
                log(target).display()
            ));
        }
    }
    if findings > 0 {
        bail!("{findings} of {} fuzz targets failed", chosen.len());
    }
    Ok(())
}

fn fuzz_crate() -> PathBuf {
    paths::root().join("tests/fuzz")
}

/// What fuzzing writes.
fn work() -> PathBuf {
    paths::target().join("fuzz")
}

fn log(target: &str) -> PathBuf {
    work().join(format!("{target}.log"))
}

/// Names of the targets: each is one file.
fn targets() -> Result<Vec<String>> {
    let folder = fuzz_crate().join("src/bin");
    let entries = fs::read_dir(&folder).with_context(|| format!("list fuzz targets in {}", folder.display()))?;
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// A nightly compiler is asked for; cargo-fuzz is installed beside other tools of the tests.
fn tools() -> Result<()> {
    if !succeeds(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])) {
        bail!("fuzzing needs a nightly compiler: `rustup toolchain install nightly --profile minimal`");
    }
    if paths::find("cargo-fuzz").is_none() {
        step("install cargo-fuzz");
        execute(crate::process::cargo().args(["install", "cargo-fuzz", "--locked", "--root"]).arg(paths::tools()))?;
    }
    Ok(())
}

/// `cargo fuzz`, by the nightly compiler.
fn cargo_fuzz() -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(paths::root()).args(["run", "nightly", "cargo", "fuzz"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([paths::tools().join("bin")]);
    // A folder with a colon in its name cannot be listed: then the path stays as it is.
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    command
}

fn fuzz(target: &str, limit: Duration) -> Result<Outcome> {
    let (corpus, found) = (work().join("corpus").join(target), work().join("found").join(target));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let mut result = Outcome::default();
    // Other processes take their share of the CPU: again, until this target had its own.
    while result.cpu + Duration::from_secs(1) < limit {
        let before = children_cpu();
        let status = one_run(target, &corpus, &found, limit - result.cpu)?;
        result.cpu += children_cpu().saturating_sub(before);
        let said = fs::read_to_string(log(target)).unwrap_or_default();
        result.inputs += statistic(&said, "number_of_executed_units").unwrap_or(0);
        if !status.success() {
            let input = said.lines().find_map(|line| line.split("Test unit written to ").nth(1)).map(PathBuf::from);
            let Some(input) = input else {
                bail!("fuzz target {target} ended ({status}) without a finding; see {}", log(target).display())
            };
            result.finding = Some(input);
            break;
        }
    }
    Ok(result)
}

fn one_run(target: &str, corpus: &Path, found: &Path, limit: Duration) -> Result<ExitStatus> {
    let output = fs::File::create(log(target)).with_context(|| format!("create {}", log(target).display()))?;
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| fuzz_crate().join("target"), |_| paths::target());
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(built.join(host).join("release").join(target));
    command
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-max_len={LENGTH}"))
        .arg(format!("-max_total_time={}", limit.as_secs().max(1)))
        .args(["-use_value_profile=1", "-print_final_stats=1"]);
    let dictionary = fuzz_crate().join("dictionaries").join(target);
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.args([corpus, &fuzz_crate().join("corpus").join(target)]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    command.status().with_context(|| format!("start `{}`", shown(&command)))
}

/// A line of the statistics that libFuzzer prints in the end.
fn statistic(said: &str, name: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

/// CPU time of all children that have ended.
fn children_cpu() -> Duration {
    // SAFETY: all-zero bytes are a valid `rusage`: integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing; with these arguments the call cannot fail.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let time = |time: libc::timeval| {
        let (seconds, microseconds) = (time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs());
        Duration::from_secs(seconds) + Duration::from_micros(microseconds)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read() {
        let said = "Done 7 runs\nstat::number_of_executed_units: 961833\nstat::peak_rss_mb:              107\n";
        assert_eq!(statistic(said, "number_of_executed_units"), Some(961_833));
        assert_eq!(statistic(said, "peak_rss_mb"), Some(107));
        assert_eq!(statistic(said, "number"), None);
    }

    #[test]
    fn every_target_has_inputs() {
        let targets = targets().unwrap();
        assert!(targets.contains(&"tracker".to_owned()));
        for target in targets {
            let folder = fuzz_crate().join("corpus").join(&target);
            assert!(fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some()), "{}", folder.display());
        }
    }
}
