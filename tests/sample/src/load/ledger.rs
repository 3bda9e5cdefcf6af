//! What is told in the end: the log, a line per request, and the summary.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    client::Exchange,
    histogram::Histogram,
    plan::{Leave, Request},
};
use crate::api::Api;

/// How a request ended, for the client. Named as the observer names what the server's side shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 2xx, complete.
    Ok,
    /// Another status, complete.
    HttpError,
    /// 2xx and complete, with an error event.
    ErrorInStream,
    /// The client left: by plan, by timeout, or because the run was over.
    Cancelled,
    /// The server closed before the response was complete.
    Truncated,
    /// There was no connection.
    Failed,
}

/// A line of the log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Sent as `x-request-id`.
    pub request_id: String,
    /// Of the client; 0 on AF_UNIX.
    pub port: u16,
    /// Which API was asked.
    pub api: Api,
    /// Path of the request.
    pub path: String,
    /// Model asked for, where the request names one.
    pub model: Option<String>,
    /// Model that a complete answer named.
    pub response_model: Option<String>,
    /// A stream was asked for.
    pub stream: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// The client meant to leave early (it may have been too late).
    pub meant_to_leave: bool,
    /// HTTP status, if there was a response.
    pub status: Option<u16>,
    /// Token events received.
    pub token_events: u64,
    /// Prompt tokens that a complete answer reported, cached ones among them.
    pub input_tokens: Option<u64>,
    /// Completion tokens that it reported.
    pub output_tokens: Option<u64>,
    /// The part of the prompt tokens that came from a cache.
    pub cached_input_tokens: Option<u64>,
    /// The part of the completion tokens that was reasoning.
    pub reasoning_output_tokens: Option<u64>,
    /// Why it finished, as it said.
    pub finish_reason: Option<String>,
    /// It said that something went wrong.
    pub error: bool,
    /// Size of the request, head and body.
    pub request_bytes: u64,
    /// Bytes received of the response, head and body.
    pub response_bytes: u64,
    /// When the request began to be written: `CLOCK_MONOTONIC`, in nanoseconds.
    pub start_ns: u64,
    /// From there to the read that brought the first token event.
    pub ttft_ns: Option<u64>,
    /// From there to the end.
    pub total_ns: u64,
}

/// The last line on stdout.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// All of them.
    pub requests: u64,
    /// By [`Outcome`].
    pub ok: u64,
    /// By [`Outcome`].
    pub http_error: u64,
    /// By [`Outcome`].
    pub error_in_stream: u64,
    /// By [`Outcome`].
    pub cancelled: u64,
    /// By [`Outcome`].
    pub truncated: u64,
    /// By [`Outcome`].
    pub failed: u64,
    /// Neither ok nor cancelled.
    pub errors: u64,
    /// Token events received.
    pub token_events: u64,
    /// Completion tokens, where responses said.
    pub output_tokens: u64,
    /// How long it took.
    pub seconds: f64,
    /// Over that time.
    pub token_events_per_second: f64,
    /// Over that time.
    pub requests_per_second: f64,
    /// Median time to first token, streams only.
    pub ttft_p50_seconds: Option<f64>,
    /// 99th percentile of it.
    pub ttft_p99_seconds: Option<f64>,
    /// Median gap between reads that brought token events.
    pub inter_chunk_p50_seconds: Option<f64>,
    /// 99th percentile of it.
    pub inter_chunk_p99_seconds: Option<f64>,
}

/// Sums of one worker, or of all.
#[derive(Debug, Default)]
pub(super) struct Totals {
    summary: Summary,
    ttft: Histogram,
    gaps: Histogram,
}

