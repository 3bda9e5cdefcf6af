//! The table of servers: which columns fit, and the lines.

use std::collections::BTreeMap;

use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{
    format,
    screen::{Screen, Sort, Theme},
};
use crate::export::summary::ServerSummary;

/// Cells of a column of numbers: `12.3ms`.
const NUMBER: usize = 6;
/// A name is not cut to less than this.
const NAME: usize = 12;

/// In the order of display.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Column {
    Server,
    Model,
    Requests,
    InFlight,
    TtftP50,
    TtftP95,
    TtftP99,
    ChunkP50,
    ChunkP95,
    ChunkP99,
    Tokens,
    Ok,
    Errors,
    Cancelled,
    Truncated,
    Incomplete,
    /// The sum of errors, truncated and incomplete, where there is no room for each.
    Failed,
}

use Column as C;

impl Column {
    /// All columns of a terminal wide enough to show all.
    const WIDE: [Self; 16] = [
        C::Server,
        C::Model,
        C::Requests,
        C::InFlight,
        C::TtftP50,
        C::TtftP95,
        C::TtftP99,
        C::ChunkP50,
        C::ChunkP95,
        C::ChunkP99,
        C::Tokens,
        C::Ok,
        C::Errors,
        C::Cancelled,
        C::Truncated,
        C::Incomplete,
    ];

    /// Columns of another terminal, most telling first.
    const NARROW: [Self; 14] = [
        C::Server,
        C::TtftP50,
        C::TtftP99,
        C::Requests,
        C::InFlight,
        C::Model,
        C::ChunkP50,
        C::ChunkP99,
        C::Tokens,
        C::Failed,
        C::TtftP95,
        C::ChunkP95,
        C::Ok,
        C::Cancelled,
    ];

    /// Where [`C::Failed`] stands in [`Column::NARROW`] when it is not zero.
    const FAILED_FIRST: usize = 3;

    /// Columns under one common head, of which the longest that fits is shown.
    fn group(self) -> Option<&'static [&'static str]> {
        match self {
            C::TtftP50 | C::TtftP95 | C::TtftP99 => Some(&["time to first token", "TTFT"]),
            C::ChunkP50 | C::ChunkP95 | C::ChunkP99 => Some(&["between chunks", "chunks"]),
            C::Ok | C::Errors | C::Cancelled | C::Truncated | C::Incomplete | C::Failed => {
                Some(&["requests since start", "since start", "total"])
            }
            _ => None,
        }
    }

    /// Two lines; the first is left to the group where there is one.
    fn head(self) -> [&'static str; 2] {
        match self {
            C::Server => ["", "server"],
            C::Model => ["", "model"],
            C::Requests => ["req", "/s"],
            C::InFlight => ["in", "flight"],
            C::TtftP50 | C::ChunkP50 => ["", "p50"],
            C::TtftP95 | C::ChunkP95 => ["", "p95"],
            C::TtftP99 | C::ChunkP99 => ["", "p99"],
            C::Tokens => ["tokens", "/s"],
            C::Ok => ["", "ok"],
            C::Errors => ["", "error"],
            C::Cancelled => ["", "cancel"],
            C::Truncated => ["", "trunc"],
            C::Incomplete => ["", "incompl"],
            C::Failed => ["", "failed"],
        }
    }

    fn width(self) -> usize {
        self.head()[1].len().max(NUMBER)
    }

    fn is_sorted_by(self, sort: Sort) -> bool {
        match sort {
            Sort::Busiest => self == C::Requests,
            Sort::Name => self == C::Server,
            Sort::InFlight => self == C::InFlight,
            Sort::TtftP99 => self == C::TtftP99,
            Sort::InterChunkP99 => self == C::ChunkP99,
            Sort::Tokens => self == C::Tokens,
            Sort::Failures => matches!(self, C::Errors | C::Truncated | C::Incomplete | C::Failed),
        }
    }

    fn cell(self, server: &ServerSummary, theme: &Theme) -> (String, Style) {
        let plain = Style::new();
        let latency = |seconds| (format::latency(seconds), plain);
        let outcomes = Outcomes::of(&server.outcomes);
        let loss = |count, style| (format::count(count), if count > 0 { style } else { theme.quiet });
        match self {
            C::Server => (server_name(server), plain),
            C::Model => (format::name(&server.model), plain),
            C::Requests => (format::rate(server.requests_per_second), plain),
            C::InFlight => (format::count(server.in_flight), plain),
            C::TtftP50 => latency(server.ttft.p50),
            C::TtftP95 => latency(server.ttft.p95),
            C::TtftP99 => latency(server.ttft.p99),
            C::ChunkP50 => latency(server.inter_chunk.p50),
            C::ChunkP95 => latency(server.inter_chunk.p95),
            C::ChunkP99 => latency(server.inter_chunk.p99),
            C::Tokens => match server.output_tokens_per_second {
                Some(tokens) => (format::rate(tokens), plain),
                None if server.token_events_per_second > 0.0 => {
                    (format!("~{}", format::rate(server.token_events_per_second)), plain)
                }
                None => (format::UNKNOWN.to_owned(), plain),
            },
            C::Ok => (format::count(outcomes.ok), plain),
            C::Errors => loss(outcomes.errors, theme.notice),
            C::Cancelled => loss(outcomes.cancelled, plain),
            C::Truncated => loss(outcomes.truncated, theme.alarm),
            C::Incomplete => loss(outcomes.incomplete, theme.alarm),
            C::Failed => {
                let unseen = outcomes.truncated.saturating_add(outcomes.incomplete);
                let style = if unseen > 0 { theme.alarm } else { theme.notice };
                loss(outcomes.errors.saturating_add(unseen), style)
            }
        }
    }
}

