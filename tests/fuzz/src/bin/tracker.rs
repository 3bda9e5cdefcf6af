//! The tracker as a whole, under any events in any order. Input: operations, each a letter and its operands, one byte
//! each, which most often choose a connection and a piece of traffic; letters and digits will do (see
//! `corpus/tracker`). Anything else than a known letter moves time on.

#![cfg_attr(fuzzing, no_main)]

use observer::{
    event::{Arrival, Arrivals, Cookie, Data, Direction, Event, Listen, OpaqueReason, Open, State, StateChange},
    request::tracker::{EventNames, Tracker},
    time::KernelTime,
};
use observer_fuzz::{
    memory::live,
    records::{self, Records},
    traffic::{REQUESTS, RESPONSES, numbered},
};

/// All letters that are operations.
pub(crate) const LETTERS: &[u8] = b"OXRWMmrwdefasEjStFL";

/// Connections that there are; the tracker may keep one less.
const CONNECTIONS: usize = 5;
/// Most bytes that a connection may hold: calls held back in both directions (buffers may be twice as long as what is
/// in them), heads, an event, 64 requests that wait.
const CONNECTION_BYTES: usize = 2 * (2 * (256 << 10)) + 4 * (64 << 10) + 4 * (64 << 10) + (256 << 10);
/// What the tracker may hold besides.
const FIXED_BYTES: usize = 256 << 10;

/// Nothing panics; records are sound and timed only if complete (`observer_fuzz::records`); connections, requests in
/// flight and memory stay below their bounds at every moment, and nothing is left in the end.
pub(crate) fn target(data: &[u8]) {
    let before = live();
    let mut host = Host::new();
    let mut input = Input(data);
    while let Some(letter) = input.byte() {
        host.operation(letter, &mut input);
        host.check();
    }
    for _ in 0..2 {
        host.now += 1 << 34;
        host.tick();
    }
    host.check();
    host.tracker.finish(KernelTime::from_nanos(host.now), &mut host.records);
    assert_eq!(host.tracker.connections(), 0);
    records::measured(&host.records.all);
    drop(host);
    // The metrics keep their series.
    assert!(live() - before < 1 << 20, "{} bytes were not freed", live() - before);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// An operand; `0` and what lies before it count as zero, so that digits and letters mean small numbers.
    fn operand(&mut self) -> usize {
        usize::from(self.byte().unwrap_or(0).wrapping_sub(b'0'))
    }

    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        front
    }
}

#[derive(Default)]
struct Connection {
    sent: u32,
    received: u32,
}

/// A call that is told of later than it was made.
struct Delayed {
    bytes: Vec<u8>,
    call: Call,
}

/// A call, but for its bytes.
#[derive(Clone, Copy, Default)]
struct Call {
    connection: usize,
    sends: bool,
    time: u64,
    sequence: u32,
    length: u32,
    requested: Option<u32>,
    errno: i32,
    unsent: u32,
    head: usize,
    tail: usize,
}

/// What happens to the next calls.
#[derive(Clone, Copy, Default)]
struct Damage {
    lost: bool,
    delayed: bool,
    twice: bool,
    /// Bytes captured of its head and tail.
    captured: Option<(usize, usize)>,
    unsent: bool,
    short: bool,
    shift: i32,
    late: u64,
}

struct Host {
    tracker: Tracker,
    records: Records,
    /// Bytes that the tracker holds, and those that others held before it was called.
    held: isize,
    now: u64,
    step: u64,
    serial: u32,
    connections: [Connection; CONNECTIONS],
    damage: Damage,
    delayed: Vec<Delayed>,
}

impl Host {
    fn new() -> Self {
        let before = live();
        let tracker = Tracker::new(records::config(CONNECTIONS - 1));
        Self {
            tracker,
            records: Records::default(),
            held: live() - before,
            now: 1_000_000_000_000,
            step: 100_000,
            serial: 0,
            connections: Default::default(),
            damage: Damage::default(),
            delayed: Vec::new(),
        }
    }

    fn check(&self) {
        let known = self.tracker.connections();
        assert!(known < CONNECTIONS);
        let mut in_flight = 0;
        for (_, count) in self.tracker.in_flight() {
            assert!(count <= 64);
            in_flight += count;
        }
        assert!(in_flight <= 64 * known as u64);
        let held = usize::try_from(self.held).unwrap_or(0);
        assert!(held <= FIXED_BYTES + known * CONNECTION_BYTES, "{held} bytes for {known} connections");
    }

