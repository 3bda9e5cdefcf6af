//! What each request is: a function of the seed and its number, whatever worker sends it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{LoadArgs, Streaming, client::Target};
use crate::{api::Api, random::Random};

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
    pub(super) api: Api,
    pub(super) path: &'static str,
    /// None: this API's requests name none.
    pub(super) model: Option<String>,
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
        let apis = &args.route.0;
        let api = apis[random.below(apis.len() as u64) as usize];
        let stream = stream && api.streams();
        let leave = if random.chance(args.cancel_rate) {
            let after = random.below(CANCEL_SPAN);
            match args.cancel_after.unwrap_or(after) {
                after if stream && after > 0 => Leave::AfterEvents(after),
                _ => Leave::After(CANCEL_EARLY),
            }
        } else {
            Leave::Never
        };
        let body = self.body(args, api, stream);
        let id = format!("{}-{number}", args.id_prefix);
        let path = api.path(stream);
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
        let model = match api {
            // In the path.
            Api::Triton => Some("sample".to_owned()),
            _ => api.names_model().then(|| args.model.clone()),
        };
        Request { id, api, path, model, stream, leave, bytes }
    }

    /// Keys in the order in which the API's own client sends them.
    fn body(&self, args: &LoadArgs, api: Api, stream: bool) -> String {
        let prompt = || json!(self.prompt);
        let messages = || json!([{"role": "user", "content": self.prompt}]);
        let model = ("model", json!(args.model));
        let mut keys: Vec<(&str, Value)> = match api {
            Api::Chat => vec![("messages", messages()), model],
            Api::Completions => vec![("prompt", prompt()), model],
            Api::Responses => vec![("input", prompt()), model],
            Api::Messages => vec![("messages", messages()), model],
            Api::OllamaChat => vec![model, ("messages", messages())],
            Api::OllamaGenerate => vec![model, ("prompt", prompt())],
            Api::Tgi => vec![("inputs", prompt()), ("parameters", json!({"details": true}))],
            Api::Sglang => vec![("text", prompt()), ("sampling_params", json!({"temperature": 0}))],
            Api::LlamaCpp => vec![("prompt", prompt())],
            Api::Triton => vec![("text_input", prompt())],
            Api::Embeddings => vec![("input", prompt()), model],
            Api::Rerank => vec![("query", prompt()), ("documents", json!(["a", "b"])), model],
        };
        if let Some(tokens) = args.tokens {
            keys.push(("max_tokens", json!(tokens)));
        }
        // Ollama streams unless told not to; where the path tells, the body does not.
        if !(stream && api.is_lines() || api == Api::Tgi || !api.streams()) {
            keys.push(("stream", json!(stream)));
        }
        if stream && args.usage && matches!(api, Api::Chat | Api::Completions) {
            keys.push(("stream_options", json!({"include_usage": true})));
        }
        if let Some(sample) = &args.sample {
            keys.push(("sample", sample.clone()));
        }
        // By hand: a map would sort the keys.
        let members: Vec<String> = keys.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }
}
