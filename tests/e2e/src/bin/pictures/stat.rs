//! Single values: the newest, over how it came to be.

use crate::{
    answers::{Panel, Series, Span},
    colour,
    svg::{Anchor, Area, Svg, fit, outline, width},
    unit,
};

/// Draws it into the area below the panel's title; `false`: there is nothing to draw.
pub(crate) fn draw(svg: &mut Svg, panel: &Panel, span: &Span, area: &Area) -> bool {
    let all: Vec<_> =
        panel.named().into_iter().filter_map(|(name, series)| Some((name, series, series.last()?))).collect();
    let wide = area.width / all.len().max(1) as f64;
    let unit = panel.text("/fieldConfig/defaults/unit");
    for (number, (name, series, value)) in all.iter().enumerate() {
        let part = Area { x: area.x + number as f64 * wide, width: wide, ..*area };
        let colour = colour(panel, *value);
        graph(svg, series, span, &Area { y: area.bottom() - 22.0, height: 28.0, ..part }, colour);
        let text = unit::format(*value, unit);
        let size = (22.0 * (part.width - 8.0) / width(&text, 22.0)).clamp(12.0, 22.0);
        let middle = part.x + part.width / 2.0;
        svg.value((middle, area.y + area.height * 0.46), size, colour, &text);
        if all.len() > 1 {
            svg.text((middle, area.y + 6.0), Anchor::Middle, "a", &fit(name, 11.0, part.width));
        }
    }
    !all.is_empty()
}

/// The colour of the highest threshold that is not above the value.
fn colour(panel: &Panel, value: f64) -> &'static str {
    let steps = panel.model.pointer("/fieldConfig/defaults/thresholds/steps").and_then(|steps| steps.as_array());
    let reached = |step: &&serde_json::Value| step["value"].as_f64().is_none_or(|least| value >= least);
    let step = steps.into_iter().flatten().rfind(reached);
    colour::named(step.and_then(|step| step["color"].as_str()).unwrap_or_default())
}

fn graph(svg: &mut Svg, series: &Series, span: &Span, area: &Area, colour: &str) {
    let values = || series.values.iter().flatten().copied();
    let highest = values().fold(f64::NEG_INFINITY, f64::max);
    let lowest = values().fold(0.0, f64::min);
    if highest <= lowest {
        return;
    }
    let place = |(column, value): (usize, &Option<f64>)| {
        let x = area.x + area.width * column as f64 / (span.columns() - 1) as f64;
        value.map(|value| (x, area.bottom() - (value - lowest) / (highest - lowest) * area.height))
    };
    let line = outline(series.values.iter().enumerate().map(place));
    svg.path(&line, &format!("stroke=\"{colour}\" stroke-opacity=\"0.45\""));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn colours_are_those_of_thresholds() {
        let steps = json!([{"color": "green", "value": null}, {"color": "red", "value": 0.05}]);
        let model = json!({"fieldConfig": {"defaults": {"thresholds": {"steps": steps}}}});
        let panel = Panel { model, targets: Vec::new() };
        assert_eq!(colour(&panel, 0.01), colour::named("green"));
        assert_eq!(colour(&panel, 0.05), colour::named("red"));
    }
}
