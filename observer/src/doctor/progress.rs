//! How far the count is: on standard error, and only at a terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use super::traffic::Traffic;

/// One line that is written over and over.
#[derive(Debug)]
pub struct Progress {
    time: Duration,
    terminal: bool,
    written: bool,
}

impl Progress {
    /// Of a count that takes `time`.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self { time, terminal: io::stderr().is_terminal(), written: false }
    }

    /// Says how far it is.
    pub fn tell(&mut self, elapsed: Duration, traffic: &Traffic) {
        if !self.terminal {
            return;
        }
        let left = self.time.saturating_sub(elapsed).as_secs_f64();
        let bytes = traffic.sum(|_| true);
        self.written = true;
        self.write(&format!("\r\x1b[Kcounting traffic: {left:.0} s left, {bytes} bytes so far"));
    }

    /// Takes the line away.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.written) {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        // Nobody looks, then.
        let _shown = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}