    /// Lets the tracker do something, and sees what it holds then.
    fn tell(&mut self, act: impl FnOnce(&mut Tracker, &mut Records)) {
        let (before, others) = (live(), self.records.held);
        act(&mut self.tracker, &mut self.records);
        self.held += live() - before - (self.records.held - others);
    }

    fn event(&mut self, event: &Event<'_>) {
        self.tell(|tracker, records| tracker.event(event, &mut EventNames, records));
    }

    fn tick(&mut self) {
        let now = KernelTime::from_nanos(self.now);
        self.tell(|tracker, records| tracker.tick(now, records));
    }

    fn operation(&mut self, letter: u8, input: &mut Input<'_>) {
        self.now += self.step;
        if !LETTERS.contains(&letter) {
            return;
        }
        match letter {
            b'O' => self.open(input, None),
            b'X' => {
                let reasons = OpaqueReason::ALL;
                let reason = reasons[input.operand() % reasons.len()];
                self.open(input, Some(reason));
            }
            b'R' | b'W' => {
                let sends = letter == b'W';
                let connection = input.operand() % CONNECTIONS;
                let pieces: &[&str] = if sends { &RESPONSES } else { &REQUESTS };
                self.serial += 1;
                let bytes = numbered(pieces[input.operand() % pieces.len()], self.serial);
                self.call(connection, sends, bytes);
            }
            // The same piece again and again, in one call (lower case: many) or in many.
            b'M' | b'm' => {
                let connection = input.operand() % CONNECTIONS;
                let piece = input.operand();
                let bytes = match piece % 2 {
                    0 => numbered(REQUESTS[piece / 2 % REQUESTS.len()], 0),
                    _ => numbered(RESPONSES[piece / 2 % RESPONSES.len()], 0),
                };
                let (sends, times) = (piece % 2 == 1, 1 + input.operand() % 200);
                if letter == b'M' {
                    return self.call(connection, sends, bytes.repeat(times));
                }
                for _ in 0..times {
                    self.now += self.step;
                    self.call(connection, sends, bytes.clone());
                }
            }
            // Bytes as they follow.
            b'r' | b'w' => {
                let connection = input.operand() % CONNECTIONS;
                let length = input.operand();
                let bytes = input.bytes(length).to_vec();
                self.call(connection, letter == b'w', bytes);
            }
            b'd' => self.damage = damage(input.operand(), input),
            b'e' if !self.delayed.is_empty() => {
                let delayed = self.delayed.swap_remove(input.operand() % self.delayed.len());
                self.told(&delayed.call, &delayed.bytes);
            }
            // A write that fails, or the end of what a client sends.
            b'f' => {
                let connection = input.operand() % CONNECTIONS;
                // EAGAIN, EPIPE, ECONNRESET, ETIMEDOUT, EIO.
                let errno = [0, 11, 32, 104, 110, 5][input.operand() % 6];
                let sends = input.operand().is_multiple_of(2);
                let call = Call { errno, ..self.next_call(connection, sends) };
                self.told(&call, &[]);
            }
            b'a' => {
                let connection = input.operand() % CONNECTIONS;
                let received = self.connections[connection].received;
                let mut stamps = Vec::new();
                for _ in 0..1 + input.operand() % 16 {
                    let begin = received.wrapping_add_signed(offset(input));
                    let end = begin.wrapping_add_signed(offset(input));
                    stamps.push(Arrival {
                        begin,
                        end,
                        time: self.now.saturating_sub(self.step * input.operand() as u64),
                    });
                }
                self.event(&Event::Arrivals(Arrivals { cookie: cookie(connection), stamps: &stamps }));
            }
            b's' => {
                let connection = input.operand() % CONNECTIONS;
                let changes = [
                    StateChange::ClientFin,
                    StateChange::Reset,
                    StateChange::ServerFin,
                    StateChange::Closed,
                    StateChange::OutOfScope,
                ];
                let change = changes[input.operand() % changes.len()];
                let Connection { sent, received } = self.connections[connection];
                let write_sequence = sent.wrapping_add_signed(offset(input));
                let state = State {
                    cookie: cookie(connection),
                    time: KernelTime::from_nanos(self.now),
                    change,
                    write_sequence,
                    receive_sequence: received,
                };
                self.event(&Event::State(state));
            }
            b'E' => {
                let cookie = cookie(input.operand() % CONNECTIONS);
                self.tell(|tracker, records| tracker.ended(cookie, records));
            }
            // Jumps to another position of the stream.
            b'j' => {
                let connection = &mut self.connections[input.operand() % CONNECTIONS];
                let by = offset(input);
                let sequence = if by % 2 == 0 { &mut connection.sent } else { &mut connection.received };
                *sequence = sequence.wrapping_add_signed(by);
            }
            b'S' => self.step = 1 << (input.operand() % 40),
            b't' => self.tick(),
            b'F' => {
                let now = KernelTime::from_nanos(self.now);
                self.tell(|tracker, records| tracker.finish(now, records));
            }
            b'L' => {
                let time = KernelTime::from_nanos(self.now);
                self.event(&Event::Listen(Listen { time, pid: 1, port: 8000 }));
            }
            _ => {}
        }
    }

