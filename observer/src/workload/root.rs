//! Files below a root directory that may be another file system's: symbolic links are followed inside it, and never
//! lead out of it.

use std::{
    ffi::{CString, OsString},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Most entries of a directory looked at.
const MOST_ENTRIES: usize = 4096;
/// Whoever made the file must not be able to stop us: a pipe is no reason to wait.
const FLAGS: i32 = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;

/// A root directory.
#[derive(Clone, Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// `path` as seen from this root.
    fn open(&self, path: &Path) -> io::Result<File> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let root = File::open(&self.0)?;
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: all zeros is a valid value of this structure of integers.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = u64::from(FLAGS.unsigned_abs());
        how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
        // SAFETY: the descriptor, the string and the structure, whose size is told, live until the call returns.
        let fd = unsafe {
            libc::syscall(libc::SYS_openat2, root.as_raw_fd(), name.as_ptr(), &raw const how, size_of_val(&how))
        };
        if let Ok(fd @ 0..) = i32::try_from(fd) {
            // SAFETY: just opened, and ours alone.
            return Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // A sandbox that does not know the call: absolute links lead to the wrong place then, to nothing mostly.
            Some(libc::ENOSYS | libc::EPERM) => File::open(self.0.join(path)),
            _ => Err(error),
        }
    }

    /// Text of a regular file, if it has at most `most` bytes; what is no UTF-8 is replaced.
    pub(super) fn text(&self, path: impl AsRef<Path>, most: u64) -> Option<String> {
        let file = self.open(path.as_ref()).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= most).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Names in a directory; of a missing one none.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Vec<OsString> {
        let Ok(folder) = self.open(path.as_ref()) else { return Vec::new() };
        let entries = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())).into_iter().flatten().flatten();
        entries.take(MOST_ENTRIES).map(|entry| entry.file_name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::workload::fixture::Scratch;

    #[test]
    fn links_are_followed_inside_and_never_lead_out() {
        let scratch = Scratch::new();
        scratch.write("data/docker/name", "inside");
        scratch.write("secret", "outside");
        fs::create_dir(scratch.path().join("data/var")).expect("writable");
        let link = |target: &str, at: &str| symlink(target, scratch.path().join(at)).expect("writable");
        link("/docker", "data/var/docker");
        link("../../secret", "data/var/secret");
        link(&scratch.path().join("secret").display().to_string(), "data/var/absolute");
        let root = Root::new(scratch.path().join("data"));
        assert_eq!(root.text("/var/docker/name", 100).as_deref(), Some("inside"));
        assert_eq!(root.names("var/docker"), ["name"]);
        for path in ["var/secret", "var/absolute", "../secret", "nothing", "var"] {
            assert_eq!(root.text(path, 100), None, "{path}");
        }
        assert_eq!(root.text("docker/name", 5), None, "too long");
        assert!(root.names("nothing").is_empty());
    }

    #[test]
    fn a_pipe_does_not_stop_us() {
        let scratch = Scratch::new();
        let path = CString::new(scratch.path().join("pipe").as_os_str().as_bytes()).expect("no zero byte");
        // SAFETY: a string that ends with a zero byte.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        assert_eq!(Root::new(scratch.path()).text("pipe", 100), None);
    }
}
