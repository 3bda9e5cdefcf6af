//! The request log: one line of JSON per finished request, appended by a thread of its own. A slow disk or reader
//! costs lines, which are counted, never time of the thread that finishes requests.

mod line;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use thiserror::Error;

use crate::{
    config::RequestLogConfig, correlate::History, metrics::value::Counter, request::record::RequestRecord,
    time::KernelTime,
};

/// Tells the wall clock's time of a kernel time.
pub type WallClock = Box<dyn Fn(KernelTime) -> SystemTime + Send>;

/// A request's line, without its end and without what GPUs did. `chunks`: with the time of each token event.
#[must_use]
pub fn line(record: &RequestRecord, chunks: bool, clock: &dyn Fn(KernelTime) -> SystemTime) -> String {
    // What cannot fail: numbers and text, into memory.
    serde_json::to_string(&line::Line::of(record, chunks, clock, None)).unwrap_or_default()
}

/// How long a line waits in memory at most.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// Lines are written at once when they are this many bytes together.
const FLUSH_BYTES: usize = 64 * 1024;

/// Why the request log cannot be used.
#[derive(Debug, Error)]
pub enum RequestLogError {
    /// The file cannot be opened.
    #[error("cannot append to the request log {path}: {error}; check the directory and its permissions")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the thread of the request log: {0}")]
    Thread(io::Error),
}

/// A request log that is open.
pub struct RequestLog {
    sender: SyncSender<Box<RequestRecord>>,
    control: Arc<Control>,
    queue_full: Arc<Counter>,
    done: Receiver<()>,
}

/// Asks the writer for something other than a line.
#[derive(Default)]
struct Control {
    reopen: AtomicBool,
    close: AtomicBool,
}

/// Reopens the request log, from whatever thread hears of the need to.
#[derive(Clone)]
pub struct Reopen(Arc<Control>);

impl Reopen {
    /// The file is opened anew by its name within a second: log rotation moved it away.
    pub fn reopen(&self) {
        self.0.reopen.store(true, SeqCst);
    }
}

impl RequestLog {
    /// Opens the log that `config` asks for; `None` if it asks for none. `gpus`: what the GPUs of workloads did; `begin`:
    /// what its thread does first.
    ///
    /// # Errors
    /// If the file cannot be opened for appending.
    pub fn open(
        config: &RequestLogConfig,
        clock: WallClock,
        gpus: Option<Arc<History>>,
        queue_full: Arc<Counter>,
        write_error: Arc<Counter>,
        begin: impl FnOnce() + Send + 'static,
    ) -> Result<Option<Self>, RequestLogError> {
        let Some(path) = config.path.clone() else { return Ok(None) };
        let target = Target::open(&path).map_err(|error| RequestLogError::Open { path: path.clone(), error })?;
        let (sender, receiver) = sync_channel(config.queue);
        let (finished, done) = sync_channel(1);
        let control = Arc::new(Control::default());
        let mut writer = Writer {
            path,
            target,
            chunks: config.chunks,
            clock,
            gpus,
            buffer: Vec::new(),
            torn: false,
            failing: false,
            write_error,
            control: Arc::clone(&control),
        };
        thread::Builder::new()
            .name("request-log".to_owned())
            .spawn(move || {
                begin();
                writer.run(&receiver);
                let _nobody_waits = finished.try_send(());
            })
            .map_err(RequestLogError::Thread)?;
        Ok(Some(Self { sender, control, queue_full, done }))
    }

    /// Hands a request to the writer; drops and counts it if the queue is full.
    pub fn write(&self, record: RequestRecord) {
        match self.sender.try_send(Box::new(record)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.queue_full.add(1),
        }
    }

    /// A handle that reopens this log.
    #[must_use]
    pub fn reopener(&self) -> Reopen {
        Reopen(Arc::clone(&self.control))
    }

