//! What the observer shall say of one request, and the comparison.

use crate::{clients::Seen, request_log::RequestLine};

/// A line's values. `None` is: the line has none.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// `api`.
    pub api: &'a str,
    /// `operation`.
    pub operation: &'a str,
    /// `outcome`.
    pub outcome: &'a str,
    /// `status`.
    pub status: u16,
    /// `stream`.
    pub stream: bool,
    /// `request_model`.
    pub request_model: Option<&'a str>,
    /// `response_model`.
    pub response_model: Option<&'a str>,
    /// `token_events`.
    pub events: Option<u64>,
    /// `input_tokens`.
    pub input: Option<u64>,
    /// `output_tokens`.
    pub output: Option<u64>,
    /// `cached_input_tokens`.
    pub cached: Option<u64>,
    /// `reasoning_output_tokens`.
    pub reasoning: Option<u64>,
    /// `finish_reasons`.
    pub finish: &'a [&'a str],
}

impl<'a> Expected<'a> {
    /// An answer of 200 that is whole, and of which nothing more is known.
    #[must_use]
    pub const fn ok(api: &'a str, operation: &'a str) -> Self {
        Self {
            api,
            operation,
            outcome: "ok",
            status: 200,
            stream: false,
            request_model: None,
            response_model: None,
            events: None,
            input: None,
            output: None,
            cached: None,
            reasoning: None,
            finish: &[],
        }
    }

    /// Of this model, by request and answer.
    #[must_use]
    pub const fn model(mut self, model: &'a str) -> Self {
        self.request_model = Some(model);
        self.response_model = Some(model);
        self
    }

    /// With this usage.
    #[must_use]
    pub const fn usage(mut self, input: u64, output: u64) -> Self {
        self.input = Some(input);
        self.output = Some(output);
        self
    }

    /// Streamed, with so many token events.
    #[must_use]
    pub const fn streamed(mut self, events: u64) -> Self {
        self.stream = true;
        self.events = Some(events);
        self
    }

    /// Demands every value, and that nothing contradicts them.
    ///
    /// # Panics
    /// If one is another.
    pub fn check(&self, line: &RequestLine) {
        let said = format!("{self:#?}\n{line:#?}");
        assert_eq!((line.outcome.as_str(), line.status), (self.outcome, Some(self.status)), "{said}");
        assert_eq!((line.api.as_str(), line.operation.as_str()), (self.api, self.operation), "{said}");
        assert_eq!(line.stream, Some(self.stream), "stream {said}");
        assert_eq!(line.request_model.as_deref(), self.request_model, "request model {said}");
        assert_eq!(line.response_model.as_deref(), self.response_model, "response model {said}");
        assert_eq!(line.token_events, self.events, "token events {said}");
        assert_eq!((line.input_tokens, line.output_tokens), (self.input, self.output), "usage {said}");
        let details = (line.cached_input_tokens, line.reasoning_output_tokens);
        assert_eq!(details, (self.cached, self.reasoning), "cached, reasoning {said}");
        assert_eq!(line.finish_reasons, self.finish, "finish reasons {said}");
        assert_eq!(line.incomplete_reason, None, "{said}");
    }

    /// Demands every value, and that the client saw the same answer at the same time. `tokens`: texts that its first
    /// and last token hold, if it is streamed.
    ///
    /// # Panics
    /// If it did not.
    pub fn check_seen(&self, line: &RequestLine, seen: &Seen, tokens: Option<(&str, &str)>) {
        self.check(line);
        assert_eq!((seen.status, seen.error.as_ref()), (line.status, None), "{seen:#?}");
        if !seen.parsed {
            assert!(line.response_bytes >= Some(seen.body.len() as u64), "{line:#?} {seen:#?}");
        }
        seen.expect_times(line, tokens);
    }
}
