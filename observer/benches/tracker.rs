//! How fast events become finished requests: streams of many connections, interleaved as a busy host interleaves them,
//! through a [`Tracker`]. `cargo bench -p observer --bench tracker [SHAPE]`.
//!
//! An element is an event of the kernel side: a read or a write. Time is the thread's CPU time, because machines are
//! shared. `cold` is what a drain thread that sleeps between batches sees: the caches hold something else by then.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput};
use observer::{
    event::{Cookie, Data, Direction, Event, OpaqueReason, Open},
    request::{
        record::{ConnectionInfo, RequestRecord},
        tracker::{EventNames, Sink, Tracker, TrackerConfig},
    },
    time::KernelTime,
};

/// Streams at the same time.
const CONNECTIONS: usize = 256;
/// Token events of one stream.
const TOKENS: usize = 64;
/// Calls that one drain finds at 10,000 token events per second.
const BATCH: usize = 100;
/// More than the caches next to a core hold.
const FLUSH: usize = 16 << 20;
/// The default of `metrics.buckets.gap`, near enough.
const BOUNDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0];
const WORDS: [&str; 8] = [" the", " kernel", "\\n\\n", " every", " token", "\\u00e9t\\u00e9", " in", " \\\"time\\\""];

/// How a server words and writes its stream.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Shape {
    /// vLLM behind uvicorn: one call for a chunk that is an event, all keys there, `"usage":null`. What hyper gathers
    /// from three buffers looks the same once the kernel side has joined them.
    Whole,
    /// As `Whole`, between other work.
    Cold,
    /// Head, data and line end of a chunk in three calls.
    Pieces,
    /// Eight events in one call.
    Burst,
}

impl Shape {
    const ALL: [(Self, &str); 4] =
        [(Self::Whole, "whole"), (Self::Cold, "cold"), (Self::Pieces, "pieces"), (Self::Burst, "burst")];

    /// The calls that write one answer.
    fn calls(self, connection: usize) -> Vec<Vec<u8>> {
        let event = |delta: &str, finish: &str| {
            format!(
                "data: {{\"id\":\"chatcmpl-5f0c6b7d9e{connection:022x}\",\"object\":\"chat.completion.chunk\",\
                 \"created\":1767225600,\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"choices\":[{{\"index\":0,\
                 \"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
            )
        };
        let mut calls = vec![
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            chunk(&event("{\"role\":\"assistant\",\"content\":\"\"}", "null")).concat().into_bytes(),
        ];
        let tokens: Vec<_> = (0..TOKENS)
            .map(|n| chunk(&event(&format!("{{\"content\":\"{}\"}}", WORDS[(connection + n) % WORDS.len()]), "null")))
            .collect();
        match self {
            Self::Whole | Self::Cold => calls.extend(tokens.iter().map(|parts| parts.concat().into_bytes())),
            Self::Pieces => calls.extend(tokens.iter().flatten().map(|part| part.clone().into_bytes())),
            Self::Burst => calls.extend(tokens.chunks(8).map(|burst| burst.as_flattened().concat().into_bytes())),
        }
        let end =
            [chunk(&event("{}", "\"stop\"")).concat(), chunk("data: [DONE]\n\n").concat(), "0\r\n\r\n".to_owned()];
        calls.extend(end.map(String::into_bytes));
        calls
    }
}

