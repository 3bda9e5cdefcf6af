//! Commands that change the machine: run by root, told to others.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    paths,
    process::{is_root, note, output, run, step},
};

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Install these packages.
    Apt(Vec<String>),
    /// Run this: environment, program with arguments. No need to be root.
    Run { environment: Vec<(&'static str, String)>, command: Vec<String> },
}

impl Action {
    pub(super) fn apt(packages: &[&str]) -> Self {
        Self::Apt(packages.iter().map(|name| (*name).to_owned()).collect())
    }

    pub(super) fn run(environment: &[(&'static str, String)], command: &[&str]) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self::Run { environment: environment.to_vec(), command }
    }

    /// As one would type it.
    fn shown(&self) -> String {
        match self {
            Self::Apt(packages) => format!("sudo apt-get install --no-install-recommends {}", packages.join(" ")),
            Self::Run { environment, command } => {
                let words = environment.iter().map(|(name, value)| format!("{name}={value}"));
                words.chain(command.iter().cloned()).collect::<Vec<_>>().join(" ")
            }
        }
    }

    fn carry_out(&self) -> Result<()> {
        match self {
            Self::Apt(packages) => install(packages),
            Self::Run { environment, command } => {
                let (program, arguments) = command.split_first().map_or(("true", &[][..]), |(p, a)| (p.as_str(), a));
                run(Command::new(program).args(arguments).envs(environment.iter().map(|(n, v)| (*n, v))))
            }
        }
    }
}

/// Whether dpkg has the package, configured.
fn installed(package: &str) -> bool {
    output("dpkg-query", &["--show", "--showformat=${db:Status-Status}", package]).as_deref() == Some("installed")
}

/// Carries all of them out; packages that are installed need nothing. If that takes root and this is not, only says what to do.
///
/// # Errors
/// One fails, or there is something to do for root.
pub(super) fn carry_out(why: &str, actions: &[Action]) -> Result<()> {
    let actions: Vec<_> = actions
        .iter()
        .map(|action| match action {
            Action::Apt(packages) => Action::Apt(packages.iter().filter(|name| !installed(name)).cloned().collect()),
            other => other.clone(),
        })
        .filter(|action| *action != Action::Apt(Vec::new()))
        .collect();
    if actions.is_empty() {
        return Ok(());
    }
    if !is_root() && actions.iter().any(|action| matches!(action, Action::Apt(_))) {
        note(&format!("{why}: please run"));
        for action in &actions {
            note(&format!("  {}", action.shown()));
        }
        bail!("{why} takes root: run the commands above, or this one as root");
    }
    step(why);
    actions.iter().try_for_each(Action::carry_out)
}

/// Whether this distribution installs with apt.
pub(super) fn has_apt() -> bool {
    paths::find("apt-get").is_some() && paths::find("apt-cache").is_some()
}

/// Whether apt knows an installable version of the package.
pub(super) fn has_candidate(package: &str) -> bool {
    output("apt-cache", &["policy", package])
        .is_some_and(|text| text.lines().any(|line| line.contains("Candidate:") && !line.contains("(none)")))
}

/// Names of packages that begin so, as far as apt knows any.
pub(super) fn names(prefix: &str) -> Vec<String> {
    let text = output("apt-cache", &["pkgnames", prefix]).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A package, and those it depends on that are not installed, or not in the version that it would come with.
pub(super) fn with_missing(package: &str) -> Result<Vec<String>> {
    let plan = output("apt-get", &["--simulate", "--no-install-recommends", "install", package])
        .with_context(|| format!("apt cannot install {package}"))?;
    Ok(to_install(&plan))
}

/// Names of the packages that a plan of apt-get's would install.
fn to_install(plan: &str) -> Vec<String> {
    plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next()).map(str::to_owned).collect()
}

/// Fetches packages of the distribution and unpacks them into a folder.
pub(super) fn fetch(names: &[&str], into: &Path) -> Result<()> {
    let packages = into.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("create {}", packages.display()))?;
    let mut command = Command::new("apt-get");
    run(command.args(["--quiet=2", "download"]).args(names).current_dir(&packages))
        .with_context(|| format!("fetch {}; if apt's lists are old: sudo apt-get update", names.join(" ")))?;
    for file in fs::read_dir(&packages).context("list the packages")? {
        run(Command::new("dpkg-deb").arg("--extract").arg(file?.path()).arg(into))?;
    }
    fs::remove_dir_all(&packages).with_context(|| format!("remove {}", packages.display()))
}

/// Refreshes apt's lists, if one of these packages is not in them.
pub(super) fn know(packages: &[&str]) -> Result<()> {
    if is_root() && has_apt() && !packages.iter().all(|package| has_candidate(package)) { update() } else { Ok(()) }
}

/// Refreshes apt's lists.
pub(super) fn update() -> Result<()> {
    run(apt().arg("update"))
}

fn install(packages: &[String]) -> Result<()> {
    if !has_apt() {
        bail!("this is neither Debian nor Ubuntu: please install {} by hand", packages.join(", "));
    }
    let all: Vec<_> = packages.iter().map(String::as_str).collect();
    know(&all)?;
    // Never at the price of something that is installed.
    let once = || run(apt().args(["install", "--no-install-recommends", "--no-remove"]).args(packages));
    once().or_else(|_| {
        note("apt-get failed, perhaps by old lists: once more with new ones");
        update()?;
        once()
    })
}

/// apt-get that asks nothing.
fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--yes", "--quiet=2"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_shown_as_typed() {
        assert_eq!(Action::apt(&["a", "b"]).shown(), "sudo apt-get install --no-install-recommends a b");
        let action = Action::run(&[("X", "/y".to_owned())], &["cargo", "install", "z"]);
        assert_eq!(action.shown(), "X=/y cargo install z");
    }

    #[test]
    fn a_plan_of_apts_tells_what_it_would_install() {
        let plan = "NOTE: This is only a simulation!\n\
                    Remv other [10.0]\n\
                    Inst libx [1.0] (1.1 Debian:12/stable [amd64])\n\
                    Inst machine (7.2 Debian:12/stable [amd64])\n\
                    Conf libx (1.1 Debian:12/stable [amd64])";
        assert_eq!(to_install(plan), ["libx", "machine"]);
    }
}
