//! The real terminal: taken over, fed, and given back however it ends.
//!
//! Nothing but the drawing happens on the caller's thread; keys, answers and signals come from threads of their own
//! through one channel. An observer that hangs does not hang the keys, and a terminal that hangs up does not hang the
//! end: crossterm then reads in a loop that it never leaves, at the price of a whole core.

use std::{
    io,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use crossterm::event::{self, Event, KeyEvent};
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    FetchError, TopError,
    client::Client,
    screen::{Screen, Theme},
    view,
};
use crate::export::summary::Summary;

/// Longest time between two drawings: silences are counted, and a new size of the terminal is noticed.
const TICK: Duration = Duration::from_millis(200);

/// What the loop waits for.
enum Message {
    Answer(Box<Result<Summary, FetchError>>),
    Key(KeyEvent),
    /// No more keys will come.
    Deaf(io::Error),
    /// The process was told to end.
    Stop,
}

/// Shows the screen until the user quits, a signal says so, or `run_for` is over. The thread that reads the keys is
/// left behind, waiting for the next one: what runs after this should be the end of the process.
pub(super) fn run(
    client: Client,
    first: Summary,
    interval: Duration,
    run_for: Option<Duration>,
) -> Result<(), TopError> {
    let start = Instant::now();
    let url = client.endpoint().to_string();
    let mut screen = Screen::new(first, url, interval, Theme::from_environment(), start);
    let (sender, messages) = mpsc::channel();
    stop_on_signals(sender.clone()).map_err(TopError::Terminal)?;
    let mut terminal = Taken::take().map_err(TopError::Terminal)?;
    let _asking = ask(client, interval, sender.clone()).map_err(TopError::Terminal)?;
    read_keys(sender).map_err(TopError::Terminal)?;
    loop {
        let now = Instant::now();
        screen.tick(now);
        let drawn = terminal.0.draw(|frame| view::draw(&screen, frame.area(), frame.buffer_mut()));
        drawn.map_err(TopError::Terminal)?;

        let left = run_for.map_or(TICK, |run_for| (start + run_for).saturating_duration_since(now));
        if left.is_zero() {
            return Ok(());
        }
        // Everything that waits is taken before the next drawing: a held key does not queue up screens.
        let mut next = messages.recv_timeout(left.min(TICK)).ok();
        while let Some(message) = next {
            match message {
                Message::Answer(answer) => screen.answer(*answer, Instant::now()),
                Message::Key(key) if screen.key(key) => return Ok(()),
                Message::Key(_) => {}
                Message::Deaf(error) => return Err(TopError::Terminal(error)),
                Message::Stop => return Ok(()),
            }
            next = messages.try_recv().ok();
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
                // It may have failed half way, and what can be undone is undone.
                let _partly = ratatui::try_restore();
                Err(error)
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // The panic hook has done it already; twice would move the cursor over its message.
        if thread::panicking() {
            return;
        }
        // Nothing can be done about a terminal that is gone, and nobody is there to be told.
        let _gone = ratatui::try_restore();
    }
}

/// Asks every `interval`. Dropping what is returned ends it, at the latest after the request that is under way.
fn ask(client: Client, interval: Duration, sender: Sender<Message>) -> io::Result<Sender<()>> {
    let (stop, stopped) = mpsc::channel();
    let ask = move || {
        let mut due = Instant::now() + interval;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(due.saturating_duration_since(Instant::now())) {
            if sender.send(Message::Answer(Box::new(client.fetch()))).is_err() {
                return;
            }
            due = (due + interval).max(Instant::now());
        }
    };
    thread::Builder::new().name("top-ask".to_owned()).spawn(ask)?;
    Ok(stop)
}

fn read_keys(sender: Sender<Message>) -> io::Result<()> {
    let read = move || {
        loop {
            let message = match event::read() {
                Ok(Event::Key(key)) => Message::Key(key),
                Ok(_) => continue,
                Err(error) => Message::Deaf(error),
            };
            let last = matches!(message, Message::Deaf(_));
            if sender.send(message).is_err() || last {
                return;
            }
        }
    };
    thread::Builder::new().name("top-keys".to_owned()).spawn(read)?;
    Ok(())
}

/// The default way of ending by a signal would leave the terminal as it is. (Ctrl-C is a key while the terminal is
/// ours; `kill -INT` is not.)
fn stop_on_signals(sender: Sender<Message>) -> io::Result<()> {
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
        // If nobody listens any more, it has ended already.
        let _ended = sender.send(Message::Stop);
    };
    thread::Builder::new().name("top-signals".to_owned()).spawn(wait)?;
    Ok(())
}
