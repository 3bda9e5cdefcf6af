//! Running programs.

use std::{
    ffi::OsStr,
    io::IsTerminal as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// A step of a long task.
pub(crate) fn step(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("\x1b[1m==> {text}\x1b[0m");
    } else {
        eprintln!("==> {text}");
    }
}

/// Something worth knowing, below a step.
pub(crate) fn note(text: &str) {
    eprintln!("    {text}");
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// `cargo`, in the root of the repository: the very one that runs this command.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::paths::root());
    // Set by cargo for this process; they would tell build scripts about the wrong package.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let mut text = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let plain = !argument.is_empty() && !argument.contains([' ', '"', '\'', '$', '*', ';', '&', '|']);
        text.push_str(&if plain { format!(" {argument}") } else { format!(" '{argument}'") });
    }
    text
}

/// Says the command and runs it to its end.
///
/// # Errors
/// It cannot be started, or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    note(&shown(command));
    let status = command.status().with_context(|| format!("start `{}`", shown(command)))?;
    check(command, status)
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Standard output of a command that is not worth mention; nothing if it cannot be started or fails.
pub(crate) fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a command succeeds, silently.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|code| code.success())
}

/// Runs `work` as a named step and says how long it took.
pub(crate) fn timed<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    step(name);
    let start = Instant::now();
    let result = work()?;
    note(&format!("done in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(result)
}

/// Sends SIGTERM to a child that was not waited for.
pub(crate) fn terminate(child: &Child) {
    if let Ok(pid) = libc::pid_t::try_from(child.id()) {
        // SAFETY: no memory is touched. The child was not waited for, so the number is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Makes the kernel end the command's process when this one is killed and cannot. To be started by the main thread:
/// its end is what the kernel looks at.
pub(crate) fn end_with_this(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
}

/// A process in the background; ended when this value is dropped, at the latest when this process ends, however it
/// does.
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    /// Wait status, once it has ended.
    ended: Option<ExitStatus>,
}

/// Time for a service to end by itself after SIGTERM.
const STOP: Duration = Duration::from_secs(10);

impl Service {
    /// Starts `command` out of the terminal's foreground group, so that Ctrl-C reaches this process only, which then
    /// ends its services in order.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        command.process_group(0).stdin(Stdio::null());
        end_with_this(command);
        let child = command.spawn().with_context(|| format!("start {name}: `{}`", shown(command)))?;
        Ok(Self { name, child, ended: None })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child's standard output, if it is piped and was not taken.
    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for its end, at most `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while self.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.ended
    }

    /// SIGTERM; SIGKILL if that does not help.
    pub(crate) fn stop(&mut self) -> Option<ExitStatus> {
        if self.ended().is_none() {
            terminate(&self.child);
            if self.wait(STOP).is_none() {
                note(&format!("{} (pid {}) does not end by itself: killed", self.name, self.child.id()));
                drop(self.child.kill());
                self.ended = self.child.wait().ok();
            }
        }
        self.ended
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_service_ends_with_its_value() {
        let service = Service::start("sleep", Command::new("sleep").arg("600")).unwrap();
        let pid = service.pid();
        assert!(alive(pid));
        drop(service);
        assert!(!alive(pid));
    }

    #[test]
    fn commands_are_shown_as_typed() {
        assert_eq!(shown(Command::new("/usr/bin/a").args(["-b", "c d", ""])), "a -b 'c d' ''");
    }
}
