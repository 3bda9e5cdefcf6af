//! The real terminal: taken over, fed, and given back however it ends.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crossterm::event::{self, Event};
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    FetchError, TopError,
    client::Client,
    screen::{Screen, Theme},
    view,
};
use crate::export::summary::Summary;

/// How late an answer, a signal or the end may be noticed.
const TICK: Duration = Duration::from_millis(200);

/// Shows the screen until the user quits, a signal says so, or `run_for` is over.
pub(super) fn run(
    client: Client,
    first: Summary,
    interval: Duration,
    run_for: Option<Duration>,
) -> Result<(), TopError> {
    let start = Instant::now();
    let url = client.endpoint().to_string();
    let mut screen = Screen::new(first, url, interval, Theme::from_environment(), start);
    let stop = stop_signals().map_err(TopError::Terminal)?;
    let mut terminal = Taken::take().map_err(TopError::Terminal)?;
    let asker = Asker::start(client, interval).map_err(TopError::Terminal)?;
    loop {
        let now = Instant::now();
        while let Ok(answer) = asker.answers.try_recv() {
            screen.answer(answer, now);
        }
        screen.tick(now);
        let drawn = terminal.0.draw(|frame| view::draw(&screen, frame.area(), frame.buffer_mut()));
        drawn.map_err(TopError::Terminal)?;

        let left = run_for.map_or(TICK, |run_for| (start + run_for).saturating_duration_since(now));
        if left.is_zero() || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Everything that waits is taken before the next drawing: a held key does not queue up screens.
        let mut wait = left.min(TICK);
        while event::poll(wait).map_err(TopError::Terminal)? {
            wait = Duration::ZERO;
            match event::read().map_err(TopError::Terminal)? {
                Event::Key(key) if screen.key(key) => return Ok(()),
                // A new size is asked for by the next drawing itself.
                _ => {}
            }
        }
    }
}

/// The terminal while it is ours; dropping gives it back, and so does a panic (ratatui's hook, before the message).
struct Taken(DefaultTerminal);

impl Taken {
    fn take() -> io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // It may have failed half way.
                ratatui::restore();
                Err(error)
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone, and nobody is there to be told.
        let _gone = ratatui::try_restore();
    }
}

/// Asks in a thread of its own: an observer that hangs does not hang the keys.
struct Asker {
    answers: mpsc::Receiver<Result<Summary, FetchError>>,
    /// Dropping it ends the thread, at the latest after the request that is under way.
    _stop: mpsc::Sender<()>,
}

impl Asker {
    fn start(client: Client, interval: Duration) -> io::Result<Self> {
        let (sender, answers) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let ask = move || {
            let mut due = Instant::now() + interval;
            while let Err(RecvTimeoutError::Timeout) =
                stopped.recv_timeout(due.saturating_duration_since(Instant::now()))
            {
                if sender.send(client.fetch()).is_err() {
                    return;
                }
                due = (due + interval).max(Instant::now());
            }
        };
        thread::Builder::new().name("top-ask".to_owned()).spawn(ask)?;
        Ok(Self { answers, _stop: stop })
    }
}

/// Becomes true when the process is told to end: its default way of ending would leave the terminal as it is.
/// (Ctrl-C is a key while the terminal is ours; `kill -INT` is not.)
fn stop_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(guard);
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        told.store(true, Ordering::Relaxed);
    };
    thread::Builder::new().name("top-signals".to_owned()).spawn(wait)?;
    Ok(stop)
}
