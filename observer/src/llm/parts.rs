//! Adds up what a response says in parts: of several prompts in one stream, and of a prompt's cached and other tokens.

use super::{Facts, operation::Usage};

/// Most prompts of one request that are told apart.
const STREAMS: usize = 256;

/// What was said of each part so far.
#[derive(Debug, Default)]
pub struct Parts {
    /// Parts of the prompt.
    input: [Option<u64>; 3],
    /// What each prompt's stream last said.
    streams: Vec<Stream>,
    /// There are more prompts than are told apart.
    overflow: bool,
}

#[derive(Debug, Default)]
struct Stream {
    part: u64,
    progress: u64,
    usage: Usage,
}

impl Parts {
    /// Takes up the counts of `facts`: the last one reported stands, of each part.
    pub fn learn(&mut self, facts: &Facts, usage: &mut Usage) {
        let mut reported = facts.counts();
        if let Some(part) = facts.part {
            let Some(stream) = self.stream(part) else {
                *usage = Usage::default();
                return;
            };
            update(&mut stream.usage, reported);
            reported = self.streams.iter().fold(Usage::default(), |sum, stream| sum_of(sum, stream.usage));
        }
        for (known, reported) in self.input.iter_mut().zip(facts.input_parts) {
            *known = reported.or(*known);
        }
        if self.input[0].is_some() && reported.input.is_none() {
            reported.input = self.input.iter().copied().fold(None, sum);
        }
        update(usage, reported);
    }

    /// How far generation came with this event, over all prompts.
    pub fn progress(&mut self, facts: &Facts) -> Option<u64> {
        let (progress, Some(part)) = (facts.progress?, facts.part) else { return facts.progress };
        let stream = self.stream(part)?;
        stream.progress = stream.progress.max(progress);
        Some(self.streams.iter().fold(0, |sum, stream| sum.saturating_add(stream.progress)))
    }

    fn stream(&mut self, part: u64) -> Option<&mut Stream> {
        let at = self.streams.iter().position(|stream| stream.part == part).unwrap_or(self.streams.len());
        if at == STREAMS {
            self.overflow = true;
        } else if at == self.streams.len() {
            self.streams.push(Stream { part, ..Stream::default() });
        }
        self.streams.get_mut(at).filter(|_| !self.overflow)
    }
}

fn update(known: &mut Usage, reported: Usage) {
    *known = Usage {
        input: reported.input.or(known.input),
        output: reported.output.or(known.output),
        cached_input: reported.cached_input.or(known.cached_input),
        reasoning_output: reported.reasoning_output.or(known.reasoning_output),
    };
}

fn sum_of(one: Usage, other: Usage) -> Usage {
    Usage {
        input: sum(one.input, other.input),
        output: sum(one.output, other.output),
        cached_input: sum(one.cached_input, other.cached_input),
        reasoning_output: sum(one.reasoning_output, other.reasoning_output),
    }
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(parts: &mut Parts, usage: &mut Usage, facts: Facts) {
        parts.learn(&facts, usage);
    }

    #[test]
    fn several_prompts_in_one_stream() {
        let (mut parts, mut usage) = (Parts::default(), Usage::default());
        let facts = |part, output| Facts {
            part: Some(part),
            progress: Some(output),
            usage: Usage { input: Some(5), output: Some(output), ..Usage::default() },
            ..Facts::default()
        };
        // The fourth says nothing new.
        let progress =
            [(1, 1), (0, 1), (1, 2), (0, 1), (0, 7)].map(|(part, output)| parts.progress(&facts(part, output)));
        assert_eq!(progress, [Some(1), Some(2), Some(3), Some(3), Some(9)]);
        for (part, output) in [(1, 1), (0, 1), (1, 2), (0, 7)] {
            learn(&mut parts, &mut usage, facts(part, output));
        }
        assert_eq!((usage.input, usage.output, usage.cached_input), (Some(10), Some(9), None));
        for part in 0..=STREAMS as u64 {
            learn(&mut parts, &mut usage, facts(part, 1));
        }
        assert_eq!(usage, Usage::default(), "a sum that lacks a part is none");
        learn(&mut parts, &mut usage, facts(0, 9));
        assert_eq!((usage, parts.progress(&facts(0, 9))), (Usage::default(), None));
        let alone = Facts { progress: Some(4), ..Facts::default() };
        assert_eq!(Parts::default().progress(&alone), Some(4));
    }

    #[test]
    fn a_prompt_in_parts() {
        let (mut parts, mut usage) = (Parts::default(), Usage::default());
        let facts = |input_parts| Facts { input_parts, ..Facts::default() };
        learn(&mut parts, &mut usage, facts([Some(25), Some(12), Some(3)]));
        assert_eq!(usage.input, Some(40));
        // Said again, without what the cache did.
        learn(&mut parts, &mut usage, facts([Some(25), None, None]));
        assert_eq!(usage.input, Some(40));
        let (mut parts, mut usage) = (Parts::default(), Usage::default());
        learn(&mut parts, &mut usage, facts([None, Some(12), None]));
        assert_eq!(usage.input, None, "what the cache did not have is unknown");
    }
}
