//! An hour of a fleet as blocks of a Prometheus, its recording rules over it, and how long queries take with and
//! without them.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use super::{
    nodes,
    recording::{Recording, Sample, pace},
};
use crate::{
    process::status_kib,
    prometheus::{self, Prometheus},
    require, stats,
};

/// Seconds between samples, and between evaluations of rules.
pub const STEP: u64 = 60;

/// Blocks begin and end within a multiple of this, so that Prometheus sees no reason to merge them while it is measured.
const ALIGNED: u64 = 7200;

/// What the panels below ask for.
const FAMILIES: [(&str, &str); 3] = [
    ("gen_ai_server_time_to_first_token_seconds", "histogram"),
    ("llm_inter_chunk_latency_seconds", "histogram"),
    ("llm_requests", "counter"),
];

/// A panel of a fleet: its query over all nodes' series, and over what was recorded of them.
#[derive(Clone, Copy, Debug)]
pub struct Panel {
    /// What it shows.
    pub name: &'static str,
    /// Over the series of all nodes.
    pub raw: &'static str,
    /// Over those of the recording rules.
    pub recorded: &'static str,
}

impl Panel {
    /// What its recorded way asks for.
    fn recorded_name(&self) -> &'static str {
        let from = self.recorded.find("cluster_").unwrap_or(0);
        self.recorded[from..].split(['{', ')']).next().unwrap_or_default()
    }
}

/// The heaviest panels, in queries that say the same with and without recording rules.
pub const PANELS: [Panel; 4] = [
    Panel {
        name: "p99 of time to first token, by model",
        raw: "histogram_quantile(0.99, sum by (gen_ai_request_model, le) \
              (rate(gen_ai_server_time_to_first_token_seconds_bucket{role!=\"backend\"}[5m])))",
        recorded: "histogram_quantile(0.99, sum by (gen_ai_request_model, le) \
                   (cluster_workload_model:gen_ai_server_time_to_first_token_seconds_bucket:rate5m{role!=\"backend\"}))",
    },
    Panel {
        name: "heatmap of time to first token",
        raw: "sum by (le) (rate(gen_ai_server_time_to_first_token_seconds_bucket{role!=\"backend\"}[5m]))",
        recorded: "sum by (le) \
                   (cluster_workload_model:gen_ai_server_time_to_first_token_seconds_bucket:rate5m{role!=\"backend\"})",
    },
    Panel {
        name: "p95 of gaps between tokens, by workload",
        raw: "histogram_quantile(0.95, sum by (workload, le) (rate(llm_inter_chunk_latency_seconds_bucket[5m])))",
        recorded: "histogram_quantile(0.95, sum by (workload, le) \
                   (cluster_workload_model:llm_inter_chunk_latency_seconds_bucket:rate5m))",
    },
    Panel {
        name: "requests by outcome",
        raw: "sum by (outcome) (rate(llm_requests_total{role!=\"backend\"}[5m]))",
        recorded: "sum by (outcome) (cluster_workload_model:llm_requests:rate5m{role!=\"backend\"})",
    },
];

/// Blocks of a fleet's past.
#[derive(Debug)]
pub struct History {
    data: PathBuf,
    config: PathBuf,
    start: u64,
    end: u64,
    /// Series of all nodes.
    pub series: usize,
    /// Samples of all of them.
    pub samples: usize,
    /// How long it took to make the blocks.
    pub took: Duration,
}

/// How long a panel took, and what each way says.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The panel.
    pub panel: Panel,
    /// Median without recording rules.
    pub raw: Duration,
    /// Median with them.
    pub recorded: Duration,
    /// The largest relative difference between the two answers, at any time in any series.
    pub difference: f64,
}

/// Size of all files below a folder, in bytes.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size_of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size_of).sum()
}

fn promtool(arguments: &[&str], paths: &[&Path]) {
    let mut command = Command::new(require::tool("promtool").expect("required"));
    command.args(["tsdb", "create-blocks-from", "--quiet"]).args(arguments).args(paths);
    let output = command.output().expect("promtool runs");
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{command:?}: {said}");
}

