//! Exchanges whose calls are counted: each is to be an event of the observer's, or a lost one.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Link, Socket, socket::whole};
use crate::{
    metrics::Metrics,
    traffic::{self, Answer},
};

/// Calls that the server's end of a connection made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls(pub u64);

impl Calls {
    fn take(&mut self, server: &Socket) {
        let mut bytes = Vec::new();
        while !whole(&bytes) {
            bytes.extend(server.recv(65_536));
            self.0 += 1;
        }
    }

    fn send(&mut self, server: &Socket, bytes: &[u8]) {
        server.send(bytes);
        self.0 += 1;
    }

    /// One request and its answer, each part of it one call, no faster than one part in `pace`.
    pub fn exchange(&mut self, link: &Link, id: &str, answer: &Answer, pace: Duration) {
        link.client.send(&traffic::chat(id));
        self.take(&link.server);
        let (begun, mut pending) = (Instant::now(), 0);
        for (index, part) in answer.parts().into_iter().enumerate() {
            self.send(&link.server, part);
            pending += part.len();
            // The client reads seldom: what is measured is the writer.
            if index % 32 == 31 {
                link.client.drain(std::mem::take(&mut pending));
                thread::sleep((pace * index as u32).saturating_sub(begun.elapsed()));
            }
        }
        link.client.drain(pending);
    }

    /// Demands that each was an event or a lost one, and returns how many were lost. A probe that the kernel skipped
    /// may have been another process's.
    ///
    /// # Panics
    /// If one was neither.
    #[must_use]
    pub fn expect_accounted(self, metrics: &Metrics) -> u64 {
        let calls = self.0;
        let count = |name, labels: &[(&str, &str)]| metrics.sum(name, labels) as u64;
        let seen = count("observer_events_total", &[("source", "data")]);
        let lost = count("observer_events_lost_total", &[("source", "data"), ("reason", "ring_full")]);
        let skipped = count("observer_events_lost_total", &[("reason", "recursion")]);
        println!("{calls} calls: {seen} events, {lost} lost, {skipped} skipped");
        assert!(seen + lost <= calls && calls <= seen + lost + skipped, "{metrics:#?}");
        assert_eq!(count("observer_events_lost_total", &[("reason", "malformed")]), 0);
        lost + skipped
    }
}
