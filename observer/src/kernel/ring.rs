//! The ring: bytes of the kernel side to typed events.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use aya::maps::{MapData, Queue, RingBuf};
use observer_common::event::{
    self as wire, ARRIVALS_PER_EVENT, EventHeader, KIND_ARRIVALS, KIND_CONNECT, KIND_DATA, KIND_LISTEN, KIND_OPEN,
    KIND_STATE, PortListen, SocketArrivals, SocketConnect, SocketData, SocketOpen, SocketState,
};

use crate::{
    event::{Arrivals, Connect, Cookie, Data, Direction, Event, Listen, OpaqueReason, Open, State, StateChange},
    time::KernelTime,
};

/// Types of the ring: plain integers without padding, so that any bytes are a valid value.
///
/// # Safety
/// The type must be `repr(C)`, with every byte part of an integer field.
unsafe trait Plain: Copy {}
// SAFETY: see the types: fixed-width integers and explicit padding only.
unsafe impl Plain for EventHeader {}
// SAFETY: as above.
unsafe impl Plain for SocketData {}
// SAFETY: as above.
unsafe impl Plain for SocketOpen {}
// SAFETY: as above.
unsafe impl Plain for SocketState {}
// SAFETY: as above.
unsafe impl Plain for SocketArrivals {}
// SAFETY: as above.
unsafe impl Plain for PortListen {}
// SAFETY: as above.
unsafe impl Plain for SocketConnect {}

fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    (bytes.len() >= size_of::<T>()).then(|| {
        // SAFETY: enough bytes, any alignment, any value.
        unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
    })
}

/// One end of the ring.
pub struct Ring {
    ring: RingBuf<MapData>,
    /// Cookies of connections whose end found no room in the ring.
    ended: Queue<MapData, u64>,
    /// Records that could not be decoded: kernel side and user side disagree.
    malformed: u64,
}

impl Ring {
    pub(super) fn new(ring: RingBuf<MapData>, ended: Queue<MapData, u64>) -> Self {
        Self { ring, ended, malformed: 0 }
    }

    /// Adds the connections that ended without an event since the last call. Their earlier events are in the ring by
    /// now: drain it before they are given up.
    pub fn take_ended(&mut self, into: &mut Vec<Cookie>) {
        // An error is an empty queue.
        while let Ok(cookie) = self.ended.pop(0) {
            into.push(Cookie(cookie));
        }
    }

    /// Hands every record that is there to `each`; returns how many, and their bytes in the ring.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&Event<'_>)) -> Drained {
        let mut drained = Drained::default();
        // Cleared once: what an event has of them, it has written.
        let mut stamps = [wire::Arrival::default(); ARRIVALS_PER_EVENT];
        while drained.events < limit {
            let Some(record) = self.ring.next() else { break };
            drained.events += 1;
            drained.bytes += record.len() + 8;
            match decode(&record, &mut stamps) {
                Some(event) => each(&event),
                None => self.malformed += 1,
            }
        }
        drained
    }

    /// Watches for the wake-ups that the kernel side forces when the ring fills, and for `other` becoming readable.
    ///
    /// # Errors
    /// `epoll(7)`'s.
    pub fn waiter(&self, other: BorrowedFd<'_>) -> io::Result<Waiter> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and ours alone.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        // Edge-triggered: a ring with anything in it is always readable, and only a wake-up is news.
        for (fd, events) in [(self.ring.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET), (other.as_raw_fd(), libc::EPOLLIN)]
        {
            let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: 0 };
            // SAFETY: a valid event; both descriptors are open.
            if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Waiter { epoll })
    }

    /// Records that could not be decoded.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// See [`Ring::waiter`].
#[derive(Debug)]
pub struct Waiter {
    epoll: OwnedFd,
}

impl Waiter {
    /// Waits until there is news or time is up.
    ///
    /// # Errors
    /// `epoll_wait(2)`'s, other than an interruption.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: room for one event.
        if unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &raw mut event, 1, milliseconds) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// What one [`Ring::drain`] did.
#[derive(Clone, Copy, Default, Debug)]
pub struct Drained {
    /// Records.
    pub events: usize,
    /// Bytes that they took in the ring.
    pub bytes: usize,
}

