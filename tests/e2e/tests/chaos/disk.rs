//! No room for the request log.

use std::{
    ffi::CString,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use observer_e2e::{
    bpf::Objects,
    observer::{self, Observer},
    process::Process,
    require,
    scratch::Scratch,
    servers::Server,
    wait::{self, SOON},
};

use super::{
    form,
    scene::{Scene, expect_gone, losses},
    truth::{self, Tally},
};

/// A file system in memory, of the test's own.
struct Tmpfs {
    path: PathBuf,
    _folder: Scratch,
}

impl Tmpfs {
    fn new(kibibytes: u32) -> Self {
        let folder = Scratch::new();
        let path = folder.file("disk");
        fs::create_dir(&path).expect("its place");
        let options = CString::new(format!("size={kibibytes}k,mode=700")).expect("text");
        let target = text(&path);
        // SAFETY: NUL-terminated strings that outlive the call.
        let result =
            unsafe { libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) };
        assert_eq!(result, 0, "mounting: {}", std::io::Error::last_os_error());
        Self { path, _folder: folder }
    }
}

fn text(path: &Path) -> CString {
    CString::new(path.to_str().expect("a plain path")).expect("no NUL in it")
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // SAFETY: a NUL-terminated string. Who still has a file open on it keeps that until it is closed.
        if unsafe { libc::umount2(text(&self.path).as_ptr(), libc::MNT_DETACH) } != 0 {
            println!("unmounting {}: {}", self.path.display(), std::io::Error::last_os_error());
        }
    }
}

/// Lines that find no room are counted, one by one; metrics miss nothing, and once there is room, nor does the log.
#[test]
fn full_for_the_request_log() {
    require!(kernel, sample);
    const REQUESTS: usize = 300;
    let disk = Tmpfs::new(4096);
    let mut scene = Scene::logging_to(&disk.path.join("requests.jsonl"));
    let outages = form(1, 5);
    let (mut asked, mut lost) = (scene.lines().len(), 0);
    for outage in 1..=outages {
        let filler = disk.path.join("filler");
        let mut file = File::create(&filler).expect("room for a file");
        while file.write_all(&[b'x'; 4096]).is_ok() {}
        scene.may_tear(outage);
        let clients = scene.load(&["--concurrency", "16", "--requests", &REQUESTS.to_string()]).lines();
        asked += clients.len();
        let metrics = wait::until("all requests to be counted", SOON, || {
            let metrics = scene.observer.metrics();
            (metrics.sum("llm_requests_total", &[("outcome", "ok")]) == asked as f64).then_some(metrics)
        });
        assert!(losses(&metrics).is_empty());
        assert_eq!(metrics.sum("gen_ai_server_request_duration_seconds_count", &[]), asked as f64);
        let accounted = || {
            let metrics = scene.observer.metrics();
            lost = metrics.sum("observer_request_log_dropped_total", &[("reason", "write_error")]) as usize;
            (scene.lines().len() + lost == asked).then_some(())
        };
        let each = wait::try_until(SOON, accounted);
        assert!(each.is_some(), "{asked} requests, {} lines, {lost} lost", scene.lines().len());
        assert!(lost >= outage * REQUESTS * 3 / 4, "the disk had room after all: {lost} lost");
        drop(file);
        fs::remove_file(&filler).expect("ours");
        let known = scene.lines().len();
        let clients = scene.load(&["--concurrency", "8", "--requests", "40"]).lines();
        asked += clients.len();
        let lines = scene.told();
        let whole = Tally { asked: clients.len(), measured: clients.len(), ..Tally::default() };
        assert_eq!(truth::compare(&clients, &lines[known..]), whole, "none is lost once there is room");
        assert_eq!(lines.len() + lost, asked);
    }
    let said = scene.observer.output();
    let errors = said.iter().filter(|line| line.contains("cannot write the request log")).count();
    let again = said.iter().filter(|line| line.contains("can be written again")).count();
    assert_eq!((errors, again), (outages, outages), "once for each outage: {said:#?}");
    scene.ends(&format!("{lost} lines lost and counted, of {asked} requests"));
    drop(disk);
}

/// A recording that finds no room ends the observer, which says why; what was written can be replayed.
#[test]
fn full_for_a_recording() {
    require!(kernel, sample);
    let disk = Tmpfs::new(256);
    let file = disk.path.join("traffic.rec");
    let server = Server::sample(&[]);
    let mut observer = Observer::recording(&file, &[server.port()], &[]);
    let held = Objects::held_by(observer.pid());
    assert!(!held.programs.is_empty());
    let mut command = Command::new(require::sample());
    command.args(["load", "--url", &server.url(), "--for", "30s", "--concurrency", "32", "--sample"]);
    command.arg(r#"{"ttft_ms": 1, "interval_ms": 1, "tokens": 50}"#);
    let mut load = Process::spawn("sample-llm load", command);
    let said = observer.fails(Duration::from_secs(30));
    let why = said.iter().find(|line| line.contains("cannot write the recording any further"));
    assert!(why.is_some_and(|why| why.contains("No space left")), "{said:#?}");
    expect_gone(&held);
    assert!(load.exited().is_none(), "its server goes on");
    load.signal(libc::SIGTERM);
    assert!(load.wait(SOON).success());
    let mut replay = observer::command();
    replay.arg("replay").arg(&file).args(["--format", "csv"]);
    let (status, rows) = observer::run(replay);
    let size = fs::metadata(&file).expect("the recording").len();
    // It is cut short, and says so; what is before that is there.
    assert!(status.code() == Some(1) && rows.iter().any(|line| line.contains("cut short at byte")), "{rows:#?}");
    let measured = rows.iter().filter(|row| row.contains(",ok,")).count();
    assert!(measured > 10, "{measured} requests in {size} bytes: {rows:#?}");
    println!("chaos: {measured} requests replayed from the {size} bytes that found room");
}
