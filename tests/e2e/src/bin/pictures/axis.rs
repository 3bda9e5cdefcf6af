//! Axes of panels: time below, values at the left.

use crate::{
    answers::Span,
    svg::{Anchor, Area, Svg},
};

/// Height of a line of text at an axis.
pub(crate) const TEXT: f64 = 15.0;
const GRID: &str = "stroke=\"#2a2d34\"";

/// The middle of a column.
pub(crate) fn column(plot: &Area, span: &Span, number: usize) -> f64 {
    plot.x + plot.width * (number as f64 + 0.5) / span.columns() as f64
}

/// Hours and minutes in UTC.
pub(crate) fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60)
}

/// Each whole minute, with lines through the plot where `lines`.
pub(crate) fn time(svg: &mut Svg, plot: &Area, span: &Span, lines: bool) {
    let minutes = (span.start.next_multiple_of(60)..=span.end).step_by(60);
    for seconds in minutes {
        let x = plot.x + plot.width * ((seconds - span.start) as f64 / span.step as f64 + 0.5) / span.columns() as f64;
        if lines {
            svg.path(&format!("M{x:.1} {:.1}V{:.1}", plot.y, plot.bottom()), GRID);
        }
        svg.text((x, plot.bottom() + 13.0), Anchor::Middle, "a", &clock(seconds));
    }
}

/// A tick of a value, with its line.
pub(crate) fn tick(svg: &mut Svg, plot: &Area, y: f64, text: &str) {
    svg.path(&format!("M{:.1} {y:.1}H{:.1}", plot.x, plot.right()), GRID);
    svg.text((plot.x - 6.0, y + 4.0), Anchor::End, "a", text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_lie_side_by_side() {
        let span = Span { start: 0, end: 9, step: 3, scrape: 2 };
        let plot = Area { x: 10.0, y: 0.0, width: 40.0, height: 1.0 };
        assert_eq!([0, 1, 2, 3].map(|number| column(&plot, &span, number)), [15.0, 25.0, 35.0, 45.0]);
    }

    #[test]
    fn clocks_are_utc() {
        assert_eq!(clock(1_700_000_000), "22:13");
    }
}
