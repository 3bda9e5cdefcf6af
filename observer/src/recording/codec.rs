//! Items as frames: length, kind, fields. A new kind is one constant, one arm of [`put`] and one of [`take`]; a reader
//! passes over kinds that it does not know, and over fields behind those it knows.

use std::net::{IpAddr, SocketAddr};

use super::{
    Item, Names,
    wire::{Clock, Cursor, put_bytes, put_number, put_option},
};
use crate::{
    event::{
        Arrival, Arrivals, Connect, Cookie, Data, Direction, Event, Listen, OpaqueReason, Open, State, StateChange,
    },
    time::KernelTime,
};

/// Most bytes of a frame, so that what a reader holds is bounded.
pub(super) const FRAME_MAX: usize = 256 << 10;
/// Longest name.
const NAME_MAX: usize = 1024;
/// Most stamps of one event.
const STAMPS_MAX: usize = 1024;

const TICK: u8 = 1;
const ENDED: u8 = 2;
const LOST: u8 = 3;
const OPEN: u8 = 16;
const DATA: u8 = 17;
const ARRIVALS: u8 = 18;
const STATE: u8 = 19;
const LISTEN: u8 = 20;
const CONNECT: u8 = 21;

/// Appends one item; `clock` is that of the block. An item that is too large to be read back is left out: `false`.
pub(super) fn put(out: &mut Vec<u8>, body: &mut Vec<u8>, clock: &mut Clock, item: &Item<'_>) -> bool {
    body.clear();
    // A frame that is not written moves no clock.
    let mut moved = *clock;
    match item {
        Item::Tick(now) => {
            body.push(TICK);
            moved.put(body, *now);
        }
        Item::Ended(cookie) => {
            body.push(ENDED);
            put_number(body, cookie.0);
        }
        Item::Lost(events) => {
            body.push(LOST);
            put_number(body, *events);
        }
        Item::Event(Event::Open(open), names) => put_open(body, &mut moved, open, names.as_ref()),
        Item::Event(Event::Data(data), _) => put_data(body, &mut moved, data),
        Item::Event(Event::Arrivals(arrivals), _) if arrivals.stamps.len() > STAMPS_MAX => return false,
        Item::Event(Event::Arrivals(arrivals), _) => {
            body.push(ARRIVALS);
            put_number(body, arrivals.cookie.0);
            put_number(body, arrivals.stamps.len() as u64);
            for stamp in arrivals.stamps {
                put_number(body, stamp.begin.into());
                put_number(body, stamp.end.wrapping_sub(stamp.begin).into());
                moved.put(body, KernelTime::from_nanos(stamp.time));
            }
        }
        Item::Event(Event::State(state), _) => {
            body.push(STATE);
            put_number(body, state.cookie.0);
            moved.put(body, state.time);
            body.push(change_code(state.change));
            put_number(body, state.write_sequence.into());
            put_number(body, state.receive_sequence.into());
        }
        Item::Event(Event::Listen(listen), _) => {
            body.push(LISTEN);
            moved.put(body, listen.time);
            put_number(body, listen.pid.into());
            put_number(body, listen.port.into());
        }
        Item::Event(Event::Connect(connect), _) => {
            body.push(CONNECT);
            moved.put(body, connect.time);
            put_number(body, connect.pid.into());
            put_address(body, Some(connect.local));
            put_address(body, Some(connect.remote));
        }
        Item::Unknown(_) => return true,
    }
    if body.len() > FRAME_MAX {
        return false;
    }
    *clock = moved;
    put_bytes(out, body);
    true
}

fn put_open(body: &mut Vec<u8>, clock: &mut Clock, open: &Open, names: Option<&Names>) {
    body.push(OPEN);
    put_number(body, open.cookie.0);
    clock.put(body, open.time);
    put_option(body, open.established.map(KernelTime::as_nanos));
    put_number(body, open.pid.into());
    put_address(body, open.server);
    put_address(body, open.client);
    put_number(body, open.cgroup);
    put_option(body, open.send_sequence.map(u64::from));
    put_option(body, open.receive_sequence.map(u64::from));
    put_name(body, &open.comm);
    body.push(u8::from(open.late) | u8::from(open.mid_request) << 1 | u8::from(names.is_some()) << 2);
    put_option(body, open.opaque.map(|reason| reason_code(reason).into()));
    if let Some(Names { comm, workload }) = names {
        put_name(body, comm);
        put_name(body, workload);
    }
}

/// No more of it than is read back.
fn put_name(out: &mut Vec<u8>, name: &str) {
    put_bytes(out, &name.as_bytes()[..name.floor_char_boundary(NAME_MAX)]);
}

fn put_data(body: &mut Vec<u8>, clock: &mut Clock, data: &Data<'_>) {
    body.push(DATA);
    put_number(body, data.cookie.0);
    clock.put(body, data.time);
    body.push(u8::from(data.direction == Direction::Send));
    put_number(body, data.sequence.into());
    put_number(body, data.length.into());
    put_option(body, data.requested.map(u64::from));
    put_number(body, data.errno.unsigned_abs().into());
    put_number(body, data.unsent.into());
    put_number(body, data.pid.into());
    put_bytes(body, data.head);
    put_bytes(body, data.tail);
}

fn put_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    match address.map(|address| (address.ip(), address.port())) {
        None => out.push(0),
        Some((IpAddr::V4(ip), port)) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
            out.extend_from_slice(&port.to_le_bytes());
        }
        Some((IpAddr::V6(ip), port)) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
            out.extend_from_slice(&port.to_le_bytes());
        }
    }
}

