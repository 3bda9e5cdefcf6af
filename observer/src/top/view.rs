//! The whole screen: state of the observer, servers, heatmap, keys. What is wrong comes first, then what is slow.

use std::collections::BTreeMap;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{
    format, heatmap,
    screen::{Screen, Theme},
    table,
};

/// Between the parts of a line.
const DOT: &str = " · ";

/// Draws everything into `area`, whatever its size.
pub(super) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut lines = header(screen, width);
    let foot = usize::from(height > lines.len() + 3);
    let blank = usize::from(height >= 20);
    lines.extend(std::iter::repeat_n(Line::default(), blank));

    // The table comes first, but a long one leaves the heatmap up to half of what is there.
    let left = height.saturating_sub(lines.len() + foot);
    let heatmap = &screen.summary.ttft_heatmap;
    let kept = if screen.summary.servers.is_empty() || left < 2 * heatmap::LEAST_HEIGHT {
        0
    } else {
        blank + heatmap::wanted_height(heatmap).min((left / 2).max(heatmap::LEAST_HEIGHT))
    };
    let servers = table::lines(screen, width, left - kept.min(left));
    let left = left.saturating_sub(servers.len() + blank);
    lines.extend(servers);
    if kept > 0 {
        lines.extend(std::iter::repeat_n(Line::default(), blank));
        lines.extend(heatmap::lines(heatmap, width, left, &screen.theme));
    }
    lines.truncate(height - foot.min(height));

    for (row, line) in (area.top()..).zip(&lines) {
        buffer.set_line(area.left(), row, line, area.width);
    }
    if foot == 1 {
        buffer.set_line(area.left(), area.bottom() - 1, &footer(screen, width), area.width);
    }
}

/// Who observes what and whether that can be trusted; the third line is there only when something is missing.
fn header(screen: &Screen, width: usize) -> Vec<Line<'static>> {
    let summary = &screen.summary;
    let observer = &summary.observer;
    let theme = &screen.theme;

    let mut lines = vec![title(screen, width)];
    let lost = sum(&observer.lost);
    let probes = observer.probes.len();
    let parts = [
        (format!("{} events/s", format::rate(observer.events_per_second)), false),
        (format!("lost {}", format::count(lost)), lost > 0),
        (format!("CPU {}", format::percent(observer.cpu_ratio)), false),
        (format!("RSS {}", format::bytes(observer.resident_bytes)), false),
        (format!("{probes} probe{}", if probes == 1 { "" } else { "s" }), probes == 0),
        (format!("{} connections", format::count(observer.connections)), false),
    ];
    let mut line = Line::default();
    for (text, alarm) in parts {
        let before = if line.spans.is_empty() { "" } else { DOT };
        if line.width() + format::width(before) + format::width(&text) > width {
            break;
        }
        line.push_span(Span::styled(before, theme.quiet));
        line.push_span(if alarm { Span::styled(text, theme.alarm) } else { Span::raw(text) });
    }
    lines.push(line);

    let missing = [
        ("events lost", &observer.lost, theme.alarm),
        ("incomplete requests", &observer.incomplete, theme.alarm),
        ("opaque connections", &observer.opaque, theme.notice),
    ];
    for (what, counts, style) in missing {
        if let Some(text) = reasons(what, counts) {
            lines.push(Line::from(Span::styled(format::head(&text, width), style)));
        }
    }
    lines
}

/// Name, age and scope at the left; at the right what the user must know about the picture itself.
fn title(screen: &Screen, width: usize) -> Line<'static> {
    let summary = &screen.summary;
    let theme = &screen.theme;
    let state = state(screen, theme).map(|(text, style)| Span::styled(format::head(&text, width), style));
    let taken = state.as_ref().map_or(0, |state| state.width() + 2);
    let room = width.saturating_sub(taken);

    let name = format!("observer {}", format::name(&summary.version));
    let mut line = Line::from(Span::styled(format::head(&name, room), theme.heading));
    let rest = [format!("up {}", format::span(summary.uptime_seconds)), format::name(&summary.observer.scope)];
    for text in rest {
        let left = room.saturating_sub(line.width() + format::width(DOT));
        // A few cells of a scope say nothing.
        if left < format::width(&text).min(8) {
            break;
        }
        line.push_span(Span::raw(DOT));
        line.push_span(Span::raw(format::head(&text, left)));
    }
    if let Some(state) = state {
        line.push_span(" ".repeat(width.saturating_sub(line.width() + state.width())));
        line.push_span(state);
    }
    line
}

fn state(screen: &Screen, theme: &Theme) -> Option<(String, Style)> {
    let paused = screen.paused.then(|| "paused".to_owned());
    let Some(silence) = &screen.silence else {
        return paused.map(|text| (text, theme.notice));
    };
    let time = format::span(silence.time.as_secs_f64());
    let reason = if silence.reason.is_empty() { String::new() } else { format!(" ({})", silence.reason) };
    let parts: Vec<_> = paused.into_iter().chain([format!("no answer for {time}{reason}")]).collect();
    Some((parts.join(DOT), theme.alarm))
}

fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().fold(0, |sum: u64, count| sum.saturating_add(*count))
}

/// `12 events lost: ring_full 12`; `None` if there is nothing to tell.
fn reasons(what: &str, counts: &BTreeMap<String, u64>) -> Option<String> {
    let mut parts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    if parts.is_empty() {
        return None;
    }
    parts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let parts: Vec<_> = parts
        .into_iter()
        .map(|(reason, count)| format!("{} {}", format::name(reason), format::count(*count)))
        .collect();
    Some(format!("{} {what}: {}", format::count(sum(counts)), parts.join(", ")))
}

/// Keys, and what the numbers look back on.
fn footer(screen: &Screen, width: usize) -> Line<'static> {
    let theme = &screen.theme;
    let mut line = Line::default();
    let pause = if screen.paused { "go on" } else { "pause" };
    let sort = format!("sort: {}", screen.sort.label());
    for (key, does) in [("q", "quit"), ("p", pause), ("s", sort.as_str()), ("↑↓", "scroll")] {
        let text = format!(" {does}   ");
        if line.width() + format::width(key) + format::width(&text) > width {
            break;
        }
        line.push_span(Span::styled(key.to_owned(), theme.heading));
        line.push_span(Span::raw(text));
    }
    let estimated = screen
        .summary
        .servers
        .iter()
        .any(|server| server.output_tokens_per_second.is_none() && server.token_events_per_second > 0.0);
    let window = format!("rates and quantiles: last {}", format::span(screen.summary.window_seconds));
    let mut notes = vec![window, screen.url.clone()];
    if estimated {
        notes.insert(1, "~ counts chunks: the server reports no usage".to_owned());
    }
    let mut note = String::new();
    for text in notes {
        let longer = if note.is_empty() { text } else { format!("{note}{DOT}{text}") };
        if line.width() + format::width(&longer) > width {
            break;
        }
        note = longer;
    }
    line.push_span(" ".repeat(width.saturating_sub(line.width() + format::width(&note))));
    line.push_span(Span::styled(note, theme.quiet));
    line
}
