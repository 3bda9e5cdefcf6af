//! Lines over time, and areas on top of each other.

use crate::{
    answers::{Panel, Span},
    axis, colour,
    svg::{Anchor, Area, At, Svg, fit, outline, width},
    unit,
};

/// Lines of a legend.
const LEGEND: usize = 3;
const SIZE: f64 = 11.5;

/// A series that is drawn: where its line is, and where its area begins.
struct Drawn {
    name: String,
    top: Vec<Option<f64>>,
    bottom: Vec<f64>,
}

fn drawn(panel: &Panel, span: &Span) -> Vec<Drawn> {
    let stacked = panel.text("/fieldConfig/defaults/custom/stacking/mode") == "normal";
    let mut bottom = vec![0.0; span.columns()];
    let mut all = Vec::new();
    for (name, series) in panel.named().into_iter().filter(|(_, series)| series.last().is_some()) {
        let mut top = series.values.clone();
        let begin = bottom.clone();
        if stacked {
            for (value, below) in top.iter_mut().zip(&mut bottom) {
                *below += value.unwrap_or(0.0);
                *value = value.map(|_| *below);
            }
        }
        let name = if name.is_empty() { "(none)".to_owned() } else { name };
        all.push(Drawn { name, top, bottom: begin });
    }
    all
}

/// Draws it into the area below the panel's title; `false`: there is nothing to draw.
pub(crate) fn draw(svg: &mut Svg, panel: &Panel, span: &Span, area: &Area) -> bool {
    let all = drawn(panel, span);
    if all.is_empty() {
        return false;
    }
    let unit = panel.text("/fieldConfig/defaults/unit");
    let highest = all.iter().flat_map(|series| series.top.iter().flatten()).copied().fold(0.0, f64::max);
    let most = panel.number("/fieldConfig/defaults/max").unwrap_or(highest);
    let ticks = unit::ticks(most, unit, 4.0);
    let labels: Vec<_> = ticks.iter().map(|tick| unit::format(*tick, unit)).collect();
    let left = labels.iter().map(|label| width(label, 11.0)).fold(0.0, f64::max) + 8.0;
    let legend = legend(&all, area.width - left);
    let plot = Area {
        x: area.x + left,
        y: area.y,
        width: area.width - left,
        height: area.height - axis::TEXT - legend.len() as f64 * axis::TEXT - 3.0,
    };
    let top = ticks.last().copied().unwrap_or(1.0);
    let y = |value: f64| plot.bottom() - (value / top).clamp(0.0, 1.0) * plot.height;
    for (tick, label) in ticks.iter().zip(&labels) {
        axis::tick(svg, &plot, y(*tick), label);
    }
    axis::time(svg, &plot, span, true);
    thresholds(svg, panel, &plot, top);

    let opacity = panel.number("/fieldConfig/defaults/custom/fillOpacity").unwrap_or(0.0) / 100.0;
    for (number, series) in all.iter().enumerate() {
        let colour = colour::series(number);
        let place =
            |(column, value): (usize, &Option<f64>)| value.map(|value| (axis::column(&plot, span, column), y(value)));
        let line = outline(series.top.iter().enumerate().map(place));
        for (from, to) in runs(&series.top) {
            let back =
                (from..=to).rev().map(|column| Some((axis::column(&plot, span, column), y(series.bottom[column]))));
            let there = series.top.iter().enumerate().take(to + 1).skip(from).map(place);
            svg.path(
                &format!("{}Z", outline(there.chain(back))),
                &format!("fill=\"{colour}\" fill-opacity=\"{opacity}\""),
            );
        }
        svg.path(
            &line,
            &format!("stroke=\"{colour}\" stroke-width=\"1.4\" stroke-linejoin=\"round\" stroke-linecap=\"round\""),
        );
    }
    for (line, items) in legend.iter().enumerate() {
        let y = area.bottom() - (legend.len() - 1 - line) as f64 * axis::TEXT;
        for item in items {
            let x = plot.x + item.x;
            if let Some(number) = item.series {
                svg.path(
                    &format!("M{} {}h12", At(x), At(y - 4.0)),
                    &format!("stroke=\"{}\" stroke-width=\"3\"", colour::series(number)),
                );
            }
            svg.text((x + 16.0, y), Anchor::Start, "n", &item.text);
        }
    }
    true
}

