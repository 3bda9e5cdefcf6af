//! The text formats that Prometheus reads: the classic one (0.0.4) and OpenMetrics 1.0. Our own encoder, since
//! `prometheus`' prints `le="1"`, which newer versions of Prometheus rewrite to `1.0`: rules that name a bucket
//! would match in some versions only.

use std::{fmt::Write as _, time::Instant};

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use crate::metrics::{
    Metrics,
    exemplar::{Exemplar, Exemplars},
};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics, announced as the version that was asked for: 1.0.0 or 0.0.1.
    OpenMetrics(&'static str),
}

impl Format {
    /// The format that an `Accept` header prefers; the classic one where it asks for nothing that we have.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.unwrap_or_default().split(',') {
            let mut parameters = range.split(';').map(str::trim);
            let media = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0, None);
            for parameter in parameters {
                match parameter.split_once('=').map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))) {
                    Some(("q", value)) => quality = value.parse::<f64>().unwrap_or(0.0).clamp(0.0, 1.0),
                    Some(("version", value)) => version = Some(value),
                    _ => {}
                }
            }
            let format = match (media.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => Self::OpenMetrics("1.0.0"),
                ("application/openmetrics-text", Some("0.0.1")) => Self::OpenMetrics("0.0.1"),
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => Self::Text,
                _ => continue,
            };
            // Of equals the first one wins.
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// Value of the `Content-Type` header.
    #[must_use]
    pub fn content_type(self) -> String {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8".to_owned(),
            Self::OpenMetrics(version) => format!("application/openmetrics-text; version={version}; charset=utf-8"),
        }
    }
}

/// All metrics as text; notes how long that took.
#[must_use]
pub fn scrape(metrics: &Metrics, format: Format) -> String {
    let start = Instant::now();
    let families = metrics.gather();
    let exemplars = if format == Format::Text { Exemplars::default() } else { metrics.exemplars() };
    let text = encode_with(&families, &exemplars, format);
    metrics.scraped(start.elapsed());
    text
}

/// Families as text.
#[must_use]
pub fn encode(families: &[MetricFamily], format: Format) -> String {
    encode_with(families, &Exemplars::default(), format)
}

/// As [`encode`]; exemplars have a place in `OpenMetrics` only.
#[must_use]
pub fn encode_with(families: &[MetricFamily], exemplars: &Exemplars, format: Format) -> String {
    let mut text = String::with_capacity(64 * 1024);
    for family in families {
        encode_family(&mut text, family, exemplars, format);
    }
    if format != Format::Text {
        text.push_str("# EOF\n");
    }
    text
}

fn encode_family(text: &mut String, family: &MetricFamily, exemplars: &Exemplars, format: Format) {
    let name = family.name();
    let open = format != Format::Text;
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        // Not declared by any family of ours.
        MetricType::SUMMARY | MetricType::UNTYPED => return,
    };
    // In OpenMetrics `_total` belongs to a counter's samples, not to its family.
    let base = if open && kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let _ = writeln!(text, "# HELP {base} {}", escape(family.help(), open));
    let _ = writeln!(text, "# TYPE {base} {kind}");
    let unit = ["seconds", "bytes", "ratio"].into_iter().find(|unit| base.ends_with(&format!("_{unit}")));
    if let (true, Some(unit)) = (open, unit) {
        let _ = writeln!(text, "# UNIT {base} {unit}");
    }
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => sample(text, name, "", labels, None, metric.get_counter().get_value()),
            MetricType::GAUGE => sample(text, name, "", labels, None, metric.get_gauge().get_value()),
            _ => {
                let histogram = metric.get_histogram();
                let of_series = exemplars.of(name, labels.iter().map(LabelPair::value));
                let bounds = histogram.get_bucket().iter().map(|b| (float(b.upper_bound()), b.cumulative_count()));
                let mut below = 0;
                let all = ("+Inf".to_owned(), histogram.get_sample_count());
                for (index, (le, cumulative)) in bounds.chain([all]).enumerate() {
                    series(text, name, "_bucket", labels, Some(&le));
                    let _ = write!(text, "{cumulative}");
                    // One without a sample is of a request that ended since the samples were taken.
                    if let (true, Some(Some(exemplar))) = (open && cumulative > below, of_series.get(index)) {
                        self::exemplar(text, exemplar);
                    }
                    text.push('\n');
                    below = cumulative;
                }
                sample(text, name, "_sum", labels, None, histogram.get_sample_sum());
                count(text, name, "_count", labels, None, histogram.get_sample_count());
            }
        }
    }
}

fn sample(text: &mut String, name: &str, suffix: &str, labels: &[LabelPair], le: Option<&str>, value: f64) {
    series(text, name, suffix, labels, le);
    if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf\n" } else { "-Inf\n" });
    } else {
        let _ = writeln!(text, "{value}");
    }
}

fn exemplar(text: &mut String, exemplar: &Exemplar) {
    let mut separator = " # {";
    for (name, value) in exemplar.ids.labels() {
        let _ = write!(text, "{separator}{name}=\"{}\"", escape(value, true));
        separator = ",";
    }
    let _ = write!(text, "}} {} {}.{:03}", exemplar.value, exemplar.wall.as_secs(), exemplar.wall.subsec_millis());
}

fn count(text: &mut String, name: &str, suffix: &str, labels: &[LabelPair], le: Option<&str>, value: u64) {
    series(text, name, suffix, labels, le);
    let _ = writeln!(text, "{value}");
}

fn series(text: &mut String, name: &str, suffix: &str, labels: &[LabelPair], le: Option<&str>) {
    text.push_str(name);
    text.push_str(suffix);
    let mut separator = '{';
    let own = labels.iter().filter(|label| !label.value().is_empty()).map(|label| (label.name(), label.value()));
    for (name, value) in own.chain(le.map(|le| ("le", le))) {
        let _ = write!(text, "{separator}{name}=\"{}\"", escape(value, true));
        separator = ',';
    }
    text.push_str(if separator == '{' { " " } else { "} " });
}

/// Escapes backslash and line feed, and the quote where the format asks for that.
fn escape(value: &str, quotes: bool) -> String {
    let mut result = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '"' if quotes => result.push_str("\\\""),
            other => result.push(other),
        }
    }
    result
}

/// A bucket bound as Prometheus 3 writes it, whatever it reads, and so do Go's OpenMetrics encoders: Go's shortest
/// `%g`, which has an exponent below 1e-4 and from 1e6 on, with a point where it has neither.
fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests;