impl Totals {
    pub(super) fn count(&mut self, exchange: &Exchange) {
        let summary = &mut self.summary;
        summary.requests += 1;
        *match exchange.outcome {
            Outcome::Ok => &mut summary.ok,
            Outcome::HttpError => &mut summary.http_error,
            Outcome::ErrorInStream => &mut summary.error_in_stream,
            Outcome::Cancelled => &mut summary.cancelled,
            Outcome::Truncated => &mut summary.truncated,
            Outcome::Failed => &mut summary.failed,
        } += 1;
        summary.token_events += exchange.token_events;
        summary.output_tokens += exchange.said.output_tokens.unwrap_or(0);
        if let Some(ttft) = exchange.ttft {
            self.ttft.record(ttft);
        }
        self.gaps.merge(&exchange.gaps);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.summary, &other.summary);
        mine.requests += theirs.requests;
        mine.ok += theirs.ok;
        mine.http_error += theirs.http_error;
        mine.error_in_stream += theirs.error_in_stream;
        mine.cancelled += theirs.cancelled;
        mine.truncated += theirs.truncated;
        mine.failed += theirs.failed;
        mine.token_events += theirs.token_events;
        mine.output_tokens += theirs.output_tokens;
        self.ttft.merge(&other.ttft);
        self.gaps.merge(&other.gaps);
    }

    pub(super) fn summary(self, elapsed: Duration) -> Summary {
        let mut summary = self.summary;
        summary.errors = summary.requests - summary.ok - summary.cancelled;
        summary.seconds = elapsed.as_secs_f64();
        if summary.seconds > 0.0 {
            summary.token_events_per_second = summary.token_events as f64 / summary.seconds;
            summary.requests_per_second = summary.requests as f64 / summary.seconds;
        }
        summary.ttft_p50_seconds = self.ttft.quantile(0.5);
        summary.ttft_p99_seconds = self.ttft.quantile(0.99);
        summary.inter_chunk_p50_seconds = self.gaps.quantile(0.5);
        summary.inter_chunk_p99_seconds = self.gaps.quantile(0.99);
        summary
    }
}

/// Writes the log.
#[derive(Debug)]
pub(super) struct Ledger {
    log: Option<Mutex<Log>>,
    /// `CLOCK_MONOTONIC` at `origin`.
    monotonic: Duration,
    origin: Instant,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: BufWriter<File>,
    /// The first failure; told at the end.
    error: Option<std::io::Error>,
}

impl Ledger {
    /// A log at `path`, replacing what is there; without a path, none.
    pub(super) fn create(path: Option<&Path>) -> Result<Self> {
        let log = path
            .map(|path| {
                let file = File::create(path).with_context(|| format!("create the log {}", path.display()))?;
                Ok::<_, anyhow::Error>(Mutex::new(Log {
                    path: path.to_owned(),
                    file: BufWriter::new(file),
                    error: None,
                }))
            })
            .transpose()?;
        Ok(Self { log, monotonic: monotonic(), origin: Instant::now() })
    }

    pub(super) fn write(&self, request: &Request, exchange: &Exchange) {
        let Some(log) = &self.log else { return };
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let line = Line {
            request_id: request.id.clone(),
            port: exchange.port,
            api: request.api,
            path: request.path.to_owned(),
            model: request.model.clone(),
            response_model: exchange.said.model.clone(),
            stream: request.stream,
            outcome: exchange.outcome,
            meant_to_leave: request.leave != Leave::Never,
            status: exchange.status,
            token_events: exchange.token_events,
            input_tokens: exchange.said.input_tokens,
            output_tokens: exchange.said.output_tokens,
            cached_input_tokens: exchange.said.cached_input_tokens,
            reasoning_output_tokens: exchange.said.reasoning_output_tokens,
            finish_reason: exchange.said.finish_reason.clone(),
            error: exchange.said.error,
            request_bytes: request.bytes.len() as u64,
            response_bytes: exchange.response_bytes,
            start_ns: nanoseconds(self.monotonic + exchange.start.saturating_duration_since(self.origin)),
            ttft_ns: exchange.ttft.map(nanoseconds),
            total_ns: nanoseconds(exchange.total),
        };
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let written = serde_json::to_writer(&mut log.file, &line)
            .map_err(std::io::Error::from)
            .and_then(|()| log.file.write_all(b"\n"));
        if let Err(error) = written {
            log.error.get_or_insert(error);
        }
    }

    /// # Errors
    /// A line could not be written.
    pub(super) fn finish(&self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let result = log.error.take().map_or(Ok(()), Err).and_then(|()| log.file.flush());
        result.with_context(|| format!("write the log {}", log.path.display()))
    }
}

/// Now on the clock that the kernel stamps events with.
fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `now` only. It cannot fail for this clock; then `now` would stay zero.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
