//! Fills ring entries in place. Between a reservation and its submission nothing returns early.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_smp_processor_id,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_ringbuf_query},
    },
    maps::ring_buf::RingBufEntry,
};
use observer_common::{
    event::{
        Arrival, DATA_FAULT, DATA_NO_PAYLOAD, EventHeader, KIND_ARRIVALS, KIND_CONNECT, KIND_DATA, KIND_LISTEN,
        KIND_OPEN, KIND_STATE, PortListen, SocketArrivals, SocketConnect, SocketData, SocketDataRecord, SocketOpen,
        SocketState, TCP_CLOSE,
    },
    limits::{ARRIVALS, CAPTURE_LARGE, CAPTURE_MEDIUM, CAPTURE_SMALL, COMM_LEN},
    loss::Counter,
};

use crate::{
    capture::{self, Captured},
    kernel::{Address, Sock},
    maps::{ENDED, EVENTS, config, count},
    registers::Buffers,
    socket::Socket,
};

/// Waking user space for each event would cost the server microseconds: it comes by itself, and is called only if
/// the ring fills.
#[inline(always)]
fn submit<T>(entry: RingBufEntry<T>, counter: Counter) {
    // SAFETY: a ring of ours.
    let fill = unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) };
    count(counter);
    // Only the event that crosses the mark, or one of its neighbours: each wake-up costs the server.
    let mark = u64::from(config!(wakeup_bytes));
    if fill > mark && fill - mark <= 4 * size_of::<T>() as u64 {
        count(Counter::Wakeup);
        entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    } else {
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
}

#[inline(always)]
fn header(kind: u16, flags: u16, time: u64, cookie: u64) -> EventHeader {
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    EventHeader { kind, flags, cpu, time, cookie }
}

/// What a data event says besides the bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    pub time: u64,
    pub cookie: u64,
    pub sequence: u32,
    pub length: u32,
    pub result: i32,
    pub unsent: u32,
    pub direction: u8,
    pub flags: u8,
}

/// A successful or failed call of a tracked connection.
#[inline(always)]
pub fn data(call: &Call, buffers: Buffers) {
    obs_emit_data(call, buffers.kind, buffers.address, buffers.count);
}

/// A function of its own with global linkage: the verifier checks it once, for any arguments, and not once for each
/// way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_emit_data(call: *const Call, kind: u64, address: u64, count: u64) -> u32 {
    if call.is_null() {
        return 0;
    }
    // SAFETY: checked above; `data` passes a reference.
    let call = unsafe { &*call };
    let buffers = Buffers { kind, address, count };
    // A gather uses half of a record.
    let need = match kind {
        Buffers::MANY => call.length.saturating_mul(2),
        Buffers::ONE => call.length,
        _ => 0,
    } as usize;
    if need <= CAPTURE_SMALL {
        record::<CAPTURE_SMALL>(call, buffers);
    } else if need <= CAPTURE_MEDIUM {
        record::<CAPTURE_MEDIUM>(call, buffers);
    } else {
        record::<CAPTURE_LARGE>(call, buffers);
    }
    0
}

#[inline(always)]
fn record<const N: usize>(call: &Call, buffers: Buffers) {
    let Some(mut entry) = EVENTS.reserve::<SocketDataRecord<N>>(0) else {
        count(Counter::DataRingFull);
        return;
    };
    let pointer = entry.as_mut_ptr();
    // SAFETY: the reserved record, and its `N` bytes of payload. `N` is at least twice `HEAD_MAX` where it is at
    // least that.
    unsafe {
        let payload: *mut u8 = (&raw mut (*pointer).payload).cast();
        let mut flags = call.flags;
        let total = u64::from(call.length);
        let Buffers { kind, address, count: size } = buffers;
        let captured = match kind {
            _ if total == 0 => Captured::default(),
            Buffers::ONE => capture::one::<N>(payload, address, size, total),
            Buffers::MANY => capture::many::<N>(pointer.cast(), address, size, total),
            _ => {
                flags |= DATA_NO_PAYLOAD;
                count(Counter::NoPayload);
                Captured::default()
            }
        };
        if captured.fault {
            flags |= DATA_FAULT;
            count(Counter::PayloadFault);
        }
        let ids = bpf_get_current_pid_tgid();
        (&raw mut (*pointer).data).write(SocketData {
            header: header(KIND_DATA, 0, call.time, call.cookie),
            tgid: (ids >> 32) as u32,
            tid: ids as u32,
            sequence: call.sequence,
            length: call.length,
            requested: if captured.requested > u64::from(u32::MAX) { u32::MAX } else { captured.requested as u32 },
            result: call.result,
            unsent: call.unsent,
            captured_head: captured.head as u16,
            captured_tail: captured.tail as u16,
            direction: call.direction,
            flags,
            padding: [0; 6],
        });
    }
    submit(entry, Counter::Data);
}