/// Outcomes as the table groups them.
#[derive(Default)]
struct Outcomes {
    ok: u64,
    /// Whatever has no column of its own, too: nothing is left out.
    errors: u64,
    cancelled: u64,
    truncated: u64,
    incomplete: u64,
}

impl Outcomes {
    fn of(counts: &BTreeMap<String, u64>) -> Self {
        let mut outcomes = Self::default();
        for (outcome, count) in counts {
            let sum = match outcome.as_str() {
                "ok" => &mut outcomes.ok,
                "cancelled" => &mut outcomes.cancelled,
                "truncated" => &mut outcomes.truncated,
                "incomplete" => &mut outcomes.incomplete,
                _ => &mut outcomes.errors,
            };
            *sum = sum.saturating_add(*count);
        }
        outcomes
    }
}

/// The workload, which mostly ends in the port; else with it.
fn server_name(server: &ServerSummary) -> String {
    let name = format::name(&server.workload);
    let port = format!(":{}", format::name(&server.server_port));
    if server.server_port.is_empty() || name.ends_with(&port) { name } else { name + &port }
}

/// The table in at most `height` lines of `width` cells.
pub(super) fn lines(screen: &Screen, width: usize, height: usize) -> Vec<Line<'static>> {
    let servers = screen.servers();
    if servers.is_empty() {
        return nothing(screen, width).into_iter().take(height).collect();
    }
    let columns = choose(&servers, width);
    let mut lines = heads(&columns, screen);

    let mut room = height.saturating_sub(lines.len());
    let hidden = servers.len() > room;
    if hidden {
        room = room.saturating_sub(1);
    }
    let offset = screen.offset.min(servers.len().saturating_sub(room));
    let visible = &servers[offset..servers.len().min(offset + room)];
    for (at, server) in visible.iter().enumerate() {
        // In flight is known for a port, not for its models: said once, or one would add it up.
        let same_port =
            |other: &&ServerSummary| (&other.workload, &other.server_port) == (&server.workload, &server.server_port);
        let said = visible[..at].iter().any(same_port);
        let cells = columns.iter().map(|&(column, width)| {
            let (text, style) = match column {
                C::InFlight if said => ("″".to_owned(), screen.theme.quiet),
                _ => column.cell(server, &screen.theme),
            };
            Span::styled(pad(column, &text, width), style)
        });
        lines.push(join(cells));
    }
    if hidden {
        let above = offset;
        let below = servers.len() - offset - visible.len();
        let text = match (above, below) {
            (0, below) => format!("{below} more below (↓)"),
            (above, 0) => format!("{above} more above (↑)"),
            (above, below) => format!("{above} more above (↑), {below} below (↓)"),
        };
        lines.push(Line::styled(format::head(&text, width), screen.theme.quiet));
    }
    lines.truncate(height);
    lines
}

fn nothing(screen: &Screen, width: usize) -> Vec<Line<'static>> {
    let scope = &screen.summary.observer.scope;
    let next = if scope.is_empty() {
        "A request to a server in scope shows up here when it ends.".to_owned()
    } else {
        format!("A request to a server in scope ({}) shows up here when it ends.", format::name(scope))
    };
    vec![
        Line::styled(format::head("No LLM request seen yet.", width), screen.theme.heading),
        Line::raw(format::head(&next, width)),
    ]
}

