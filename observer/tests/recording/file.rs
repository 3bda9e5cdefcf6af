//! The file: what goes in comes out, whatever happens to it in between.

use std::{io::Write, net::SocketAddr};

use observer::{
    event::{
        Arrival, Arrivals, Connect, Cookie, Data, Direction, Event, Listen, OpaqueReason, Open, State, StateChange,
    },
    recording::{End, Header, Item, Names, ReadError, Reader, RecordOptions, Recorder, Summary},
    time::KernelTime,
};

use crate::{Memory, at, open};

fn header(payload: bool) -> Header {
    Header { payload, kernel: at(5), wall: 1_700_000_000_000_000_000, version: "0.0.0".to_owned() }
}

fn record_with(options: RecordOptions, feed: impl FnOnce(&mut Recorder)) -> (Vec<u8>, Summary) {
    let memory = Memory::default();
    let mut recorder = Recorder::start(memory.clone(), options).expect("a header in memory");
    feed(&mut recorder);
    let summary = recorder.finish().expect("an end in memory");
    let bytes = memory.0.lock().expect("nobody panicked with it").clone();
    assert_eq!(summary.bytes, bytes.len() as u64);
    (bytes, summary)
}

fn record(payload: bool, feed: impl FnOnce(&mut Recorder)) -> (Vec<u8>, Summary) {
    record_with(RecordOptions { header: header(payload), max_bytes: 1 << 30, kept_fields: Vec::new() }, feed)
}

/// Everything that can be read, as text, and how it ended.
fn read(bytes: &[u8]) -> (Vec<String>, Result<(), ReadError>) {
    let mut items = Vec::new();
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (items, Err(error)),
    };
    items.push(format!("{:?}", reader.header()));
    loop {
        match reader.next() {
            Ok(Some(item)) => items.push(format!("{item:?}")),
            Ok(None) => break,
            Err(error) => {
                assert!(matches!(reader.next(), Ok(None)), "nothing follows an error");
                return (items, Err(error));
            }
        }
    }
    (items, Ok(()))
}

fn data(head: &[u8]) -> Data<'_> {
    Data {
        cookie: Cookie(u64::MAX),
        time: at(2),
        direction: Direction::Receive,
        sequence: u32::MAX - 1,
        length: head.len() as u32,
        requested: None,
        errno: 0,
        unsent: 0,
        head,
        tail: &[],
        pid: 7,
    }
}

