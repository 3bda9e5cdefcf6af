//! The one thread that drains the ring and runs everything up to a finished request. No locks on its path.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{
    host::Served,
    names::ProcessNames,
    output::{Output, Serving},
    ports::Ports,
};
use crate::{
    event::{Connect, Event, Open},
    export::jsonl::RequestLog,
    kernel::{Ring, clock},
    metrics::{InFlight, Metrics},
    recording::{RecordError, Recorder, Summary},
    request::tracker::{ConnectionNames, NameResolver, Tracker},
    time::KernelTime,
    workload::{Identity, Places},
};

/// Records handled before anything else gets a turn.
const BATCH: usize = 16_384;
/// Longest pause between two looks at an idle ring. Event times are the kernel's, and a filling ring wakes us.
const IDLE_PAUSE: Duration = Duration::from_millis(100);
/// How long the request log may take to write what is queued at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// See [`Backlog`].
const BACKLOG_WINDOW: Duration = Duration::from_secs(15);
/// Requests tell who serves them when they end. How often those are looked at that have not ended.
const LOOK_AT_LONG_REQUESTS: Duration = Duration::from_secs(1);
/// How long a question to this thread may take.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);

type Answer = mpsc::SyncSender<Vec<InFlight>>;

/// What others may see of the thread while it works.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    /// When the thread last came by, kernel clock.
    heartbeat: AtomicU64,
    malformed: AtomicU64,
    /// Connections whose clients are known.
    clients: AtomicU64,
    clients_given_up: AtomicU64,
    /// Most bytes found in the ring by one drain of late.
    backlog: AtomicU64,
}

/// The thread, from outside.
#[derive(Debug)]
pub(super) struct Drain {
    shared: Arc<Shared>,
    wake: Arc<OwnedFd>,
    questions: Mutex<mpsc::Sender<Answer>>,
    thread: Mutex<Option<thread::JoinHandle<io::Result<()>>>>,
}

/// What the thread works with.
pub(super) struct Parts {
    /// Where events come from.
    pub(super) ring: Ring,
    /// Events to requests.
    pub(super) tracker: Tracker,
    /// Families.
    pub(super) metrics: Arc<Metrics>,
    /// One line per request, if wanted.
    pub(super) request_log: Option<RequestLog>,
    /// Takes all that the tracker is told, if somebody wants that.
    pub(super) recording: Option<Recorder>,
    /// Told what became of the recording.
    pub(super) recorded: mpsc::SyncSender<Result<Summary, RecordError>>,
    /// Shortest pause between two drains.
    pub(super) pause: Duration,
    /// Connections that processes of this host had before there were events of them.
    pub(super) clients: Vec<Connect>,
    /// Where processes of the host are found; `None`: nowhere.
    pub(super) places: Option<Places>,
    /// Told of ports to leave alone.
    pub(super) ignore_port: Box<dyn Fn(u16) + Send>,
    /// Told of workloads that serve requests to a language model.
    pub(super) serves: Box<dyn Fn(Served) + Send>,
}