/// Value of every point of every series, with the series' labels.
fn points(series: &[Value]) -> Vec<(String, f64)> {
    let mut points: Vec<_> = series
        .iter()
        .flat_map(|series| {
            let labels = series["metric"].to_string();
            let values = series["values"].as_array().expect("values");
            values.iter().map(move |point| {
                let value = point[1].as_str().and_then(|value| value.parse().ok()).expect("a number");
                (format!("{labels} at {}", point[0]), value)
            })
        })
        .collect();
    points.sort_by(|one, other| one.0.cmp(&other.0));
    points
}

/// The largest relative difference of two answers.
///
/// # Panics
/// If they do not have the same series at the same times.
fn difference(raw: &[Value], recorded: &[Value]) -> f64 {
    let (raw, recorded) = (points(raw), points(recorded));
    assert!(!raw.is_empty(), "no data");
    assert_eq!(raw.len(), recorded.len());
    let pairs = raw.into_iter().zip(recorded).map(|((at, one), (also_at, other))| {
        assert_eq!(at, also_at);
        if one.is_nan() && other.is_nan() { 0.0 } else { (one - other).abs() / one.abs().max(1e-12) }
    });
    pairs.fold(0.0, f64::max)
}

impl History {
    /// Makes blocks of the last `minutes` (at most 120) of so many nodes below `folder`, `slice` minutes at a time: a
    /// slice's text is removed once it is a block.
    ///
    /// # Panics
    /// If anything of it fails.
    #[must_use]
    pub fn make(recording: &Recording, count: usize, minutes: u64, slice: u64, folder: &Path) -> Self {
        let begun = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let end = now / ALIGNED * ALIGNED;
        let start = end - minutes * STEP;
        let data = folder.join("tsdb");
        fs::create_dir_all(&data).expect("a folder");
        let config = folder.join("prometheus.yml");
        fs::write(&config, "scrape_configs: []\n").expect("a file");
        let kept: Vec<_> = recording.samples().filter(|sample| family(sample).is_some()).collect();
        let mut samples = 0;
        for first in (0..minutes).step_by(usize::try_from(slice).expect("small")) {
            let steps = first..(first + slice).min(minutes);
            let file = folder.join("slice.om");
            samples += write(&file, &kept, count, start, steps).expect("the slice is written");
            promtool(&["openmetrics"], &[&file, &data]);
            fs::remove_file(&file).expect("it was written");
        }
        let series = kept.len() * count;
        Self { data, config, start, end, series, samples, took: begun.elapsed() }
    }

