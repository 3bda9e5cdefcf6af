//! Rules that every file of the repository keeps.

use std::{
    fs,
    path::{Component, Path},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// Files longer than this want to be two.
const LINES_MAX: usize = 500;

/// What was found, each ready to print.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Source files that are too long.
    pub(crate) long: Vec<String>,
    /// Lines that name a path of one machine.
    pub(crate) paths: Vec<String>,
}

/// Looks at every file that git tracks or would track.
pub(crate) fn check(root: &Path) -> Result<Findings> {
    // Root may look at a checkout that belongs to somebody else, as under sudo.
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("start git")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let forbidden = forbidden(root);
    let mut findings = Findings::default();
    for name in String::from_utf8_lossy(&output.stdout).split('\0').filter(|name| !name.is_empty()) {
        // Deleted files are still listed, and binary ones are not read.
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        let lines = text.lines().count();
        if is_source(name) && lines > LINES_MAX {
            findings.long.push(format!("{name} has {lines} lines, more than {LINES_MAX}"));
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(path) = forbidden.iter().find(|path| names(line, path)) {
                findings.paths.push(format!("{name}:{}: {path}", number + 1));
            }
        }
    }
    Ok(findings)
}

fn is_source(name: &str) -> bool {
    [".rs", ".py", ".sh", ".js", ".ts"].iter().any(|ending| name.ends_with(ending))
}

/// Paths that mean something on one machine only: homes, and where this checkout lies.
fn forbidden(root: &Path) -> Vec<String> {
    let mut paths: Vec<_> = ["home", "Users", "root"].iter().map(|name| format!("/{name}/")).collect();
    let common = ["tmp", "var", "usr", "opt", "srv", "mnt", "media", "run", "etc", "dev"];
    let top = root.components().find_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    match top {
        Some(top) if common.contains(&top.as_str()) => paths.push(root.display().to_string()),
        Some(top) => paths.push(format!("/{top}/")),
        None => {}
    }
    paths
}

/// Whether `line` has `path` as the beginning of an absolute path.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|character| !character.is_alphanumeric() && !"_-./}*".contains(character))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_told_from_others() {
        let home = format!("/{}/", "home");
        assert!(names(&format!("see {home}me/x"), &home));
        assert!(names(&format!("\"{home}me\""), &home));
        assert!(!names(&format!("target{home}x"), &home));
        assert!(!names(&format!("https://example.org{home}x"), &home));
    }

    #[test]
    fn the_place_of_the_checkout_is_forbidden() {
        assert!(forbidden(Path::new("/builds/me/observer")).contains(&"/builds/".to_owned()));
        let paths = forbidden(Path::new("/tmp/a/observer"));
        assert!(paths.contains(&"/tmp/a/observer".to_owned()) && !paths.contains(&"/tmp/".to_owned()));
    }

    #[test]
    fn this_repository_can_be_read() {
        check(&crate::paths::root()).unwrap();
    }
}
