//! `observer top`: reads a running observer's `GET /api/v1/summary` and shows it.
//!
//! On a terminal it takes the whole screen; else, or with [`TopOptions::plain`], it prints lines (the form is
//! documented in [`plain`]). It is a client like any other: it needs no privilege and sees nothing that the
//! summary does not say.
//!
//! | file | what it is |
//! |---|---|
//! | `client` | HTTP over a socket, plain or TLS: one summary, or why not |
//! | `trust` | credentials; whose certificates are believed |
//! | `format` | numbers and names as people read them |
//! | `plain` | lines for pipes and logs |
//! | `screen` | what is on the screen: the last answer, keys, sort order, silence |
//! | `table`, `heatmap`, `view` | drawing it, from data alone |
//! | `terminal` | the real terminal: set up, event loop, restored however it ends |

mod client;
#[cfg(test)]
mod client_tests;
mod format;
mod heatmap;
pub mod plain;
mod screen;
mod table;
mod terminal;
#[cfg(test)]
mod terminal_tests;
mod trust;
mod view;
#[cfg(test)]
mod view_tests;

use std::{
    io::{self, IsTerminal},
    thread,
    time::{Duration, Instant},
};

pub use client::FetchError;
pub(crate) use client::{Client, Endpoint};
pub(crate) use trust::Trust;
pub use trust::{Credentials, CredentialsError};

use crate::export::summary::Summary;

/// Where an observer listens unless told otherwise; the port of a URL that names none.
const DEFAULT_PORT: u16 = 9478;
/// How long the first answer is waited for: an observer that was started a moment ago is still attaching.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// Between two attempts at the first answer.
const RETRY: Duration = Duration::from_millis(250);
/// Asking more often than this measures the asking.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// As good as for ever, and no overflow when added to a clock.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What to show, and how.
#[derive(Clone, Debug)]
pub struct TopOptions {
    /// The observer's address: `http://host:port`; `http://` may be left out, a port that is left out is 9478, and a
    /// path goes before `/api/v1/summary`.
    pub url: String,
    /// For an observer that wants them.
    pub credentials: Credentials,
    /// Time between two requests, at least 100 ms.
    pub interval: Duration,
    /// End by itself after this time, successfully; `None`: run until told to stop.
    pub run_for: Option<Duration>,
    /// Print lines even where a terminal could show a screen.
    pub plain: bool,
}

/// Why `observer top` gave up. The messages hold their causes, which are therefore no `source()`: a chain of errors
/// would print them twice.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The URL cannot be asked.
    #[error("cannot ask `{url}` for a summary: {reason}; give --url the form http://host:port or https://host:port")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What was given to show or to believe is of no use.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// It wants other credentials, or another host.
    #[error("the observer at {url} does not answer that ({cause}): {advice}")]
    Denied {
        /// What was asked.
        url: String,
        /// What came of it.
        cause: FetchError,
        /// What to do.
        advice: &'static str,
    },
    /// Nobody answered.
    #[error("no observer answers at {url} ({cause}): start one with `observer run`, or name its address with --url")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// What came of it.
        cause: FetchError,
    },
    /// Somebody answered, who seems not to be an observer of this version.
    #[error("what answers at {url} does not talk like an observer ({cause}): name the observer's address with --url")]
    NotAnObserver {
        /// What was asked.
        url: String,
        /// What came of it.
        cause: FetchError,
    },
    /// The observer answered that it cannot.
    #[error("the observer at {url} has no summary to give ({cause}): its log says why")]
    Refused {
        /// What was asked.
        url: String,
        /// What came of it.
        cause: FetchError,
    },
    /// The terminal does not do what a full screen needs.
    #[error("cannot draw on this terminal ({0}): use another one, or --plain")]
    Terminal(io::Error),
    /// Lines could not be printed.
    #[error("cannot print to standard output ({0}): check where it is redirected to")]
    Output(io::Error),
}

/// Shows the observer's summary until the user quits, [`TopOptions::run_for`] is over, or nobody reads the output any
/// more. Blocks.
///
/// # Errors
/// If the first request gets no answer for three seconds; later ones are tried again for ever. If the terminal or
/// standard output fails.
pub fn run(options: &TopOptions) -> Result<(), TopError> {
    let endpoint = Endpoint::parse(&options.url)?;
    let trust = Trust::load(&options.credentials, endpoint.is_tls())?;
    let client = Client::new(endpoint, trust);
    let first = first_answer(&client, FIRST_ANSWER)?;
    let interval = options.interval.clamp(SHORTEST_INTERVAL, LONGEST);
    let run_for = options.run_for.map(|time| time.min(LONGEST));
    if options.plain || !can_draw() {
        let stdout = io::stdout().lock();
        plain::run(|| client.fetch(), &first, interval, run_for, stdout).map_err(TopError::Output)
    } else {
        terminal::run(client, first, interval, run_for)
    }
}

/// Whether standard output is a terminal that can be drawn on.
fn can_draw() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Asks until there is an answer, for at most `patience`.
fn first_answer(client: &Client, patience: Duration) -> Result<Summary, TopError> {
    let deadline = Instant::now() + patience;
    loop {
        let cause = match client.fetch() {
            Ok(summary) => return Ok(summary),
            Err(error) => error,
        };
        if Instant::now() + RETRY < deadline {
            thread::sleep(RETRY);
            continue;
        }
        let url = client.endpoint().to_string();
        return Err(match cause {
            FetchError::Status { code: 401 } => {
                let advice = "it wants a token (--token-file) or a user (--user-file), the right one";
                TopError::Denied { url, cause, advice }
            }
            FetchError::Status { code: 403 } => {
                let advice = "ask on its own host, or give it a token by web.token_file";
                TopError::Denied { url, cause, advice }
            }
            FetchError::Status { code: 500.., .. } => TopError::Refused { url, cause },
            FetchError::Status { .. } | FetchError::NotHttp(_) | FetchError::NotSummary(_) | FetchError::TooLong(_) => {
                TopError::NotAnObserver { url, cause }
            }
            FetchError::Io(_) | FetchError::CutOff(_) | FetchError::Slow(_) => TopError::NoAnswer { url, cause },
        });
    }
}