/// First and last columns of stretches without a gap.
fn runs(values: &[Option<f64>]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (column, _) in values.iter().enumerate().filter(|(_, value)| value.is_some()) {
        match runs.last_mut() {
            Some((_, to)) if *to + 1 == column => *to = column,
            _ => runs.push((column, column)),
        }
    }
    runs
}

fn thresholds(svg: &mut Svg, panel: &Panel, plot: &Area, top: f64) {
    if panel.text("/fieldConfig/defaults/custom/thresholdsStyle/mode") != "dashed" {
        return;
    }
    let steps = panel.model.pointer("/fieldConfig/defaults/thresholds/steps").and_then(|steps| steps.as_array());
    for step in steps.into_iter().flatten() {
        let Some(value) = step["value"].as_f64().filter(|value| *value > 0.0 && *value <= top) else { continue };
        let y = plot.bottom() - value / top * plot.height;
        let colour = colour::named(step["color"].as_str().unwrap_or_default());
        let attributes = format!("stroke=\"{colour}\" stroke-dasharray=\"5 4\" stroke-opacity=\"0.8\"");
        svg.path(&format!("M{} {}H{}", At(plot.x), At(y), At(plot.right())), &attributes);
    }
}

/// An entry of a legend, so far from the plot's left side.
#[derive(Debug, PartialEq)]
struct Item {
    x: f64,
    /// Which series; `None`: it tells of those that found no room.
    series: Option<usize>,
    text: String,
}

/// Names in lines that are no wider than this.
fn legend(all: &[Drawn], most: f64) -> Vec<Vec<Item>> {
    let mut lines = vec![Vec::new()];
    let (mut x, rest) = (0.0, 60.0);
    for (number, series) in all.iter().enumerate() {
        let text = fit(&series.name, SIZE, most - 16.0);
        let wide = 16.0 + width(&text, SIZE);
        let last = lines.len() == LEGEND;
        let left = all.len() - number;
        if last && left > 1 && x + wide + rest > most || last && x + wide > most {
            let text = format!("+ {left} more");
            lines[LEGEND - 1].push(Item { x: x - 12.0, series: None, text });
            break;
        }
        if x > 0.0 && x + wide > most {
            lines.push(Vec::new());
            x = 0.0;
        }
        let line = lines.len() - 1;
        lines[line].push(Item { x, series: Some(number), text });
        x += wide + 14.0;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Drawn> {
        names.iter().map(|name| Drawn { name: (*name).to_owned(), top: Vec::new(), bottom: Vec::new() }).collect()
    }

    #[test]
    fn legends_keep_to_their_lines() {
        let short = legend(&named(&["p50", "p95", "p99"]), 300.0);
        assert_eq!(short.len(), 1);
        assert_eq!(short[0].len(), 3);
        let name = "a rather long name of a series";
        let long = legend(&named(&[name; 9]), 420.0);
        assert_eq!(long.len(), LEGEND);
        let last = long[LEGEND - 1].last().unwrap();
        let shown = long.iter().flatten().filter(|item| item.series.is_some()).count();
        assert_eq!((last.series, last.text.clone()), (None, format!("+ {} more", 9 - shown)));
        for item in long.iter().flatten() {
            assert!(item.x + 16.0 + width(&item.text, SIZE) <= 420.0, "{item:?}");
        }
    }

    #[test]
    fn areas_have_gaps_where_there_is_no_value() {
        assert_eq!(runs(&[None, Some(1.0), Some(2.0), None, Some(3.0)]), [(1, 2), (4, 4)]);
    }
}
