//! On the real kernel: each test confines a thread of its own, and has it try what it must not be able to do.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::mpsc,
    thread,
};

use super::*;

/// A folder of the test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("observer-sandbox-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// What `work` says in a thread that is confined so, and that thread's `/proc/…/status` meanwhile.
fn confined<T: Send>(duty: &Duty, work: impl FnOnce() -> T + Send) -> (Confined, T, String) {
    let (ids, id) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let run = scope.spawn(move || {
            let confined = Sandbox::new(true, Vec::new()).confine(duty).unwrap().unwrap();
            let said = work();
            // SAFETY: it takes nothing.
            ids.send(unsafe { libc::gettid() }).unwrap();
            // An error is the sign.
            let _ended = ended.recv();
            (confined, said)
        });
        let status = id.recv().map(|id| fs::read_to_string(format!("/proc/self/task/{id}/status")).unwrap());
        drop(end);
        let (confined, said) = run.join().unwrap();
        (confined, said, status.unwrap())
    })
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap_or_else(|| panic!("no {name} in {status}"))
}

fn capabilities_of(status: &str, set: &str) -> u64 {
    u64::from_str_radix(field(status, set), 16).unwrap()
}

fn bits(capabilities: &[Capability]) -> u64 {
    let held = held();
    capabilities.iter().filter(|one| held.has(**one)).map(|one| 1 << one.index()).sum()
}

fn error(result: i64) -> i32 {
    assert_eq!(result, -1, "it was permitted");
    io::Error::last_os_error().raw_os_error().unwrap()
}

fn bpf(command: i32) -> i32 {
    let nothing = [0_u64; 16];
    // SAFETY: as many bytes as are said to be there; none of them names a descriptor that is open for this.
    error(unsafe { libc::syscall(libc::SYS_bpf, command, nothing.as_ptr(), size_of_val(&nothing)) })
}

/// Every one of these is refused, whatever the thread is for.
fn what_nobody_may_do() {
    for command in [0, 5, 6, 7, 13, 14, 18] {
        assert_eq!(bpf(command), libc::EPERM, "command {command} of bpf");
    }
    assert_eq!(Command::new("true").status().unwrap_err().raw_os_error(), Some(libc::EPERM));
    // SAFETY: calls without pointers, or with ones that are null, all of which are refused before they are looked at.
    unsafe {
        let null = std::ptr::null::<u8>();
        assert_eq!(error(libc::ptrace(libc::PTRACE_ATTACH, libc::getppid(), null, null)), libc::EPERM);
        assert_eq!(error(libc::kill(libc::getpid(), 0).into()), libc::EPERM);
        for call in [
            libc::SYS_mount,
            libc::SYS_init_module,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_setuid,
        ] {
            assert_eq!(error(libc::syscall(call, null, null, null, null, null)), libc::EPERM, "call {call}");
        }
    }
}

#[test]
fn the_http_thread_has_no_capability_and_opens_nothing() {
    let scratch = Scratch::new("http");
    let file = scratch.file("old");
    fs::write(&file, "old").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (confined, connected, status) = confined(&Duty::Http, || {
        what_nobody_may_do();
        assert!(File::create(scratch.file("new")).is_err() && OpenOptions::new().append(true).open(&file).is_err());
        assert!(fs::remove_file(&file).is_err() && fs::rename(&file, scratch.file("moved")).is_err());
        (TcpStream::connect(address).map(drop), File::open(&file).map(drop))
    });
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(capabilities_of(&status, set), 0, "{set}");
    }
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
    assert_eq!((confined.kept.to_string().as_str(), &confined.filter), ("none", &None));
    let landlock = confined.landlock.unwrap();
    assert_eq!(connected.1.is_err(), landlock >= 1, "reading: {:?}", connected.1);
    assert_eq!(connected.0.is_err(), landlock >= 4, "connecting: {:?}", connected.0);
}

