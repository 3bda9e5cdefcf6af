//! How servers word their streams, one way of each kind: plain, typed, numbered, repeated, in lines.

/// A way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Api {
    /// OpenAI's chat completions: each event by itself.
    OpenAi,
    /// Anthropic's messages: events have types.
    Anthropic,
    /// OpenAI's responses: events have types and numbers.
    Responses,
    /// Ollama's chat: JSON lines.
    Ollama,
    /// SGLang's generate: each event repeats the text before it.
    Sglang,
}

impl Api {
    /// All.
    pub const ALL: [Self; 5] = [Self::OpenAi, Self::Anthropic, Self::Responses, Self::Ollama, Self::Sglang];

    /// Path and body of a request.
    pub fn request(self) -> (&'static str, &'static str) {
        match self {
            Self::OpenAi => (
                "/v1/chat/completions",
                r#"{"model":"asked","messages":[{"role":"user","content":"hi"}],"stream":true}"#,
            ),
            Self::Anthropic => (
                "/v1/messages",
                r#"{"max_tokens":9,"model":"asked","messages":[{"role":"user","content":"hi"}],"stream":true}"#,
            ),
            Self::Responses => ("/v1/responses", r#"{"input":"hi","model":"asked","stream":true}"#),
            Self::Ollama => ("/api/chat", r#"{"model":"asked","messages":[{"role":"user","content":"hi"}]}"#),
            Self::Sglang => ("/generate", r#"{"text":"hi","stream":true}"#),
        }
    }

    /// Of the response.
    pub fn content_type(self) -> &'static str {
        if self == Self::Ollama { "application/x-ndjson" } else { "text/event-stream" }
    }

    /// What comes before token events.
    pub fn begin(self) -> Vec<String> {
        match self {
            Self::OpenAi => vec![
                event(r#"{"model":"served","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#),
                ": ping\n\n".to_owned(),
            ],
            Self::Anthropic => vec![
                typed(
                    "message_start",
                    r#","message":{"model":"served","content":[],"usage":{"input_tokens":9,"output_tokens":1}}"#,
                ),
                typed("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#),
            ],
            Self::Responses => vec![numbered("response.created", 0, r#","response":{"model":"served","usage":null}"#)],
            Self::Ollama | Self::Sglang => Vec::new(),
        }
    }

    /// The `index`th token event, and whether it is content.
    pub fn token(self, index: usize, reasoning: bool) -> (String, bool) {
        match (self, reasoning) {
            (Self::OpenAi, _) => {
                let field = if reasoning { "reasoning" } else { "content" };
                let delta = format!(r#"{{"index":0,"delta":{{"{field}":"word {index}"}}}}"#);
                (event(&format!(r#"{{"model":"served","choices":[{delta}]}}"#)), !reasoning)
            }
            (Self::Anthropic, true) => {
                let delta = r#","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}"#;
                (typed("content_block_delta", delta), false)
            }
            (Self::Anthropic, false) => {
                let delta = format!(r#","index":0,"delta":{{"type":"text_delta","text":"word {index}"}}"#);
                (typed("content_block_delta", &delta), true)
            }
            (Self::Responses, _) => {
                let name = if reasoning { "response.reasoning_text.delta" } else { "response.output_text.delta" };
                (numbered(name, index + 1, r#","output_index":0,"delta":"word""#), !reasoning)
            }
            (Self::Ollama, _) => {
                let (thinking, content) = if reasoning { ("hm", "") } else { ("", "word") };
                let message = format!(r#"{{"role":"assistant","content":"{content}","thinking":"{thinking}"}}"#);
                (format!("{{\"model\":\"served\",\"message\":{message},\"done\":false}}\n"), !reasoning)
            }
            (Self::Sglang, _) => {
                let counts = format!(r#""prompt_tokens":9,"completion_tokens":{},"cached_tokens":0"#, index + 1);
                let meta = format!(r#"{{"id":"a","finish_reason":null,{counts}}}"#);
                (event(&format!(r#"{{"text":"{}","meta_info":{meta}}}"#, "word ".repeat(index + 1))), true)
            }
        }
    }

    /// What comes after `tokens` token events: the end, or an error.
    pub fn end(self, tokens: usize, fails: bool) -> Vec<String> {
        let done = || event("[DONE]");
        let error = || event(r#"{"error":{"message":"no more"}}"#);
        match (self, fails) {
            (Self::OpenAi | Self::Sglang, true) => vec![error()],
            (Self::OpenAi, false) => vec![
                event(r#"{"model":"served","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#),
                event(r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":40}}"#),
                done(),
            ],
            (Self::Sglang, false) => vec![done()],
            (Self::Anthropic, true) => vec![typed("error", r#","error":{"type":"overloaded_error","message":"no"}"#)],
            (Self::Anthropic, false) => vec![
                typed("content_block_stop", r#","index":0"#),
                typed("message_delta", r#","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":40}"#),
                typed("message_stop", ""),
            ],
            (Self::Responses, true) => vec![numbered("error", tokens + 1, r#","message":"no""#)],
            (Self::Responses, false) => vec![
                numbered("response.output_text.done", tokens + 1, r#","text":"words""#),
                numbered(
                    "response.completed",
                    tokens + 2,
                    r#","response":{"model":"served","status":"completed","usage":{"input_tokens":9,"output_tokens":40}}"#,
                ),
            ],
            (Self::Ollama, true) => vec!["{\"error\":\"no more\"}\n".to_owned()],
            (Self::Ollama, false) => {
                let counts = r#""total_duration":5,"prompt_eval_count":9,"eval_count":40"#;
                let message = r#"{"role":"assistant","content":""}"#;
                vec![format!(
                    "{{\"model\":\"served\",\"message\":{message},\"done\":true,\"done_reason\":\"stop\",{counts}}}\n"
                )]
            }
        }
    }
}

fn event(json: &str) -> String {
    format!("data: {json}\n\n")
}

fn typed(name: &str, members: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\"{members}}}\n\n")
}

fn numbered(name: &str, number: usize, members: &str) -> String {
    typed(name, &format!(r#","sequence_number":{number}{members}"#))
}
