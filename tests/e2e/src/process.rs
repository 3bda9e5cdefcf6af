//! Children: spawned with their output collected, ended by their own pid, never left behind.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::wait;

/// Lines that a child has printed so far, standard output and standard error together.
type Lines = Arc<Mutex<Vec<String>>>;

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Lines,
}

fn collect(from: impl Read + Send + 'static, into: &Lines) {
    let into = Arc::clone(into);
    thread::spawn(move || {
        // Bytes that are no UTF-8 end the collecting; no child of ours prints such.
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

impl Process {
    /// Starts `command`; it dies with the test, whatever happens to the test.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {name} ({command:?}): {error}"));
        let output = Lines::default();
        collect(child.stdout.take().expect("stdout is piped"), &output);
        collect(child.stderr.take().expect("stderr is piped"), &output);
        Self { name: name.to_owned(), child, output }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that it printed, once it has ended.
    #[must_use]
    pub fn settled_output(&self) -> Vec<String> {
        // Who collects holds the lines until the pipe is empty. A grandchild may keep that open: then what there is.
        let _all = wait::try_until(Duration::from_secs(2), || (Arc::strong_count(&self.output) == 1).then_some(()));
        self.output()
    }

    /// Waits for a line that `wanted` accepts.
    ///
    /// # Panics
    /// If the child ends first, or none comes within `limit`.
    pub fn line(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let found = wait::try_until(limit, || {
            let line = self.output().into_iter().find(|line| wanted(line));
            match line {
                Some(line) => Some(Some(line)),
                // Its last lines may still be on their way.
                None if self.exited().is_some() => {
                    thread::sleep(Duration::from_millis(100));
                    Some(self.output().into_iter().find(|line| wanted(line)))
                }
                None => None,
            }
        });
        found.flatten().unwrap_or_else(|| panic!("{} never printed it: {:#?}", self.name, self.output()))
    }

    /// Its exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("waiting for {}: {error}", self.name))
    }

    /// Sends it a signal, if it has not ended.
    pub fn signal(&mut self, signal: i32) {
        if self.exited().is_none() {
            // SAFETY: the child has not been waited for, so its pid is still its own.
            unsafe { libc::kill(self.pid() as i32, signal) };
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it has not ended after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        let status = wait::try_until(limit, || self.exited());
        status.unwrap_or_else(|| panic!("{name} did not end within {limit:?}: {:#?}", self.output()))
    }

    /// Sends it a signal and waits for its end.
    ///
    /// # Panics
    /// If it has not ended after `limit`.
    pub fn stop(&mut self, signal: i32, limit: Duration) -> ExitStatus {
        self.signal(signal);
        self.wait(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            let output = self.output();
            let skip = output.len().saturating_sub(30);
            println!("--- last lines of {} ---\n{}\n---", self.name, output[skip..].join("\n"));
        }
        self.signal(libc::SIGTERM);
        if wait::try_until(Duration::from_secs(3), || self.exited()).is_none() {
            self.signal(libc::SIGKILL);
            // Not reached by any signal but this one; it is reaped here.
            let _status = self.child.wait();
        }
    }
}

/// A field of `/proc/PID/status` in KiB, such as `VmRSS`.
///
/// # Panics
/// If the process is gone or the field is not there.
#[must_use]
pub fn status_kib(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    value.unwrap_or_else(|| panic!("no {field} in /proc/{pid}/status"))
}

/// CPU time that all threads of a process have used, in nanoseconds.
///
/// # Panics
/// If the process is gone.
#[must_use]
pub fn cpu_nanos(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// Descriptors that a process has open.
///
/// # Panics
/// If it is gone.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count()
}

/// Files, with a name of their own, that a process has open and may write to.
///
/// # Panics
/// If it is gone.
#[must_use]
pub fn written_files(pid: u32) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    let written = |entry: std::fs::DirEntry| {
        let path = std::fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().into_string().ok()?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        (writable && path.is_absolute() && !path.starts_with("/dev")).then_some(path)
    };
    entries.flatten().filter_map(written).collect()
}
