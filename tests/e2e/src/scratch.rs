//! A directory for one test's files.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// A directory that goes when its owner goes, unless the test failed: then it stays for reading.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty directory.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("observer-e2e-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("creating {}: {error}", path.display()));
        Self(path)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file into it and tells its path.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, contents).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        path
    }

    /// Writes a script that can be run into it and tells its path.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn program(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.write(name, contents);
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, executable).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("kept for reading: {}", self.0.display());
        } else if let Err(error) = fs::remove_dir_all(&self.0) {
            println!("removing {}: {error}", self.0.display());
        }
    }
}
