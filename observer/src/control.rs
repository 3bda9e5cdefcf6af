//! `observer gpu` and `observer health`: what a running observer is told and asked.

use std::time::Duration;

use crate::{
    export::http::gpu::{ACQUIRE, COMMAND_HEADER, GpuStatus, LIMIT, RELEASE, STATUS},
    top::{Client, Credentials, Endpoint, FetchError, TopError, Trust},
};

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Let go of the driver.
    Release,
    /// Take it back.
    Acquire,
    /// Only asked.
    Status,
}

/// Why it was not done, or what came of it is not known.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The URL cannot be asked.
    #[error(transparent)]
    Url(#[from] TopError),
    /// Nobody answered as an observer would.
    #[error("no observer answers at {url} ({cause}): name its address with --url")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// What came of it.
        cause: FetchError,
    },
    /// It will not, or cannot.
    #[error("the observer at {url} says ({code}): {reason}")]
    Refused {
        /// What was asked.
        url: String,
        /// Status.
        code: u16,
        /// Its words.
        reason: String,
    },
}

fn client(url: &str, credentials: &Credentials) -> Result<Client, TopError> {
    let endpoint = Endpoint::parse(url)?;
    let trust = Trust::load(credentials, endpoint.is_tls())?;
    Ok(Client::new(endpoint, trust))
}

/// Tells the observer at `url`, and gives what it says of the driver then.
///
/// # Errors
/// If it was not done.
pub fn gpu(command: Command, url: &str, credentials: &Credentials) -> Result<GpuStatus, ControlError> {
    let client = client(url, credentials)?.with_answer_timeout(LIMIT + Duration::from_secs(2));
    let (method, path) = match command {
        Command::Release => ("POST", RELEASE),
        Command::Acquire => ("POST", ACQUIRE),
        Command::Status => ("GET", STATUS),
    };
    let field = format!("{COMMAND_HEADER}: gpu\r\nContent-Length: 0\r\n");
    let url = || client.endpoint().to_string();
    let no_answer = |cause| ControlError::NoAnswer { url: url(), cause };
    let response = client.ask(method, path, &field).map_err(no_answer)?;
    if response.code != 200 {
        let mut reason = String::from_utf8_lossy(&response.body).trim().to_owned();
        if response.code == 401 {
            reason.push_str(" (give --token-file or --user-file)");
        }
        return Err(ControlError::Refused { url: url(), code: response.code, reason });
    }
    serde_json::from_slice(&response.body).map_err(|error| no_answer(FetchError::NotSummary(error)))
}

/// Asks the observer at `url` whether it lives or, if `ready`, whether it observes.
///
/// # Errors
/// If it does not say so.
pub fn health(url: &str, ready: bool, credentials: &Credentials) -> Result<(), ControlError> {
    let client = client(url, credentials)?;
    let url = || client.endpoint().to_string();
    let path = if ready { "/readyz" } else { "/healthz" };
    let response = client.ask("GET", path, "").map_err(|cause| ControlError::NoAnswer { url: url(), cause })?;
    if response.code == 200 {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&response.body).trim().to_owned();
    Err(ControlError::Refused { url: url(), code: response.code, reason })
}

/// What is said of it, for people.
#[must_use]
pub fn words(status: &GpuStatus) -> String {
    let GpuStatus { state, reason, unresponsive, driver, gpus } = status;
    let mut text = match (state.as_str(), driver) {
        ("up", Some(driver)) => format!("up: {gpus} GPUs, driver {driver}"),
        ("released", _) => "released: the driver is not in use by the observer".to_owned(),
        _ if reason.is_empty() => state.clone(),
        _ => format!("{state}: {reason}"),
    };
    if *unresponsive {
        text.push_str("; a call into the driver has not returned");
    }
    text
}
