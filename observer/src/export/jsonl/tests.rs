use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::UNIX_EPOCH,
};

use serde_json::Value;

use super::*;
use crate::{
    metrics::fixture::{at, request},
    request::record::{HeaderLabel, IncompleteReason, Outcome},
};

const SECOND: Duration = Duration::from_secs(1);

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("observer-jsonl-{}-{name}", std::process::id()));
        let _fresh = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

struct Bench {
    log: RequestLog,
    queue_full: Arc<Counter>,
    write_error: Arc<Counter>,
}

fn open(path: &Path, chunks: bool, queue: usize) -> Bench {
    let (queue_full, write_error) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    let config = RequestLogConfig { path: Some(path.to_owned()), chunks, queue };
    let clock: WallClock = Box::new(|time| UNIX_EPOCH + Duration::from_nanos(time.as_nanos()));
    let log = RequestLog::open(&config, clock, None, Arc::clone(&queue_full), Arc::clone(&write_error), || ())
        .unwrap()
        .unwrap();
    Bench { log, queue_full, write_error }
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + 5 * SECOND;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn no_path_no_log() {
    let clock: WallClock = Box::new(|_| UNIX_EPOCH);
    let log = RequestLog::open(&RequestLogConfig::default(), clock, None, Arc::default(), Arc::default(), || ());
    assert!(log.unwrap().is_none());
}

#[test]
fn a_line_has_exactly_these_keys() {
    let scratch = Scratch::new("keys");
    let path = scratch.file("log");
    let bench = open(&path, false, 8);
    bench.log.write(request());
    assert!(bench.log.close(SECOND));
    let line = &lines(&path)[0];
    let expected = serde_json::json!({
        "t_arrive_ns": 1_000_000_000_000_u64, "t_read_ns": 1_000_002_000_000_u64, "t_ready_ns": 1_000_005_000_000_u64,
        "t_header_ns": 1_000_010_000_000_u64, "t_first_ns": 1_000_100_000_000_u64,
        "t_first_content_ns": 1_000_300_000_000_u64, "t_last_ns": 1_001_100_000_000_u64,
        "t_end_ns": 1_001_101_000_000_u64, "wall_time": "1970-01-01T00:16:40.000000Z",
        "client": "10.0.0.2:40000", "server": "127.0.0.1:8000", "pid": 42, "comm": "vllm", "workload": "vllm:8000",
        "operation": "chat", "api": "openai", "role": null, "request_model": "m", "response_model": "m", "stream": true, "outcome": "ok",
        "incomplete_reason": null, "status": 200, "token_events": 11, "input_tokens": 50, "output_tokens": 21,
        "cached_input_tokens": 16, "reasoning_output_tokens": 5, "finish_reasons": ["stop"], "gpu": null, "request_bytes": 300,
        "response_bytes": 3000, "write_blocked_ns": 0, "cancelled_work_ns": null, "unsent_stamps": 0, "request_id": null, "trace_id": null,
    });
    assert_eq!(line, &expected);
}

#[test]
fn labels_from_headers_are_an_object_where_they_are_configured() {
    let scratch = Scratch::new("labels");
    let path = scratch.file("log");
    let bench = open(&path, false, 8);
    let label = |name: &str, value: Option<&str>| HeaderLabel { name: name.into(), value: value.map(Arc::from) };
    let labels = Box::new([label("tenant", Some("acme \"1\"")), label("team", None)]);
    bench.log.write(RequestRecord { labels, ..request() });
    assert!(bench.log.close(SECOND));
    assert_eq!(lines(&path)[0]["labels"], serde_json::json!({"tenant": "acme \"1\"", "team": null}));
}

#[test]
fn unknown_is_null_and_chunks_are_told_where_asked() {
    let scratch = Scratch::new("chunks");
    let path = scratch.file("log");
    let bench = open(&path, true, 8);
    let mut record = request();
    record.timeline = <_>::default();
    record.outcome = Outcome::Incomplete;
    record.incomplete = Some(IncompleteReason::HeadGap);
    record.chunk_times = vec![at(100).unwrap(), at(200).unwrap()];
    record.chunk_unsent = vec![1];
    record.request_id = Some("r-\"1\"".into());
    bench.log.write(record);
    assert!(bench.log.close(SECOND));
    let line = &lines(&path)[0];
    for key in ["t_arrive_ns", "t_end_ns", "wall_time"] {
        assert_eq!(line[key], Value::Null, "{key}");
    }
    assert_eq!((&line["incomplete_reason"], &line["request_id"]), (&"head_gap".into(), &"r-\"1\"".into()));
    assert_eq!(line["chunk_times_ns"], serde_json::json!([1_000_100_000_000_u64, 1_000_200_000_000_u64]));
    assert_eq!(line["chunk_unsent"], serde_json::json!([1]));
}

#[test]
fn lines_are_appended_soon_and_not_for_everyone() {
    let scratch = Scratch::new("append");
    let path = scratch.file("log");
    fs::write(&path, "{}\n").unwrap();
    let bench = open(&path, false, 8);
    bench.log.write(request());
    let begin = Instant::now();
    wait("the line", || lines(&path).len() == 2);
    assert!(begin.elapsed() < SECOND);
    let other = scratch.file("new");
    drop(open(&other, false, 8));
    assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o137, 0);
}

