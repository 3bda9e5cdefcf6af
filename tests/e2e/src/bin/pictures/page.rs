//! A picture: rows of a dashboard, each panel where the dashboard has it.

use anyhow::{Result, bail};

use crate::{
    answers::{Answers, Dashboard, Panel, Span},
    axis, heatmap, lines, stat,
    svg::{Anchor, Area, Svg, fit},
};

/// Width of a picture: about that of a page on GitHub, so that its text stays as large as it is meant to be.
const WIDTH: f64 = 900.0;
const MARGIN: f64 = 8.0;
const GAP: f64 = 6.0;
/// Of Grafana's grid: columns of a dashboard, and the height of a row.
const COLUMNS: f64 = 24.0;
const ROW: f64 = 26.0;
const HEADER: f64 = 54.0;
const FOOTER: f64 = 26.0;
/// Panels below this width have a smaller title.
const NARROW: f64 = 200.0;
/// From a panel's upper side to what it shows.
const TITLE: f64 = 30.0;

/// What every picture says of itself.
const ORIGIN: &str = "Drawn from real data by `cargo xtask pictures`, not by Grafana.";

/// Which rows of a dashboard go into which file.
pub(crate) struct Picture {
    pub(crate) file: &'static str,
    pub(crate) uid: &'static str,
    /// Titles of rows; they follow each other in the dashboard.
    pub(crate) rows: &'static [&'static str],
}

impl Picture {
    /// Draws it.
    ///
    /// # Errors
    /// A row is not there, or has a panel of a kind that is not drawn.
    pub(crate) fn draw(&self, answers: &Answers) -> Result<String> {
        let Some(dashboard) = answers.dashboards.iter().find(|dashboard| dashboard.uid == self.uid) else {
            bail!("nothing is known of {}: run without --redraw", self.uid);
        };
        let panels = self.panels(dashboard)?;
        let grid = |panel: &Panel, name: &str| panel.number(&format!("/gridPos/{name}")).unwrap_or(0.0);
        let top = panels.first().map_or(0.0, |panel| grid(panel, "y"));
        let bottom = panels.iter().map(|panel| grid(panel, "y") + grid(panel, "h")).fold(0.0, f64::max);
        let height = HEADER + (bottom - top) * ROW + FOOTER;
        let column = (WIDTH - 2.0 * MARGIN + GAP) / COLUMNS;

        let mut svg = Svg::default();
        svg.rectangle(Area { x: 0.0, y: 0.0, width: WIDTH, height }, "fill=\"#111217\" rx=\"6\"");
        header(&mut svg, dashboard, &answers.span);
        for panel in panels {
            let area = Area {
                x: MARGIN + grid(panel, "x") * column,
                y: HEADER + (grid(panel, "y") - top) * ROW,
                width: grid(panel, "w") * column - GAP,
                height: grid(panel, "h") * ROW - GAP,
            };
            draw(&mut svg, panel, &answers.span, &area)?;
        }
        let note = "Heatmaps: upper bounds of buckets at the left; colours from 0 to each panel's own highest rate; \
                    empty buckets beyond the first and last are left out.";
        svg.text((MARGIN + 4.0, height - 10.0), Anchor::Start, "a", note);
        Ok(svg.finish(WIDTH, height, &dashboard.title, ORIGIN))
    }

    fn panels<'a>(&self, dashboard: &'a Dashboard) -> Result<Vec<&'a Panel>> {
        let (mut row, mut found) = ("", 0);
        let mut panels = Vec::new();
        for panel in &dashboard.panels {
            if panel.text("/type") == "row" {
                row = panel.text("/title");
                found += usize::from(self.rows.contains(&row));
            }
            if self.rows.contains(&row) {
                panels.push(panel);
            }
        }
        if found != self.rows.len() {
            bail!("{} has only {found} of the rows {:?}", self.uid, self.rows);
        }
        Ok(panels)
    }
}

fn header(svg: &mut Svg, dashboard: &Dashboard, span: &Span) {
    svg.text((MARGIN + 4.0, 25.0), Anchor::Start, "h", &dashboard.title);
    svg.text((MARGIN + 4.0, 43.0), Anchor::Start, "n", ORIGIN);
    let time = format!("{} to {} UTC, all variables at their defaults", axis::clock(span.start), axis::clock(span.end));
    svg.text((WIDTH - MARGIN - 4.0, 25.0), Anchor::End, "n", &time);
    let steps =
        format!("scraped each {} s, a column each {} s, rates over {} s", span.scrape, span.step, span.rate_interval());
    svg.text((WIDTH - MARGIN - 4.0, 43.0), Anchor::End, "n", &steps);
}

fn draw(svg: &mut Svg, panel: &Panel, span: &Span, area: &Area) -> Result<()> {
    let title = panel.text("/title");
    if panel.text("/type") == "row" {
        svg.text((area.x + 4.0, area.bottom() - 2.0), Anchor::Start, "r", title);
        return Ok(());
    }
    svg.rectangle(*area, "fill=\"#181b1f\" stroke=\"#2b2e36\" rx=\"3\"");
    let (class, size) = if area.width < NARROW { ("s", 11.0) } else { ("t", 12.0) };
    svg.text((area.x + 9.0, area.y + 18.0), Anchor::Start, class, &fit(title, size, area.width - 10.0));
    let inner =
        Area { x: area.x + 10.0, y: area.y + TITLE, width: area.width - 22.0, height: area.height - TITLE - 9.0 };
    let drawn = match panel.text("/type") {
        "heatmap" => heatmap::draw(svg, panel, span, &inner),
        "timeseries" => lines::draw(svg, panel, span, &inner),
        "stat" => stat::draw(svg, panel, span, &inner),
        other => bail!("{title} is a panel of the kind {other}, which is not drawn"),
    };
    if !drawn {
        let middle = (area.x + area.width / 2.0, inner.y + inner.height / 2.0);
        svg.text(middle, Anchor::Middle, "a", "No data");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answers() -> Answers {
        let row =
            |title: &str, y: u32| json!({"type": "row", "title": title, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}});
        let stat =
            json!({"type": "stat", "title": "Rate", "gridPos": {"h": 4, "w": 4, "x": 0, "y": 7}, "targets": [{}]});
        let panels = [row("One", 0), row("Two", 6), stat].map(|model| Panel { model, targets: vec![Vec::new()] });
        let dashboard = Dashboard { uid: "d".to_owned(), title: "Dashboard".to_owned(), panels: panels.into() };
        Answers { span: Span { start: 0, end: 9, step: 3, scrape: 2 }, dashboards: vec![dashboard] }
    }

    #[test]
    fn a_picture_has_its_rows_and_says_what_it_is() {
        let svg = Picture { file: "x", uid: "d", rows: &["Two"] }.draw(&answers()).unwrap();
        assert!(svg.contains(">Two<") && !svg.contains(">One<"));
        assert!(svg.contains(">No data<") && svg.contains(ORIGIN));
    }

    #[test]
    fn rows_that_are_not_there_are_an_error() {
        let error = Picture { file: "x", uid: "d", rows: &["Two", "Three"] }.draw(&answers()).unwrap_err();
        assert!(error.to_string().contains("only 1"), "{error}");
    }
}