/// `None`: too short, or of no known kind.
fn decode<'a>(bytes: &'a [u8], stamps: &'a mut [wire::Arrival; ARRIVALS_PER_EVENT]) -> Option<Event<'a>> {
    let header: EventHeader = read(bytes)?;
    let (cookie, time) = (Cookie(header.cookie), KernelTime::from_nanos(header.time));
    Some(match header.kind {
        KIND_DATA => {
            let data: SocketData = read(bytes)?;
            let payload = bytes.get(size_of::<SocketData>()..)?;
            let (head, tail) = (usize::from(data.captured_head), usize::from(data.captured_tail));
            Event::Data(Data {
                cookie,
                time,
                direction: match data.direction {
                    wire::DIRECTION_SEND => Direction::Send,
                    wire::DIRECTION_RECEIVE => Direction::Receive,
                    _ => return None,
                },
                sequence: data.sequence,
                length: data.length,
                requested: (data.direction == wire::DIRECTION_SEND && data.requested != 0).then_some(data.requested),
                errno: -data.result.min(0),
                unsent: data.unsent,
                head: payload.get(..head)?,
                tail: payload.get(head..head + tail)?,
                pid: data.tgid,
            })
        }
        KIND_OPEN => Event::Open(open(&read(bytes)?)),
        KIND_STATE => {
            let state: SocketState = read(bytes)?;
            Event::State(State {
                cookie,
                time,
                change: change(&state)?,
                write_sequence: state.write_sequence,
                receive_sequence: state.receive_sequence,
            })
        }
        KIND_ARRIVALS => {
            let arrivals: SocketArrivals = read(bytes)?;
            *stamps = arrivals.arrivals;
            Event::Arrivals(Arrivals { cookie, stamps: stamps.get(..arrivals.count as usize)? })
        }
        KIND_LISTEN => {
            let listen: PortListen = read(bytes)?;
            Event::Listen(Listen { time, pid: listen.tgid, port: listen.port })
        }
        KIND_CONNECT => {
            let connect: SocketConnect = read(bytes)?;
            Event::Connect(Connect {
                time,
                pid: connect.tgid,
                local: address(connect.family, connect.local_address, connect.local_port)?,
                remote: address(connect.family, connect.remote_address, connect.remote_port)?,
            })
        }
        _ => return None,
    })
}

/// `None`: says nothing about a request.
fn change(state: &SocketState) -> Option<StateChange> {
    Some(match state.new_state {
        wire::STATE_OUT_OF_SCOPE => StateChange::OutOfScope,
        wire::TCP_CLOSE_WAIT => StateChange::ClientFin,
        // A close of ours comes first, so both sides' being closed follows one of the others.
        wire::TCP_FIN_WAIT1 | wire::TCP_LAST_ACK | wire::TCP_CLOSING => StateChange::ServerFin,
        wire::TCP_CLOSE if state.error != 0 => StateChange::Reset,
        wire::TCP_CLOSE => StateChange::Closed,
        _ => return None,
    })
}

fn address(family: u16, bytes: [u8; 16], port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = match family {
        wire::FAMILY_INET => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        wire::FAMILY_INET6 => Ipv6Addr::from(bytes).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn open(open: &SocketOpen) -> Open {
    let flags = open.header.flags;
    let opaque = [
        (wire::OPEN_TLS, OpaqueReason::Tls),
        (wire::OPEN_HTTP2, OpaqueReason::Http2),
        (wire::OPEN_MPTCP, OpaqueReason::Mptcp),
        (wire::OPEN_UNREADABLE, OpaqueReason::Unreadable),
    ]
    .into_iter()
    .find_map(|(flag, reason)| (flags & flag != 0).then_some(reason));
    let end = open.comm.iter().position(|byte| *byte == 0).unwrap_or(open.comm.len());
    Open {
        cookie: Cookie(open.header.cookie),
        time: KernelTime::from_nanos(open.header.time),
        established: (open.established != 0).then(|| KernelTime::from_nanos(open.established)),
        pid: open.tgid,
        server: address(open.family, open.local_address, open.local_port),
        client: address(open.family, open.remote_address, open.remote_port),
        cgroup: open.cgroup,
        send_sequence: Some(open.send_sequence),
        receive_sequence: Some(open.receive_sequence),
        comm: String::from_utf8_lossy(&open.comm[..end]).into_owned(),
        late: flags & wire::OPEN_LATE != 0,
        mid_request: flags & wire::OPEN_MID_REQUEST != 0,
        opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_unknown_records_are_no_events() {
        let mut stamps = Default::default();
        for length in 0..24 {
            assert!(decode(&vec![1; length], &mut stamps).is_none());
        }
        assert!(decode(&[99; 200], &mut stamps).is_none());
        // A data record whose captured lengths exceed it.
        let mut record = vec![0u8; 64 + 16];
        record[0] = 1;
        record[52] = 200;
        assert!(decode(&record, &mut stamps).is_none());
        record[52] = 16;
        assert!(matches!(decode(&record, &mut stamps), Some(Event::Data(data)) if data.head.len() == 16));
    }

    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        let bytes = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        let address = address(wire::FAMILY_INET6, bytes, 80).expect("an address");
        assert_eq!(address.to_string(), "127.0.0.1:80");
    }
}
