//! What of a command line may be shown.

/// Most words shown.
const MOST_WORDS: usize = 4;
/// Most characters shown.
const LONGEST: usize = 128;

/// The program without its directory, and what follows up to the first option: options have keys among their values.
/// `-m` of Python is no such option.
pub(super) fn shown(words: &[String]) -> String {
    let Some((program, rest)) = words.split_first() else { return String::new() };
    let mut shown = vec![program.rsplit('/').next().unwrap_or(program)];
    let mut rest = rest.iter().map(String::as_str).peekable();
    while let Some(word) = rest.next() {
        if shown.len() >= MOST_WORDS {
            break;
        }
        if word == "-m" && shown.len() == 1 && rest.peek().is_some() {
            shown.push(word);
        } else if word.starts_with('-') || word.contains(['=', '@', '\n']) || word.contains("://") {
            break;
        } else {
            shown.push(word);
        }
    }
    shown.join(" ").chars().filter(|character| !character.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for (words, expected) in [
            ("/usr/local/bin/vllm serve Qwen/Qwen3-8B --api-key sk-1 --port 80", "vllm serve Qwen/Qwen3-8B"),
            (
                "/opt/venv/bin/python3 -m vllm.entrypoints.openai.api_server --api-key sk-1",
                "python3 -m vllm.entrypoints.openai.api_server",
            ),
            ("/opt/venv/bin/python3 /opt/venv/bin/vllm serve m extra words", "python3 /opt/venv/bin/vllm serve m"),
            ("python3 -c print(1)", "python3"),
            ("python3 -m", "python3"),
            ("server API_KEY=sk-1 x", "server"),
            ("server http://user:word@host", "server"),
            ("ollama serve", "ollama serve"),
            ("VLLM::EngineCore", "VLLM::EngineCore"),
        ] {
            let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
            assert_eq!(shown(&words), expected, "{words:?}");
        }
        assert_eq!(shown(&[]), "");
        assert_eq!(shown(&["x".repeat(1000)]).len(), LONGEST);
    }
}
