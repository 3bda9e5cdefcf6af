//! What workloads read and wrote.

use observer_common::io::{FILE, PIPE, READ, SOCKET, WRITE, flow};

pub use observer_common::io::{Flow, IoStats};

use crate::kernel::{Kernel, signal::Signal};

/// What of it there are hooks for. The rest is absent, not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Calls on files and pipes.
    pub files: bool,
    /// How long these take.
    pub files_timed: bool,
    /// Sockets.
    pub sockets: bool,
    /// How long calls on these take.
    pub sockets_timed: bool,
    /// What comes into the page cache.
    pub page_cache: bool,
}

impl Seen {
    fn of(kernel: &Kernel) -> Self {
        Self {
            files: kernel.measures(Signal::Io),
            files_timed: kernel.times_io(),
            sockets: kernel.sees_sockets(),
            sockets_timed: kernel.times_sockets(),
            page_cache: kernel.measures(Signal::PageCache),
        }
    }
}

/// One kind of files in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Value of the label `kind`.
    pub kind: &'static str,
    /// Value of the label `direction`.
    pub direction: &'static str,
    /// What was counted.
    pub flow: &'a Flow,
    /// Whether it was timed, too.
    pub timed: bool,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// What counts.
    pub seen: Seen,
    /// Zeros where it does not.
    pub stats: IoStats,
}

impl Io {
    /// What the kernel's maps hold in a slot now.
    pub(super) fn read(kernel: &Kernel, slot: u32) -> Self {
        let mut io = Self { seen: Seen::of(kernel), stats: IoStats::default() };
        if io.seen == Seen::default() {
            return io;
        }
        // What cannot be read is absent, too.
        let Ok(cpus) = kernel.per_cpu::<IoStats>("IO", slot) else { return Self::default() };
        cpus.iter().for_each(|cpu| io.stats.add(cpu));
        io
    }

    /// Takes away what an earlier look found.
    pub(super) fn subtract(&mut self, earlier: &Self) {
        self.stats.subtract(&earlier.stats);
    }

    /// Adds another workload of the same name.
    pub(super) fn add(&mut self, other: &Self) {
        self.stats.add(&other.stats);
        self.seen = other.seen;
    }

    /// All kinds and directions that are seen.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let Seen { files, files_timed, sockets, sockets_timed, .. } = self.seen;
        let kinds = [
            (FILE, "file", files, files_timed),
            (PIPE, "pipe", files, files_timed),
            (SOCKET, "socket", sockets, sockets_timed),
        ];
        kinds.into_iter().filter(|(.., seen, _)| *seen).flat_map(|(number, kind, _, timed)| {
            [(READ, "read"), (WRITE, "write")].map(|(to, direction)| Row {
                kind,
                direction,
                flow: &self.stats.flows[flow(number, to)],
                timed,
            })
        })
    }

    /// Bytes read from files: of weights, and of others.
    #[must_use]
    pub fn file_reads(&self) -> Option<[u64; 2]> {
        self.seen.files.then_some([self.stats.weights_read, self.stats.others_read])
    }

    /// Bytes that came into the page cache: of weights, and of others.
    #[must_use]
    pub fn fills(&self) -> Option<[u64; 2]> {
        self.seen.page_cache.then_some([self.stats.weights_filled, self.stats.others_filled])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_has_no_rows() {
        let mut io = Io::default();
        assert!(io.rows().next().is_none() && io.file_reads().is_none() && io.fills().is_none());
        io.seen = Seen { sockets: true, page_cache: true, ..Seen::default() };
        io.stats.flows[flow(SOCKET, WRITE)].bytes = 7;
        io.stats.weights_filled = 9;
        let rows: Vec<_> = io.rows().map(|row| (row.kind, row.direction, row.flow.bytes, row.timed)).collect();
        assert_eq!(rows, [("socket", "read", 0, false), ("socket", "write", 7, false)]);
        assert_eq!((io.file_reads(), io.fills()), (None, Some([9, 0])));
    }

    #[test]
    fn weights_are_apart_from_what_else_is_read() {
        let mut io = Io { seen: Seen { files: true, files_timed: true, ..Seen::default() }, ..Io::default() };
        io.stats.flows[flow(FILE, READ)].bytes = 100;
        io.stats.weights_read = 60;
        // Counted a moment later than the bytes of both.
        io.stats.others_read = 30;
        assert_eq!(io.file_reads(), Some([60, 30]));
        let rows: Vec<_> = io.rows().map(|row| (row.kind, row.direction, row.timed)).collect();
        let expected =
            [("file", "read", true), ("file", "write", true), ("pipe", "read", true), ("pipe", "write", true)];
        assert_eq!(rows, expected);
    }
}
