//! Numbers and names as people read them: three significant digits, and `-` where nothing is known.

/// Stands for what is not known.
pub(super) const UNKNOWN: &str = "-";

/// `value`, less than 1000, in three digits.
fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Without the zeros that say nothing.
fn trim(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Value and unit of a time. Where rounding reaches the next unit, it is the next unit: `1.00s`, never `1000ms`.
fn scaled(seconds: f64) -> (String, &'static str) {
    if seconds < 999.5e-6 {
        (three_digits(seconds * 1e6), "µs")
    } else if seconds < 999.5e-3 {
        (three_digits(seconds * 1e3), "ms")
    } else {
        (three_digits(seconds), "s")
    }
}

/// A latency in seconds: `85.0µs`, `12.3ms`, `1.50s`.
pub(super) fn latency(seconds: Option<f64>) -> String {
    match seconds {
        Some(0.0) => "0".to_owned(),
        Some(seconds) if seconds.is_finite() && seconds > 0.0 => {
            let (value, unit) = scaled(seconds);
            format!("{value}{unit}")
        }
        _ => UNKNOWN.to_owned(),
    }
}

/// A bucket's bound in seconds, as short as it goes: `2.5s`, `40ms`.
pub(super) fn bound(seconds: f64) -> String {
    let (value, unit) = scaled(seconds);
    format!("{}{unit}", trim(&value))
}

/// Something per second: `0.050`, `12.3`, `1.23k`.
pub(super) fn rate(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        UNKNOWN.to_owned()
    } else if value == 0.0 {
        "0".to_owned()
    } else if value < 0.0005 {
        "<0.001".to_owned()
    } else if value < 0.9995 {
        format!("{value:.3}")
    } else {
        with_prefix(value)
    }
}

/// A number of things: in full up to five digits, then `123k`.
pub(super) fn count(value: u64) -> String {
    if value < 100_000 { value.to_string() } else { with_prefix(value as f64) }
}

fn with_prefix(mut value: f64) -> String {
    for prefix in ["", "k", "M", "G", "T", "P"] {
        if value < 999.5 {
            return format!("{}{prefix}", three_digits(value));
        }
        value /= 1000.0;
    }
    format!("{:.0}E", value)
}

/// Memory: `45.2 MiB`.
pub(super) fn bytes(value: u64) -> String {
    let mut scaled = value as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 999.5 {
            return if unit == "B" { format!("{value} B") } else { format!("{} {unit}", three_digits(scaled)) };
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.1} TiB")
}

/// A ratio as per cent: `0.8%`.
pub(super) fn percent(ratio: f64) -> String {
    if ratio.is_finite() && ratio >= 0.0 { format!("{:.1}%", ratio * 100.0) } else { UNKNOWN.to_owned() }
}

/// A time in whole units, for uptimes and silences: `5s`, `2m05s`, `3h12m`, `4d03h`.
pub(super) fn span(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return UNKNOWN.to_owned();
    }
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// A name that came from a client: what a terminal would take for a command is made visible.
pub(super) fn name(text: &str) -> String {
    if text.is_empty() {
        return UNKNOWN.to_owned();
    }
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Cells that `text` takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    ratatui::text::Span::raw(text).width()
}

/// The end of `text`, at most `most` cells: in a workload's name, the port.
pub(super) fn tail(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let start = text.char_indices().map(|(at, _)| at).find(|&at| width(&text[at..]) < most).unwrap_or(text.len());
    if most == 0 { String::new() } else { format!("…{}", &text[start..]) }
}

/// The beginning of `text`, at most `most` cells.
pub(super) fn head(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let end = text.char_indices().map(|(at, _)| at).rev().find(|&at| width(&text[..at]) < most).unwrap_or(0);
    if most == 0 { String::new() } else { format!("{}…", &text[..end]) }
}

/// A model's name in at most `most` cells: who published it, or in which folder it lies, goes first.
pub(super) fn model(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let own = text.trim_end_matches('/').rsplit('/').next().unwrap_or(text);
    head(own, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_three_digits_and_never_a_thousand() {
        for (seconds, text) in [
            (0.0, "0"),
            (0.000_000_5, "0.50µs"),
            (0.000_085, "85.0µs"),
            (0.000_999_4, "999µs"),
            (0.000_999_6, "1.00ms"),
            (0.009_996, "10.0ms"),
            (0.012_345, "12.3ms"),
            (0.099_96, "100ms"),
            (0.999_4, "999ms"),
            (0.999_6, "1.00s"),
            (1.5, "1.50s"),
            (640.0, "640s"),
            (2560.0, "2560s"),
        ] {
            assert_eq!(latency(Some(seconds)), text, "{seconds}");
        }
        assert_eq!(latency(None), "-");
        assert_eq!(latency(Some(f64::NAN)), "-");
        assert_eq!(latency(Some(-1.0)), "-");
    }

    #[test]
    fn other_units() {
        assert_eq!([rate(0.0), rate(0.0001), rate(0.05), rate(0.9996)], ["0", "<0.001", "0.050", "1.00"]);
        assert_eq!([rate(12.34), rate(999.6), rate(1_234_567.0), rate(f64::NAN)], ["12.3", "1.00k", "1.23M", "-"]);
        assert_eq!([count(0), count(99_999), count(100_000), count(u64::MAX)], ["0", "99999", "100k", "18E"]);
        assert_eq!([bytes(512), bytes(47_395_635), bytes(1023 * 1024)], ["512 B", "45.2 MiB", "1.00 MiB"]);
        assert_eq!([percent(0.008), percent(1.25)], ["0.8%", "125.0%"]);
        assert_eq!([bound(2.5), bound(0.04), bound(0.0025), bound(160.0)], ["2.5s", "40ms", "2.5ms", "160s"]);
        assert_eq!(
            [span(5.9), span(125.0), span(300.0), span(11_520.0), span(356_400.0)],
            ["5s", "2m05s", "5m", "3h12m", "4d03h"]
        );
    }

    #[test]
    fn names_are_cut_to_cells_not_to_bytes() {
        assert_eq!(tail("vllm:8000", 9), "vllm:8000");
        assert_eq!(tail("meta-llama/Llama-3.3-70B", 10), "…a-3.3-70B");
        assert_eq!(tail("模型-7B", 5), "…-7B");
        assert_eq!(head("ports 8000, 8001", 8), "ports 8…");
        assert_eq!(head("模型模型", 4), "模…");
        assert_eq!((tail("abc", 0), tail("abc", 1), head("abc", 1)), (String::new(), "…".into(), "…".into()));
        assert_eq!(name("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(name(""), "-");
        let llama = "meta-llama/Llama-3.3-70B";
        assert_eq!([model(llama, 24), model(llama, 23), model(llama, 9)], [llama, "Llama-3.3-70B", "Llama-3.…"]);
        assert_eq!(model("/models/qwen3-32b/", 9), "qwen3-32b");
    }
}
