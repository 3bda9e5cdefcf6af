//! Items to a file. The drain thread only copies them into blocks; a thread of its own blanks, compresses and writes.
//! If that cannot keep up, whole blocks are dropped and counted: nobody waits for a disk.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    Item, Names,
    blank::Blanker,
    codec,
    format::{BLOCK_ITEMS, BLOCK_TRAILER, End, Header, Trailer, put_block},
    wire::Clock,
};
use crate::{
    event::{Cookie, Event},
    time::KernelTime,
};

/// A block of this size is handed over.
const BLOCK_BYTES: usize = 128 << 10;
/// A block is handed over after so long, whatever its size: a crash loses two of them at most.
const BLOCK_TIME: Duration = Duration::from_millis(400);
/// Blocks that may wait for the writer.
const QUEUE: usize = 64;
/// What the trailer may need.
const TRAILER_ROOM: u64 = 256;
/// How long the last blocks may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// What to record.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The first bytes of the recording; says whether payload stays.
    pub header: Header,
    /// Largest size of the recording, bytes.
    pub max_bytes: u64,
    /// Request fields whose values stay in any case: lower case. Never those that carry credentials.
    pub kept_fields: Vec<String>,
}

/// Why a recording could not be made, or not to its end.
#[derive(Debug, Error)]
pub enum RecordError {
    /// There is a file.
    #[error("cannot record to {0}: it exists; give another name, or --force to overwrite it")]
    Exists(PathBuf),
    /// The file cannot be made.
    #[error("cannot record to {path}: {error}; check the directory and its permissions")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the thread that writes the recording: {0}")]
    Thread(io::Error),
    /// Writing failed.
    #[error("cannot write the recording any further: {0}; what is there can be replayed")]
    Write(io::Error),
    /// The last bytes are not written yet.
    #[error("the recording could not be written out within {CLOSE_WITHIN:?}: its end is missing")]
    Slow,
}

/// What became of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// What its end says.
    pub trailer: Trailer,
    /// Its size.
    pub bytes: u64,
}

struct Block {
    bytes: Vec<u8>,
    events: u64,
}

type Done = Result<Summary, RecordError>;

/// Takes items, in the order in which the pipeline is told of them.
#[derive(Debug)]
pub struct Recorder {
    sender: SyncSender<Block>,
    done: Receiver<Done>,
    over: Arc<AtomicBool>,
    bytes: Vec<u8>,
    body: Vec<u8>,
    clock: Clock,
    events: u64,
    /// Events dropped since the last block that was taken, and in all.
    lost: [u64; 2],
    begun: Option<KernelTime>,
}

