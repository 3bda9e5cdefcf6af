//! Time to first token over time: a row for each bucket, slowest on top, the newest column at the right.

use ratatui::text::{Line, Span};

use super::{format, screen::Theme};
use crate::export::summary::Heatmap;

/// Cells of a row's label and the line behind it.
const LABEL: usize = 9;
/// A column of the data takes at most this many cells.
const WIDEST: usize = 4;
/// From one request up.
const SHADES: [&str; 4] = ["░", "▒", "▓", "█"];

/// Fewest lines that show anything: title, three rows, axis.
pub(super) const LEAST_HEIGHT: usize = 5;

/// Lines that it takes if it may: a row for each bucket from the fastest to the slowest that has a count.
pub(super) fn wanted_height(heatmap: &Heatmap) -> usize {
    match range(&heatmap.columns, heatmap.bounds.len() + 1) {
        Some((fastest, slowest)) => (slowest - fastest + 3).max(LEAST_HEIGHT),
        None => LEAST_HEIGHT,
    }
}

/// The buckets from the fastest to the slowest that have a count in `columns`.
fn range(columns: &[Vec<u64>], buckets: usize) -> Option<(usize, usize)> {
    let used = |bucket: &usize| columns.iter().any(|column| column.get(*bucket).is_some_and(|count| *count > 0));
    Some(((0..buckets).find(used)?, (0..buckets).rev().find(used)?))
}

/// How dark `count` is where `most` is the darkest: `None` for zero, else an index of [`SHADES`]. By square root:
/// the few slow requests are what one looks for, and must not fade beside the many.
fn shade(count: u64, most: u64) -> Option<usize> {
    if count == 0 {
        return None;
    }
    // 16 count / most <= k², in integers.
    let (count, most) = (u128::from(count) * 16, u128::from(most));
    Some((1..4).find(|k| count <= most * k * k).map_or(3, |k| usize::try_from(k).map_or(3, |k| k - 1)))
}

/// `░ 1+  ▒ 7+  ▓ 26+  █ 57+`: the smallest count of each shade that occurs.
fn legend(most: u64) -> String {
    let mut parts = Vec::new();
    for (index, name) in SHADES.iter().enumerate() {
        let k = u128::try_from(index).unwrap_or(0);
        let least = u64::try_from(u128::from(most) * k * k / 16 + 1).unwrap_or(u64::MAX);
        if least <= most && shade(least, most) == Some(index) {
            parts.push(format!("{name} {}+", format::count(least)));
        }
    }
    parts.join("  ")
}

/// The heatmap in at most `height` lines of `width` cells; none if it does not fit or there is nothing to tell.
pub(super) fn lines(heatmap: &Heatmap, width: usize, height: usize, theme: &Theme) -> Vec<Line<'static>> {
    let room = width.saturating_sub(LABEL);
    if height < LEAST_HEIGHT || room < 10 || heatmap.columns.is_empty() {
        return Vec::new();
    }
    let columns = &heatmap.columns[heatmap.columns.len().saturating_sub(room)..];
    let cells = (room / columns.len()).clamp(1, WIDEST);
    let past = format::span(columns.len() as f64 * heatmap.column_seconds);
    let Some((fastest, slowest)) = range(columns, heatmap.bounds.len() + 1) else {
        let text = format!("No first token in the last {past}.");
        return vec![Line::styled(format::head(&text, width), theme.quiet)];
    };

    // Buckets share a row where there are more of them than rows.
    let rows = height - 2;
    let share = (slowest - fastest + 1).div_ceil(rows);
    let groups: Vec<(usize, usize)> =
        (fastest..=slowest).step_by(share).map(|from| (from, (from + share - 1).min(slowest))).collect();
    let sum = |column: &[u64], (from, to): (usize, usize)| {
        (from..=to).filter_map(|bucket| column.get(bucket)).fold(0, |sum: u64, count| sum.saturating_add(*count))
    };
    let most = columns.iter().flat_map(|column| groups.iter().map(|group| sum(column, *group))).max().unwrap_or(0);

    let each = format::span(heatmap.column_seconds);
    let legend = format!("requests per {each}: {}", legend(most));
    let mut lines = vec![title(&past, &legend, width, theme)];
    for &(from, to) in groups.iter().rev() {
        let label = match heatmap.bounds.get(to) {
            Some(bound) => format!("≤{}", format::bound(*bound)),
            // The last bucket has no upper bound: what it has is the lower one of the row.
            None => match from.checked_sub(1).and_then(|below| heatmap.bounds.get(below)) {
                Some(bound) => format!(">{}", format::bound(*bound)),
                None => "any".to_owned(),
            },
        };
        let mut line = Line::from(vec![Span::raw(format!("{label:>7}")), Span::styled(" │", theme.quiet)]);
        for column in columns {
            let text = shade(sum(column, (from, to)), most).map_or(" ", |shade| SHADES[shade]);
            line.push_span(Span::styled(text.repeat(cells), theme.heat));
        }
        lines.push(line);
    }
    let plot = columns.len() * cells;
    let ago = format!("-{past}");
    let axis = match plot.checked_sub(ago.len() + "now".len()) {
        Some(blanks) => format!("{}{ago}{}now", " ".repeat(LABEL), " ".repeat(blanks)),
        None => format!("{}now", " ".repeat(LABEL + plot.saturating_sub(3))),
    };
    lines.push(Line::styled(axis, theme.quiet));
    lines
}

