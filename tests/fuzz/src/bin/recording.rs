//! Recordings: reading them, and taking the text out of what they hold. Input: a byte that says what follows; see
//! [`target`].

#![cfg_attr(fuzzing, no_main)]

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use observer::{
    event::{Direction, Event, OpaqueReason},
    recording::{Item, Names, Reader, RecordOptions, Recorder},
    request::{
        record::{ConnectionInfo, RequestRecord},
        tracker::{EventNames, Sink, Tracker, TrackerConfig},
    },
    time::KernelTime,
};

/// Most captured bytes of all calls: more than a block takes that one input can hold.
const MOST: usize = 4 << 20;

/// Whatever the bytes are, reading them ends, without a panic and with bounded memory. What was read can be given to a
/// tracker, and be recorded again without its text: then the same is read from that, with every call as long as before.
/// The first byte: 0 a whole file follows; 1 the items of a block, 2 a compressed block, both in a file that is sound
/// otherwise, because no mutation would find their checksums.
pub(crate) fn target(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let file = match kind {
        0 => data.to_vec(),
        1 => block(0, data, data.len()),
        _ => {
            let Some((length, data)) = data.split_at_checked(2) else { return };
            block(1, data, usize::from(u16::from_le_bytes([length[0], length[1]])))
        }
    };
    let Ok(mut reader) = Reader::new(&*file) else { return };
    let memory = Memory::default();
    let options = RecordOptions { header: reader.header().clone(), max_bytes: 1 << 30, kept_fields: Vec::new() };
    let blanked = RecordOptions { header: observer::recording::Header { payload: false, ..options.header }, ..options };
    let mut recorder = Recorder::start(memory.clone(), blanked).expect("memory takes all");
    let mut tracker = Tracker::new(TrackerConfig { max_connections: 16, ..TrackerConfig::default() });
    let (mut shapes, mut captured) = (Vec::new(), 0);
    while let Ok(Some(item)) = reader.next() {
        match item {
            Item::Event(event, names) => {
                shapes.push(shape(&event));
                if let Event::Data(data) = &event {
                    captured += data.head.len() + data.tail.len();
                }
                let opens = matches!(event, Event::Open(_));
                recorder.event(&event, names.or_else(|| opens.then(nobody)));
                tracker.event(&event, &mut EventNames, &mut Nothing);
            }
            Item::Tick(now) => {
                recorder.tick(now);
                tracker.tick(now, &mut Nothing);
            }
            Item::Ended(cookie) => {
                recorder.ended(cookie);
                tracker.ended(cookie, &mut Nothing);
            }
            Item::Lost(_) | Item::Unknown(_) => {}
        }
        assert!(captured < MOST, "a block has bounds");
    }
    tracker.finish(KernelTime::from_nanos(u64::MAX), &mut Nothing);
    let summary = recorder.finish().expect("memory takes all");
    let again = memory.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut reader = Reader::new(&*again).expect("what was just written");
    let mut read = Vec::new();
    while let Some(item) = reader.next().expect("what was just written") {
        if let Item::Event(event, _) = item {
            read.push(shape(&event));
        }
    }
    assert_eq!(summary.trailer.lost, 0, "it is little");
    assert_eq!(read, shapes);
}

/// All of an event but what was captured and who it names.
fn shape(event: &Event<'_>) -> String {
    match event {
        Event::Data(data) => format!(
            "{:?}",
            (
                data.cookie,
                data.time,
                data.direction,
                data.sequence,
                data.length,
                data.errno,
                data.head.len(),
                data.tail.len()
            )
        ),
        Event::Open(open) => format!("{:?}", (open.cookie, open.time, open.server, open.client, open.opaque)),
        other => format!("{other:?}"),
    }
}

fn nobody() -> Names {
    Names { comm: "".into(), workload: "".into() }
}

/// A file with one block of items.
fn block(coding: u8, stored: &[u8], length: usize) -> Vec<u8> {
    // Payload is kept, the clock's zero is the wall clock's, and no version.
    let fields = [1, 0, 0, 0];
    let mut file = b"\x89OBSREC\n\x01\0\0\0\x04\0\0\0".to_vec();
    file.extend_from_slice(&fields);
    file.extend_from_slice(&crc32fast::hash(&file).to_le_bytes());
    let mut start = vec![1, coding, 0, 0];
    start.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    start.extend_from_slice(&(length as u32).to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&start);
    hasher.update(stored);
    start.extend_from_slice(&hasher.finalize().to_le_bytes());
    [file, start, stored.to_vec()].concat()
}

/// A file in memory.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Nothing;

impl Sink for Nothing {
    fn request(&mut self, _: RequestRecord) {}
    fn other_request(&mut self, _: &ConnectionInfo) {}
    fn opaque(&mut self, _: &ConnectionInfo, _: OpaqueReason) {}
    fn joined_mid_request(&mut self, _: &ConnectionInfo) {}
    fn gap(&mut self, _: Direction, _: u64) {}
    fn uncaptured(&mut self, _: Direction, _: u64) {}
    fn unparsed(&mut self, _: Direction, _: u64) {}
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target(data));
