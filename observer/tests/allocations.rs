//! A token event must not cost an allocation: a busy server has tens of thousands of them per second.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

use observer::{
    event::{Cookie, Data, Direction, Event, OpaqueReason, Open},
    request::{
        record::{ConnectionInfo, RequestRecord},
        tracker::{EventNames, Sink, Tracker, TrackerConfig},
    },
    time::KernelTime,
};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's; counting has no other effect.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
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

#[test]
fn a_token_event_allocates_nothing() {
    let mut tracker = Tracker::new(TrackerConfig::default());
    let mut sink = Last::default();
    let (mut time, mut positions) = (0, [0_u32; 2]);
    let mut call = |tracker: &mut Tracker, sink: &mut Last, direction: Direction, bytes: &[u8]| {
        time += 1_000_000;
        let position = &mut positions[direction as usize];
        let data = Data {
            cookie: Cookie(1),
            time: KernelTime::from_nanos(time),
            direction,
            sequence: *position,
            length: bytes.len() as u32,
            requested: None,
            errno: 0,
            unsent: 0,
            head: bytes,
            tail: &[],
            pid: 1,
        };
        *position += data.length;
        tracker.event(&Event::Data(data), &mut EventNames, sink);
        tracker.tick(KernelTime::from_nanos(time), sink);
    };
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
    tracker.event(&Event::Open(open), &mut EventNames, &mut sink);
    call(&mut tracker, &mut sink, Direction::Receive, b"POST /v1/completions HTTP/1.1\r\n\r\n");
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    call(&mut tracker, &mut sink, Direction::Send, head);
    let event = r#"data: {"model":"served","choices":[{"index":0,"text":"a","finish_reason":null}],"usage":null}"#;
    let token = format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2);
    for _ in 0..10 {
        call(&mut tracker, &mut sink, Direction::Send, token.as_bytes());
    }
    let before = COUNT.load(Ordering::Relaxed);
    for _ in 0..10_000 {
        call(&mut tracker, &mut sink, Direction::Send, token.as_bytes());
    }
    // The test's own harness may allocate now and then on its thread.
    let allocations = COUNT.load(Ordering::Relaxed) - before;
    assert!(allocations < 100, "{allocations} allocations for 10000 token events");
    call(&mut tracker, &mut sink, Direction::Send, b"0\r\n\r\n");
    assert_eq!(sink.0.and_then(|record| record.token_events), Some(10_010));
}
