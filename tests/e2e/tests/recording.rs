//! Recordings of real traffic: what is replayed elsewhere is what was seen, and holds no text unless that was asked for.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use observer::{
    event::Event,
    recording::{End, Item, Reader},
};
use observer_e2e::{
    http,
    observer::{self as command, Observer},
    process::Process,
    require,
    scratch::Scratch,
    servers::Server,
    wait::SOON,
};

/// Nobody: no privileges, and no right to the recording's file.
const NOBODY: u32 = 65_534;

/// Every API, streamed and not, and every ending.
fn load(server: &Server, requests: u32) {
    let sample = "{\"model\":\"served-model\",\"reasoning\":3}";
    let mut command = Command::new(require::sample());
    command.args(["load", "--url", &format!("http://{}", server.address), "--route", "all", "--stream", "mixed"]);
    command.args(["--requests", &requests.to_string(), "--concurrency", "32", "--cancel-rate", "0.08"]);
    command.args(["--prompt-bytes", "6000", "--sample", sample]);
    let mut client = Process::spawn("sample-llm load", command);
    let status = client.wait(12 * SOON);
    assert!(status.success(), "{:#?}", client.output());
}

/// Replays standard input as nobody.
fn replay(file: &Path, arguments: &[&str]) -> Output {
    let scratch = Scratch::new();
    // Where nobody may reach it, wherever it was built.
    let program = scratch.file("observer");
    fs::copy(require::observer(), &program).expect("a copy of the observer");
    for path in [scratch.path(), program.as_path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions of our own files");
    }
    let mut command = Command::new(&program);
    command.env_clear().uid(NOBODY).gid(NOBODY).current_dir("/").args(["replay", "-"]).args(arguments);
    command.stdin(File::open(file).expect("the recording")).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().expect("the replay ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The lines of families that only requests and their bytes feed.
fn of_requests(metrics: &str) -> Vec<String> {
    let fed = [
        "incomplete_requests",
        "joined_mid_request",
        "other_requests",
        "opaque_connections",
        "stream_gap_bytes",
        "uncaptured_bytes",
        "unparsed_bytes",
        "unsent_at_stamp",
        "series_dropped",
    ];
    let of_the_host = ["llm_requests_in_flight", "workload_", "gpu_", "llm_workload_", "llm_gpu_"];
    let wanted = |line: &&str| {
        let name = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
        match name.strip_prefix("observer_") {
            Some(own) => fed.iter().any(|family| own.starts_with(family)),
            // Of this host, and of now: a recording has names of workloads alone.
            None => !of_the_host.iter().any(|family| name.starts_with(family)),
        }
    };
    metrics.lines().filter(wanted).map(str::to_owned).collect()
}

/// All captured bytes of a recording, and its events.
fn payload(file: &Path) -> (Vec<u8>, u64) {
    let mut reader = Reader::new(File::open(file).expect("the recording")).expect("its header");
    let (mut bytes, mut events) = (Vec::new(), 0);
    while let Some(item) = reader.next().expect("a whole recording") {
        if let Item::Event(event, _) = &item {
            events += 1;
            if let Event::Data(data) = event {
                bytes.extend_from_slice(data.head);
                bytes.push(b'\n');
                bytes.extend_from_slice(data.tail);
                bytes.push(b'\n');
            }
        }
    }
    let trailer = reader.trailer().expect("it is whole");
    assert_eq!((trailer.end, trailer.lost, trailer.unplaced, trailer.events), (End::Stopped, 0, 0, events));
    (bytes, events)
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn what_is_replayed_is_what_was_seen(arguments: &[&str], text_stays: bool) {
    let rates = ["--error-rate", "0.06", "--stream-error-rate", "0.1", "--cut-rate", "0.1", "--tokens", "24"];
    let server = Server::sample(&[&["--ttft", "20ms", "--token-interval", "4ms"], &rates[..]].concat());
    let scratch = Scratch::new();
    let file = scratch.file("traffic.rec");
    let mut observer = Observer::recording(&file, &[server.port()], arguments);
    load(&server, 600);
    let lines = observer.lines_when(600, SOON);
    let log = fs::read_to_string(&observer.log().0).expect("the request log");
    let seen = http::get(observer.address(), "/metrics").expect("the observer answers").text();
    let said = observer.stop(libc::SIGINT);
    assert!(said.iter().any(|line| line.contains("recorded ") && line.contains("lost 0")), "{said:#?}");
    let warned = said.iter().any(|line| line.contains("will contain the text of prompts"));
    assert_eq!(warned, text_stays, "{said:#?}");
    assert_eq!(fs::metadata(&file).expect("the recording").permissions().mode() & 0o777, 0o600);

    let json = replay(&file, &["--format", "json", "--request-log-chunks"]);
    assert!(json.status.success(), "{}", text(&json.stderr));
    let replayed = text(&json.stdout);
    for (line, (live, again)) in log.lines().zip(replayed.lines()).enumerate() {
        assert_eq!(live, again, "line {line}");
    }
    assert_eq!((log.lines().count(), lines.len()), (replayed.lines().count(), 600));

    let metrics = replay(&file, &["--metrics", "-"]);
    assert!(metrics.status.success(), "{}", text(&metrics.stderr));
    let (live, again) = (of_requests(&seen), of_requests(&text(&metrics.stdout)));
    for (live, again) in live.iter().zip(&again) {
        assert_eq!(live, again);
    }
    assert_eq!(live.len(), again.len());
    assert!(live.iter().filter(|line| line.contains("_bucket{")).count() > 500, "there is something to compare");

    let (bytes, events) = payload(&file);
    let size = fs::metadata(&file).expect("the recording").len();
    println!("{events} events, {} captured bytes, {size} bytes in the file", bytes.len());
    for word in ["Tell me", "kernel", "answer leave"] {
        assert_eq!(holds(&bytes, word), text_stays, "{word}");
    }

    let table = text(&replay(&file, &[]).stdout);
    assert_eq!(table.lines().count(), 601, "{table}");
    let csv = text(&replay(&file, &["--format", "csv"]).stdout);
    assert!(csv.lines().skip(1).all(|line| line.split(',').count() == 13), "{csv}");
}

#[test]
fn a_blanked_recording_gives_the_same_and_holds_no_text() {
    require!(kernel, sample);
    what_is_replayed_is_what_was_seen(&[], false);
}

#[test]
fn a_recording_with_payload_gives_the_same_and_says_that_it_holds_text() {
    require!(kernel, sample);
    what_is_replayed_is_what_was_seen(&["--payload"], true);
}

/// A recording is refused where it would overwrite a file, ends at its largest size, and says where it is damaged.
#[test]
fn files_that_exist_are_full_or_damaged() {
    require!(kernel, sample);
    let server = Server::sample(&["--ttft", "1ms", "--token-interval", "1ms", "--tokens", "50"]);
    let scratch = Scratch::new();
    let file = scratch.write("taken", "something of somebody");
    let (port, listen) = (server.port().to_string(), observer_e2e::net::free_address().to_string());
    let mut refused = command::command();
    refused.arg("record").arg(&file).args(["--ports", &port, "--listen", &listen, "--for", "1s"]);
    let (status, said) = command::run(refused);
    assert!(!status.success() && said.iter().any(|line| line.contains("it exists")), "{said:#?}");
    assert_eq!(fs::read_to_string(&file).expect("untouched"), "something of somebody");

    let mut observer = Observer::recording(&file, &[server.port()], &["--force", "--max-bytes", "16K"]);
    load(&server, 200);
    let said = observer.wait(SOON);
    assert!(said.iter().any(|line| line.contains("largest size")), "{said:#?}");
    assert!(fs::metadata(&file).expect("the recording").len() <= 16 << 10);
    let whole = replay(&file, &["--format", "csv"]);
    assert!(whole.status.success() && text(&whole.stderr).contains("largest size"), "{}", text(&whole.stderr));

    let bytes = fs::read(&file).expect("the recording");
    let cut = scratch.file("cut");
    File::create(&cut).and_then(|mut file| file.write_all(&bytes[..bytes.len() - 40])).expect("a copy");
    let damaged = replay(&cut, &["--format", "csv"]);
    assert_eq!(damaged.status.code(), Some(1));
    let said = text(&damaged.stderr);
    assert!(said.contains("cut short at byte") && said.lines().count() == 1, "{said}");
    let (some, all) = (text(&damaged.stdout), text(&whole.stdout));
    assert!(all.starts_with(&some) && some.lines().count() >= 1);
}