    /// Writes what is queued, and ends. `false`: that took longer than `deadline`; what is left is lost.
    #[must_use]
    pub fn close(self, deadline: Duration) -> bool {
        let Self { sender, control, done, .. } = self;
        control.close.store(true, SeqCst);
        drop(sender);
        done.recv_timeout(deadline).is_ok()
    }
}

enum Target {
    File(File),
    StandardOutput,
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::StandardOutput);
        }
        // Lines hold addresses of clients: not for everyone.
        OpenOptions::new().append(true).create(true).mode(0o640).open(path).map(Self::File)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::StandardOutput => {
                let mut output = io::stdout().lock();
                let written = output.write(bytes)?;
                output.flush()?;
                Ok(written)
            }
        }
    }
}

struct Writer {
    path: PathBuf,
    target: Target,
    chunks: bool,
    clock: WallClock,
    gpus: Option<Arc<History>>,
    /// Whole lines.
    buffer: Vec<u8>,
    /// What was written last ends inside a line.
    torn: bool,
    /// The last attempt failed: it was logged.
    failing: bool,
    write_error: Arc<Counter>,
    control: Arc<Control>,
}

impl Writer {
    fn run(&mut self, receiver: &Receiver<Box<RequestRecord>>) {
        let mut next_flush = Instant::now() + FLUSH_INTERVAL;
        loop {
            // A reopen request waits at most this long, too.
            let patience = next_flush.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(patience) {
                Ok(record) => self.append(&record),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.flush();
                    return;
                }
            }
            if self.control.reopen.swap(false, SeqCst) {
                self.reopen();
            }
            if self.buffer.len() >= FLUSH_BYTES || Instant::now() >= next_flush {
                self.flush();
                next_flush = Instant::now() + FLUSH_INTERVAL;
            }
        }
    }

    fn append(&mut self, record: &RequestRecord) {
        let line = line::Line::of(record, self.chunks, &self.clock, self.gpus.as_deref());
        let before = self.buffer.len();
        match serde_json::to_writer(&mut self.buffer, &line) {
            Ok(()) => self.buffer.push(b'\n'),
            Err(error) => {
                self.buffer.truncate(before);
                self.failed(1, &error.into());
            }
        }
    }

    /// Writes the buffer. What cannot be written is counted and forgotten: memory stays bounded.
    fn flush(&mut self) {
        let mut written = 0;
        if self.torn && !self.buffer.is_empty() {
            // What follows must not run on in the line that broke off.
            match self.target.write(b"\n") {
                Ok(1..) => self.torn = false,
                Ok(0) => return self.give_up(0, &io::ErrorKind::WriteZero.into()),
                Err(error) => return self.give_up(0, &error),
            }
        }
        while written < self.buffer.len() {
            match self.target.write(&self.buffer[written..]) {
                Ok(0) => return self.give_up(written, &io::ErrorKind::WriteZero.into()),
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.give_up(written, &error),
            }
        }
        if written > 0 && self.failing {
            self.failing = false;
            tracing::info!(path = %self.path.display(), "the request log can be written again");
        }
        self.buffer.clear();
    }

    fn give_up(&mut self, written: usize, error: &io::Error) {
        if written > 0 {
            self.torn = self.buffer[written - 1] != b'\n';
        }
        let lost = self.buffer[written..].iter().filter(|byte| **byte == b'\n').count();
        self.buffer.clear();
        self.failed(lost as u64, error);
    }

    fn failed(&mut self, lost: u64, error: &io::Error) {
        self.write_error.add(lost);
        if !self.failing {
            self.failing = true;
            tracing::error!(path = %self.path.display(), %error,
                "cannot write the request log; lines are lost and counted until it works again");
        }
    }

    fn reopen(&mut self) {
        self.flush();
        match Target::open(&self.path) {
            Ok(target) => {
                self.target = target;
                self.torn = false;
            }
            Err(error) => tracing::error!(path = %self.path.display(), %error,
                "cannot reopen the request log; the open file stays in use"),
        }
    }
}

#[cfg(test)]
mod tests;
