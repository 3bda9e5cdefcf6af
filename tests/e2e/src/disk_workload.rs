//! A server whose processes use a disk all the time: what panels of block devices show.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{disk::Loop, scratch::Scratch, servers::Server, worker};

/// From one round of reads and writes to the next.
const REST: Duration = Duration::from_millis(200);

/// Reads 16 MiB as a server reads weights, and writes 1 MiB as one keeps a journal, past the page cache.
const ROUND: &str = "#!/bin/sh
dd if=DEVICE of=/dev/null bs=128k count=128 iflag=direct 2>/dev/null &&
dd if=/dev/zero of=DEVICE bs=16k count=64 oflag=direct conv=notrunc,fsync 2>/dev/null
";

/// A server, and the loop device that it uses. Dropping it ends both.
#[derive(Debug)]
pub struct DiskWorkload {
    /// The server.
    pub server: Server,
    over: Arc<AtomicBool>,
    rounds: Option<JoinHandle<()>>,
    _device: Loop,
    _files: Scratch,
}

impl DiskWorkload {
    /// Starts it; it does nothing yet.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start() -> Self {
        let (device, files) = (Loop::new(64), Scratch::new());
        let program = files.program("round", &ROUND.replace("DEVICE", device.path()));
        let server = worker::serve(program.to_str().expect("text"), &files);
        Self { server, over: Arc::default(), rounds: None, _device: device, _files: files }
    }

    /// Makes it a workload of an observer that has its port in scope, and has it read and write from now on.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn begin(&mut self) {
        worker::ask(&self.server);
        let (address, over) = (self.server.address, Arc::clone(&self.over));
        self.rounds = Some(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                worker::work(address, "run", 0);
                thread::sleep(REST);
            }
        }));
    }
}

impl Drop for DiskWorkload {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let failed = self.rounds.take().is_some_and(|rounds| rounds.join().is_err());
        assert!(!failed || thread::panicking(), "the disk was not read and written to the end");
    }
}
