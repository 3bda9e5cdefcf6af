//! A token event must not cost an allocation: a busy server has tens of thousands of them per second. Nor may a long
//! prompt cost memory, or time for bytes that were not captured.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use observer::{
    event::{Cookie, Data, Direction, Event, OpaqueReason, Open},
    request::{
        record::{ConnectionInfo, Outcome, RequestRecord},
        tracker::{EventNames, Sink, Tracker, TrackerConfig},
    },
    time::KernelTime,
};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's; counting has no other effect.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's obligations are passed on as they are.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System`, in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Default)]
struct Last(Option<RequestRecord>);

impl Sink for Last {
    fn request(&mut self, record: RequestRecord) {
        self.0 = Some(record);
    }
    fn other_request(&mut self, _: &ConnectionInfo) {}
    fn opaque(&mut self, _: &ConnectionInfo, _: OpaqueReason) {}
    fn joined_mid_request(&mut self, _: &ConnectionInfo) {}
    fn gap(&mut self, _: Direction, _: u64) {}
    fn uncaptured(&mut self, _: Direction, _: u64) {}
    fn unparsed(&mut self, _: Direction, _: u64) {}
}

/// One connection.
struct Host {
    tracker: Tracker,
    sink: Last,
    time: u64,
    positions: [u32; 2],
}

impl Host {
    fn new() -> Self {
        let mut host =
            Self { tracker: Tracker::new(TrackerConfig::default()), sink: Last::default(), time: 0, positions: [0; 2] };
        let open = Open {
            cookie: Cookie(1),
            time: KernelTime::default(),
            established: None,
            pid: 1,
            server: Some(([127, 0, 0, 1], 80).into()),
            client: None,
            cgroup: 0,
            send_sequence: None,
            receive_sequence: None,
            comm: "x".to_owned(),
            late: false,
            mid_request: false,
            opaque: None,
        };
        host.tracker.event(&Event::Open(open), &mut EventNames, &mut host.sink);
        host
    }

    /// Captured as the kernel side does: 4096 bytes of head, 512 of tail.
    fn call(&mut self, direction: Direction, bytes: &[u8]) {
        let head = bytes.len().min(4096);
        let tail = (bytes.len() - head).min(512);
        self.long(direction, &bytes[..head], bytes.len() - head - tail, &bytes[bytes.len() - tail..]);
    }

    fn long(&mut self, direction: Direction, head: &[u8], hole: usize, tail: &[u8]) {
        self.time += 1_000_000;
        let position = &mut self.positions[direction as usize];
        let data = Data {
            cookie: Cookie(1),
            time: KernelTime::from_nanos(self.time),
            direction,
            sequence: *position,
            length: (head.len() + hole + tail.len()) as u32,
            requested: None,
            errno: 0,
            unsent: 0,
            head,
            tail,
            pid: 1,
        };
        *position = position.wrapping_add(data.length);
        self.tracker.event(&Event::Data(data), &mut EventNames, &mut self.sink);
        self.tracker.tick(KernelTime::from_nanos(self.time), &mut self.sink);
    }
}

/// Path and body of a request, content type of the response, one token event, whether events can be counted.
fn streams() -> Vec<(&'static str, &'static str, &'static str, String, bool)> {
    let (sse, lines) = ("text/event-stream", "application/x-ndjson");
    let chat =
        r#"{"model":"served","choices":[{"index":0,"delta":{"content":" the"},"finish_reason":null}],"usage":null}"#;
    let alternatives = r#"{"token":"abc","logprob":-1.5,"bytes":[97,98,99]},"#.repeat(200);
    let logprobs = format!(
        r#"{{"model":"served","choices":[{{"index":0,"delta":{{"content":"a"}},"logprobs":[{alternatives}0],"finish_reason":null}}]}}"#
    );
    let delta = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
    let ollama = r#"{"model":"served","created_at":"x","message":{"role":"assistant","content":"a"},"done":false}"#;
    let typed = r#"{"type":"response.output_text.delta","sequence_number":4,"item_id":"x","delta":"a"}"#;
    let tgi = r#"{"index":1,"token":{"id":2,"text":"a","logprob":-0.1,"special":false},"generated_text":null}"#;
    let data = |json: &str| format!("data: {json}\n\n");
    vec![
        ("/v1/completions", "{}", sse, data(r#"{"model":"served","choices":[{"index":0,"text":"a"}]}"#), true),
        ("/v1/chat/completions", "{}", sse, data(chat), true),
        ("/v1/chat/completions", "{}", sse, data(&logprobs), false),
        ("/v1/messages", r#"{"max_tokens":1}"#, sse, format!("event: content_block_delta\ndata: {delta}\n\n"), true),
        ("/v1/responses", r#"{"input":"x"}"#, sse, format!("event: x\ndata: {typed}\n\n"), true),
        ("/api/chat", r#"{"model":"x"}"#, lines, format!("{ollama}\n"), true),
        ("/generate_stream", r#"{"inputs":"x"}"#, sse, data(tgi), true),
    ]
}

fn token_events_allocate_nothing() {
    for (path, body, content_type, token, counted) in streams() {
        let mut host = Host::new();
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}");
        host.call(Direction::Receive, head.as_bytes());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        host.call(Direction::Send, head.as_bytes());
        let token = format!("{:x}\r\n{token}\r\n", token.len());
        for _ in 0..10 {
            host.call(Direction::Send, token.as_bytes());
        }
        let before = COUNT.load(Ordering::Relaxed);
        for _ in 0..10_000 {
            host.call(Direction::Send, token.as_bytes());
        }
        // The test's own harness may allocate now and then on its thread.
        let allocations = COUNT.load(Ordering::Relaxed) - before;
        assert!(allocations < 100, "{allocations} allocations for 10000 token events of {path}");
        if !counted {
            let finish = "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}\n\n";
            host.call(Direction::Send, format!("{:x}\r\n{finish}\r\n", finish.len()).as_bytes());
        }
        host.call(Direction::Send, b"0\r\n\r\n");
        let record = host.sink.0.expect("it ended");
        assert_eq!((record.outcome, record.token_events), (Outcome::Ok, counted.then_some(10_010)), "{path}");
        assert_eq!(record.gaps.count, 10_009, "{path}");
    }
}

/// Bytes allocated, and CPU time, of reading a request of `reads` times 64 KiB and its answer; `stretch` times as many
/// bytes with as many captured.
fn long_prompt(host: &mut Host, reads: usize, stretch: usize) -> (u64, Duration) {
    let hole = stretch * 65_536 - 4608;
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"#, "word ".repeat(1000));
    let length = reads * (hole + 4608);
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    let text = "word ".repeat(1000);
    let (before, begun) = (BYTES.load(Ordering::Relaxed), cpu_time());
    host.call(Direction::Receive, head.as_bytes());
    host.long(Direction::Receive, &body.as_bytes()[..4096], hole, &text.as_bytes()[..512]);
    for _ in 1..reads {
        host.long(Direction::Receive, &text.as_bytes()[..4096], hole, &text.as_bytes()[..512]);
    }
    let spent = (BYTES.load(Ordering::Relaxed) - before, cpu_time() - begun);
    host.call(Direction::Send, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let record = host.sink.0.take().expect("it was answered");
    assert_eq!((record.outcome, record.request_bytes), (Outcome::Ok, (length + head.len()) as u64));
    spent
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer; the clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn a_long_prompt_costs_what_is_captured_of_it() {
    let mut host = Host::new();
    let least = |host: &mut Host, stretch| {
        let rounds = (0..200).map(|_| long_prompt(host, 5, stretch));
        rounds.fold((u64::MAX, Duration::MAX), |least, round| (least.0.min(round.0), least.1.min(round.1)))
    };
    let (few, short) = least(&mut host, 1);
    let (many, long) = least(&mut host, 100);
    assert!(few < 4096 && many < 4096, "{few} and {many} bytes allocated for 300 KB and 30 MB");
    assert!(long < 2 * short + Duration::from_micros(20), "{short:?} for 300 KB, {long:?} for 30 MB");

    // Captured from beginning to end: read where it lies, and not kept.
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}],"model":"asked"}}"#, "word ".repeat(60_000));
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    let before = BYTES.load(Ordering::Relaxed);
    host.call(Direction::Receive, head.as_bytes());
    body.as_bytes().chunks(4096).for_each(|part| host.call(Direction::Receive, part));
    let kept = BYTES.load(Ordering::Relaxed) - before;
    host.call(Direction::Send, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(host.sink.0.take().and_then(|record| record.request_model).as_deref(), Some("asked"));
    assert!(kept < 4096, "{kept} bytes allocated for a prompt of 300 KB that was captured whole");
}

/// In one test: others at the same time would allocate, too.
#[test]
fn what_is_frequent_and_what_is_long_costs_little() {
    token_events_allocate_nothing();
    a_long_prompt_costs_what_is_captured_of_it();
}