/// A connection became known, by a read of `length` bytes or by something else (0). False: there was no room to say
/// so.
#[inline(always)]
pub fn open(sock: Sock, socket: &Socket, time: u64, length: u32, flags: u16) -> bool {
    let (send_sequence, receive_sequence) = match sock.tcp() {
        Some(tcp) => (tcp.write_seq(), socket.read_end(tcp).wrapping_sub(length)),
        None => (socket.sent, socket.received),
    };
    let (local, remote) = sock.addresses();
    let opened = Opened {
        time,
        cookie: socket.cookie,
        established: socket.established,
        local,
        remote,
        send_sequence,
        receive_sequence,
        flags,
        family: sock.family(),
        local_port: socket.local_port as u16,
        remote_port: sock.remote_port(),
    };
    obs_emit_open(&opened) != 0
}

/// What is said of a connection, but for who calls.
#[repr(C)]
pub struct Opened {
    time: u64,
    cookie: u64,
    established: u64,
    local: Address,
    remote: Address,
    send_sequence: u32,
    receive_sequence: u32,
    flags: u16,
    family: u16,
    local_port: u16,
    remote_port: u16,
}

/// A function of its own, as [`obs_emit_data`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_emit_open(opened: *const Opened) -> u32 {
    // SAFETY: null, or a reference from `open`.
    let Some(opened) = (unsafe { opened.as_ref() }) else { return 0 };
    let Some(mut entry) = EVENTS.reserve::<SocketOpen>(0) else {
        count(Counter::OtherRingFull);
        return 0;
    };
    let pointer = entry.as_mut_ptr();
    let ids = bpf_get_current_pid_tgid();
    // SAFETY: the reserved record; addresses have the same size and lie at multiples of 8; the helpers take no more than
    // the name's room.
    unsafe {
        (*pointer).header = header(KIND_OPEN, opened.flags, opened.time, opened.cookie);
        (*pointer).tgid = (ids >> 32) as u32;
        (*pointer).tid = ids as u32;
        (*pointer).family = opened.family;
        (*pointer).local_port = opened.local_port;
        (*pointer).remote_port = opened.remote_port;
        (*pointer).padding = 0;
        opened.local.write((&raw mut (*pointer).local_address).cast());
        opened.remote.write((&raw mut (*pointer).remote_address).cast());
        (*pointer).established = opened.established;
        (*pointer).cgroup = bpf_get_current_cgroup_id();
        (*pointer).send_sequence = opened.send_sequence;
        (*pointer).receive_sequence = opened.receive_sequence;
        // Zeros, if it fails.
        bpf_get_current_comm((&raw mut (*pointer).comm).cast(), COMM_LEN as u32);
    }
    submit(entry, Counter::Open);
    1
}

/// A tracked connection changed its state.
#[inline(always)]
pub fn state(sock: Sock, cookie: u64, time: u64, old_state: u8, new_state: u8, error: i32) {
    let (write_sequence, receive_sequence) = match sock.tcp() {
        Some(tcp) => (tcp.write_seq(), tcp.rcv_nxt()),
        None => (0, 0),
    };
    obs_emit_state(&SocketState {
        header: EventHeader { kind: KIND_STATE, flags: 0, cpu: 0, time, cookie },
        old_state,
        new_state,
        padding: 0,
        error,
        write_sequence,
        receive_sequence,
    });
}

