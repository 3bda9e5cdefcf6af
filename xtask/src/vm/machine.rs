//! One machine: boots, is listened to, ends.

use std::{
    fmt,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Lockdown, initramfs, plan::Plan};
use crate::{
    paths,
    process::{Service, note},
    setup::vm::{self, Kernel},
};

/// As many as the machines of CI have.
const PROCESSORS: &str = "2";
/// MiB; the archive lies in it twice while it is unpacked.
const MEMORY: &str = "2048";
/// A machine that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(600);
/// Where a kernel changes its own code, another emulated processor can run the breakpoint that stood there meanwhile after
/// it is gone: qemu translates code in blocks, and keeps them. Real processors and virtualized ones do not. It was seen
/// with a thread for each processor, not yet with one for all, which is no slower here.
const EMULATORS_FAULT: &str = "Oops: int3";
/// How often a machine that ended by it is booted at most.
const BOOTS: usize = 3;
/// What lines of the machine's first program begin with (`tests/e2e/src/bin/vm-init.rs`).
const MARK: &str = "@vm ";

/// A kernel, and how it is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Machine {
    pub(super) kernel: Kernel,
    pub(super) lockdown: Lockdown,
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kernel.version())?;
        match self.lockdown {
            Lockdown::None => Ok(()),
            Lockdown::Confidentiality => formatter.write_str(" with lockdown=confidentiality"),
        }
    }
}

/// What a machine said.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Programs that have ended: name, exit code, seconds.
    ended: Vec<(String, i32, String)>,
    passed: usize,
    failed: Vec<String>,
    /// What went wrong with the machine itself.
    trouble: Option<String>,
}

impl Outcome {
    /// Whether all ran to their ends, and none failed; unless said otherwise, tests must have been among them.
    pub(super) fn passed(&self, without_tests: bool) -> bool {
        self.trouble.is_none()
            && (self.passed > 0 || without_tests)
            && self.failed.is_empty()
            && self.ended.iter().all(|(_, code, _)| *code == 0)
    }

    /// Whether the emulator ended the machine, and no test had failed before.
    fn is_emulators_fault(&self) -> bool {
        self.failed.is_empty() && self.trouble.as_ref().is_some_and(|trouble| trouble.contains(EMULATORS_FAULT))
    }

    pub(super) fn tell(&self, machine: &Machine) {
        for (name, code, seconds) in &self.ended {
            let how = if *code == 0 { "passed".to_owned() } else { format!("FAILED (exit code {code})") };
            note(&format!("{name:<12} {how}, {seconds} s"));
        }
        for name in &self.failed {
            note(&format!("FAILED: {name}"));
        }
        if let Some(trouble) = &self.trouble {
            note(&format!("FAILED: {trouble}"));
        }
        note(&format!("Linux {machine}: {} tests passed, {} failed", self.passed, self.failed.len()));
    }

    /// Takes note of one line. Whether it was the machine's last.
    fn hear(&mut self, line: &str) -> bool {
        if let Some(words) = line.strip_prefix(MARK) {
            let words: Vec<_> = words.split(' ').collect();
            match words[..] {
                ["done"] => return true,
                ["end", name, code, seconds] => {
                    self.ended.push((name.to_owned(), code.parse().unwrap_or(-1), seconds.to_owned()));
                }
                _ => {}
            }
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            if result.ends_with("ok") {
                self.passed += 1;
            } else if result.ends_with("FAILED") {
                self.failed.push(name.to_owned());
            }
        }
        false
    }
}

impl Machine {
    fn file(&self, ending: &str) -> PathBuf {
        let lockdown = match self.lockdown {
            Lockdown::None => "",
            Lockdown::Confidentiality => "-confidentiality",
        };
        paths::target().join("vm").join(format!("{}{lockdown}.{ending}", self.kernel.version()))
    }