#[test]
fn most_threads_look_at_processes_and_write_nowhere() {
    let scratch = Scratch::new("general");
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let (confined, (), status) = confined(&Duty::General, || {
        what_nobody_may_do();
        assert!(fs::read_link(proc.join("exe")).unwrap().ends_with("sleep"), "links in /proc of another process");
        assert!(File::open(proc.join("ns/net")).is_ok() && fs::read_dir(proc.join("root/etc")).is_ok());
        assert!(fs::read_dir(proc.join("fd")).is_ok() && fs::read_to_string("/proc/self/mountinfo").is_ok());
        let refused = |result: io::Result<File>| assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM));
        refused(File::create(scratch.file("new")));
        refused(OpenOptions::new().write(true).open(proc.join("mem")));
        refused(OpenOptions::new().append(true).open("/dev/null"));
        // SAFETY: the descriptor is none.
        assert_eq!(error(unsafe { libc::setns(-1, libc::CLONE_NEWNET) }.into()), libc::EPERM);
        // Looked at, and refused for what it says: no map is there.
        assert_ne!(bpf(1), libc::EPERM, "maps go on being read");
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let wanted = bits(&[Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH]);
    assert_eq!((capabilities_of(&status, "CapPrm"), capabilities_of(&status, "CapEff")), (wanted, wanted));
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
    assert_eq!(confined.landlock, None);
    if held().has(Capability::CAP_SETPCAP) {
        assert_eq!(capabilities_of(&status, "CapBnd"), wanted, "the bounding set, too");
        assert!(confined.dropped.has(Capability::CAP_SYS_MODULE) && confined.to_string().contains("SYS_MODULE"));
    }
}

#[test]
fn the_request_log_is_opened_anew_and_nothing_else_is() {
    let scratch = Scratch::new("log");
    let (log, outside) = (scratch.file("log/requests.jsonl"), scratch.file("outside"));
    fs::create_dir(scratch.file("log")).unwrap();
    fs::write(&log, "old\n").unwrap();
    fs::write(&outside, "").unwrap();
    let append = |path: &Path| OpenOptions::new().append(true).create(true).open(path).map(drop);
    let duty = Duty::RequestLog { path: Some(log.clone()), overrides: false };
    let (confined, elsewhere, status) = confined(&duty, || {
        what_nobody_may_do();
        append(&log).unwrap();
        (append(&outside), append(&scratch.file("new")), File::open(&log).map(drop))
    });
    assert_eq!(capabilities_of(&status, "CapPrm"), 0);
    if confined.landlock.unwrap() > 0 {
        assert!(elsewhere.0.is_err() && elsewhere.1.is_err() && elsewhere.2.is_err(), "{elsewhere:?}");
    }
    // A pipe or device in its place is written to; what lies beside it is not.
    let duty = Duty::RequestLog { path: Some("/dev/null".into()), overrides: false };
    let (confined, (null, zero), _) = self::confined(&duty, || {
        let write = |path: &str| OpenOptions::new().append(true).open(path).map(drop);
        (write("/dev/null"), write("/dev/zero"))
    });
    assert!(null.is_ok() && (confined.landlock == Some(0) || zero.is_err()), "{null:?} {zero:?}");
}

#[test]
fn a_log_that_was_moved_away_is_made_anew() {
    let scratch = Scratch::new("moved");
    let log = scratch.file("requests.jsonl");
    fs::write(&log, "").unwrap();
    let (told, tell) = mpsc::channel::<()>();
    let (begun, begin) = mpsc::channel();
    thread::scope(|scope| {
        let duty = Duty::RequestLog { path: Some(log.clone()), overrides: false };
        let path = log.clone();
        let thread = scope.spawn(move || {
            Sandbox::new(true, Vec::new()).confine(&duty).unwrap();
            begun.send(()).unwrap();
            tell.recv().unwrap();
            OpenOptions::new().append(true).create(true).open(path).map(drop)
        });
        begin.recv().unwrap();
        fs::rename(&log, scratch.file("requests.jsonl.1")).unwrap();
        told.send(()).unwrap();
        thread.join().unwrap().unwrap();
    });
    assert!(log.exists());
}