/// One request of every connection: the calls that read it.
fn request() -> [String; 2] {
    let body = r#"{"model":"meta-llama/Llama-3.1-8B-Instruct","stream":true,"messages":[]}"#;
    [format!("POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len()), body.to_owned()]
}

/// One answer of every connection, in the order in which its calls come; as in the ring, one behind the other.
struct Script {
    bytes: Vec<u8>,
    /// Connection and end of its bytes; those of one turn after those of another.
    calls: Vec<(usize, usize)>,
}

impl Script {
    fn new(shape: Shape) -> Self {
        // Connections do not take turns in order of their age.
        let connections = (0..CONNECTIONS).map(|connection| connection * 97 % CONNECTIONS);
        let mut answers: Vec<_> =
            connections.map(|connection| (connection, shape.calls(connection).into_iter())).collect();
        let mut script = Self { bytes: Vec::new(), calls: Vec::new() };
        loop {
            for (connection, calls) in &mut answers {
                let Some(call) = calls.next() else { return script };
                script.bytes.extend_from_slice(&call);
                script.calls.push((*connection, script.bytes.len()));
            }
        }
    }
}

fn chunk(data: &str) -> [String; 3] {
    [format!("{:x}\r\n", data.len()), data.to_owned(), "\r\n".to_owned()]
}

/// Counts.
#[derive(Default)]
struct Count {
    requests: usize,
    tokens: u64,
}

impl Sink for Count {
    fn request(&mut self, record: RequestRecord) {
        self.requests += usize::from(record.incomplete.is_none());
        self.tokens += record.token_events.unwrap_or_default();
    }
    fn other_request(&mut self, _: &ConnectionInfo) {}
    fn opaque(&mut self, _: &ConnectionInfo, _: OpaqueReason) {}
    fn joined_mid_request(&mut self, _: &ConnectionInfo) {}
    fn gap(&mut self, _: Direction, _: u64) {}
    fn uncaptured(&mut self, _: Direction, _: u64) {}
    fn unparsed(&mut self, _: Direction, _: u64) {}
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer; the clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A host: all its connections, and the tracker that watches them.
struct Host {
    tracker: Tracker,
    count: Count,
    time: u64,
    positions: Vec<[u32; 2]>,
    flush: Vec<u8>,
}

impl Host {
    fn new() -> Self {
        let config = TrackerConfig { gap_bounds: Arc::new(BOUNDS), ..TrackerConfig::default() };
        let mut host = Self {
            tracker: Tracker::new(config),
            count: Count::default(),
            time: 1_000_000_000,
            positions: vec![[0; 2]; CONNECTIONS],
            flush: vec![1; FLUSH],
        };
        for connection in 0..CONNECTIONS {
            let open = Open {
                cookie: Cookie(connection as u64),
                time: KernelTime::from_nanos(host.time),
                established: None,
                pid: 1,
                server: Some(([127, 0, 0, 1], 8000).into()),
                client: Some(([127, 0, 0, 1], 50_000).into()),
                cgroup: 1,
                send_sequence: Some(0),
                receive_sequence: Some(0),
                comm: "vllm".to_owned(),
                late: false,
                mid_request: false,
                opaque: None,
            };
            host.tracker.event(&Event::Open(open), &mut EventNames, &mut host.count);
        }
        host
    }

    fn call(&mut self, connection: usize, direction: Direction, bytes: &[u8]) {
        // Some 20 ms between the events of a stream, more or less.
        self.time += 60_000 + (self.time >> 3) % 40_000;
        let position = &mut self.positions[connection][direction as usize];
        let data = Data {
            cookie: Cookie(connection as u64),
            time: KernelTime::from_nanos(self.time),
            direction,
            sequence: *position,
            length: bytes.len() as u32,
            requested: Some(bytes.len() as u32),
            errno: 0,
            unsent: 0,
            head: bytes,
            tail: &[],
            pid: 1,
        };
        *position = position.wrapping_add(data.length);
        self.tracker.event(&Event::Data(data), &mut EventNames, &mut self.count);
    }

    /// One request and its answer on each connection: CPU time of all that.
    fn round(&mut self, request: &[String; 2], script: &Script, cold: bool) -> Duration {
        let mut spent = Duration::ZERO;
        for connections in (0..CONNECTIONS).collect::<Vec<_>>().chunks(BATCH / request.len()) {
            spent += self.batch(cold, |host| {
                for (connection, part) in connections.iter().flat_map(|at| request.iter().map(move |part| (at, part))) {
                    host.call(*connection, Direction::Receive, part.as_bytes());
                }
            });
        }
        let mut begin = 0;
        for calls in script.calls.chunks(BATCH) {
            spent += self.batch(cold, |host| {
                for (connection, end) in calls {
                    host.call(*connection, Direction::Send, &script.bytes[begin..*end]);
                    begin = *end;
                }
            });
        }
        spent
    }

    /// What one drain does.
    fn batch(&mut self, cold: bool, calls: impl FnOnce(&mut Self)) -> Duration {
        if cold {
            self.flush.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
            black_box(&mut self.flush);
        }
        let before = cpu_time();
        calls(self);
        self.tracker.tick(KernelTime::from_nanos(self.time), &mut self.count);
        cpu_time() - before
    }
}

fn tracker(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tracker");
    let request = request();
    for (shape, name) in Shape::ALL {
        let script = Script::new(shape);
        group.throughput(Throughput::Elements((script.calls.len() + request.len() * CONNECTIONS) as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            let mut host = Host::new();
            bencher.iter_custom(|rounds| {
                host.count = Count::default();
                let spent = (0..rounds).map(|_| host.round(&request, &script, shape == Shape::Cold)).sum();
                let answers = rounds as usize * CONNECTIONS;
                assert_eq!(host.count.requests, answers, "each answer is complete");
                assert_eq!(host.count.tokens as usize, answers * TOKENS, "each token event was seen");
                spent
            });
        });
    }
    group.finish();
}

fn main() {
    let defaults = Criterion::default().sample_size(40).measurement_time(Duration::from_secs(4)).without_plots();
    let mut criterion = defaults.configure_from_args();
    tracker(&mut criterion);
    criterion.final_summary();
}