    fn open(&mut self, input: &mut Input<'_>, opaque: Option<OpaqueReason>) {
        let (index, flags) = (input.operand() % CONNECTIONS, input.operand());
        let flag = |bit: u32| flags >> bit & 1 == 1;
        let connection = &self.connections[index];
        let open = Open {
            cookie: cookie(index),
            time: KernelTime::from_nanos(self.now),
            established: None,
            pid: 1,
            server: (!flag(5)).then(|| ([127, 0, 0, 1], 8000).into()),
            client: (!flag(5)).then(|| ([127, 0, 0, 1], 50_000).into()),
            cgroup: 1,
            send_sequence: flag(0).then_some(connection.sent),
            receive_sequence: flag(1).then_some(connection.received),
            comm: "vllm".to_owned(),
            late: flag(2),
            mid_request: flag(3),
            opaque,
        };
        self.event(&Event::Open(open));
    }

    fn next_call(&self, connection: usize, sends: bool) -> Call {
        let Connection { sent, received } = self.connections[connection];
        let sequence = if sends { sent } else { received };
        Call { connection, sends, time: self.now, sequence, ..Call::default() }
    }

    /// Moves `bytes`, with what damage there is.
    fn call(&mut self, connection: usize, sends: bool, bytes: Vec<u8>) {
        let damage = self.damage;
        let mut call = self.next_call(connection, sends);
        let length = bytes.len();
        call.length = length as u32;
        let here = &mut self.connections[connection];
        let position = if sends { &mut here.sent } else { &mut here.received };
        *position = position.wrapping_add(call.length);
        if damage.lost {
            return;
        }
        call.sequence = call.sequence.wrapping_add_signed(damage.shift);
        call.time = call.time.saturating_sub(damage.late);
        (call.head, call.tail) = damage.captured.unwrap_or((length, 0));
        call.requested = damage.short.then_some(call.length + 1);
        call.unsent = u32::from(damage.unsent);
        if damage.delayed && self.delayed.len() < 512 {
            self.delayed.push(Delayed { bytes, call });
            return;
        }
        self.told(&call, &bytes);
        if damage.twice {
            self.told(&call, &bytes);
        }
    }

    fn told(&mut self, call: &Call, bytes: &[u8]) {
        self.event(&Event::Data(Data {
            cookie: cookie(call.connection),
            time: KernelTime::from_nanos(call.time),
            direction: if call.sends { Direction::Send } else { Direction::Receive },
            sequence: call.sequence,
            length: call.length,
            requested: call.requested,
            errno: call.errno,
            unsent: call.unsent,
            head: &bytes[..call.head.min(bytes.len())],
            tail: &bytes[bytes.len() - call.tail.min(bytes.len())..],
            pid: 1,
        }));
    }
}

fn cookie(connection: usize) -> Cookie {
    Cookie(connection as u64 + 1)
}

/// A distance in a stream: most often small, sometimes any.
fn offset(input: &mut Input<'_>) -> i32 {
    let code = input.operand();
    match code {
        0..96 => code as i32,
        96..192 => 96 - code as i32,
        _ => 1_i32.rotate_left((code % 64) as u32).wrapping_sub(1),
    }
}

fn damage(code: usize, input: &mut Input<'_>) -> Damage {
    let none = Damage::default();
    match code % 9 {
        1 => Damage { lost: true, ..none },
        2 => Damage { delayed: true, ..none },
        3 => Damage { twice: true, ..none },
        4 => Damage { captured: Some((0, 0)), ..none },
        5 => Damage { captured: Some((input.operand(), input.operand())), ..none },
        6 => Damage { unsent: true, short: true, ..none },
        7 => Damage { shift: offset(input), ..none },
        8 => Damage { late: 1 << (input.operand() % 40), ..none },
        _ => none,
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target(data));
