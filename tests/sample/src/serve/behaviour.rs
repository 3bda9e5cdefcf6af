//! What a request asks for, and what it gets.

use std::time::Duration;

use axum::http::StatusCode;
use serde::{Deserialize, de::IgnoredAny};

use super::ServeArgs;
use crate::{api::Api, random::Random};

/// Most token events of one answer.
const EVENTS_MAX: u32 = 1_000_000;

/// The fields that are looked at; all others are accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RequestBody {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(alias = "max_completion_tokens", alias = "max_output_tokens", alias = "n_predict")]
    max_tokens: Option<u32>,
    /// Text Generation Inference.
    inputs: Option<IgnoredAny>,
    sample: Sample,
}

impl RequestBody {
    /// The API that is meant, where `api` is what the path tells.
    pub(super) fn api(&self, api: Api) -> Api {
        if api == Api::Sglang && self.inputs.is_some() { Api::Tgi } else { api }
    }

    /// Whether a stream is asked for, by the path or here.
    pub(super) fn stream(&self, api: Api, path: &str) -> bool {
        api.streams() && (path.ends_with("_stream") || self.stream.unwrap_or(api.is_lines()))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: bool,
}

/// The field `sample` of a request: behaviour for this request alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    /// Model that the response names, as if the one asked for were an alias.
    model: Option<String>,
    /// Milliseconds to the first token event.
    ttft_ms: Option<f64>,
    /// Milliseconds between writes of token events.
    interval_ms: Option<f64>,
    /// Content events.
    tokens: Option<u32>,
    /// Answer with this status and an error body.
    status: Option<u16>,
    /// Send an error event after so many token events, then `[DONE]`.
    stream_error_after: Option<u32>,
    /// Close the connection after so many token events.
    cut_after: Option<u32>,
    /// Reasoning events before the content.
    reasoning: u32,
    /// Milliseconds to the role-only event (chat), which else comes with the headers.
    role_ms: Option<f64>,
    /// Tokens that `usage` counts for each event.
    tokens_per_event: Option<u32>,
    /// Token events that share one write.
    events_per_write: Option<u32>,
}

/// Everything that is decided before the answer begins.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) api: Api,
    pub(super) model: String,
    /// Fail with this.
    pub(super) status: Option<StatusCode>,
    /// To the role-only event.
    pub(super) role: Duration,
    /// To the first token event.
    pub(super) ttft: Duration,
    /// Between writes of token events.
    pub(super) interval: Duration,
    pub(super) jitter: Duration,
    /// Token events that carry reasoning; they come first.
    pub(super) reasoning: u32,
    /// Token events in all.
    pub(super) events: u32,
    pub(super) tokens_per_event: u32,
    /// At least 1.
    pub(super) events_per_write: u32,
    pub(super) error_after: Option<u32>,
    pub(super) cut_after: Option<u32>,
    /// `length` if the request named the number of tokens, else `stop`.
    pub(super) finish_reason: &'static str,
    /// A stream ends with a usage event.
    pub(super) usage: bool,
    pub(super) prompt_tokens: u64,
}

impl Plan {
    /// Request over server settings; chance where neither decides.
    pub(super) fn of(
        args: &ServeArgs,
        api: Api,
        request: &RequestBody,
        body_bytes: usize,
        random: &mut Random,
    ) -> Self {
        let sample = &request.sample;
        let limit = request.max_tokens;
        let content = sample.tokens.or(limit).unwrap_or(args.tokens).min(EVENTS_MAX);
        // The engines' own APIs do not tell reasoning apart.
        let reasons = !matches!(api, Api::Completions | Api::Tgi | Api::Sglang | Api::LlamaCpp | Api::Triton);
        let reasoning = if reasons { sample.reasoning.min(EVENTS_MAX) } else { 0 };
        let events = content + reasoning;
        let status = sample.status.and_then(|code| StatusCode::from_u16(code).ok()).or_else(|| {
            let codes =
                [StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];
            random.chance(args.error_rate).then(|| codes[random.below(3) as usize])
        });
        let cut_after = sample
            .cut_after
            .or_else(|| random.chance(args.cut_rate).then(|| u32::try_from(random.below(events.into())).unwrap_or(0)));
        let error_after = sample.stream_error_after.or_else(|| {
            random.chance(args.stream_error_rate).then(|| u32::try_from(random.below(events.into())).unwrap_or(0))
        });
        Self {
            api,
            model: sample.model.as_ref().or(request.model.as_ref()).unwrap_or(&args.model).clone(),
            status,
            role: sample.role_ms.map_or(Duration::ZERO, milliseconds),
            ttft: sample.ttft_ms.map_or_else(|| random.around(args.ttft, args.ttft_jitter), milliseconds),
            interval: sample.interval_ms.map_or(args.token_interval, milliseconds),
            jitter: if sample.interval_ms.is_some() { Duration::ZERO } else { args.interval_jitter },
            reasoning,
            events,
            tokens_per_event: sample.tokens_per_event.unwrap_or(1),
            events_per_write: sample.events_per_write.unwrap_or(1).max(1),
            error_after,
            cut_after,
            finish_reason: if sample.tokens.is_none() && limit.is_some() { "length" } else { "stop" },
            usage: request.stream_options.as_ref().is_some_and(|options| options.include_usage),
            // Four bytes a token: the usual rule of thumb, here true by definition.
            prompt_tokens: (body_bytes / 4) as u64,
        }
    }

    /// As `usage` says.
    pub(super) fn output_tokens(&self) -> u64 {
        u64::from(self.events) * u64::from(self.tokens_per_event)
    }

    /// The part of them that is reasoning.
    pub(super) fn reasoning_tokens(&self) -> u64 {
        u64::from(self.reasoning) * u64::from(self.tokens_per_event)
    }

    /// The part of the prompt that a cache held: half, by definition.
    pub(super) fn cached_tokens(&self) -> u64 {
        self.prompt_tokens / 2
    }

    /// The stream breaks off after so many token events.
    pub(super) fn stops_at(&self, events: u32) -> bool {
        self.error_after == Some(events) || self.cut_after == Some(events)
    }

    /// How long an answer takes that is not streamed.
    pub(super) fn whole(&self) -> Duration {
        let writes = self.events.div_ceil(self.events_per_write);
        self.ttft.saturating_add(self.interval.saturating_mul(writes.saturating_sub(1)))
    }
}

/// Bounded to a day: a typing error must not overflow timers.
fn milliseconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value / 1e3).unwrap_or_default().min(Duration::from_secs(86_400))
}