    fn command(&self, archive: &Path, console: &Path) -> Result<Command> {
        let mut command = vm::qemu().context("qemu-system-x86_64 is not there")?;
        let lockdown = match self.lockdown {
            Lockdown::None => "",
            Lockdown::Confidentiality => " lockdown=confidentiality",
        };
        // Emulated everywhere, so that it is the same everywhere; by one thread: see `EMULATORS_FAULT`.
        command.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.arg("-kernel").arg(self.kernel.image()?).arg("-initrd").arg(archive);
        command
            .args(["-append", &format!("console=ttyS0 panic=-1 loglevel=5 mitigations=off init_on_alloc=0{lockdown}")]);
        command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
        command.stdout(Stdio::piped());
        Ok(command)
    }

    /// As [`Self::run`], again where the emulator's own fault ended it.
    pub(super) fn run_emulated(&self, plan: &Plan) -> Result<Outcome> {
        let mut outcome = self.run(plan)?;
        for _ in 1..BOOTS {
            if !outcome.is_emulators_fault() {
                break;
            }
            outcome.tell(self);
            note(&format!("{EMULATORS_FAULT} is the emulator's fault, and no test's: once more"));
            outcome = self.run(plan)?;
        }
        Ok(outcome)
    }

    /// Boots it, passes on what it says, and ends it.
    ///
    /// # Errors
    /// It cannot be started. Whatever goes wrong later is in the outcome.
    fn run(&self, plan: &Plan) -> Result<Outcome> {
        let (archive, console) = (self.file("cpio"), self.file("console"));
        initramfs::write(&archive, self.kernel, plan)?;
        let size = archive.metadata().map_or(0, |metadata| metadata.len() >> 20);
        note(&format!("{} ({size} MiB)", archive.display()));
        File::create(&console).with_context(|| format!("create {}", console.display()))?;
        let mut machine = Service::start("the machine", &mut self.command(&archive, &console)?)?;
        let mut stdout = machine.stdout().context("its serial line is piped")?;
        let (said, hear) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if said.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let (mut outcome, mut pending, mut done) = (Outcome::default(), Vec::new(), false);
        let deadline = Instant::now() + LIMIT;
        let why = loop {
            match hear.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => pending.extend(bytes),
                Err(mpsc::RecvTimeoutError::Disconnected) => break "it went off",
                Err(mpsc::RecvTimeoutError::Timeout) => break "it hangs",
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                if !line.is_empty() {
                    note(line);
                }
                done |= outcome.hear(line);
            }
        };
        machine.stop();
        if !done || outcome.ended.len() != plan.len() {
            let last = String::from_utf8_lossy(&pending).into_owned();
            let console = fs::read_to_string(&console).unwrap_or_default();
            let lines: Vec<_> = console.lines().collect();
            // What comes first says what it was, what comes last how it went on.
            let oops = lines.iter().find(|line| line.contains("Oops") || line.contains("BUG:")).copied().unwrap_or("");
            let tail = lines[lines.len().saturating_sub(25)..].join("\n        ");
            outcome.trouble =
                Some(format!("{why} amid {last:?}. Its console: {oops}; its last lines:\n        {tail}"));
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Outcome {
        let mut outcome = Outcome::default();
        for line in lines {
            outcome.hear(line);
        }
        outcome
    }

    #[test]
    fn a_machine_passes_by_tests_that_passed() {
        assert!(heard(&["@vm begin a", "test x ... ok", "@vm end a 0 1.0", "@vm done"]).passed(false));
        let silent = heard(&["@vm begin a", "@vm end a 0 1.0", "@vm done"]);
        assert!(!silent.passed(false) && silent.passed(true));
        assert!(!heard(&["test x ... ok", "@vm end a 101 1.0", "@vm done"]).passed(false));
        let failed = heard(&["test x ... ok", "test y ... FAILED", "@vm end a 101 1.0"]);
        assert!(!failed.is_emulators_fault());
        assert_eq!((failed.passed, failed.failed), (1, vec!["y".to_owned()]));
        let trouble = |text: &str| Outcome { trouble: Some(text.to_owned()), ..Outcome::default() };
        assert!(trouble("[1.0] Oops: int3: 0000 [#1] PREEMPT").is_emulators_fault());
        assert!(!trouble("[1.0] Oops: general protection fault").is_emulators_fault());
    }
}