/// One event of every kind, with every field at its ends.
fn events(mut each: impl FnMut(Event<'_>, Option<Names>)) {
    let names = Names { comm: "python3".into(), workload: "wörkload".into() };
    let v6: SocketAddr = "[2001:db8::1]:443".parse().expect("an address");
    each(Event::Open(open(0)), None);
    each(Event::Open(open(u64::MAX - 1)), Some(names.clone()));
    for reason in OpaqueReason::ALL {
        let full = Open {
            established: Some(at(0)),
            server: Some(v6),
            client: None,
            cgroup: u64::MAX,
            send_sequence: Some(u32::MAX),
            receive_sequence: Some(0),
            comm: String::new(),
            late: true,
            mid_request: true,
            opaque: Some(reason),
            ..open(3)
        };
        each(Event::Open(full), Some(names.clone()));
    }
    each(Event::Data(data(b"")), None);
    each(Event::Data(data(b"POST / HTTP/1.1")), None);
    let full = Data {
        time: KernelTime::from_nanos(u64::MAX),
        direction: Direction::Send,
        length: u32::MAX,
        requested: Some(u32::MAX),
        errno: libc::EPIPE,
        unsent: 1,
        head: &[0, 255, 10],
        tail: b"tail",
        ..data(b"")
    };
    each(Event::Data(full), None);
    each(Event::Arrivals(Arrivals { cookie: Cookie(1), stamps: &[] }), None);
    let stamps = [Arrival { begin: u32::MAX, end: 5, time: at(1).as_nanos() }, Arrival { begin: 5, end: 4, time: 0 }];
    each(Event::Arrivals(Arrivals { cookie: Cookie(1), stamps: &stamps }), None);
    for change in [
        StateChange::ClientFin,
        StateChange::Reset,
        StateChange::ServerFin,
        StateChange::Closed,
        StateChange::OutOfScope,
    ] {
        let state = State { cookie: Cookie(9), time: at(3), change, write_sequence: 1, receive_sequence: u32::MAX };
        each(Event::State(state), None);
    }
    each(Event::Listen(Listen { time: at(4), pid: u32::MAX, port: u16::MAX }), None);
    let local = "127.0.0.1:1".parse().expect("an address");
    each(Event::Connect(Connect { time: at(4), pid: 1, local, remote: v6 }), None);
}

fn feed(recorder: &mut Recorder) {
    events(|event, names| recorder.event(&event, names));
    recorder.tick(at(5));
    recorder.ended(Cookie(77));
    // Time enough for a second block.
    recorder.tick(at(5000));
    recorder.event(&Event::Data(data(b"GET / HTTP/1.1\r\n\r\n")), None);
    recorder.tick(at(10_000));
    recorder.tick(KernelTime::from_nanos(0));
}

#[test]
fn every_kind_comes_back() {
    let (bytes, summary) = record(true, feed);
    let mut expected = vec![format!("{:?}", header(true))];
    events(|event, names| expected.push(format!("{:?}", Item::Event(event, names))));
    let count = expected.len() as u64;
    expected.push(format!("{:?}", Item::Tick(at(5))));
    expected.push(format!("{:?}", Item::Ended(Cookie(77))));
    expected.push(format!("{:?}", Item::Tick(at(5000))));
    expected.push(format!("{:?}", Item::Event(Event::Data(data(b"GET / HTTP/1.1\r\n\r\n")), None)));
    expected.push(format!("{:?}", Item::Tick(at(10_000))));
    expected.push(format!("{:?}", Item::Tick(KernelTime::from_nanos(0))));
    let (items, end) = read(&bytes);
    assert_eq!(items, expected);
    end.unwrap();
    assert_eq!((summary.trailer.end, summary.trailer.events, summary.trailer.lost), (End::Stopped, count, 0));

    // Without payload the same events, in the same order, with as many bytes.
    let (blanked, _) = record(false, feed);
    let (items, end) = read(&blanked);
    end.unwrap();
    assert_eq!(items.len(), expected.len());
    for (item, expected) in items[1..].iter().zip(&expected[1..]) {
        let of_data = item.contains("Data(");
        assert!(of_data || item == expected, "{item} is not {expected}");
    }
}

#[test]
fn cut_anywhere_it_is_read_up_to_there() {
    let (bytes, _) = record(true, feed);
    let (whole, _) = read(&bytes);
    let mut longest = 0;
    for length in 0..bytes.len() {
        let (items, end) = read(&bytes[..length]);
        assert!(whole.starts_with(&items), "cut at {length}");
        match end.unwrap_err() {
            ReadError::Truncated { offset, .. } => assert_eq!(offset, length as u64),
            error => panic!("cut at {length}: {error}"),
        }
        assert!(items.len() >= longest, "more bytes, fewer items");
        longest = items.len();
    }
    // All of it but its end.
    assert_eq!(longest, whole.len());
}

#[test]
fn damaged_anywhere_it_is_read_up_to_there() {
    let (bytes, _) = record(true, feed);
    let (whole, _) = read(&bytes);
    for index in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff, bytes[index]] {
            let mut damaged = bytes.clone();
            damaged[index] ^= flip;
            if damaged == bytes {
                continue;
            }
            let (items, end) = read(&damaged);
            assert!(whole.starts_with(&items), "byte {index} ^ {flip:#x}");
            assert!(end.is_err(), "byte {index} ^ {flip:#x} went unnoticed");
        }
    }
    let (items, end) = read(&[bytes.as_slice(), b"more"].concat());
    assert_eq!(items, whole);
    assert!(matches!(end, Err(ReadError::Corrupt { offset, .. }) if offset == bytes.len() as u64), "{end:?}");
}

#[test]
fn what_is_no_recording_says_so() {
    for text in ["{}", "GIF89a", "0123456789abcdef0123456789"] {
        let (items, end) = read(text.as_bytes());
        assert!(items.is_empty() && matches!(end, Err(ReadError::NotARecording)), "{text}");
    }
    let (bytes, _) = record(true, |_| {});
    let mut later = bytes.clone();
    later[8] = 9;
    let error = read(&later).1.unwrap_err().to_string();
    assert!(error.contains("format 9") && error.contains("newer observer"), "{error}");
    assert!(read(&bytes).1.is_ok(), "nothing happened, and that is a recording");
}

/// A block as the format describes it, by hand.
fn block(kind: u8, coding: u8, raw_length: u32, stored: &[u8]) -> Vec<u8> {
    let mut block = vec![kind, coding, 0, 0];
    block.extend((stored.len() as u32).to_le_bytes());
    block.extend(raw_length.to_le_bytes());
    let sum = crc32(&[&block, stored].map(|part: &[u8]| part).concat());
    block.extend(sum.to_le_bytes());
    block.extend(stored);
    block
}

