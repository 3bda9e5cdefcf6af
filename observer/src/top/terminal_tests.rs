//! The screen on a real pseudo-terminal, in a process of its own: this test binary, started once more.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::TcpListener,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use super::{TopOptions, run};
use crate::export::summary::{ServerSummary, Summary};

/// Where the process of its own finds the observer.
const URL: &str = "OBSERVER_TEST_TOP_URL";
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
#[ignore = "the other tests here run it, each on a terminal of its own"]
fn the_screen_itself() {
    let Ok(url) = std::env::var(URL) else { return };
    run(&TopOptions {
        url,
        credentials: super::Credentials::default(),
        interval: Duration::from_millis(100),
        run_for: None,
        plain: false,
    })
    .unwrap();
}

/// An observer with one server; its address.
fn observer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = ServerSummary { workload: "vllm:8000".into(), ..ServerSummary::default() };
    let body = serde_json::to_string(&Summary { servers: vec![server], ..Summary::default() }).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A client that goes away in the middle is part of these tests.
            let _gone = stream
                .read(&mut [0; 4096])
                .and_then(|_| write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        }
    });
    address
}

struct Screen {
    /// Our side of the terminal; `None`: hung up.
    terminal: Option<File>,
    /// Theirs, so that its settings can be looked at after they have ended.
    slave: Option<OwnedFd>,
    process: Child,
    seen: Vec<u8>,
}

impl Screen {
    fn start() -> Self {
        let (mut master, mut slave) = (0, 0);
        let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the pointers are to variables that outlive the call, or null where that is allowed.
        let opened = unsafe {
            libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), &raw const size)
        };
        assert_eq!(opened, 0, "{}", io::Error::last_os_error());
        // SAFETY: both are open, and nobody else owns them.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        // SAFETY: `master` is open. Neither end may be inherited by the processes of tests that run beside this one.
        let set = unsafe {
            libc::fcntl(master.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK)
                | libc::fcntl(master.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC)
                | libc::fcntl(slave.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC)
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());

        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "top::terminal_tests::the_screen_itself", "--ignored", "--nocapture"])
            .env(URL, observer())
            .env("TERM", "xterm")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap());
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let process = command.spawn().unwrap();
        // The command holds copies of the slave.
        drop(command);
        let mut screen = Self { terminal: Some(master), slave: Some(slave), process, seen: Vec::new() };
        screen.wait_for("vllm:8000");
        assert!(!screen.is_canonical());
        screen
    }

    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in {:?}", String::from_utf8_lossy(&self.seen));
            let mut piece = [0; 4096];
            match self.terminal.as_mut().unwrap().read(&mut piece) {
                Ok(count) => self.seen.extend_from_slice(&piece[..count]),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether lines are edited by the terminal, as a shell expects it after a program.
    fn is_canonical(&self) -> bool {
        // SAFETY: the structure is plain data, for which zeros are values.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, the pointer is to a variable that outlives the call.
        let got = unsafe { libc::tcgetattr(self.slave.as_ref().unwrap().as_raw_fd(), &raw mut settings) };
        assert_eq!(got, 0, "{}", io::Error::last_os_error());
        settings.c_lflag & libc::ICANON != 0
    }

    /// It ended well, and left the terminal as it was.
    fn check_end(&mut self) {
        self.wait_for("\x1b[?1049l");
        assert!(self.end().success());
        assert!(self.is_canonical());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind; one that did not has nothing to leave.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

#[test]
fn a_key_ends_it() {
    let mut screen = Screen::start();
    screen.terminal.as_mut().unwrap().write_all(b"p").unwrap();
    screen.wait_for("paused");
    screen.terminal.as_mut().unwrap().write_all(b"q").unwrap();
    screen.check_end();
}

#[test]
fn control_c_ends_it() {
    let mut screen = Screen::start();
    screen.terminal.as_mut().unwrap().write_all(b"\x03").unwrap();
    screen.check_end();
}

#[test]
fn a_signal_ends_it() {
    let mut screen = Screen::start();
    // SAFETY: the process is ours and not yet reaped.
    assert_eq!(unsafe { libc::kill(libc::pid_t::try_from(screen.process.id()).unwrap(), libc::SIGTERM) }, 0);
    screen.check_end();
}

#[test]
fn a_lost_connection_to_the_terminal_ends_it() {
    let mut screen = Screen::start();
    screen.slave = None;
    screen.terminal = None;
    screen.end();
}
