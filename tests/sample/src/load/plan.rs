//! What each request is: a function of the seed and its number, whatever worker sends it.

use std::time::Duration;

use serde_json::json;

use super::{LoadArgs, Route, Streaming, client::Target};
use crate::random::Random;

/// Token events among which chance picks the one after which a client leaves.
const CANCEL_SPAN: u64 = 16;
/// A client that leaves before any token does so this long after its request.
const CANCEL_EARLY: Duration = Duration::from_millis(10);

/// When the client leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    Never,
    /// After this many token events.
    AfterEvents(u64),
    /// This long after the request was sent.
    After(Duration),
}

/// One request, ready to send.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) path: &'static str,
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) leave: Leave,
    /// Head and body.
    pub(super) bytes: Vec<u8>,
}

/// Makes requests.
#[derive(Debug)]
pub(super) struct Planner {
    prompt: String,
}

impl Planner {
    pub(super) fn new(args: &LoadArgs) -> Self {
        let words = "Tell me how the kernel sees every token of this answer leave. ";
        let prompt = words.chars().cycle().take(args.prompt_bytes).collect();
        Self { prompt }
    }

    pub(super) fn request(&self, args: &LoadArgs, target: &Target, number: u64) -> Request {
        let mut random = Random::of(args.seed, number);
        let stream = match args.stream {
            Streaming::True => true,
            Streaming::False => false,
            Streaming::Mixed => random.chance(0.5),
        };
        let chat = match args.route {
            Route::Chat => true,
            Route::Completions => false,
            Route::Mixed => random.chance(0.5),
        };
        let leave = if random.chance(args.cancel_rate) {
            let after = random.below(CANCEL_SPAN);
            match args.cancel_after.unwrap_or(after) {
                after if stream && after > 0 => Leave::AfterEvents(after),
                _ => Leave::After(CANCEL_EARLY),
            }
        } else {
            Leave::Never
        };
        // Key order as openai-python sends it: messages first.
        let mut body = if chat {
            format!("{{\"messages\":[{{\"role\":\"user\",\"content\":{}}}]", json!(self.prompt))
        } else {
            format!("{{\"prompt\":{}", json!(self.prompt))
        };
        let mut add = |key: &str, value: serde_json::Value| body.push_str(&format!(",\"{key}\":{value}"));
        add("model", json!(args.model));
        if let Some(tokens) = args.tokens {
            add("max_tokens", json!(tokens));
        }
        add("stream", json!(stream));
        if stream && args.usage {
            add("stream_options", json!({"include_usage": true}));
        }
        if let Some(sample) = &args.sample {
            add("sample", sample.clone());
        }
        body.push('}');
        let id = format!("{}-{number}", args.id_prefix);
        let path = if chat { "/v1/chat/completions" } else { "/v1/completions" };
        let head = format!(
            "POST {prefix}{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: sample-llm/{version}\r\n\
             content-type: application/json\r\naccept: */*\r\nconnection: {connection}\r\nx-request-id: {id}\r\n\
             content-length: {length}\r\n\r\n",
            prefix = target.prefix,
            host = target.host,
            version = env!("CARGO_PKG_VERSION"),
            connection = if args.keep_alive { "keep-alive" } else { "close" },
            length = body.len(),
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.as_bytes());
        Request { id, path, model: args.model.clone(), stream, leave, bytes }
    }
}
