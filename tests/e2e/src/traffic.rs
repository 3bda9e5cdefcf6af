//! What is said on the wire: requests and answers of an OpenAI-compatible server, byte for byte.

use serde_json::{Value, json};

/// Model named by requests.
pub const ASKED: &str = "sample-model";
/// Model named by answers: another one, so that neither can be taken for the other.
pub const ANSWERED: &str = "sample-model-2";

/// An HTTP/1.1 request with a body of known length.
#[must_use]
pub fn post(path: &str, id: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nx-request-id: {id}\r\n\
         {headers}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Body of a chat request to the sample server: how long it shall take to the first token and from token to token,
/// in milliseconds, and how many tokens it shall send.
#[must_use]
pub fn sample_body(stream: bool, ttft: u64, interval: u64, tokens: u64) -> Value {
    json!({
        "messages": [{"role": "user", "content": "say \"model\":\"evil\",\"stream\":false twice"}],
        "model": ASKED,
        "stream": stream,
        "stream_options": {"include_usage": true},
        "sample": {"ttft_ms": ttft, "interval_ms": interval, "tokens": tokens},
    })
}

/// A chat request to the sample server, see [`sample_body`].
#[must_use]
pub fn sample_chat(id: &str, ttft: u64, interval: u64, tokens: u64) -> Vec<u8> {
    post("/v1/chat/completions", id, "", &sample_body(true, ttft, interval, tokens).to_string())
}

/// A streamed chat request for servers that answer whatever the test says.
#[must_use]
pub fn chat(id: &str) -> Vec<u8> {
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "model": ASKED, "stream": true});
    post("/v1/chat/completions", id, "", &body.to_string())
}

/// One chunk of the chunked transfer coding.
#[must_use]
pub fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

/// One server-sent event.
#[must_use]
pub fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// A chat event with this delta.
#[must_use]
pub fn delta(delta: &Value, finish: Option<&str>) -> String {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
    event(&json!({"id": "x", "object": "chat.completion.chunk", "model": ANSWERED, "choices": [choice]}))
}

/// Head of a streamed answer.
pub const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A streamed answer in the parts in which servers write it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status line and headers.
    pub head: Vec<u8>,
    /// The event that names the role, which is no token.
    pub role: Vec<u8>,
    /// Token events, one part each.
    pub tokens: Vec<Vec<u8>>,
    /// Reason to finish, and reported usage: no tokens.
    pub tail: Vec<u8>,
    /// `[DONE]`.
    pub done: Vec<u8>,
    /// The end of the HTTP message.
    pub end: Vec<u8>,
}

/// Prompt tokens that answers report.
pub const INPUT_TOKENS: u64 = 11;

impl Answer {
    /// An answer with `tokens` token events, each with `size` bytes of text; it reports twice as many output tokens.
    #[must_use]
    pub fn new(tokens: usize, size: usize) -> Self {
        let text = "x".repeat(size);
        let usage = json!({"prompt_tokens": INPUT_TOKENS, "completion_tokens": 2 * tokens, "total_tokens": 0});
        let usage = json!({"id": "x", "model": ANSWERED, "choices": [], "usage": usage});
        let mut tail = chunk(&delta(&json!({}), Some("stop")));
        tail.extend(chunk(&event(&usage)));
        Self {
            head: STREAM_HEAD.as_bytes().to_vec(),
            role: chunk(&delta(&json!({"role": "assistant", "content": ""}), None)),
            tokens: (0..tokens).map(|_| chunk(&delta(&json!({"content": text}), None))).collect(),
            tail,
            done: chunk("data: [DONE]\n\n"),
            end: b"0\r\n\r\n".to_vec(),
        }
    }

    /// Its parts in order.
    #[must_use]
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut parts: Vec<&[u8]> = vec![&self.head, &self.role];
        parts.extend(self.tokens.iter().map(Vec::as_slice));
        parts.extend([self.tail.as_slice(), &self.done, &self.end]);
        parts
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.parts().concat()
    }
}

/// A whole answer, not streamed, with `output` reported tokens.
#[must_use]
pub fn whole_answer(text: &str, output: u64) -> Vec<u8> {
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    let usage = json!({"prompt_tokens": INPUT_TOKENS, "completion_tokens": output, "total_tokens": 0});
    let body = json!({"id": "x", "model": ANSWERED, "choices": [choice], "usage": usage}).to_string();
    plain_answer("200 OK", &body)
}

/// An answer with this status and JSON body.
#[must_use]
pub fn plain_answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}