#[test]
fn the_gpu_thread_opens_devices() {
    let (_, (), status) = confined(&Duty::Gpu { counters: true }, || {
        what_nobody_may_do();
        OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        // SAFETY: the descriptor is none.
        assert_eq!(error(unsafe { libc::setns(-1, libc::CLONE_NEWNET) }.into()), libc::EPERM);
    });
    let wanted = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH, Capability::CAP_SYS_ADMIN];
    assert_eq!(capabilities_of(&status, "CapPrm"), bits(&wanted));
    let (_, (), status) = confined(&Duty::Gpu { counters: false }, || ());
    assert_eq!(capabilities_of(&status, "CapPrm"), bits(&wanted[..2]));
}

#[test]
fn only_one_thread_enters_namespaces() {
    let own = File::open("/proc/self/ns/net").unwrap();
    let (_, entered, status) = confined(&Duty::Namespaces, || {
        what_nobody_may_do();
        use std::os::fd::AsRawFd as _;
        // SAFETY: a descriptor that is open.
        unsafe { libc::setns(own.as_raw_fd(), libc::CLONE_NEWNET) }
    });
    assert_eq!(capabilities_of(&status, "CapPrm"), bits(&[Capability::CAP_SYS_ADMIN]));
    assert_eq!(entered == 0, held().has(Capability::CAP_SYS_ADMIN));
}

#[test]
fn only_one_thread_turns_statistics_on() {
    const ENABLE_STATS: i32 = 32;
    let (_, (), status) = confined(&Duty::Governor, || {
        what_nobody_may_do();
        // Looked at, and refused for what it asks of them: there are no such statistics.
        let nothing = [u64::MAX; 16];
        // SAFETY: as many bytes as are said to be there.
        let result = unsafe { libc::syscall(libc::SYS_bpf, ENABLE_STATS, nothing.as_ptr(), size_of_val(&nothing)) };
        let wanted = if held().has(Capability::CAP_SYS_ADMIN) { libc::EINVAL } else { libc::EPERM };
        assert_eq!(error(result), wanted);
    });
    assert_eq!(capabilities_of(&status, "CapPrm"), bits(&[Capability::CAP_SYS_ADMIN]));
    confined(&Duty::General, || assert_eq!(bpf(ENABLE_STATS), libc::EPERM));
}

#[test]
fn what_is_needed_is_found_by_trial() {
    if !held().has(Capability::CAP_DAC_READ_SEARCH) {
        println!("skipped: this process has no capability that could be tried");
        return;
    }
    const SEARCH: &[Capability] = &[Capability::CAP_DAC_READ_SEARCH];
    const MORE: &[Capability] = &[Capability::CAP_DAC_READ_SEARCH, Capability::CAP_SYS_ADMIN];
    let scratch = Scratch::new("trial");
    let file = scratch.file("nobody");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let before = held();
    assert_eq!(least(&[], &[&[], SEARCH, MORE], || File::open(&file).is_ok()), Some(SEARCH));
    assert_eq!(least(SEARCH, &[&[], MORE], || File::open(&file).is_ok()), Some(&[][..]));
    assert_eq!(least(&[], &[&[], SEARCH, MORE], || false), None);
    assert_eq!(held(), before, "the threads that tried are gone, and this one is as it was");
    // To a file that its owner may not write to, only who overrides that may append.
    let sandbox = Sandbox::new(true, Vec::new());
    assert!(!sandbox.can_append_without_overriding(&file));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(sandbox.can_append_without_overriding(&file));
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o500)).unwrap();
    assert!(!sandbox.can_append_without_overriding(&file), "it could not be made anew");
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn off_is_off() {
    let sandbox = Sandbox::new(false, Vec::new());
    let before = held();
    assert_eq!(sandbox.confine(&Duty::Http).unwrap(), None);
    assert_eq!(held(), before);
    assert!(Command::new("true").status().is_ok_and(|status| status.success()));
}