/// The title, and what the shades mean if that fits beside it.
fn title(past: &str, legend: &str, width: usize, theme: &Theme) -> Line<'static> {
    let long = format!("Time to first token, all servers, last {past}");
    let short = format!("TTFT, all servers, last {past}");
    let fits = |title: &String| format::width(title) + 3 + format::width(legend) <= width;
    match [long, short.clone()].into_iter().find(fits) {
        Some(title) => {
            Line::from(vec![Span::styled(title, theme.heading), Span::styled(format!("   {legend}"), theme.quiet)])
        }
        None => Line::from(Span::styled(format::head(&short, width), theme.heading)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(heatmap: &Heatmap, width: usize, height: usize) -> Vec<String> {
        lines(heatmap, width, height, &Theme::new(false))
            .iter()
            .map(|line| line.spans.iter().map(|span| span.content.as_ref()).collect::<String>().trim_end().to_owned())
            .collect()
    }

    fn heatmap(columns: &[[u64; 5]]) -> Heatmap {
        Heatmap {
            bounds: vec![0.01, 0.1, 0.25, 2.5],
            column_seconds: 10.0,
            columns: columns.iter().map(|column| column.to_vec()).collect(),
        }
    }

    #[test]
    fn slowest_on_top_newest_at_the_right_empty_edges_collapsed() {
        let mut columns = [[0; 5]; 11];
        columns[0] = [0, 16, 0, 0, 0];
        columns[9] = [0, 9, 0, 1, 0];
        columns[10] = [0, 4, 0, 0, 0];
        assert_eq!(
            text(&heatmap(&columns), 20, 10),
            [
                "TTFT, all servers, …",
                "  ≤2.5s │         ░",
                " ≤250ms │",
                " ≤100ms │█        ▓▒",
                "         -1m50s  now",
            ]
        );
    }

    #[test]
    fn columns_widen_with_the_terminal_and_the_oldest_go_when_it_is_narrow() {
        let mut columns = [[0, 1, 0, 0, 0]; 12];
        columns[11] = [0, 0, 0, 0, 1];
        let wide = text(&heatmap(&columns), 80, 10);
        assert_eq!(wide[0], "Time to first token, all servers, last 2m   requests per 10s: █ 1+");
        assert_eq!(wide[1], format!("  >2.5s │{}████", " ".repeat(44)));
        assert_eq!(wide[5], format!("         -2m{}now", " ".repeat(42)));
        let narrow = text(&heatmap(&columns), 19, 10);
        assert_eq!(narrow[1], format!("  >2.5s │{}█", " ".repeat(9)));
        assert_eq!(narrow[4], format!(" ≤100ms │{}", "█".repeat(9)));
        assert_eq!(narrow[5], "         -1m40s now");
    }

    #[test]
    fn buckets_share_rows_when_there_are_few() {
        let columns = [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]];
        let text = text(&heatmap(&columns), 40, 5);
        assert_eq!(text[1..4], ["  >2.5s │    ████", "  ≤2.5s │", " ≤100ms │████"].map(str::to_owned));
    }

    #[test]
    fn nothing_to_tell() {
        assert_eq!(text(&heatmap(&[[0; 5]; 3]), 60, 10), ["No first token in the last 30s."]);
        assert!(text(&Heatmap::default(), 60, 10).is_empty());
        assert!(text(&heatmap(&[[1; 5]; 3]), 60, 4).is_empty());
        // An answer that contradicts itself is drawn as far as it goes.
        let short = Heatmap { bounds: vec![1.0], column_seconds: 10.0, columns: vec![vec![], vec![3]] };
        assert_eq!(text(&short, 60, 10)[1], "    ≤1s │    ████");
    }

    #[test]
    fn shades_and_their_legend_agree() {
        assert_eq!((shade(0, 100), shade(1, 100), shade(100, 100)), (None, Some(0), Some(3)));
        assert_eq!(shade(u64::MAX, u64::MAX), Some(3));
        assert_eq!(legend(100), "░ 1+  ▒ 7+  ▓ 26+  █ 57+");
        assert_eq!([6, 7, 25, 26, 56, 57].map(|count| shade(count, 100).unwrap()), [0, 1, 1, 2, 2, 3]);
        assert_eq!(legend(1), "█ 1+");
        assert_eq!(legend(3), "▓ 1+  █ 2+");
    }
}