    /// Bytes of its blocks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        size(&self.data)
    }

    /// A Prometheus over it. It merges blocks that overlap when it has run for a minute: measure before.
    fn open(&self) -> Prometheus {
        Prometheus::start(&self.config, &[format!("--storage.tsdb.path={}", self.data.display())])
    }

    /// Adds what these recording rules would have recorded: how long Prometheus took over all of it, and how many
    /// series that are.
    ///
    /// # Panics
    /// If anything of it fails.
    #[must_use]
    pub fn record(&self, rules: &Path) -> (Duration, usize) {
        let begun = Instant::now();
        let prometheus = self.open();
        let (start, end) = (format!("--start={}", self.start), format!("--end={}", self.end - STEP));
        let url = format!("--url=http://{}", prometheus.address());
        let (step, into) = (format!("--eval-interval={STEP}s"), format!("--output-dir={}", self.data.display()));
        promtool(&["rules", &start, &end, &url, &step, &into], &[rules]);
        prometheus.stop();
        let took = begun.elapsed();
        let prometheus = self.open();
        let query = prometheus::encode("count({__name__=~\"cluster_.*\"})");
        let answer = prometheus.api(&format!("query?query={query}&time={}", self.end)).expect("an answer");
        let count = answer["data"]["result"][0]["value"][1].as_str().and_then(|count| count.parse().ok());
        prometheus.stop();
        (took, count.expect("what was recorded"))
    }

    /// How long one evaluation of the rules over these families takes, as Prometheus does it once a minute: the
    /// median of `times`, summed over the families.
    ///
    /// # Panics
    /// If one yields nothing.
    #[must_use]
    pub fn evaluate(&self, times: usize) -> Duration {
        let prometheus = self.open();
        let at = self.end - STEP;
        let took = FAMILIES.map(|(family, kind)| {
            let (suffix, label) = if kind == "histogram" { ("_bucket", "le") } else { ("_total", "outcome") };
            let expression =
                format!("sum by (cluster, workload, gen_ai_request_model, role, {label}) (rate({family}{suffix}[5m]))");
            let path = format!("query?query={}&time={at}", prometheus::encode(&expression));
            let mut took: Vec<_> = (0..times)
                .map(|_| {
                    let begun = Instant::now();
                    let answer = prometheus.api(&path).unwrap_or_else(|| panic!("no answer to {expression}"));
                    let series = answer["data"]["result"].as_array().map_or(0, Vec::len);
                    assert!(series > 0, "{expression} yields nothing");
                    begun.elapsed()
                })
                .collect();
            stats::median(&mut took)
        });
        prometheus.stop();
        took.into_iter().sum()
    }

    /// When within each step a rule was evaluated, in seconds: Prometheus spreads its groups. Only at those times do
    /// both ways of a panel look at the same samples.
    fn phase(&self, prometheus: &Prometheus, name: &str) -> f64 {
        let query = prometheus::encode(&format!("{name}[{}s]", STEP * 2));
        let answer = prometheus.api(&format!("query?query={query}&time={}", self.end)).expect("an answer");
        let at = answer["data"]["result"][0]["values"][0][0].as_f64().expect("a recorded sample");
        at.rem_euclid(STEP as f64)
    }

    /// Times a panel `times` times each way, over all but the first ten minutes: median, and whether both ways say the
    /// same.
    ///
    /// # Panics
    /// If it yields nothing, or the two ways yield different series.
    #[must_use]
    pub fn time(&self, panel: Panel, times: usize) -> (Timing, u64) {
        let prometheus = self.open();
        let phase = self.phase(&prometheus, panel.recorded_name());
        let (start, end) = ((self.start + 600) as f64 + phase, (self.end - STEP) as f64);
        let ask = |expression: &str| {
            let answers: Vec<_> = (0..times).map(|_| prometheus.range(expression, start, end, STEP)).collect();
            let mut took: Vec<_> = answers.iter().map(|(_, took)| *took).collect();
            let series = answers.into_iter().next().map(|(series, _)| series);
            (series.expect("asked at least once"), stats::median(&mut took))
        };
        let (raw, raw_took) = ask(panel.raw);
        let peak = status_kib(prometheus.pid(), "VmHWM");
        let (recorded, recorded_took) = ask(panel.recorded);
        prometheus.stop();
        let difference = difference(&raw, &recorded);
        (Timing { panel, raw: raw_took, recorded: recorded_took, difference }, peak)
    }
}

/// The family of a sample that the panels need.
fn family(sample: &Sample) -> Option<&'static str> {
    let wanted = |(family, kind): &&(&'static str, &str)| {
        let rest = sample.name().strip_prefix(family);
        rest == Some(if *kind == "histogram" { "_bucket" } else { "_total" })
    };
    FAMILIES.iter().find(wanted).map(|(family, _)| *family)
}

/// Writes these steps of all nodes as OpenMetrics; tells how many samples that are.
fn write(
    file: &Path,
    kept: &[&Sample],
    count: usize,
    start: u64,
    steps: std::ops::Range<u64>,
) -> std::io::Result<usize> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    let mut samples = 0;
    for (name, kind) in FAMILIES {
        writeln!(out, "# TYPE {name} {kind}")?;
        for sample in kept.iter().filter(|sample| family(sample) == Some(name)) {
            for node in 1..=count {
                let series =
                    sample.with(&format!("cluster=\"fleet\",instance=\"{0}\",node=\"{0}\",", nodes::name(node)));
                for step in steps.clone() {
                    let seconds = step * STEP;
                    writeln!(out, "{series} {} {}", sample.at(seconds as f64, pace(node)), start + seconds)?;
                    samples += 1;
                }
            }
        }
    }
    writeln!(out, "# EOF")?;
    out.flush()?;
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_compared_point_by_point() {
        let answer = |last: &str| vec![json!({"metric": {"le": "1"}, "values": [[1, "2"], [61, last]]})];
        assert_eq!(difference(&answer("4"), &answer("4")), 0.0);
        assert_eq!(difference(&answer("4"), &answer("5")), 0.25);
        assert_eq!(difference(&answer("NaN"), &answer("NaN")), 0.0);
    }
}
