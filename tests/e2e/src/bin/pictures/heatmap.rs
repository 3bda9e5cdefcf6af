//! Heatmaps: a row for each bucket, a column for each step, a colour for each count.

use std::collections::BTreeMap;

use crate::{
    answers::{Panel, Span},
    axis, buckets, colour,
    svg::{Anchor, Area, At, Outline, Svg, width},
    unit,
};

/// Height of the scale of colours with its text.
const SCALE: f64 = 20.0;

/// Draws it into the area below the panel's title; `false`: there is nothing to draw.
pub(crate) fn draw(svg: &mut Svg, panel: &Panel, span: &Span, area: &Area) -> bool {
    let least = panel.number("/options/filterValues/le").unwrap_or(0.0);
    let all: Vec<_> = panel.targets.iter().flat_map(|series| buckets::apart(series)).collect();
    let rows = buckets::trim(&all, least);
    if rows.is_empty() {
        return false;
    }
    let axis_unit = panel.text("/options/yAxis/unit");
    let bound = |bound: f64| if bound.is_finite() { unit::format(bound, axis_unit) } else { "+Inf".to_owned() };
    let labels: Vec<_> = rows.iter().map(|row| bound(row.bound)).collect();
    let left = labels.iter().map(|label| width(label, 11.0)).fold(0.0, f64::max) + 8.0;
    let plot = Area { x: area.x + left, y: area.y, width: area.width - left, height: area.height - axis::TEXT - SCALE };
    let height = plot.height / rows.len() as f64;
    let every = (11.0 / height).ceil() as usize;
    for (number, label) in labels.iter().enumerate().filter(|(number, _)| number % every == 0) {
        let y = plot.bottom() - (number as f64 + 0.5) * height + 4.0;
        svg.text((plot.x - 6.0, y), Anchor::End, "a", label);
    }
    axis::time(svg, &plot, span, false);

    let exponent = panel.number("/options/color/exponent").unwrap_or(1.0);
    let highest = rows.iter().flat_map(|row| row.counts.iter().flatten()).copied().fold(0.0, f64::max);
    // Cells of one colour are one path, each cell a line as thick as its row.
    let mut cells: BTreeMap<u32, Outline> = BTreeMap::new();
    let wide = plot.width / span.columns() as f64;
    let gap = panel.number("/options/cellGap").unwrap_or(0.0);
    for (number, row) in rows.iter().enumerate() {
        let y = plot.bottom() - (number as f64 + 0.5) * height;
        for (column, count) in row.counts.iter().enumerate() {
            let Some(count) = count.filter(|count| *count > least) else { continue };
            let x = plot.x + column as f64 * wide;
            let cell = cells.entry(colour::level(count, highest, exponent)).or_default();
            cell.begin(x, y);
            cell.line(x + wide - gap, y);
        }
    }
    for (level, path) in cells {
        let thick = At((height - gap).max(1.0));
        svg.path(&path.finish(), &format!("stroke=\"{}\" stroke-width=\"{thick}\"", colour::spectral(level)));
    }

    let y = area.bottom() - 10.0;
    svg.text((plot.x, y + 8.0), Anchor::Start, "a", "0");
    let bar = Area { x: plot.x + 12.0, y, width: 120.0, height: 8.0 };
    svg.rectangle(bar, "fill=\"url(#scale)\" rx=\"1\"");
    let unit = panel.text("/options/cellValues/unit");
    svg.text((bar.right() + 6.0, y + 8.0), Anchor::Start, "a", &format!("{} /s", unit::format(highest, unit)));
    true
}