#[test]
fn a_rotated_file_is_reopened() {
    let scratch = Scratch::new("rotate");
    let (path, old) = (scratch.file("log"), scratch.file("log.1"));
    let bench = open(&path, false, 8);
    bench.log.write(request());
    wait("the first line", || lines(&path).len() == 1);
    fs::rename(&path, &old).unwrap();
    let before = fs::metadata(&old).unwrap().ino();
    bench.log.reopener().reopen();
    wait("a new file", || path.exists());
    bench.log.write(request());
    assert!(bench.log.close(SECOND));
    assert_ne!(fs::metadata(&path).unwrap().ino(), before);
    assert_eq!((lines(&old).len(), lines(&path).len()), (1, 1));
}

#[test]
fn a_slow_reader_costs_lines_that_are_counted() {
    // A pipe that nobody reads blocks the writer when it is full.
    let scratch = Scratch::new("slow");
    let path = scratch.file("pipe");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: `name` is a string that ends with a zero, and lives through the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let bench = open(&path, false, 4);
    // The queue may be full for a moment at any time; the writer is stuck once it stays full.
    let (mut written, mut refused) = (0_u64, 0);
    while refused < 50 {
        let before = bench.queue_full.get();
        let begin = Instant::now();
        bench.log.write(request());
        assert!(begin.elapsed() < SECOND, "the caller must never wait");
        written += 1;
        assert!(written < 1_000_000, "the pipe never filled up");
        if bench.queue_full.get() > before {
            refused += 1;
            thread::sleep(Duration::from_millis(10));
        } else {
            refused = 0;
        }
    }
    let dropped = bench.queue_full.get();
    let stuck = thread::spawn(move || bench.log.close(Duration::from_millis(100)));
    assert!(!stuck.join().unwrap(), "the deadline must hold");
    // Everything that was not dropped arrives once the reader reads.
    let mut received = 0;
    let mut buffer = vec![0; 1 << 16];
    while received < written - dropped {
        let length = reader.read(&mut buffer).unwrap();
        received += buffer[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    assert_eq!(received, written - dropped);
}

#[test]
fn write_errors_are_counted_and_survived() {
    let bench = open(Path::new("/dev/full"), false, 8);
    bench.log.write(request());
    bench.log.write(request());
    wait("the count", || bench.write_error.get() == 2);
    bench.log.write(request());
    wait("the next count", || bench.write_error.get() == 3);
    assert!(bench.log.close(SECOND));
    assert_eq!(bench.queue_full.get(), 0);
}

#[test]
fn a_line_that_broke_off_is_ended_and_only_it_is_lost() {
    let scratch = Scratch::new("torn");
    let path = scratch.file("log");
    let mut writer = Writer {
        path: path.clone(),
        target: Target::open(&path).unwrap(),
        chunks: false,
        clock: Box::new(|_| UNIX_EPOCH),
        gpus: None,
        buffer: b"{\"a\":1}\n{\"b\":2}\n".to_vec(),
        torn: false,
        failing: false,
        write_error: Arc::default(),
        control: Arc::default(),
    };
    let error = io::Error::from(io::ErrorKind::StorageFull);
    writer.target.write(b"{\"a\":1}\n{\"b").unwrap();
    writer.give_up(11, &error);
    assert_eq!((writer.write_error.get(), writer.torn, writer.failing), (1, true, true));
    writer.append(&request());
    writer.flush();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\"a\":1}\n{\"b\n{\"t_arrive_ns\"") && text.ends_with("}\n"), "{text}");
    assert!(!writer.torn && !writer.failing);
    let keys: BTreeSet<_> = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).collect();
    assert_eq!(keys.len(), 2);
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let config = RequestLogConfig { path: Some("/no/such/directory/log".into()), ..RequestLogConfig::default() };
    let clock: WallClock = Box::new(|_| UNIX_EPOCH);
    let error =
        RequestLog::open(&config, clock, None, Arc::default(), Arc::default(), || ()).err().unwrap().to_string();
    assert!(error.contains("cannot append to the request log /no/such/directory/log"), "{error}");
}
