//! SVG as text: the few elements that pictures are made of.

use std::fmt::{self, Display, Write as _};

use crate::colour;

/// Where a text is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A rectangle of the picture, in its own units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Area {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Area {
    pub(crate) const fn right(&self) -> f64 {
        self.x + self.width
    }

    pub(crate) const fn bottom(&self) -> f64 {
        self.y + self.height
    }
}

/// A coordinate, to a tenth.
pub(crate) struct At(pub(crate) f64);

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10.0).round();
        if tenths % 10.0 == 0.0 { write!(f, "{:.0}", tenths / 10.0 + 0.0) } else { write!(f, "{:.1}", tenths / 10.0) }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// How wide a text is, about: browsers choose the font.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    let narrow = |character: char| "iIljtf.,:;|!'()[] ".contains(character);
    let wide = |character: char| "mwMW%@".contains(character);
    let shares = text.chars().map(|character| match character {
        _ if narrow(character) => 0.33,
        _ if wide(character) => 0.86,
        _ if character.is_uppercase() => 0.68,
        _ => 0.57,
    });
    shares.sum::<f64>() * size
}

/// A text that is cut where it is wider than this.
pub(crate) fn fit(text: &str, size: f64, most: f64) -> String {
    if width(text, size) <= most {
        return text.to_owned();
    }
    let mut cut = text.to_owned();
    while !cut.is_empty() && width(&cut, size) + size > most {
        cut.pop();
    }
    format!("{}…", cut.trim_end())
}

/// A picture in the making.
#[derive(Default)]
pub(crate) struct Svg(String);

impl Svg {
    fn add(&mut self, element: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _written = self.0.write_fmt(element);
        self.0.push('\n');
    }

    /// A text; `class` is one of those in [`Self::finish`].
    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let held = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        self.add(format_args!("<text x=\"{}\" y=\"{}\" class=\"{class}\"{held}>{}</text>", At(x), At(y), escape(text)));
    }

    /// A text of a colour and size of its own.
    pub(crate) fn value(&mut self, (x, y): (f64, f64), size: f64, colour: &str, text: &str) {
        self.add(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-size=\"{}\" font-weight=\"500\" fill=\"{colour}\">{}</text>",
            At(x),
            At(y),
            At(size),
            escape(text)
        ));
    }

    /// A filled rectangle.
    pub(crate) fn rectangle(&mut self, area: Area, attributes: &str) {
        self.add(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" {attributes}/>",
            At(area.x),
            At(area.y),
            At(area.width),
            At(area.height)
        ));
    }

    /// A path with this outline.
    pub(crate) fn path(&mut self, outline: &str, attributes: &str) {
        self.add(format_args!("<path d=\"{outline}\" {attributes}/>"));
    }

    /// The whole, with what screen readers say of it.
    pub(crate) fn finish(self, width: f64, height: f64, title: &str, description: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" font-family=\"Inter,Helvetica,Arial,sans-serif\" font-size=\"11\" \
             fill=\"none\">\n<title>{}</title>\n<desc>{}</desc>\n<style>.h{{font-size:17px;font-weight:600;\
             fill:#e6e6ef}}.r{{font-size:13px;font-weight:600;fill:#d0d0da}}.t{{font-size:12px;font-weight:600;\
             fill:#d0d0da}}.s{{font-weight:600;fill:#d0d0da}}.a{{fill:#a3a3b2}}.n{{font-size:11.5px;fill:#b4b4c2}}</style>\n<linearGradient id=\"scale\">{}\
             </linearGradient>\n{}</svg>\n",
            escape(title),
            escape(description),
            gradient(),
            self.0
        )
    }
}

/// The colours of heatmaps from few to many, evenly.
fn gradient() -> String {
    let stop = |level| {
        let offset = f64::from(level) / f64::from(colour::LEVELS - 1);
        format!("<stop offset=\"{offset:.2}\" stop-color=\"{}\"/>", colour::spectral(level))
    };
    (0..colour::LEVELS).map(stop).collect()
}

