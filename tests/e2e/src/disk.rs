//! A block device of a test's own, and what the kernel's own books say of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use crate::{
    require,
    scratch::Scratch,
    wait::{self, SOON},
};

/// A loop device over a file of its own. Dropping it gives it back.
#[derive(Debug)]
pub struct Loop {
    path: PathBuf,
    files: Scratch,
}

/// Runs a program to its end.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn losetup() -> Command {
    Command::new(require::tool("losetup").expect("required"))
}

impl Loop {
    /// A device of so many MiB, all zeros.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(mebibytes: u64) -> Self {
        let files = Scratch::new();
        let file = files.write("disk.img", "");
        resize(&file, mebibytes << 20);
        let output = run(losetup().args(["--find", "--show"]).arg(&file));
        let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let device = Self { path, files };
        // Whoever looks at each new device of a host (udev) is done soon.
        wait::until("nobody to look at the new device", SOON, || {
            let before = device.books();
            thread::sleep(Duration::from_millis(200));
            (device.books() == before).then_some(())
        });
        device
    }

    /// Its file in `/dev`.
    ///
    /// # Panics
    /// If that is no text.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.to_str().expect("it was text")
    }

    /// Its name.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path().rsplit('/').next().expect("a name")
    }

    /// Sets one of the values in its folder `queue`, which it keeps for whoever has it next: tests leave the default.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn set(&self, name: &str, value: &str) {
        let path = format!("/sys/block/{}/queue/{name}", self.name());
        fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Makes the file behind it shorter than it is.
    ///
    /// # Panics
    /// If that fails.
    pub fn cut(&self, bytes: u64) {
        resize(&self.files.file("disk.img"), bytes);
    }

    /// What `/proc/diskstats` says of it now.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn books(&self) -> Books {
        let text = fs::read_to_string("/proc/diskstats").expect("every kernel has it");
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|fields| fields[2] == self.name()).expect("it is listed");
        let field = |index: usize| -> u64 { line[2 + index].parse().expect("a number") };
        let account = |first| Account {
            done: field(first),
            merged: field(first + 1),
            bytes: field(first + 2) * 512,
            milliseconds: field(first + 3),
        };
        Books { read: account(1), write: account(5), discard: account(12), flushes: field(16) }
    }
}

fn resize(file: &Path, bytes: u64) {
    let opened = fs::OpenOptions::new().write(true).open(file);
    opened.and_then(|file| file.set_len(bytes)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

impl Drop for Loop {
    fn drop(&mut self) {
        // A device that somebody still has open goes when that closes it.
        let output = losetup().arg("--detach").arg(&self.path).output();
        if !output.as_ref().is_ok_and(|output| output.status.success()) {
            println!("giving back {}: {output:?}", self.path.display());
        }
    }
}

/// One operation's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Requests completed.
    pub done: u64,
    /// Requests, or parts of such, that became part of others.
    pub merged: u64,
    /// Bytes.
    pub bytes: u64,
    /// Time from being made to completion, summed over requests.
    pub milliseconds: u64,
}

impl Account {
    fn since(self, before: Self) -> Self {
        Self {
            done: self.done - before.done,
            merged: self.merged - before.merged,
            bytes: self.bytes - before.bytes,
            milliseconds: self.milliseconds - before.milliseconds,
        }
    }
}

/// The books of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// What was read.
    pub read: Account,
    /// What was written.
    pub write: Account,
    /// What was discarded.
    pub discard: Account,
    /// Flushes completed.
    pub flushes: u64,
}

impl Books {
    /// What came since an earlier look.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            read: self.read.since(before.read),
            write: self.write.since(before.write),
            discard: self.discard.since(before.discard),
            flushes: self.flushes - before.flushes,
        }
    }
}