impl Recorder {
    /// Makes the file, for this user alone. `force`: over one that exists.
    ///
    /// # Errors
    /// If it exists, or cannot be made.
    pub fn create(path: &Path, force: bool) -> Result<File, RecordError> {
        let cannot = |error| RecordError::Create { path: path.to_owned(), error };
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let file = match force {
            true => options.create(true).truncate(true).open(path).map_err(cannot)?,
            false => options.create_new(true).open(path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => RecordError::Exists(path.to_owned()),
                _ => cannot(error),
            })?,
        };
        // It may be one that others could read. What is no file (a pipe) keeps what it has.
        if file.metadata().is_ok_and(|data| data.is_file()) {
            file.set_permissions(Permissions::from_mode(0o600)).map_err(cannot)?;
        }
        Ok(file)
    }

    /// Begins a recording.
    ///
    /// # Errors
    /// If its header cannot be written, or there is no thread for it.
    pub fn start(mut output: impl Write + Send + 'static, options: RecordOptions) -> Result<Self, RecordError> {
        let header = options.header.to_bytes();
        output.write_all(&header).and_then(|()| output.flush()).map_err(RecordError::Write)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let (finished, done) = sync_channel(1);
        let over = Arc::new(AtomicBool::new(false));
        let mut writer = Writer {
            output,
            written: header.len() as u64,
            max_bytes: options.max_bytes,
            blanker: (!options.header.payload).then(|| Blanker::new(&options.kept_fields)),
            waiting: VecDeque::new(),
            out: Vec::new(),
            events: 0,
            lost: 0,
        };
        let ended = Arc::clone(&over);
        thread::Builder::new()
            .name("recording".to_owned())
            .spawn(move || {
                let result = writer.run(&receiver);
                ended.store(true, Relaxed);
                let _nobody_waits = finished.try_send(result.map_err(RecordError::Write));
            })
            .map_err(RecordError::Thread)?;
        Ok(Self {
            sender,
            done,
            over,
            bytes: Vec::with_capacity(BLOCK_BYTES + 8192),
            body: Vec::new(),
            clock: Clock::default(),
            events: 0,
            lost: [0; 2],
            begun: None,
        })
    }

    /// Becomes true when nothing more is written: the file is full, or writing failed.
    #[must_use]
    pub fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    /// An event, with the names that an opening got.
    pub fn event(&mut self, event: &Event<'_>, names: Option<Names>) {
        let written = match event {
            // The one copy that borrowing costs; openings are rare.
            Event::Open(open) => self.item(&Item::Event(Event::Open(open.clone()), names)),
            Event::Data(data) => self.item(&Item::Event(Event::Data(*data), None)),
            Event::Arrivals(arrivals) => self.item(&Item::Event(Event::Arrivals(*arrivals), None)),
            Event::State(state) => self.item(&Item::Event(Event::State(*state), None)),
            Event::Listen(listen) => self.item(&Item::Event(Event::Listen(*listen), None)),
            Event::Connect(connect) => self.item(&Item::Event(Event::Connect(*connect), None)),
        };
        if written {
            self.events += 1;
        } else {
            self.lost = self.lost.map(|lost| lost + 1);
        }
    }

    /// A connection ended, and the event of that was lost.
    pub fn ended(&mut self, cookie: Cookie) {
        self.item(&Item::Ended(cookie));
    }

    /// All events up to `now` were given.
    pub fn tick(&mut self, now: KernelTime) {
        self.item(&Item::Tick(now));
        if now.saturating_since(*self.begun.get_or_insert(now)) >= BLOCK_TIME {
            self.hand_over();
        }
    }

    /// Writes what is left, and the end.
    ///
    /// # Errors
    /// If writing fails or failed, or takes too long.
    pub fn finish(mut self) -> Result<Summary, RecordError> {
        let deadline = Instant::now() + CLOSE_WITHIN;
        if self.lost[0] > 0 {
            self.item(&Item::Lost(self.lost[0]));
        }
        let Self { sender, done, bytes, events, lost, .. } = self;
        let mut last = Block { bytes, events };
        // No bytes: all that were lost.
        let mut total = Some(Block { bytes: Vec::new(), events: lost[1] });
        loop {
            match sender.try_send(last) {
                Err(TrySendError::Full(block)) if Instant::now() < deadline => {
                    last = block;
                    thread::sleep(Duration::from_millis(5));
                }
                Err(TrySendError::Full(_)) => return Err(RecordError::Slow),
                Ok(()) | Err(TrySendError::Disconnected(_)) => match total.take() {
                    Some(block) => last = block,
                    None => break,
                },
            }
        }
        drop(sender);
        done.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or(Err(RecordError::Slow))
    }

    fn item(&mut self, item: &Item<'_>) -> bool {
        let written = codec::put(&mut self.bytes, &mut self.body, &mut self.clock, item);
        if self.bytes.len() >= BLOCK_BYTES {
            self.hand_over();
        }
        written
    }

    fn hand_over(&mut self) {
        let fresh = Vec::with_capacity(BLOCK_BYTES + 8192);
        let block = Block { bytes: std::mem::replace(&mut self.bytes, fresh), events: self.events };
        (self.clock, self.events, self.begun) = (Clock::default(), 0, None);
        match self.sender.try_send(block) {
            Ok(()) => self.lost[0] = 0,
            Err(TrySendError::Full(block)) => {
                self.lost = self.lost.map(|lost| lost + block.events);
                // Its room is good for the next.
                self.bytes = block.bytes;
                self.bytes.clear();
                let lost = Item::Lost(self.lost[0]);
                codec::put(&mut self.bytes, &mut self.body, &mut self.clock, &lost);
            }
            // The file is full, or cannot be written: `over` says so.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

struct Writer<W> {
    output: W,
    written: u64,
    max_bytes: u64,
    blanker: Option<Blanker>,
    /// Numbers of events of the blocks that the blanker has.
    waiting: VecDeque<u64>,
    out: Vec<u8>,
    events: u64,
    lost: u64,
}

impl<W: Write> Writer<W> {
    fn run(&mut self, receiver: &Receiver<Block>) -> io::Result<Summary> {
        while let Ok(Block { bytes, events }) = receiver.recv() {
            if bytes.is_empty() {
                self.lost += events;
                continue;
            }
            self.waiting.push_back(events);
            let ready = match &mut self.blanker {
                None => Some(bytes),
                Some(blanker) => blanker.push(bytes),
            };
            if !ready.map_or(Ok(true), |block| self.block(&block))? {
                return self.end(End::Limit);
            }
        }
        while let Some(block) = self.blanker.as_mut().and_then(Blanker::flush) {
            if !self.block(&block)? {
                return self.end(End::Limit);
            }
        }
        self.end(End::Stopped)
    }

    /// `false`: there is no room for it.
    fn block(&mut self, block: &[u8]) -> io::Result<bool> {
        self.out.clear();
        put_block(&mut self.out, BLOCK_ITEMS, block);
        if self.written + self.out.len() as u64 + TRAILER_ROOM > self.max_bytes {
            return Ok(false);
        }
        self.write()?;
        self.events += self.waiting.pop_front().unwrap_or(0);
        Ok(true)
    }

    fn write(&mut self) -> io::Result<()> {
        self.output.write_all(&self.out)?;
        self.output.flush()?;
        self.written += self.out.len() as u64;
        Ok(())
    }

    fn end(&mut self, end: End) -> io::Result<Summary> {
        let unplaced = self.blanker.as_ref().map(Blanker::counts).unwrap_or_default();
        let trailer = Trailer {
            end,
            events: self.events,
            lost: self.lost,
            unplaced: unplaced.calls,
            unplaced_bytes: unplaced.bytes,
        };
        self.out.clear();
        put_block(&mut self.out, BLOCK_TRAILER, &trailer.to_bytes());
        self.write()?;
        Ok(Summary { trailer, bytes: self.written })
    }
}
