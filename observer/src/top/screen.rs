//! What is on the screen: the last answer, how long ago that was, and what the user chose. No terminal in here.

use std::{
    cmp::Ordering,
    time::{Duration, Instant},
};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::style::{Color, Modifier, Style};

use super::FetchError;
use crate::export::summary::{ServerSummary, Summary};

/// Longer than this beyond the interval, and the user is told even though no attempt has failed yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// By which column the servers are sorted, worst or busiest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    /// As the observer sends them.
    Busiest,
    Name,
    InFlight,
    TtftP99,
    InterChunkP99,
    Tokens,
    /// All requests that did not end well.
    Failures,
}

impl Sort {
    const ALL: [Self; 7] =
        [Self::Busiest, Self::TtftP99, Self::InterChunkP99, Self::InFlight, Self::Tokens, Self::Failures, Self::Name];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Busiest => "busiest",
            Self::Name => "name",
            Self::InFlight => "in flight",
            Self::TtftP99 => "TTFT p99",
            Self::InterChunkP99 => "inter-chunk p99",
            Self::Tokens => "tokens/s",
            Self::Failures => "failures",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|&sort| sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// What is not known sorts last.
    fn compare(self, a: &ServerSummary, b: &ServerSummary) -> Ordering {
        let descending = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => b.total_cmp(&a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        match self {
            Self::Busiest => Ordering::Equal,
            Self::Name => (&a.workload, &a.server_port, &a.model).cmp(&(&b.workload, &b.server_port, &b.model)),
            Self::InFlight => b.in_flight.cmp(&a.in_flight),
            Self::TtftP99 => descending(a.ttft.p99, b.ttft.p99),
            Self::InterChunkP99 => descending(a.inter_chunk.p99, b.inter_chunk.p99),
            Self::Tokens => descending(tokens(a), tokens(b)),
            Self::Failures => failures(b).cmp(&failures(a)),
        }
    }
}

/// Tokens per second, else token events per second: of the same order, and the best there is.
fn tokens(server: &ServerSummary) -> Option<f64> {
    server.output_tokens_per_second.or(Some(server.token_events_per_second))
}

fn failures(server: &ServerSummary) -> u64 {
    let bad = |(outcome, _): &(&String, &u64)| *outcome != "ok" && *outcome != "cancelled";
    server.outcomes.iter().filter(bad).fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
}

/// Styles; without colour everything that matters still differs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    /// Data is missing or wrong.
    pub(super) alarm: Style,
    /// Worth a look.
    pub(super) notice: Style,
    /// Heads of columns and sections.
    pub(super) heading: Style,
    /// Present, but not what one looks for.
    pub(super) quiet: Style,
    /// Cells of the heatmap.
    pub(super) heat: Style,
}

impl Theme {
    pub(super) fn new(colour: bool) -> Self {
        let plain = Style::new();
        let quiet = plain.add_modifier(Modifier::DIM);
        let heading = plain.add_modifier(Modifier::BOLD);
        if colour {
            Self {
                alarm: plain.fg(Color::LightRed).add_modifier(Modifier::BOLD),
                notice: plain.fg(Color::Yellow),
                heading,
                quiet,
                heat: plain.fg(Color::Cyan),
            }
        } else {
            let alarm = plain.add_modifier(Modifier::BOLD | Modifier::REVERSED);
            Self { alarm, notice: plain.add_modifier(Modifier::UNDERLINED), heading, quiet, heat: plain }
        }
    }

    /// With colour, unless `NO_COLOR` is set to something (<https://no-color.org>).
    pub(super) fn from_environment() -> Self {
        Self::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }
}

/// The observer has stopped answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    pub(super) time: Duration,
    /// Why the last attempt failed; empty while it has not ended.
    pub(super) reason: String,
}

/// Everything that is drawn.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    pub(super) summary: Summary,
    /// The observer's URL.
    pub(super) url: String,
    pub(super) paused: bool,
    pub(super) silence: Option<Silence>,
    pub(super) sort: Sort,
    /// Servers that are scrolled away at the top.
    pub(super) offset: usize,
    pub(super) theme: Theme,
    /// The latest answer, while `summary` is paused.
    held: Option<Summary>,
    interval: Duration,
    answered: Instant,
    failure: Option<String>,
}

impl Screen {
    pub(super) fn new(summary: Summary, url: String, interval: Duration, theme: Theme, now: Instant) -> Self {
        Self {
            summary,
            url,
            paused: false,
            silence: None,
            sort: Sort::Busiest,
            offset: 0,
            theme,
            held: None,
            interval,
            answered: now,
            failure: None,
        }
    }

    /// An attempt has ended.
    pub(super) fn answer(&mut self, answer: Result<Summary, FetchError>, now: Instant) {
        match answer {
            Ok(summary) => {
                self.answered = now;
                self.failure = None;
                if self.paused {
                    self.held = Some(summary);
                } else {
                    self.summary = summary;
                }
            }
            Err(error) => self.failure = Some(error.to_string()),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.answered);
        let silent = self.failure.is_some() || time > self.interval + PATIENCE;
        self.silence = silent.then(|| Silence { time, reason: self.failure.clone().unwrap_or_default() });
    }

