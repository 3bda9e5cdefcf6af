//! Which discovered ports are worth the cost: a busy server that is no LLM server is left alone for a while.

use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use crate::time::KernelTime;

/// How long a port is left alone.
pub(super) const IGNORE_FOR: Duration = Duration::from_secs(60);
/// Requests are counted over this long.
const WINDOW: Duration = Duration::from_secs(10);
/// So many other requests in one window make a port busy. Below that, looking costs nothing that matters, and a server
/// that is only asked for its health has its first completion seen.
const BUSY: u64 = 500;

/// What is known of the ports.
#[derive(Debug, Default)]
pub(super) struct Ports {
    serving: HashSet<u16>,
    others: HashMap<u16, (KernelTime, u64)>,
    busy: Vec<u16>,
}

impl Ports {
    /// A port served an LLM request: it is never left alone.
    pub(super) fn llm(&mut self, port: u16) {
        if self.serving.insert(port) {
            self.others.remove(&port);
        }
    }

    /// Whether a port served an LLM request.
    pub(super) fn serves_llm(&self, port: u16) -> bool {
        self.serving.contains(&port)
    }

    /// A port served another request.
    pub(super) fn other(&mut self, port: u16, now: KernelTime) {
        if self.serving.contains(&port) {
            return;
        }
        let (since, count) = self.others.entry(port).or_insert((now, 0));
        if now.saturating_since(*since) > WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count == BUSY {
            self.busy.push(port);
        }
    }

    /// Ports that became busy with other things since the last call. `in_use` tells of LLM requests under way, which
    /// count only once they end.
    pub(super) fn take_busy(&mut self, in_use: impl Fn(u16) -> bool) -> Vec<u16> {
        if self.busy.is_empty() {
            return Vec::new();
        }
        let others = &mut self.others;
        self.busy
            .drain(..)
            .filter(|port| {
                others.remove(port);
                !in_use(*port)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> KernelTime {
        KernelTime::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn only_busy_ports_without_llm_requests_are_left_alone() {
        let mut ports = Ports::default();
        for _ in 0..BUSY {
            ports.other(80, at(1));
            ports.other(8000, at(1));
            ports.other(9000, at(1));
        }
        ports.llm(8001);
        for _ in 0..BUSY {
            ports.other(8001, at(1));
        }
        assert_eq!(ports.take_busy(|port| port == 9000), [80, 8000]);
        assert!(ports.take_busy(|_| false).is_empty());
    }

    #[test]
    fn a_health_check_a_second_never_makes_a_port_busy() {
        let mut ports = Ports::default();
        for second in 0..4 * BUSY {
            ports.other(8000, at(second));
        }
        assert!(ports.take_busy(|_| false).is_empty());
    }
}
