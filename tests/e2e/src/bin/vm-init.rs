//! The first program of a virtual machine that tests run in (`cargo xtask vm`): mounts what a host has, runs the
//! programs of its plan one after another, tells on the second serial line what they say and how they end, and turns
//! the machine off.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// What to do: JSON, as `xtask/src/vm/plan.rs` writes it.
const PLAN: &str = "/plan.json";
/// What lines begin with that are not a program's: `begin NAME`, `end NAME CODE SECONDS`, `done`.
const MARK: &str = "@vm ";

#[derive(Deserialize)]
struct Plan {
    /// What the programs find in their environment, and nothing else.
    environment: BTreeMap<String, String>,
    /// One after another.
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    /// For people.
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    /// Seconds until it is killed.
    limit_s: u64,
}

/// What a host has, and tests look at: file system, where, options.
const MOUNTS: [(&str, &str, &str); 10] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/run", ""),
    ("tmpfs", "/tmp", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("bpf", "/sys/fs/bpf", "mode=700"),
    ("securityfs", "/sys/kernel/security", ""),
    ("tracefs", "/sys/kernel/tracing", "mode=700"),
];
/// Kernel messages are on the first one.
const SERIAL: &str = "/dev/ttyS1";

fn main() {
    // There is nobody to return to: the kernel panics when this process ends.
    if let Err(error) = work() {
        println!("vm-init: {error:#}");
    }
    // SAFETY: no pointers; all that is to be kept has been sent.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}

fn work() -> Result<()> {
    for (kind, target, options) in MOUNTS {
        mount(kind, target, options)?;
    }
    let mut serial = serial()?;
    loopback_up().context("set up the loopback interface")?;
    let plan = fs::read(PLAN).with_context(|| format!("read {PLAN}"))?;
    let plan: Plan = serde_json::from_slice(&plan).with_context(|| format!("understand {PLAN}"))?;
    for run in &plan.runs {
        writeln!(serial, "{MARK}begin {}", run.name)?;
        let begun = Instant::now();
        let code = carry_out(run, &plan, &mut serial)?;
        writeln!(serial, "{MARK}end {} {code} {:.1}", run.name, begun.elapsed().as_secs_f64())?;
    }
    writeln!(serial, "{MARK}done")?;
    // SAFETY: an open descriptor. All must have left before the power is off.
    unsafe { libc::tcdrain(serial.as_raw_fd()) };
    Ok(())
}

fn mount(kind: &str, target: &str, options: &str) -> Result<()> {
    // Some are folders of a mounted kernel file system, which has them already.
    fs::create_dir_all(target).or_else(|error| if fs::metadata(target).is_ok() { Ok(()) } else { Err(error) })?;
    let text = |text: &str| std::ffi::CString::new(text).context("no NUL in it");
    let (kind_text, target_text, options) = (text(kind)?, text(target)?, text(options)?);
    // SAFETY: NUL-terminated strings that outlive the call.
    let result = unsafe {
        let options = options.as_ptr().cast();
        libc::mount(kind_text.as_ptr(), target_text.as_ptr(), kind_text.as_ptr(), 0, options)
    };
    // A locked-down kernel has no tracefs; devtmpfs may be mounted by the kernel.
    if result != 0 {
        println!("vm-init: mount {kind} at {target}: {}", io::Error::last_os_error());
    }
    Ok(())
}

/// The serial line, as it is: no line ends are rewritten.
fn serial() -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(SERIAL).with_context(|| format!("open {SERIAL}"))?;
    // SAFETY: an open descriptor, and a termios that is written before it is read.
    unsafe {
        let mut settings = std::mem::zeroed();
        ensure!(libc::tcgetattr(file.as_raw_fd(), &raw mut settings) == 0, "{}", io::Error::last_os_error());
        libc::cfmakeraw(&raw mut settings);
        libc::cfsetspeed(&raw mut settings, libc::B115200);
        ensure!(libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &raw const settings) == 0);
    }
    Ok(file)
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: a socket of this function's; the request is whole and outlives the calls.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
        let error = io::Error::last_os_error();
        libc::close(socket);
        if result == 0 { Ok(()) } else { Err(error) }
    }
}

/// Runs it to its end, or its time's, and passes on what it says. Its exit code; more than 128: the signal that ended
/// it.
fn carry_out(run: &Run, plan: &Plan, serial: &mut File) -> Result<i32> {
    let (from, into) = io::pipe().context("make a pipe")?;
    let mut command = Command::new(&run.program);
    command.args(&run.arguments).env_clear().envs(&plan.environment).current_dir("/tmp").process_group(0);
    command.stdin(Stdio::null()).stdout(into.try_clone()?).stderr(into);
    let child = command.spawn().with_context(|| format!("start {}", run.program.display()))?;
    // Its copies of the pipe's end: what is left must be the child's alone.
    drop(command);
    let (said, hear) = mpsc::channel();
    thread::spawn(move || {
        let (mut from, mut buffer) = (from, [0; 4096]);
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if said.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    let pid = libc::pid_t::try_from(child.id()).context("a process id")?;
    let deadline = Instant::now() + Duration::from_secs(run.limit_s);
    let (mut ended, mut last, mut killed) = (None, b'\n', false);
    loop {
        match hear.recv_timeout(Duration::from_millis(50)) {
            Ok(bytes) => {
                last = bytes.last().copied().unwrap_or(last);
                serial.write_all(&bytes)?;
            }
            // Nothing more can be said: nobody has the pipe.
            Err(mpsc::RecvTimeoutError::Disconnected) if ended.is_some() => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(10)),
            // Someone that it left behind may have it.
            Err(mpsc::RecvTimeoutError::Timeout) if ended.is_some() => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        ended = ended.or_else(|| reap(pid));
        if ended.is_none() && !killed && Instant::now() > deadline {
            writeln!(serial, "\nstill running after {} s: killed", run.limit_s)?;
            // SAFETY: no pointers; the group is the child's, which was not waited for.
            unsafe { libc::kill(-pid, libc::SIGKILL) };
            killed = true;
        }
    }
    if last != b'\n' {
        writeln!(serial)?;
    }
    let code = ended.map(|status: ExitStatus| status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
    code.context("the child has ended")
}

/// Buries whoever has died: orphans are this process's children. How `wanted` ended, if it is among them.
fn reap(wanted: libc::pid_t) -> Option<ExitStatus> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: a valid pointer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return found;
        }
        if pid == wanted {
            found = Some(ExitStatus::from_raw(status));
        }
    }
}
