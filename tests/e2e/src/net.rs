//! Free ports on loopback.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::clock;

/// Below the ephemeral range, so that no client's socket takes the port between choice and use.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// A port that nobody listens on, neither on 127.0.0.1 nor on ::1; no two calls of one process give the same one.
///
/// # Panics
/// If a thousand ports in a row are taken.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test binaries that run at once start at different places.
    let seed = process::id().wrapping_mul(7919).wrapping_add((clock::realtime() >> 10) as u32);
    let _unless_set = NEXT.compare_exchange(0, seed % COUNT + 1, Ordering::Relaxed, Ordering::Relaxed);
    for _ in 0..1000 {
        let port = (FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) as u16;
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if v4 && TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port")
}

/// A free port as an address of 127.0.0.1.
#[must_use]
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
