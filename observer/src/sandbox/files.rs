//! Where a thread may write, by Landlock; it may read nothing that is not open already.

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

/// What is refused as far as the kernel knows it.
const NEWEST: ABI = ABI::V6;

/// Confines this thread: no file can be opened but `log`, for appending, and what replaces it; no TCP port be bound or
/// connected to; no process outside be sent a signal. The version of the kernel's interface; 0: it has none.
pub(super) fn restrict(log: Option<&Path>) -> Result<u32, String> {
    let failed = |error: landlock::RulesetError| error.to_string();
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    for (path, access) in log.map(places).unwrap_or_default() {
        // What is not there cannot be opened, and the log says so.
        let Ok(fd) = PathFd::new(&path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(fd, access)).map_err(failed)?;
    }
    let status = ruleset.no_new_privs(false).restrict_self().map_err(failed)?;
    Ok(if status.ruleset == RulesetStatus::NotEnforced { 0 } else { version() })
}

/// Whether this thread can write to the log, and make files in its folder if it is a file.
pub(super) fn can_append(log: &Path) -> bool {
    let folder = || can_access(&folder(log), libc::W_OK | libc::X_OK);
    can_access(log, libc::W_OK) && (!log.is_file() || folder())
}

/// By the privileges in effect, capabilities among them.
fn can_access(path: &Path, mode: i32) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: a string that ends with a zero byte, and lives until the call returns.
    let result = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) };
    result == 0
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The folder of the log, and of what it is a link to, where it may be made anew; a pipe or a device stays what it is.
fn places(log: &Path) -> Vec<(PathBuf, landlock::BitFlags<AccessFs>)> {
    let made_anew = AccessFs::WriteFile | AccessFs::MakeReg;
    match log.canonicalize() {
        Ok(real) if !real.is_file() => vec![(real, AccessFs::WriteFile.into())],
        Ok(real) => vec![(folder(log), made_anew), (folder(&real), made_anew)],
        Err(_) => vec![(folder(log), made_anew)],
    }
}

fn version() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: no structure is given, as this question wants it.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) };
    u32::try_from(version).unwrap_or(0)
}
