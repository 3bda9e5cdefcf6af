//! Every test of the tracker is one of recordings, too: what a host says is recorded without its payload, and what a
//! tracker says of the recording must be the same, to the last nanosecond.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use observer::{
    event::{Cookie, Event},
    recording::{Header, Item, Reader, RecordOptions, Recorder},
    request::tracker::{EventNames, Tracker},
    time::KernelTime,
};

use crate::harness::{Said, config};

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A recording of what one tracker is told.
pub(crate) struct Tape {
    recorder: Option<Recorder>,
    memory: Memory,
}

impl Tape {
    pub(crate) fn new() -> Self {
        let memory = Memory::default();
        let header = Header { payload: false, kernel: KernelTime::default(), wall: 0, version: "0".to_owned() };
        let options = RecordOptions { header, max_bytes: 1 << 30, kept_fields: Vec::new() };
        Self { recorder: Some(Recorder::start(memory.clone(), options).expect("a header in memory")), memory }
    }

    /// The tracker has settings of its own, or is told things past the tape.
    pub(crate) fn off(&mut self) {
        self.recorder = None;
    }

    pub(crate) fn event(&mut self, event: &Event<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(event, None);
        }
    }

    pub(crate) fn tick(&mut self, now: KernelTime) {
        if let Some(recorder) = &mut self.recorder {
            recorder.tick(now);
        }
    }

    pub(crate) fn ended(&mut self, cookie: Cookie) {
        if let Some(recorder) = &mut self.recorder {
            recorder.ended(cookie);
        }
    }

    /// What a tracker says of the recording is what was `said`.
    pub(crate) fn compare(&mut self, said: &Said) {
        let Some(recorder) = self.recorder.take() else { return };
        recorder.finish().expect("an end in memory");
        let bytes = self.memory.0.lock().expect("nobody panicked with it");
        let mut reader = Reader::new(bytes.as_slice()).expect("a header");
        let (mut tracker, mut again) = (Tracker::new(config()), Said::default());
        let mut text = String::new();
        while let Some(item) = reader.next().expect("it is whole") {
            match item {
                Item::Event(event, _) => {
                    if let Event::Data(data) = &event {
                        for part in [data.head, data.tail] {
                            text.push_str(&String::from_utf8_lossy(part));
                        }
                        text.push('|');
                    }
                    tracker.event(&event, &mut EventNames, &mut again);
                }
                Item::Tick(now) => tracker.tick(now, &mut again),
                Item::Ended(cookie) => tracker.ended(cookie, &mut again),
                Item::Lost(_) | Item::Unknown(_) => panic!("{item:?}"),
            }
        }
        let (said, again) = (format!("{said:#?}"), format!("{again:#?}"));
        assert!(said == again, "{}\nof {text}", difference(&said, &again));
    }
}

fn difference(said: &str, again: &str) -> String {
    let lines = said.lines().zip(again.lines()).filter(|(one, other)| one != other);
    let lines: Vec<_> = lines.take(20).map(|(one, other)| format!("live {one}\tagain {other}")).collect();
    format!("{} and {} lines:\n{}", said.lines().count(), again.lines().count(), lines.join("\n"))
}
