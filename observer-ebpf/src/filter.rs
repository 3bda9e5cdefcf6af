//! Is this ours? And: does this begin like HTTP?

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_ancestor_cgroup_id};
use observer_common::{
    config::{PORT_CANDIDATE, SCOPE_CGROUPS, SCOPE_PIDS, SCOPE_PORTS, Scope},
    limits::CGROUP_LEVELS,
};

use crate::{
    kernel::Transport,
    maps::{CGROUPS, PIDS, config, port_state},
};

/// Whether the current process is the observer itself.
#[inline(always)]
pub fn is_own_process() -> bool {
    (bpf_get_current_pid_tgid() >> 32) as u32 == config!(own_tgid)
}

/// Whether the current process is in the pid and cgroup scope.
#[inline(always)]
pub fn process_in_scope(scope: &Scope) -> bool {
    if scope.flags & SCOPE_PIDS != 0 {
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        if PIDS.get_ptr(tgid).is_none() {
            return false;
        }
    }
    if scope.flags & SCOPE_CGROUPS != 0 {
        let mut level = 0;
        while level < CGROUP_LEVELS {
            if scope.cgroup_levels & (1 << level) != 0 {
                // SAFETY: no pointers; 0 where the task's cgroup is not that deep.
                let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
                if id != 0 && CGROUPS.get_ptr(id).is_some() {
                    return true;
                }
            }
            level += 1;
        }
        return false;
    }
    true
}

/// Whether a socket with this local port can be the server's end of a connection in scope, whoever uses it.
#[inline(always)]
pub fn is_candidate(transport: Transport, local_port: u32, scope: &Scope) -> bool {
    if transport == Transport::Unix {
        // It has no port: where ports are listed, it is not meant.
        return scope.flags & SCOPE_PORTS == 0;
    }
    port_state(local_port) == PORT_CANDIDATE
}

/// What a connection's first bytes are.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum FirstBytes {
    /// A request line of HTTP/1.
    Http1,
    /// Too few to tell.
    Undecided,
    Http2,
    Tls,
    Other,
}

/// Judges up to 8 first bytes, little endian in `word`.
#[inline(always)]
pub fn first_bytes(word: u64, length: u32) -> FirstBytes {
    const HTTP1: u32 = FirstBytes::Http1 as u32;
    const UNDECIDED: u32 = FirstBytes::Undecided as u32;
    const HTTP2: u32 = FirstBytes::Http2 as u32;
    const TLS: u32 = FirstBytes::Tls as u32;
    match obs_first_bytes(word, length) {
        HTTP1 => FirstBytes::Http1,
        UNDECIDED => FirstBytes::Undecided,
        HTTP2 => FirstBytes::Http2,
        TLS => FirstBytes::Tls,
        _ => FirstBytes::Other,
    }
}

/// A function of its own with global linkage: the verifier checks it once, and not once for each way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn obs_first_bytes(word: u64, length: u32) -> u32 {
    judge(word, length) as u32
}

#[inline(always)]
fn judge(word: u64, length: u32) -> FirstBytes {
    const METHODS: [&[u8]; 8] = [b"POST ", b"GET ", b"HEAD ", b"OPTIONS ", b"PUT ", b"DELETE ", b"PATCH ", b"CONNECT "];
    const PREFACE: u64 = u64::from_le_bytes(*b"PRI * HT");
    if length == 0 {
        return FirstBytes::Undecided;
    }
    if word & 0xff == 0x16 && (length < 2 || word & 0xff00 == 0x0300) {
        return FirstBytes::Tls;
    }
    let seen = mask(length);
    if length >= 8 && word == PREFACE {
        return FirstBytes::Http2;
    }
    let mut partial = word & seen == PREFACE & seen;
    let mut index = 0;
    while index < METHODS.len() {
        let (method, size) = pack(METHODS[index]);
        if length >= size {
            if word & mask(size) == method {
                return FirstBytes::Http1;
            }
        } else if word & seen == method & seen {
            partial = true;
        }
        index += 1;
    }
    if partial { FirstBytes::Undecided } else { FirstBytes::Other }
}

/// Whether bytes can stand at the beginning of a write of an HTTP/1 response: its head, or a chunk's size line.
#[inline(always)]
pub fn can_be_response(word: u64, length: u32) -> bool {
    const HEAD: u64 = u64::from_le_bytes(*b"HTTP/1.\0");
    if length < 4 {
        return false;
    }
    if word & mask(7) == HEAD {
        return true;
    }
    let mut index = 0;
    while index < 7 {
        let byte = (word >> (8 * index)) as u8;
        if byte == b'\r' {
            return index > 0 && (word >> (8 * (index + 1))) as u8 == b'\n';
        }
        if !byte.is_ascii_hexdigit() {
            return false;
        }
        index += 1;
    }
    false
}

/// Whether bytes can be the beginning of a TLS record of application data, as the calls of an established connection
/// move them: type, version, and a length that there can be.
#[inline(always)]
pub fn can_be_tls_data(word: u64, length: u32) -> bool {
    const RECORD_MAX: u64 = (1 << 14) + 256;
    let size = (word >> 24 & 0xff) << 8 | word >> 32 & 0xff;
    length >= 5 && word & 0xffff == 0x0317 && word & 0xff_0000 <= 0x04_0000 && size > 0 && size <= RECORD_MAX
}

/// The low `length` bytes of a word.
#[inline(always)]
pub const fn mask(length: u32) -> u64 {
    if length >= 8 { u64::MAX } else { (1 << (length * 8)) - 1 }
}

const fn pack(bytes: &[u8]) -> (u64, u32) {
    let mut word = 0;
    let mut index = 0;
    while index < bytes.len() {
        word |= (bytes[index] as u64) << (8 * index);
        index += 1;
    }
    (word, bytes.len() as u32)
}
