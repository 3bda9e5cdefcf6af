//! Words that stay. Everything else is text, and goes.
//!
//! A byte stays as long as what came before it and itself begin a word of a list. So the beginning of a word may stay of
//! a longer one, but never a byte that is not in the list at its place: decided byte by byte, wherever calls split it.

/// A sorted list of words.
pub(super) type Words = [&'static str];

/// Compares what comes with a list.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Matcher {
    /// Words that begin with what came are `low..high`; `low == high`: none does.
    low: u16,
    high: u16,
    length: u16,
}

impl Matcher {
    pub(super) fn new(words: &Words) -> Self {
        Self { low: 0, high: words.len() as u16, length: 0 }
    }

    /// Takes one more byte: whether some word still begins so. After `false` it stays `false`.
    pub(super) fn push(&mut self, words: &Words, byte: u8) -> bool {
        let at = usize::from(self.length);
        let range = usize::from(self.low)..usize::from(self.high);
        let candidates = words.get(range).unwrap_or_default();
        let place = |word: &&str| word.as_bytes().get(at).copied();
        let low = candidates.partition_point(|word| place(word) < Some(byte));
        let high = candidates.partition_point(|word| place(word) <= Some(byte));
        self.high = self.low + high as u16;
        self.low += low as u16;
        self.length = self.length.saturating_add(1);
        self.low < self.high
    }

    /// Which word it is, if it is one.
    pub(super) fn word(&self, words: &Words) -> Option<usize> {
        let first = usize::from(self.low);
        let whole = self.low < self.high && words.get(first)?.len() == usize::from(self.length);
        whole.then_some(first)
    }
}

/// What of a member of an object stays, by its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// The key: its value is text, or a structure full of it.
    Key,
    /// Also the rules of what is in it.
    Walk,
    /// A name that is exported as it is: a model, a reason to finish. Or a structure, which is walked.
    Name,
    /// A string: those of its words that are in [`VOCABULARY`]. Or a structure, which is walked.
    Words,
    /// A count.
    Count,
}

/// Sorted by key.
pub(super) const KEYS: &[&str] = &[
    "acceptance_rate",
    "anthropic_version",
    "arguments",
    "audio",
    "cache_creation_input_tokens",
    "cache_n",
    "cache_read_input_tokens",
    "cached_tokens",
    "choices",
    "completion_tokens",
    "completion_tokens_details",
    "content",
    "content_block",
    "conversation",
    "custom",
    "data",
    "data_1",
    "delta",
    "details",
    "documents",
    "done",
    "done_reason",
    "embedding",
    "embeddings",
    "error",
    "error_type",
    "eval_count",
    "eval_duration",
    "event",
    "finish_reason",
    "finish_reasons",
    "function",
    "function_call",
    "generated_text",
    "generated_tokens",
    "ids",
    "incomplete_details",
    "index",
    "input",
    "input_embeds",
    "input_ids",
    "input_length",
    "input_prefix",
    "input_suffix",
    "input_tokens",
    "input_tokens_details",
    "inputs",
    "instructions",
    "item",
    "items",
    "load_duration",
    "logprobs",
    "max_completion_tokens",
    "max_new_tokens",
    "max_output_tokens",
    "max_tokens",
    "message",
    "messages",
    "meta_info",
    "model",
    "model_name",
    "n",
    "n_predict",
    "name",
    "num_input_tokens",
    "num_output_tokens",
    "num_predict",
    "object",
    "options",
    "output",
    "output_index",
    "output_text",
    "output_tokens",
    "output_tokens_details",
    "parameters",
    "partial_json",
    "predicted_ms",
    "predicted_n",
    "prefill",
    "previous_response_id",
    "prompt",
    "prompt_cache_hit_tokens",
    "prompt_eval_count",
    "prompt_eval_duration",
    "prompt_ms",
    "prompt_n",
    "prompt_progress",
    "prompt_tokens",
    "prompt_tokens_details",
    "queries",
    "query",
    "reason",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "reasoning_tokens",
    "refusal",
    "response",
    "results",
    "role",
    "sequence_number",
    "signature",
    "special",
    "status",
    "stop",
    "stop_reason",
    "stop_type",
    "stopped_eos",
    "stopped_limit",
    "stopped_word",
    "stream",
    "stream_options",
    "summary",
    "text",
    "text_1",
    "text_2",
    "text_input",
    "text_output",
    "texts",
    "thinking",
    "thinking_tokens",
    "timings",
    "token",
    "token_ids",
    "tokens",
    "tokens_cached",
    "tokens_evaluated",
    "tokens_predicted",
    "tool_calls",
    "total_duration",
    "total_tokens",
    "transcript",
    "type",
    "usage",
    "x_groq",
];

