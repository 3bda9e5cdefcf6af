//! The one thread that calls the driver. Its calls may block for ever: nobody waits for it longer than they said, and no
//! second one is started.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{End, Session, Shared, Snapshot, Source, State, Trouble, View};
use crate::kernel::clock;

/// How often what is done, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two polls of values that change fast.
    pub interval: Duration,
    /// Between two polls of values that change slowly.
    pub slow_interval: Duration,
    /// Until a driver that is not there is looked for again.
    pub absent: Duration,
    /// First and longest time until a driver that failed is tried again.
    pub failed: (Duration, Duration),
    /// First and longest time until the driver is opened anew because a GPU is lost and may be back. Opening costs, and
    /// leaks a little in the driver's library.
    pub lost: (Duration, Duration),
    /// A driver is unresponsive if a call has not returned for so long, or if a poll is late by as much.
    pub unresponsive: Duration,
}

impl Timing {
    /// With these intervals between polls.
    #[must_use]
    pub const fn with(interval: Duration, slow_interval: Duration) -> Self {
        Self {
            interval,
            slow_interval,
            absent: Duration::from_secs(60),
            failed: (Duration::from_secs(1), Duration::from_secs(30)),
            lost: (Duration::from_secs(1), Duration::from_secs(300)),
            unresponsive: Duration::from_secs(10),
        }
    }
}

/// A pause that doubles.
struct Pause {
    bounds: (Duration, Duration),
    next: Duration,
}

impl Pause {
    const fn new(bounds: (Duration, Duration)) -> Self {
        Self { bounds, next: bounds.0 }
    }

    fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.bounds.1);
        pause
    }

    fn reset(&mut self) {
        self.next = self.bounds.0;
    }
}

/// The thread shows at least so often that it is there.
const BEAT: Duration = Duration::from_secs(1);

type Reply = mpsc::SyncSender<State>;

enum Command {
    Release(Reply),
    Acquire(Reply),
    Stop,
}

/// The thread did not answer in time: the driver does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the GPU driver does not answer: a call into it has not returned")]
pub struct NoAnswer;

/// The thread, from outside.
#[derive(Debug)]
pub struct Gpus {
    shared: Arc<Shared>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    commands: Mutex<mpsc::Sender<Command>>,
    /// Never told anything; its other end goes with the thread.
    alive: Mutex<mpsc::Receiver<()>>,
    timing: Timing,
}

impl Gpus {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(source: impl Source + 'static, timing: Timing) -> io::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let (alive_here, alive) = mpsc::sync_channel(0);
        let shared = Arc::new(Shared::default());
        let snapshot = Arc::new(ArcSwap::default());
        shared.beat();
        let mut worker = Worker {
            timing,
            shared: shared.clone(),
            snapshot: snapshot.clone(),
            commands: receiver,
            waiting: Vec::new(),
            failed: Pause::new(timing.failed),
            lost: Pause::new(timing.lost),
        };
        thread::Builder::new().name("observer-gpu".to_owned()).spawn(move || {
            let _alive: mpsc::SyncSender<()> = alive_here;
            worker.run(source);
        })?;
        Ok(Self { shared, snapshot, commands: Mutex::new(commands), alive: Mutex::new(alive), timing })
    }

    /// What is known now. Waits for nobody.
    #[must_use]
    pub fn view(&self) -> View {
        let Timing { interval, unresponsive, .. } = self.timing;
        let now = clock::now();
        let snapshot = self.snapshot.load_full();
        let silent = now.saturating_since(self.shared.last_beat()) > unresponsive;
        // Calls that return, but so late that the values are long no more.
        let is_old = snapshot.time.is_some_and(|time| now.saturating_since(time) > interval + unresponsive);
        View::new(snapshot, silent || is_old, &self.shared.xids)
    }

    /// Lets the driver go, so that it can be unloaded.
    ///
    /// # Errors
    /// If that took longer than `limit`; it is done as soon as the driver answers.
    pub fn release(&self, limit: Duration) -> Result<State, NoAnswer> {
        self.ask(Command::Release, limit)
    }

    /// Takes it back, and says what came of that; where it was never let go, only that, once it is known.
    ///
    /// # Errors
    /// If that took longer than `limit`.
    pub fn acquire(&self, limit: Duration) -> Result<State, NoAnswer> {
        self.ask(Command::Acquire, limit)
    }

    fn ask(&self, command: impl FnOnce(Reply) -> Command, limit: Duration) -> Result<State, NoAnswer> {
        let (reply, answer) = mpsc::sync_channel(1);
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone();
        commands.send(command(reply)).map_err(|_| NoAnswer)?;
        answer.recv_timeout(limit).map_err(|_| NoAnswer)
    }

    /// Tells the thread to end, without waiting for that.
    pub fn begin_stop(&self) {
        // Without a receiver it has ended.
        let _ended = self.commands.lock().unwrap_or_else(PoisonError::into_inner).send(Command::Stop);
    }

    /// Ends the thread. `false`: a call into the driver did not return within `limit`, and the thread is left behind.
    #[must_use]
    pub fn stop(&self, limit: Duration) -> bool {
        self.begin_stop();
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }
}

