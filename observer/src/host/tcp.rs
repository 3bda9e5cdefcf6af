//! What TCP did for the connections of workloads to their language models.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use observer_common::host::{Histogram, LISTENING, SeenSocket, TCP_PROGRAMS, TcpCounts, TcpWrites};

use crate::kernel::Kernel;

/// What was measured. `None`: there is no hook for it here, or nobody could look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tcp {
    /// Smoothed round-trip times.
    pub rtt: Option<Histogram>,
    /// Times that a client's window was found closed.
    pub zero_windows: Option<u64>,
    /// Segments sent again.
    pub retransmits: Option<u64>,
    /// Bytes written and not sent, now.
    pub unsent: Option<u64>,
    /// Connections that listening sockets dropped.
    pub overflows: Option<u64>,
}

impl Tcp {
    /// What the kernel's maps hold in a slot now.
    pub(super) fn read(kernel: &Kernel, slot: u32) -> Self {
        let (mut writes, mut counts) = (TcpWrites::default(), TcpCounts::default());
        if !kernel.looks_at_tcp() {
            return Self::default();
        }
        for cpu in kernel.per_cpu::<TcpWrites>("TCP_WRITES", slot).unwrap_or_default() {
            writes.add(&cpu);
        }
        for program in 0..TCP_PROGRAMS {
            let place = slot * TCP_PROGRAMS + program;
            for cpu in kernel.per_cpu::<TcpCounts>("TCP_COUNTS", place).unwrap_or_default() {
                counts.retransmits = counts.retransmits.wrapping_add(cpu.retransmits);
                counts.zero_windows = counts.zero_windows.wrapping_add(cpu.zero_windows);
            }
        }
        Self {
            rtt: Some(writes.rtt),
            zero_windows: Some(writes.zero_windows.wrapping_add(counts.zero_windows)),
            retransmits: kernel.runs("tcp_retransmit").then_some(counts.retransmits),
            ..Self::default()
        }
    }

    /// Takes away what an earlier look found.
    pub(super) fn subtract(&mut self, earlier: &Self) {
        if let (Some(now), Some(earlier)) = (&mut self.rtt, &earlier.rtt) {
            now.subtract(earlier);
        }
        for (now, earlier) in self.counters().into_iter().zip(earlier.clone().counters()) {
            if let (Some(now), Some(earlier)) = (now, earlier) {
                *now = now.saturating_sub(*earlier);
            }
        }
    }

    /// Adds another workload of the same name.
    pub(super) fn add(&mut self, other: &Self) {
        match (&mut self.rtt, &other.rtt) {
            (Some(sum), Some(other)) => sum.add(other),
            (sum @ None, other) => *sum = *other,
            (Some(_), None) => {}
        }
        for (sum, other) in self.counters().into_iter().zip(other.clone().counters()) {
            *sum = sum.map_or(*other, |sum| Some(sum.wrapping_add(other.unwrap_or(0))));
        }
    }

    fn counters(&mut self) -> [&mut Option<u64>; 4] {
        [&mut self.zero_windows, &mut self.retransmits, &mut self.unsent, &mut self.overflows]
    }
}

/// What looks at all sockets found of one workload.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    /// Ports on which it serves language models; whether their listening sockets were looked at.
    ports: BTreeMap<u16, bool>,
    /// What each of those had dropped, by its cookie.
    listeners: HashMap<u64, u32>,
    overflows: Option<u64>,
    unsent: Option<u64>,
}

impl Sockets {
    /// It serves on this port. Whether that is new.
    pub(super) fn serves(&mut self, port: u16) -> bool {
        self.ports.insert(port, false).is_none_or(|looked| {
            self.ports.insert(port, looked);
            false
        })
    }

    /// Takes in all sockets of its network namespace, but for listening ones on ports that others have `taken`.
    pub(super) fn take(&mut self, slot: u32, seen: Option<&[SeenSocket]>, taken: &mut BTreeSet<u16>) {
        let Some(seen) = seen else {
            self.unsent = None;
            return;
        };
        let mine = |socket: &&SeenSocket| socket.slot == slot;
        self.unsent = Some(seen.iter().filter(mine).map(|socket| u64::from(socket.value)).sum());
        let mut listeners = HashMap::new();
        for (port, looked) in &mut self.ports {
            if !taken.insert(*port) {
                continue;
            }
            let overflows = self.overflows.get_or_insert(0);
            let listening = |socket: &&SeenSocket| socket.slot == LISTENING && socket.port == u32::from(*port);
            for socket in seen.iter().filter(listening) {
                // What it had dropped before it was looked at for the first time is not of this workload's account.
                let before = self.listeners.get(&socket.cookie).copied();
                let before = before.unwrap_or(if *looked { 0 } else { socket.value });
                *overflows += u64::from(socket.value.wrapping_sub(before));
                listeners.insert(socket.cookie, socket.value);
            }
            *looked = true;
        }
        self.listeners = listeners;
    }

    /// They were not looked at for a while: the next look is a first one.
    pub(super) fn forget(&mut self) {
        self.listeners.clear();
        self.ports.values_mut().for_each(|looked| *looked = false);
        self.unsent = None;
    }