impl Drain {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it, or what it waits with, cannot be made.
    pub(super) fn start(parts: Parts) -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and ours alone.
        let wake = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
        let shared = Arc::new(Shared::default());
        shared.heartbeat.store(clock::now().as_nanos(), Ordering::Relaxed);
        let (questions, receiver) = mpsc::channel();
        let thread = thread::Builder::new().name("observer-drain".to_owned()).spawn({
            let (shared, wake) = (shared.clone(), wake.clone());
            move || run(parts, &shared, &wake, &receiver)
        })?;
        Ok(Self { shared, wake, questions: Mutex::new(questions), thread: Mutex::new(Some(thread)) })
    }

    /// Requests in flight, from the live table; `None`: the thread is too busy to say.
    #[must_use]
    pub(super) fn in_flight(&self) -> Option<Vec<InFlight>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).send(sender).ok()?;
        self.wake();
        receiver.recv_timeout(ANSWER_WITHIN).ok()
    }

    /// Time since the thread last came by.
    #[must_use]
    pub(super) fn silence(&self) -> Duration {
        clock::now().saturating_since(KernelTime::from_nanos(self.shared.heartbeat.load(Ordering::Relaxed)))
    }

    /// Whether the thread is over, although nobody stopped it.
    #[must_use]
    pub(super) fn has_ended(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Connections whose clients are known to be processes of this host.
    #[must_use]
    pub(super) fn clients(&self) -> u64 {
        self.shared.clients.load(Ordering::Relaxed)
    }

    /// Clients that were forgotten before their connections ended.
    #[must_use]
    pub(super) fn clients_given_up(&self) -> u64 {
        self.shared.clients_given_up.load(Ordering::Relaxed)
    }

    /// Records that could not be decoded.
    #[must_use]
    pub(super) fn malformed(&self) -> u64 {
        self.shared.malformed.load(Ordering::Relaxed)
    }

    /// Most bytes that one drain found in the ring, within the last one to two [`BACKLOG_WINDOW`]s.
    #[must_use]
    pub(super) fn backlog(&self) -> u64 {
        self.shared.backlog.load(Ordering::Relaxed)
    }

    /// Drains what is left and ends the thread. Call it after the probes were detached.
    ///
    /// # Errors
    /// What ended the thread before, if something did.
    pub(super) fn stop(&self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.map_or(Ok(()), |thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the drain thread panicked")))
        })
    }

    fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight bytes. A full counter already wakes.
        let _written = unsafe { libc::write(self.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

fn run(mut parts: Parts, shared: &Shared, wake: &OwnedFd, questions: &mpsc::Receiver<Answer>) -> io::Result<()> {
    let waiter = parts.ring.waiter(wake.as_fd())?;
    let mut names = ProcessNames::new(parts.places.take());
    let mut output = Output::new(&parts.metrics, parts.request_log.take(), clock::now());
    output.serving = Serving::new(parts.serves);
    let mut looked = output.now;
    for connect in std::mem::take(&mut parts.clients) {
        let event = Event::Connect(connect);
        if let Some(recorder) = &mut parts.recording {
            recorder.event(&event, None);
        }
        parts.tracker.event(&event, &mut names, &mut output);
    }
    let mut pause = parts.pause;
    let mut backlog = Backlog::default();
    let mut ended = Vec::new();
    loop {
        // Read before the drain: whatever happened up to here is in the ring by now.
        output.now = clock::now();
        let stopping = shared.stop.load(Ordering::Acquire);
        parts.ring.take_ended(&mut ended);
        let recording = &mut parts.recording;
        let drained = parts.ring.drain(BATCH, |event| {
            match recording {
                None => parts.tracker.event(event, &mut names, &mut output),
                Some(recorder) => record(recorder, event, &mut parts.tracker, &mut names, &mut output),
            }
            // At once: what this server is about to ask of its children is the next event.
            output.asked.drain(..).for_each(|connection| names.serves(&connection));
        });
        if drained.events < BATCH {
            if let Some(recorder) = recording {
                ended.iter().for_each(|cookie| recorder.ended(*cookie));
                recorder.tick(output.now);
            }
            ended.drain(..).for_each(|cookie| parts.tracker.ended(cookie, &mut output));
            // What is held back is not overdue while events from before now may still be in the ring.
            parts.tracker.tick(output.now, &mut output);
        }
        shared.heartbeat.store(output.now.as_nanos(), Ordering::Relaxed);
        output.metrics.own().connections.set(parts.tracker.connections() as u64);
        shared.clients.store(parts.tracker.clients() as u64, Ordering::Relaxed);
        shared.clients_given_up.store(parts.tracker.clients_given_up(), Ordering::Relaxed);
        shared.malformed.store(parts.ring.malformed(), Ordering::Relaxed);
        shared.backlog.store(backlog.add(drained.bytes as u64, output.now), Ordering::Relaxed);
        while let Ok(answer) = questions.try_recv() {
            // Nobody may be waiting any more.
            let _unheard = answer.try_send(in_flight(&parts.tracker, &output.ports));
        }
        let tracker = &parts.tracker;
        let in_use =
            |port: u16| tracker.in_flight().any(|(info, _)| info.server.is_some_and(|server| server.port() == port));
        output.ports.take_busy(in_use).into_iter().for_each(&parts.ignore_port);
        if output.now.saturating_since(looked) > LOOK_AT_LONG_REQUESTS {
            looked = output.now;
            tracker.in_flight().for_each(|(info, _)| output.serving.seen(info, output.now));
        }
        if drained.events == BATCH {
            continue;
        }
        if stopping {
            parts.tracker.finish(output.now, &mut output);
            if let Some(log) = output.request_log.take()
                && !log.close(CLOSE_WITHIN)
            {
                tracing::warn!("the request log could not be written out in time: its last lines are missing");
            }
            if let Some(recorder) = parts.recording.take() {
                // Only then: nothing more comes.
                let _unheard = parts.recorded.try_send(recorder.finish());
            }
            return Ok(());
        }
        pause = if drained.events > 0 { parts.pause } else { (pause * 2).min(IDLE_PAUSE.max(parts.pause)) };
        waiter.wait(pause)?;
        let mut counter = [0_u8; 8];
        // SAFETY: eight bytes. Nothing to read is fine: time was up, or the ring called.
        let _read = unsafe { libc::read(wake.as_raw_fd(), counter.as_mut_ptr().cast(), counter.len()) };
    }
}

/// One event, recorded and told to the tracker, with the same names.
#[cold]
fn record(
    recorder: &mut Recorder,
    event: &Event<'_>,
    tracker: &mut Tracker,
    names: &mut ProcessNames,
    output: &mut Output,
) {
    let Event::Open(open) = event else {
        recorder.event(event, None);
        return tracker.event(event, names, output);
    };
    let given = names.names(open);
    recorder.event(event, Some(given.clone().into()));
    tracker.event(event, &mut Given(given), output);
}

/// Names that are known already.
pub(super) struct Given(pub(super) ConnectionNames);

impl NameResolver for Given {
    fn names(&mut self, _open: &Open) -> ConnectionNames {
        self.0.clone()
    }
}

/// The largest of recent values: of this window and the one before.
#[derive(Default)]
struct Backlog {
    since: KernelTime,
    largest: [u64; 2],
}

impl Backlog {
    fn add(&mut self, value: u64, now: KernelTime) -> u64 {
        if now.saturating_since(self.since) > BACKLOG_WINDOW {
            *self = Self { since: now, largest: [0, self.largest[0]] };
        }
        self.largest[0] = self.largest[0].max(value);
        self.largest[0].max(self.largest[1])
    }
}

/// Idle connections to LLM servers count with 0: while they live, so do their workload's series.
fn in_flight(tracker: &Tracker, ports: &Ports) -> Vec<InFlight> {
    let mut sums: Vec<InFlight> = Vec::new();
    for (info, count) in tracker.connections_in_use() {
        if count == 0 && !info.server.is_some_and(|server| ports.serves_llm(server.port())) {
            continue;
        }
        let server_port = info.server_port();
        let key = |identity: &Option<Arc<Identity>>| identity.as_ref().map(|identity| identity.key.clone());
        let its = key(&info.identity);
        let is_same = |sum: &&mut InFlight| {
            sum.workload == info.workload && sum.server_port == server_port && key(&sum.identity) == its
        };
        match sums.iter_mut().find(is_same) {
            Some(sum) => sum.requests += count,
            None => sums.push(InFlight {
                workload: info.workload.clone(),
                identity: info.identity.clone(),
                server_port,
                requests: count,
            }),
        }
    }
    sums
}