/// Bit by bit: nothing shared with the code under test.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let (bytes, _) = record(true, |_| {});
    let header_length = 16 + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize + 4;
    let (header, trailer) = bytes.split_at(header_length);
    // An item of kind 200, then a tick (kind 1) with one more field than is known, then a block of kind 9.
    let items = [3, 200, 1, 2, 3, 1, 14, 99];
    let file = [header, &block(1, 0, 8, &items), &block(9, 0, 2, b"??"), trailer].concat();
    let mut reader = Reader::new(file.as_slice()).unwrap();
    assert!(matches!(reader.next(), Ok(Some(Item::Unknown(200)))));
    assert!(matches!(reader.next(), Ok(Some(Item::Tick(time))) if time == KernelTime::from_nanos(7)));
    assert!(matches!(reader.next(), Ok(None)));
    assert_eq!(reader.unknown(), 2);
    assert!(reader.trailer().is_some());
}

#[test]
fn a_hostile_block_is_refused_before_it_costs_anything() {
    let (bytes, _) = record(true, |_| {});
    let header_length = 16 + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize + 4;
    let with = |block: &[u8]| read(&[&bytes[..header_length], block].concat()).1.unwrap_err().to_string();
    let huge = [1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0];
    assert!(with(&huge).contains("larger than any"));
    // LZ4 that claims more than it holds, and less.
    for claimed in [0, 1, 1 << 20] {
        assert!(with(&block(1, 1, claimed, &[0x1f, 0, 1, 0, 255, 255, 255, 0])).contains("cannot be decompressed"));
    }
    assert!(with(&block(1, 7, 1, b"x")).contains("does not know"));
    assert!(with(&block(1, 0, 2, b"x")).contains("not as long"));
    // Frames that are none: longer than the block, without a kind, a number without an end, two billion stamps.
    for items in [&[5, 1][..], &[0], &[1, 1], &[255; 12], &[7, 18, 1, 255, 255, 255, 255, 7], &[2, 19, 1]] {
        assert!(with(&block(1, 0, items.len() as u32, items)).contains("an item of this block is none"), "{items:?}");
    }
}

#[test]
fn it_keeps_to_its_size() {
    let options = RecordOptions { header: header(true), max_bytes: 20_000, kept_fields: Vec::new() };
    // What does not get smaller: one event is 4 KiB in the file, too.
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let noise: Vec<u8> = std::iter::repeat_with(&mut next).take(4096).collect();
    let (bytes, summary) = record_with(options, |recorder| {
        for second in 0..100 {
            recorder.event(&Event::Data(data(&noise)), None);
            recorder.tick(at(1000 * second));
            recorder.tick(at(1000 * second + 999));
            if recorder.over().load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(recorder.over().load(std::sync::atomic::Ordering::Relaxed));
    });
    assert!(bytes.len() <= 20_000);
    assert_eq!(summary.trailer.end, End::Limit);
    let (items, end) = read(&bytes);
    end.unwrap();
    assert_eq!(items.iter().filter(|item| item.contains("Data(")).count() as u64, summary.trailer.events);
    assert!((2..5).contains(&summary.trailer.events));
}

/// Writes nothing until it is told to.
struct Stuck(std::sync::mpsc::Receiver<()>, Memory, bool);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.2 {
            let _told = self.0.recv();
        }
        self.2 = true;
        self.1.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_slow_disk_costs_events_that_are_counted() {
    let (go, stuck) = std::sync::mpsc::channel();
    let memory = Memory::default();
    let options = RecordOptions { header: header(true), max_bytes: 1 << 30, kept_fields: Vec::new() };
    let mut recorder = Recorder::start(Stuck(stuck, memory.clone(), false), options).expect("a header in memory");
    let head = [b'x'; 4096];
    for _ in 0..4000 {
        recorder.event(&Event::Data(data(&head)), None);
    }
    drop(go);
    std::thread::sleep(std::time::Duration::from_millis(200));
    for _ in 0..100 {
        recorder.event(&Event::Data(data(&head)), None);
    }
    let summary = recorder.finish().expect("an end in memory");
    assert!(summary.trailer.lost > 0, "{summary:?}");
    assert_eq!(summary.trailer.events + summary.trailer.lost, 4100);
    let bytes = memory.0.lock().expect("nobody panicked with it").clone();
    let (mut reader, mut lost, mut seen) = (Reader::new(bytes.as_slice()).expect("a header"), 0, 0);
    while let Some(item) = reader.next().expect("it is whole") {
        match item {
            Item::Lost(count) => lost = count,
            Item::Event(..) => seen += 1,
            _ => {}
        }
    }
    // Counted where they are missing, as well as at the end.
    assert_eq!((lost, seen), (summary.trailer.lost, summary.trailer.events));
}