    /// A key was pressed. Returns whether it asks to quit.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        let last = self.summary.servers.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                if let Some(held) = self.held.take() {
                    self.summary = held;
                }
            }
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.offset = 0;
            }
            KeyCode::Up | KeyCode::Char('k') => self.offset = self.offset.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.offset = (self.offset + 1).min(last),
            KeyCode::PageUp => self.offset = self.offset.saturating_sub(10),
            KeyCode::PageDown => self.offset = (self.offset + 10).min(last),
            KeyCode::Home => self.offset = 0,
            _ => {}
        }
        false
    }

    /// Servers in the chosen order; equal ones stay busiest first.
    pub(super) fn servers(&self) -> Vec<&ServerSummary> {
        let mut servers: Vec<_> = self.summary.servers.iter().collect();
        servers.sort_by(|a, b| self.sort.compare(a, b));
        servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::summary::Quantiles;

    fn server(name: &str, ttft_p99: Option<f64>) -> ServerSummary {
        let ttft = Quantiles { p99: ttft_p99, ..Quantiles::default() };
        ServerSummary { workload: name.into(), ttft, ..ServerSummary::default() }
    }

    fn summary(names: &[&str]) -> Summary {
        Summary { servers: names.iter().map(|name| server(name, None)).collect(), ..Summary::default() }
    }

    fn screen(summary: Summary, now: Instant) -> Screen {
        Screen::new(summary, "http://h:1".into(), Duration::from_secs(1), Theme::new(false), now)
    }

    fn names(screen: &Screen) -> Vec<&str> {
        screen.servers().iter().map(|server| server.workload.as_str()).collect()
    }

    fn press(screen: &mut Screen, code: KeyCode) -> bool {
        screen.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn sorts_worst_first_and_the_unknown_last() {
        let servers =
            vec![server("b", None), server("a", Some(0.1)), server("c", Some(2.0)), server("d", Some(f64::NAN))];
        let mut screen = screen(Summary { servers, ..Summary::default() }, Instant::now());
        assert_eq!(names(&screen), ["b", "a", "c", "d"]);
        press(&mut screen, KeyCode::Char('s'));
        assert_eq!(screen.sort, Sort::TtftP99);
        assert_eq!(names(&screen), ["d", "c", "a", "b"]);
        screen.sort = Sort::Name;
        assert_eq!(names(&screen), ["a", "b", "c", "d"]);
        press(&mut screen, KeyCode::Char('s'));
        assert_eq!(screen.sort, Sort::Busiest, "around again");
    }

    #[test]
    fn failures_are_neither_ok_nor_cancelled() {
        let mut server = server("a", None);
        server.outcomes = [("ok", 100), ("cancelled", 50), ("http_error", 2), ("incomplete", 1), ("new", 4)]
            .map(|(outcome, count)| (outcome.to_owned(), count))
            .into();
        assert_eq!(failures(&server), 7);
    }

    #[test]
    fn pause_holds_the_latest_answer_back() {
        let now = Instant::now();
        let mut screen = screen(summary(&["old"]), now);
        press(&mut screen, KeyCode::Char('p'));
        screen.answer(Ok(summary(&["newer"])), now);
        screen.answer(Ok(summary(&["newest"])), now);
        assert_eq!(names(&screen), ["old"]);
        press(&mut screen, KeyCode::Char('p'));
        assert_eq!(names(&screen), ["newest"]);
        assert!(!screen.paused);
    }

    #[test]
    fn silence_begins_with_a_failure_or_a_hung_observer_and_ends_with_an_answer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut screen = screen(summary(&["kept"]), start);
        screen.tick(at(3));
        assert_eq!(screen.silence, None);
        screen.tick(at(4));
        let hung = Silence { time: Duration::from_secs(4), reason: String::new() };
        assert_eq!(screen.silence, Some(hung));
        screen.answer(Ok(summary(&["kept"])), at(5));
        screen.tick(at(5));
        assert_eq!(screen.silence, None);
        screen.answer(Err(FetchError::Status { code: 503 }), at(6));
        screen.tick(at(7));
        let failed = Silence { time: Duration::from_secs(2), reason: "HTTP status 503".into() };
        assert_eq!(screen.silence, Some(failed));
        assert_eq!(names(&screen), ["kept"]);
    }

    #[test]
    fn keys_that_quit_and_keys_that_do_not() {
        let mut screen = screen(summary(&["a", "b"]), Instant::now());
        assert!(press(&mut screen, KeyCode::Char('q')));
        assert!(press(&mut screen, KeyCode::Esc));
        assert!(!press(&mut screen, KeyCode::Char('c')));
        assert!(screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        let release = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert!(!screen.key(release));
        press(&mut screen, KeyCode::PageDown);
        assert_eq!(screen.offset, 1, "never past the last server");
        press(&mut screen, KeyCode::Up);
        press(&mut screen, KeyCode::Up);
        assert_eq!(screen.offset, 0);
    }
}