/// Reads one frame. `None`: it is not one. `stamps` holds those of an [`Event::Arrivals`].
pub(super) fn take<'s, 'a: 's>(
    from: &mut Cursor<'a>,
    clock: &mut Clock,
    stamps: &'s mut Vec<Arrival>,
) -> Option<Item<'s>> {
    let body = from.bytes().filter(|body| body.len() <= FRAME_MAX)?;
    let mut body = Cursor::new(body);
    Some(match body.byte()? {
        TICK => Item::Tick(clock.take(&mut body)?),
        ENDED => Item::Ended(Cookie(body.number()?)),
        LOST => Item::Lost(body.number()?),
        OPEN => {
            let (open, names) = take_open(&mut body, clock)?;
            Item::Event(Event::Open(open), names)
        }
        DATA => Item::Event(Event::Data(take_data(&mut body, clock)?), None),
        ARRIVALS => {
            let cookie = Cookie(body.number()?);
            let count: usize = body.small().filter(|count| *count <= STAMPS_MAX)?;
            stamps.clear();
            for _ in 0..count {
                let (begin, length): (u32, u32) = (body.small()?, body.small()?);
                let time = clock.take(&mut body)?.as_nanos();
                stamps.push(Arrival { begin, end: begin.wrapping_add(length), time });
            }
            Item::Event(Event::Arrivals(Arrivals { cookie, stamps }), None)
        }
        STATE => {
            let (cookie, time) = (Cookie(body.number()?), clock.take(&mut body)?);
            let change = change_of(body.byte()?)?;
            let (write_sequence, receive_sequence) = (body.small()?, body.small()?);
            Item::Event(Event::State(State { cookie, time, change, write_sequence, receive_sequence }), None)
        }
        LISTEN => {
            let (time, pid, port) = (clock.take(&mut body)?, body.small()?, body.small()?);
            Item::Event(Event::Listen(Listen { time, pid, port }), None)
        }
        CONNECT => {
            let (time, pid) = (clock.take(&mut body)?, body.small()?);
            let (local, remote) = (take_address(&mut body)??, take_address(&mut body)??);
            Item::Event(Event::Connect(Connect { time, pid, local, remote }), None)
        }
        kind => Item::Unknown(kind),
    })
}

fn take_open(body: &mut Cursor<'_>, clock: &mut Clock) -> Option<(Open, Option<Names>)> {
    let (cookie, time) = (Cookie(body.number()?), clock.take(body)?);
    let established = body.option()?.map(KernelTime::from_nanos);
    let pid = body.small()?;
    let (server, client) = (take_address(body)?, take_address(body)?);
    let cgroup = body.number()?;
    let (send_sequence, receive_sequence) = (take_sequence(body)?, take_sequence(body)?);
    let comm = body.text(NAME_MAX)?.to_owned();
    let flags = body.byte()?;
    let opaque = match body.option()? {
        None => None,
        Some(code) => Some(reason_of(code)?),
    };
    let names = match flags & 4 != 0 {
        false => None,
        true => Some(Names { comm: body.text(NAME_MAX)?.into(), workload: body.text(NAME_MAX)?.into() }),
    };
    let open = Open {
        cookie,
        time,
        established,
        pid,
        server,
        client,
        cgroup,
        send_sequence,
        receive_sequence,
        comm,
        late: flags & 1 != 0,
        mid_request: flags & 2 != 0,
        opaque,
    };
    Some((open, names))
}

fn take_data<'a>(body: &mut Cursor<'a>, clock: &mut Clock) -> Option<Data<'a>> {
    let (cookie, time) = (Cookie(body.number()?), clock.take(body)?);
    let direction = match body.byte()? {
        0 => Direction::Receive,
        1 => Direction::Send,
        _ => return None,
    };
    Some(Data {
        cookie,
        time,
        direction,
        sequence: body.small()?,
        length: body.small()?,
        requested: take_sequence(body)?,
        errno: body.small()?,
        unsent: body.small()?,
        pid: body.small()?,
        head: body.bytes()?,
        tail: body.bytes()?,
    })
}

fn take_address(from: &mut Cursor<'_>) -> Option<Option<SocketAddr>> {
    let ip: IpAddr = match from.byte()? {
        0 => return Some(None),
        4 => from.array::<4>()?.into(),
        6 => from.array::<16>()?.into(),
        _ => return None,
    };
    Some(Some((ip, u16::from_le_bytes(from.array()?)).into()))
}

fn take_sequence(from: &mut Cursor<'_>) -> Option<Option<u32>> {
    match from.option()? {
        None => Some(None),
        Some(value) => Some(Some(value.try_into().ok()?)),
    }
}

const CHANGES: [(u8, StateChange); 5] = [
    (0, StateChange::ClientFin),
    (1, StateChange::Reset),
    (2, StateChange::ServerFin),
    (3, StateChange::Closed),
    (4, StateChange::OutOfScope),
];

fn change_code(change: StateChange) -> u8 {
    match change {
        StateChange::ClientFin => 0,
        StateChange::Reset => 1,
        StateChange::ServerFin => 2,
        StateChange::Closed => 3,
        StateChange::OutOfScope => 4,
    }
}

fn change_of(code: u8) -> Option<StateChange> {
    CHANGES.iter().find(|(known, _)| *known == code).map(|(_, change)| *change)
}

fn reason_code(reason: OpaqueReason) -> u8 {
    match reason {
        OpaqueReason::Tls => 0,
        OpaqueReason::Http2 => 1,
        OpaqueReason::Mptcp => 2,
        OpaqueReason::Upgrade => 3,
        OpaqueReason::Connect => 4,
        OpaqueReason::Compressed => 5,
        OpaqueReason::Unreadable => 6,
    }
}

fn reason_of(code: u64) -> Option<OpaqueReason> {
    OpaqueReason::ALL.into_iter().find(|reason| u64::from(reason_code(*reason)) == code)
}