/// What a key of [`KEYS`] means.
pub(super) fn rule(key: &str) -> Rule {
    match key {
        "choices"
        | "completion_tokens_details"
        | "content_block"
        | "delta"
        | "details"
        | "error"
        | "incomplete_details"
        | "input_tokens_details"
        | "item"
        | "message"
        | "meta_info"
        | "output_tokens_details"
        | "prompt_progress"
        | "prompt_tokens_details"
        | "response"
        | "timings"
        | "usage" => Rule::Walk,
        "model" | "model_name" | "finish_reason" | "stop_reason" | "done_reason" | "stop_type" | "reason" => Rule::Name,
        "type" | "object" | "role" | "status" | "event" | "error_type" => Rule::Words,
        "cache_creation_input_tokens"
        | "cache_n"
        | "cache_read_input_tokens"
        | "cached_tokens"
        | "completion_tokens"
        | "eval_count"
        | "eval_duration"
        | "generated_tokens"
        | "index"
        | "input_length"
        | "input_tokens"
        | "load_duration"
        | "max_completion_tokens"
        | "max_new_tokens"
        | "max_output_tokens"
        | "max_tokens"
        | "n"
        | "n_predict"
        | "num_predict"
        | "output_index"
        | "output_tokens"
        | "predicted_ms"
        | "predicted_n"
        | "num_input_tokens"
        | "num_output_tokens"
        | "prompt_cache_hit_tokens"
        | "prompt_eval_count"
        | "prompt_eval_duration"
        | "prompt_ms"
        | "prompt_n"
        | "prompt_tokens"
        | "reasoning_tokens"
        | "sequence_number"
        | "tokens_cached"
        | "tokens_evaluated"
        | "tokens_predicted"
        | "thinking_tokens"
        | "total_duration"
        | "total_tokens" => Rule::Count,
        _ => Rule::Key,
    }
}

/// Words of which protocol values are made: types of events and parts, roles, states.
pub(super) const VOCABULARY: &[&str] = &[
    "ERROR",
    "abort",
    "added",
    "annotation",
    "api",
    "arguments",
    "assistant",
    "audio",
    "authentication",
    "bad",
    "block",
    "call",
    "cancelled",
    "chat",
    "chunk",
    "citations",
    "code",
    "completed",
    "completion",
    "content",
    "created",
    "custom",
    "delta",
    "done",
    "embedding",
    "end",
    "error",
    "event",
    "exceeded",
    "expired",
    "failed",
    "file",
    "final",
    "found",
    "function",
    "generation",
    "image",
    "images",
    "in",
    "incomplete",
    "input",
    "internal",
    "interpreter",
    "invalid",
    "item",
    "json",
    "length",
    "limit",
    "list",
    "logprobs",
    "mcp",
    "message",
    "model",
    "none",
    "not",
    "output",
    "overloaded",
    "part",
    "partial",
    "permission",
    "ping",
    "progress",
    "queued",
    "rate",
    "reasoning",
    "redacted",
    "refusal",
    "request",
    "response",
    "result",
    "search",
    "server",
    "signature",
    "start",
    "status",
    "stop",
    "summary",
    "system",
    "text",
    "thinking",
    "timeout",
    "token",
    "tool",
    "transcript",
    "type",
    "unavailable",
    "use",
    "user",
    "validation",
    "web",
];

/// Takes a text of several words: whether `byte` stays.
pub(super) fn in_vocabulary(matcher: &mut Matcher, byte: u8) -> bool {
    if matches!(byte, b'.' | b'_' | b'-') {
        *matcher = Matcher::new(VOCABULARY);
        return true;
    }
    matcher.push(VOCABULARY, byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_hold_no_blanks() {
        for list in
            [KEYS, VOCABULARY, super::super::head::LISTS[0], super::super::head::LISTS[1], super::super::head::LISTS[2]]
        {
            assert!(list.is_sorted_by(|a, b| a < b), "{:?}", list.windows(2).find(|pair| pair[0] >= pair[1]));
            assert!(list.iter().all(|word| !word.contains('#')));
        }
    }

    /// Words in quotes of the code (not of its tests) of every dialect.
    fn words_of_dialects(pick: impl Fn(&str) -> bool) -> Vec<String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/llm");
        let mut words = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let shared = ["mod.rs", "json.rs", "json_tests.rs", "operation.rs", "route.rs", "parts.rs", "fixture.rs"];
            if path.is_dir() || shared.iter().any(|name| path.ends_with(name)) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code.lines().filter(|line| pick(line)) {
                words.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
            }
        }
        assert!(words.len() > 20, "found where they are looked for");
        words
    }

    /// What a dialect looks for must be left to it.
    #[test]
    fn keys_of_every_dialect_stay() {
        let looked_for = |line: &str| {
            let line = line.trim_start();
            !line.starts_with("//")
                && (line.contains(" b\"")
                    || line.starts_with("b\"")
                    || line.contains("needs(")
                    || line.contains("Anchor {"))
                && !line.contains("value.is(")
        };
        for word in words_of_dialects(looked_for) {
            let is_path = word.contains('/') || word == "*";
            assert!(is_path || KEYS.contains(&word.as_str()), "{word} is looked for, and would be blanked");
        }
    }

    #[test]
    fn paths_of_every_dialect_stay() {
        let segments = super::super::head::LISTS[1];
        for word in words_of_dialects(|line| line.contains("oute")) {
            for segment in word.strip_prefix('/').into_iter().flat_map(|path| path.split('/')) {
                assert!(segment.is_empty() || segments.contains(&segment), "{segment} of {word} would be blanked");
            }
        }
    }

    #[test]
    fn a_matcher_finds_whole_words_and_nothing_else() {
        let feed = |text: &str| {
            let mut matcher = Matcher::new(KEYS);
            let kept = text.bytes().take_while(|byte| matcher.push(KEYS, *byte)).count();
            (kept, matcher.word(KEYS).map(|index| KEYS[index]))
        };
        for key in KEYS {
            assert_eq!(feed(key), (key.len(), Some(*key)));
            assert_eq!(feed(&format!("{key}\u{1}")).1, None);
        }
        assert_eq!(feed("mod"), (3, None));
        assert_eq!(feed("modesty"), (4, None));
        assert_eq!(feed("zebra"), (0, None));
    }
}