/// An outline in few bytes: tenths, each point by how far it is from the one before.
#[derive(Default)]
pub(crate) struct Outline {
    path: String,
    /// Where the pen is, in tenths.
    pen: (i64, i64),
}

fn tenths(value: f64) -> i64 {
    (value * 10.0).round() as i64
}

impl Outline {
    /// Writes numbers; a sign parts them as well as a space does, and no zero stands before a point.
    fn numbers(&mut self, numbers: &[i64]) {
        for &number in numbers {
            let after_letter = self.path.ends_with(|character: char| character.is_ascii_alphabetic());
            if number >= 0 && !after_letter {
                self.path.push(' ');
            }
            let (whole, part) = (number.unsigned_abs() / 10, number.unsigned_abs() % 10);
            if number < 0 {
                self.path.push('-');
            }
            // Writing to a string cannot fail.
            let _written = match (whole, part) {
                (0, part) if part > 0 => write!(self.path, ".{part}"),
                (whole, 0) => write!(self.path, "{whole}"),
                (whole, part) => write!(self.path, "{whole}.{part}"),
            };
        }
    }

    /// Sets the pen down here.
    pub(crate) fn begin(&mut self, x: f64, y: f64) {
        let to = (tenths(x), tenths(y));
        if self.path.is_empty() {
            self.path.push('M');
            self.numbers(&[to.0, to.1]);
        } else {
            self.path.push('m');
            self.numbers(&[to.0 - self.pen.0, to.1 - self.pen.1]);
        }
        self.pen = to;
    }

    /// A line to here.
    pub(crate) fn line(&mut self, x: f64, y: f64) {
        let to = (tenths(x), tenths(y));
        let (right, down) = (to.0 - self.pen.0, to.1 - self.pen.1);
        if down == 0 {
            self.path.push('h');
            self.numbers(&[right]);
        } else {
            self.path.push('l');
            self.numbers(&[right, down]);
        }
        self.pen = to;
    }

    /// The text of it.
    pub(crate) fn finish(self) -> String {
        self.path
    }
}

/// Lines through these points, with a gap at each `None`.
pub(crate) fn outline(points: impl IntoIterator<Item = Option<(f64, f64)>>) -> String {
    let (mut outline, mut drawing) = (Outline::default(), false);
    for point in points {
        match point {
            Some((x, y)) if drawing => outline.line(x, y),
            Some((x, y)) => outline.begin(x, y),
            None => {}
        }
        drawing = point.is_some();
    }
    outline.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short() {
        assert_eq!([12.0, 12.34, -0.01, 0.96].map(|value| At(value).to_string()), ["12", "12.3", "0", "1"]);
    }

    #[test]
    fn lines_have_gaps_where_there_is_no_value() {
        let points = [Some((0.0, 1.0)), Some((1.0, 2.0)), None, Some((3.0, 0.5))];
        assert_eq!(outline(points), "M0 1l1 1m2-1.5");
        let points = [(5.0, 1.0), (5.26, 1.0), (4.0, 0.9)].map(Some);
        assert_eq!(outline(points), "M5 1h.3l-1.3-.1");
    }

    #[test]
    fn texts_are_cut_to_their_place() {
        assert_eq!(fit("short", 10.0, 100.0), "short");
        let cut = fit("a very long name of a workload", 10.0, 60.0);
        assert!(cut.ends_with('…') && width(&cut, 10.0) <= 62.0, "{cut}");
    }

    #[test]
    fn text_is_no_markup() {
        let mut svg = Svg::default();
        svg.text((0.0, 0.0), Anchor::Start, "a", "<b> & \"c\"");
        assert!(svg.finish(1.0, 1.0, "t", "d").contains(">&lt;b&gt; &amp; &quot;c&quot;<"));
    }
}
