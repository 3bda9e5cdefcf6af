//! Packets of one port on loopback, by tcpdump.

use std::{path::PathBuf, process::Command};

use crate::{
    clock,
    pcap::{self, Packet},
    process::Process,
    require,
    scratch::Scratch,
    wait::SOON,
};

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
    offset_before: (i64, u64),
}

/// What was captured.
#[derive(Debug)]
pub struct Captured {
    /// Packets in the order of the file.
    pub packets: Vec<Packet>,
    /// `CLOCK_REALTIME - CLOCK_MONOTONIC` in nanoseconds, the mean of readings before and after.
    pub offset: i64,
    /// How far off `offset` can be: the clocks' drift over the capture and the readings' own width.
    pub uncertainty: u64,
}

impl Capture {
    /// Captures whole packets of this TCP port on loopback, and waits until the capture is in force.
    ///
    /// # Panics
    /// If tcpdump is missing or does not start.
    #[must_use]
    pub fn start(port: u16, scratch: &Scratch) -> Self {
        let file = scratch.file("packets.pcap");
        let mut command = Command::new(require::tool("tcpdump").expect("tcpdump is installed"));
        // -B is in KiB: 64 MiB hold what the slowest reader leaves. -Z root: no change of user, the file is ours.
        command.args(["-i", "lo", "-n", "-s", "0", "-B", "65536", "--time-stamp-precision=nano", "-Z", "root", "-w"]);
        command.arg(&file).arg(format!("tcp port {port}"));
        let mut process = Process::spawn("tcpdump", command);
        process.line(SOON, |line| line.contains("listening on lo"));
        Self { process, file, offset_before: clock::offset() }
    }

    /// Ends the capture and reads it.
    ///
    /// # Panics
    /// If packets were dropped, or the file is damaged.
    #[must_use]
    pub fn finish(mut self) -> Captured {
        let (before, width_before) = self.offset_before;
        let (after, width_after) = clock::offset();
        // The kernel hands a block of packets over when it is full, or after tcpdump's timeout of one second; a
        // signal before that loses what is in it.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        self.process.signal(libc::SIGTERM);
        let line = self.process.line(SOON, |line| line.contains("dropped by kernel"));
        assert!(line.starts_with("0 packets"), "the truth has holes: {line}");
        self.process.wait(SOON);
        let bytes = std::fs::read(&self.file).unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
        Captured {
            packets: pcap::read(&bytes),
            offset: before.midpoint(after),
            uncertainty: before.abs_diff(after) / 2 + width_before.max(width_after),
        }
    }
}