/// What is to be done instead of waiting on.
enum Told {
    /// The time is over.
    Nothing,
    Release,
    Acquire,
    Stop,
}

struct Worker {
    timing: Timing,
    shared: Arc<Shared>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    commands: mpsc::Receiver<Command>,
    /// Who wants to know what came of taking the driver back.
    waiting: Vec<Reply>,
    failed: Pause,
    lost: Pause,
}

impl Worker {
    fn run(&mut self, mut source: impl Source) {
        loop {
            self.shared.beat();
            let shared = self.shared.clone();
            let result = source.session(&shared, &mut |session| self.use_session(session));
            let (state, pause) = match result {
                Ok(End::Stop) => return,
                Ok(End::Reopen) => continue,
                Ok(End::Release) => (State::Released, Duration::MAX),
                Err(Trouble::Absent(reason)) => (State::Absent(reason), self.timing.absent),
                Err(Trouble::Failed(reason)) => (State::Failed(reason), self.failed.take()),
            };
            let mut released = state == State::Released;
            self.report(&state);
            // What was let go of is not lost.
            let gpus = if released { Vec::new() } else { source.known() };
            self.publish(Snapshot { state, gpus, ..Snapshot::default() });
            let mut until = Instant::now().checked_add(pause);
            loop {
                match self.wait(until) {
                    Told::Stop => return,
                    Told::Release => {
                        released = true;
                        until = None;
                        self.publish(Snapshot { state: State::Released, ..Snapshot::default() });
                    }
                    Told::Nothing | Told::Acquire => break,
                }
            }
            if released {
                tracing::info!("the GPU driver is taken back");
            }
        }
    }

    /// Says what changed; a driver that is tried again and again is told of once.
    fn report(&self, state: &State) {
        let before = self.snapshot.load();
        if before.state == *state {
            return;
        }
        match state {
            State::Absent(reason) => tracing::info!("no GPUs are observed: {reason}"),
            State::Failed(reason) => tracing::warn!("GPUs cannot be observed now, they are tried again: {reason}"),
            State::Released => tracing::info!("the GPU driver is let go; `observer gpu acquire` takes it back"),
            State::Starting | State::Up => {}
        }
    }

    fn publish(&mut self, snapshot: Snapshot) {
        let state = snapshot.state.clone();
        self.snapshot.store(Arc::new(snapshot));
        for reply in self.waiting.drain(..) {
            // Who asked may have given up.
            let _gone = reply.try_send(state.clone());
        }
    }

    /// Waits for the time, or for a command that changes something; `None`: for a command alone.
    fn wait(&mut self, until: Option<Instant>) -> Told {
        loop {
            self.shared.beat();
            let left = until.map_or(BEAT, |until| until.saturating_duration_since(Instant::now()));
            match self.commands.recv_timeout(left.min(BEAT)) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return Told::Stop,
                Ok(Command::Release(reply)) => {
                    self.waiting.push(reply);
                    return Told::Release;
                }
                Ok(Command::Acquire(reply)) => {
                    self.waiting.push(reply);
                    return Told::Acquire;
                }
                Err(RecvTimeoutError::Timeout) if until.is_some() && left <= BEAT => return Told::Nothing,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Polls until something ends that.
    fn use_session(&mut self, session: &mut dyn Session) -> Result<End, Trouble> {
        let driver = Arc::new(session.driver().clone());
        let mut next_slow = Instant::now();
        let mut next = Instant::now();
        let mut reopen = None;
        loop {
            let slow = Instant::now() >= next_slow;
            if slow {
                next_slow = Instant::now() + self.timing.slow_interval;
            }
            let gpus = session.poll(slow, &self.shared)?;
            self.failed.reset();
            let lost = gpus.iter().filter(|gpu| !gpu.up).count();
            if self.snapshot.load().state != State::Up {
                let (version, library) = (&driver.version, driver.library.display());
                tracing::info!("observing {} GPUs, driver {version}, library {library}", gpus.len() - lost);
            }
            if lost == 0 {
                self.lost.reset();
                reopen = None;
            } else if reopen.is_none() {
                let pause = self.lost.take();
                reopen = Some(Instant::now() + pause);
                tracing::warn!("{lost} of {} GPUs do not answer; looking again in {pause:?}", gpus.len());
            }
            let time = Some(clock::now());
            self.publish(Snapshot { state: State::Up, driver: Some(driver.clone()), gpus, time });
            if reopen.is_some_and(|time| Instant::now() >= time) || (slow && session.has_more()) {
                return Ok(End::Reopen);
            }
            // What was missed is not made up for.
            next = (next + self.timing.interval).max(Instant::now());
            loop {
                match self.wait(Some(next)) {
                    Told::Nothing => break,
                    // It was not let go: what is known is the answer.
                    Told::Acquire => {
                        let snapshot = Snapshot::clone(&self.snapshot.load());
                        self.publish(snapshot);
                    }
                    Told::Release => return Ok(End::Release),
                    Told::Stop => return Ok(End::Stop),
                }
            }
        }
    }
}