    /// Adds what they found to what was measured.
    pub(super) fn tell(&self, tcp: &mut Tcp) {
        (tcp.unsent, tcp.overflows) = (self.unsent, self.overflows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(cookie: u64, port: u32, drops: u32) -> SeenSocket {
        SeenSocket { cookie, slot: LISTENING, port, value: drops, padding: 0 }
    }

    fn told(sockets: &Sockets) -> (Option<u64>, Option<u64>) {
        let mut tcp = Tcp::default();
        sockets.tell(&mut tcp);
        (tcp.unsent, tcp.overflows)
    }

    fn overflows(sockets: &mut Sockets, seen: &[SeenSocket]) -> Option<u64> {
        sockets.take(3, Some(seen), &mut BTreeSet::new());
        told(sockets).1
    }

    #[test]
    fn overflows_count_from_the_first_look_on_and_survive_their_socket() {
        let mut sockets = Sockets::default();
        assert!(sockets.serves(80) && !sockets.serves(80));
        assert_eq!(overflows(&mut sockets, &[listener(1, 80, 7), listener(9, 81, 5)]), Some(0), "what was before");
        assert_eq!(overflows(&mut sockets, &[listener(1, 80, 9), listener(9, 81, 6)]), Some(2));
        // Another worker's socket, which was not told of as long as it had dropped nothing.
        assert_eq!(overflows(&mut sockets, &[listener(1, 80, 9), listener(2, 80, 4)]), Some(6));
        assert_eq!(overflows(&mut sockets, &[]), Some(6), "they are gone, what they dropped is not undone");
        assert_eq!(overflows(&mut sockets, &[listener(3, 80, 1)]), Some(7));
        assert!(!sockets.serves(80), "looked at, and known");
        assert_eq!(overflows(&mut sockets, &[listener(3, 80, 2)]), Some(8));
    }

    #[test]
    fn what_listening_sockets_dropped_while_nobody_looked_is_not_counted() {
        let mut sockets = Sockets::default();
        sockets.serves(80);
        assert_eq!(overflows(&mut sockets, &[listener(1, 80, 7)]), Some(0));
        assert_eq!(overflows(&mut sockets, &[listener(1, 80, 9)]), Some(2));
        sockets.forget();
        assert_eq!(told(&sockets), (None, Some(2)));
        assert_eq!(overflows(&mut sockets, &[listener(1, 80, 100), listener(2, 80, 50)]), Some(2));
        assert_eq!(overflows(&mut sockets, &[listener(1, 80, 101), listener(2, 80, 50)]), Some(3));
    }

    #[test]
    fn one_port_of_two_workloads_counts_once() {
        let (mut first, mut second) = (Sockets::default(), Sockets::default());
        let mut look = |drops| {
            let mut taken = BTreeSet::new();
            for sockets in [&mut first, &mut second] {
                sockets.serves(80);
                sockets.take(3, Some(&[listener(1, 80, drops)]), &mut taken);
            }
            (told(&first).1, told(&second).1)
        };
        assert_eq!((look(1), look(5)), ((Some(0), None), (Some(4), None)));
    }

    #[test]
    fn the_kernels_counter_wraps() {
        let mut sockets = Sockets::default();
        sockets.serves(80);
        assert_eq!(overflows(&mut sockets, &[listener(1, 80, u32::MAX)]), Some(0));
        assert_eq!(overflows(&mut sockets, &[listener(1, 80, 2)]), Some(3));
    }

    #[test]
    fn unsent_bytes_are_of_the_slot_and_absent_if_nobody_could_look() {
        let mut sockets = Sockets::default();
        let connection = |slot, value: u32| SeenSocket { cookie: value.into(), slot, port: 80, value, padding: 0 };
        let seen = [connection(3, 10), connection(4, 100), connection(3, 1)];
        sockets.take(3, Some(&seen), &mut BTreeSet::new());
        assert_eq!(told(&sockets).0, Some(11));
        sockets.take(3, None, &mut BTreeSet::new());
        assert_eq!(told(&sockets), (None, None));
    }

    #[test]
    fn workloads_of_one_name_are_summed_and_absent_is_not_zero() {
        let one = Tcp { retransmits: Some(2), zero_windows: None, unsent: Some(1), ..Tcp::default() };
        let mut sum = Tcp { retransmits: Some(3), ..Tcp::default() };
        sum.add(&one);
        assert_eq!(sum, Tcp { retransmits: Some(5), unsent: Some(1), ..Tcp::default() });
        sum.subtract(&one);
        assert_eq!((sum.retransmits, sum.zero_windows), (Some(3), None));
    }

    #[test]
    fn records_are_read_as_they_lie_in_memory() {
        let socket = SeenSocket { cookie: 0x0102_0304_0506_0708, slot: 9, port: 80, value: 77, padding: 0 };
        let mut bytes = [0; size_of::<SeenSocket>()];
        bytes[..8].copy_from_slice(&socket.cookie.to_ne_bytes());
        for (at, word) in [(8, socket.slot), (12, socket.port), (16, socket.value)] {
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(SeenSocket::from_bytes(&bytes), socket);
    }
}