/// A change of state. A function of its own, as [`obs_emit_data`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_emit_state(value: *const SocketState) -> u32 {
    // SAFETY: null, or a reference from `state`.
    let Some(value) = (unsafe { value.as_ref() }) else { return 0 };
    let EventHeader { kind, flags, time, cookie, .. } = value.header;
    let Some(mut entry) = EVENTS.reserve::<SocketState>(0) else {
        count(Counter::OtherRingFull);
        if value.new_state == TCP_CLOSE {
            // User space would keep it, and what it carried, for ever.
            let _full = ENDED.push(cookie, 0);
        }
        return 0;
    };
    entry.write(SocketState { header: header(kind, flags, time, cookie), ..*value });
    submit(entry, Counter::State);
    1
}

/// Reports, and forgets, the stamps of bytes before `read_until`. A function of its own, as [`obs_emit_data`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_emit_arrivals(socket: *mut Socket, time: u64, read_until: u32) -> u32 {
    // SAFETY: null, or a reference from `call`.
    let Some(socket) = (unsafe { socket.as_mut() }) else { return 0 };
    let tail = socket.arrivals_tail;
    let pending = socket.arrivals_head.wrapping_sub(tail);
    if pending == 0 || pending > ARRIVALS as u32 {
        return 0;
    }
    let first = socket.arrivals[(tail as usize) & (ARRIVALS - 1)];
    if read_until.wrapping_sub(first.begin) as i32 <= 0 {
        return 0;
    }
    let Some(mut entry) = EVENTS.reserve::<SocketArrivals>(0) else {
        count(Counter::OtherRingFull);
        return 0;
    };
    let pointer = entry.as_mut_ptr();
    let mut filled = 0u32;
    let mut index = 0;
    // SAFETY: the reserved record, which has room for all stamps of a socket.
    unsafe {
        while index < ARRIVALS as u32 {
            let stamp: Arrival = socket.arrivals[(tail.wrapping_add(index) as usize) & (ARRIVALS - 1)];
            if index >= pending || read_until.wrapping_sub(stamp.begin) as i32 <= 0 {
                break;
            }
            (&raw mut (*pointer).arrivals).cast::<Arrival>().add(index as usize).write(stamp);
            index += 1;
            filled = index;
        }
        (*pointer).header = header(KIND_ARRIVALS, 0, time, socket.cookie);
        (*pointer).count = filled;
        (*pointer).padding = 0;
    }
    socket.arrivals_tail = tail.wrapping_add(filled);
    submit(entry, Counter::Arrivals);
    1
}

/// A process in scope began to listen.
#[inline(always)]
pub fn listen(time: u64, port: u16) {
    let Some(mut entry) = EVENTS.reserve::<PortListen>(0) else {
        count(Counter::OtherRingFull);
        return;
    };
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    entry.write(PortListen { header: header(KIND_LISTEN, 0, time, 0), tgid, port, padding: 0 });
    submit(entry, Counter::Listen);
}

/// Process `tgid` of this host connected to a candidate port.
#[inline(always)]
pub fn connect(sock: Sock, time: u64, tgid: u32) {
    let Some(mut entry) = EVENTS.reserve::<SocketConnect>(0) else {
        count(Counter::OtherRingFull);
        return;
    };
    let pointer = entry.as_mut_ptr();
    let (local, remote) = sock.addresses();
    // SAFETY: the reserved record; addresses have the same size and lie at multiples of 4.
    unsafe {
        (*pointer).header = header(KIND_CONNECT, 0, time, sock.cookie());
        (*pointer).tgid = tgid;
        (*pointer).family = sock.family();
        (*pointer).local_port = sock.local_port();
        (*pointer).remote_port = sock.remote_port();
        (*pointer).padding = [0; 3];
        local.write((&raw mut (*pointer).local_address).cast());
        remote.write((&raw mut (*pointer).remote_address).cast());
    }
    submit(entry, Counter::Connect);
}