/// The columns that fit, in the order of display, with their widths.
fn choose(servers: &[&ServerSummary], width: usize) -> Vec<(Column, usize)> {
    let theme = Theme::new(false);
    let text = |column: Column, server: &ServerSummary| column.cell(server, &theme).0;
    let longest =
        |column| servers.iter().map(|server| format::width(&text(column, server))).max().unwrap_or(0).max(NUMBER);
    let (server, model) = (longest(C::Server), longest(C::Model));
    let least = |column: Column| match column {
        C::Server => server.min(NAME),
        C::Model => model.min(NAME),
        _ => column.width(),
    };
    // The last column has no gap behind it.
    let room = width + 1;
    let wanted = |column: &Column| *column != C::Model || servers.iter().any(|server| !server.model.is_empty());

    let wide: Vec<_> = Column::WIDE.into_iter().filter(wanted).collect();
    let chosen = if wide.iter().map(|column| least(*column) + 1).sum::<usize>() <= room {
        wide
    } else {
        let mut by_worth = Column::NARROW.to_vec();
        if servers.iter().any(|server| text(C::Failed, server) != "0") {
            by_worth.retain(|column| *column != C::Failed);
            by_worth.insert(Column::FAILED_FIRST, C::Failed);
        }
        let mut taken = 0;
        // The first that does not fit ends it: a narrower column further down is not worth more.
        let fits = |column: &Column| {
            taken += least(*column) + 1;
            taken <= room
        };
        let mut chosen: Vec<_> = by_worth.into_iter().filter(wanted).take_while(fits).collect();
        chosen.sort();
        chosen
    };
    let mut columns: Vec<_> = chosen.into_iter().map(|column| (column, least(column))).collect();
    let mut left = room.saturating_sub(columns.iter().map(|(_, width)| width + 1).sum());
    for (name, wanted) in [(C::Server, server), (C::Model, model)] {
        if let Some((_, width)) = columns.iter_mut().find(|(column, _)| *column == name) {
            let more = wanted.saturating_sub(*width).min(left);
            *width += more;
            left -= more;
        }
    }
    columns
}

fn heads(columns: &[(Column, usize)], screen: &Screen) -> Vec<Line<'static>> {
    let heading = screen.theme.heading;
    let style = |column: Column| {
        if column.is_sorted_by(screen.sort) { heading.add_modifier(Modifier::REVERSED) } else { heading }
    };
    let second = join(columns.iter().map(|&(column, width)| {
        let text = column.head()[1];
        let padding = pad(column, text, width);
        Span::styled(padding, style(column))
    }));

    let mut groups = Vec::new();
    for run in columns.chunk_by(|(a, _), (b, _)| a.group().is_some() && a.group() == b.group()) {
        let width = run.iter().map(|(_, width)| width + 1).sum::<usize>() - 1;
        let (column, _) = run[0];
        let text = match column.group() {
            Some(names) => over(names, width),
            None => pad(column, column.head()[0], width),
        };
        groups.push(Span::styled(text, if column.group().is_some() { screen.theme.quiet } else { style(column) }));
    }
    vec![join(groups), second]
}

/// The longest of `names` that fits, with a line to both sides of it: `── TTFT ──`.
fn over(names: &[&str], width: usize) -> String {
    let Some(name) = names.iter().find(|name| name.len() <= width) else {
        return "─".repeat(width);
    };
    match (width - name.len()).checked_sub(2) {
        Some(left) if left >= 2 => format!("{} {name} {}", "─".repeat(left / 2), "─".repeat(left - left / 2)),
        _ => format!("{name:>width$}"),
    }
}

/// `text` in `width` cells: names to the left, numbers to the right.
fn pad(column: Column, text: &str, width: usize) -> String {
    let text = if column == C::Model { format::model(text, width) } else { format::tail(text, width) };
    let blanks = " ".repeat(width - format::width(&text));
    if matches!(column, C::Server | C::Model) { text + &blanks } else { blanks + &text }
}

fn join(cells: impl IntoIterator<Item = Span<'static>>) -> Line<'static> {
    let mut line = Line::default();
    for cell in cells {
        if !line.spans.is_empty() {
            line.push_span(" ");
        }
        line.push_span(cell);
    }
    line
}
