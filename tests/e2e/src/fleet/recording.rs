//! What a real observer says under the sample load, and how fast each sample grows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    http,
    observer::Observer,
    process::Process,
    require,
    servers::Server,
    wait::{self, SOON},
};

/// Models that the sample load asks each server for.
pub const MODELS: [&str; 2] = ["sample-small", "sample-large"];

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
enum Line {
    /// `# TYPE`, `# HELP` and the like.
    Comment(String),
    Sample(Sample),
}

/// A sample that moves.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name and labels, as written.
    pub series: String,
    /// Value at the end of the recording.
    pub value: f64,
    /// Growth per second; 0 for gauges.
    pub growth: f64,
    /// Counts things: never has a fraction.
    whole: bool,
}

impl Sample {
    /// Its value after so many seconds, at a node that is `pace` times as busy. Never less than a moment before.
    #[must_use]
    pub fn at(&self, seconds: f64, pace: f64) -> f64 {
        let value = self.value + self.growth * pace * seconds;
        if self.whole && self.growth > 0.0 { value.floor() } else { value }
    }

    /// Name without labels.
    #[must_use]
    pub fn name(&self) -> &str {
        self.series.split('{').next().unwrap_or(&self.series)
    }

    /// The series with further labels, each written as `name="value",`.
    #[must_use]
    pub fn with(&self, labels: &str) -> String {
        match self.series.split_once('{') {
            Some((name, rest)) => format!("{name}{{{labels}{rest}"),
            None => format!("{}{{{}}}", self.series, labels.trim_end_matches(',')),
        }
    }
}

/// Two scrapes of one observer, of which each sample's growth is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording(Vec<Line>);

/// Series of one node, by what they multiply with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of the observer itself and of the host, whatever it serves.
    pub node: usize,
    /// Of each workload, whatever its models.
    pub workload: usize,
    /// Of each model of a workload.
    pub model: usize,
}

impl Budget {
    /// Series of so many nodes, each with so many workloads, each with so many models.
    #[must_use]
    pub const fn series(&self, nodes: usize, workloads: usize, models: usize) -> usize {
        nodes * (self.node + workloads * (self.workload + models * self.model))
    }
}

fn parse(text: &str) -> impl Iterator<Item = (&str, Option<f64>)> {
    text.lines().filter(|line| !line.is_empty()).map(|line| {
        if line.starts_with('#') {
            return (line, None);
        }
        // No label of an observer under this load has a space after its last brace.
        let (series, value) = line.rsplit_once(' ').unwrap_or((line, ""));
        (series, Some(value.parse().unwrap_or_else(|_| panic!("not a sample: {line}"))))
    })
}

/// A label's value in a series as written.
fn label<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    let before = [format!("{{{name}=\""), format!(",{name}=\"")];
    let at = before.iter().find_map(|before| Some(series.find(before.as_str())? + before.len()))?;
    series[at..].split('"').next()
}

impl Recording {
    /// From two scrapes that lie so far apart.
    ///
    /// # Panics
    /// On a line that is no sample and no comment.
    #[must_use]
    pub fn of(first: &str, second: &str, apart: Duration) -> Self {
        let before: BTreeMap<_, _> = parse(first).filter_map(|(series, value)| Some((series, value?))).collect();
        let mut grows = false;
        let lines = parse(second).map(|(series, value)| {
            let Some(value) = value else {
                if series.starts_with("# TYPE ") {
                    grows = !series.ends_with(" gauge");
                }
                return Line::Comment(series.to_owned());
            };
            let delta = value - before.get(series).copied().unwrap_or(0.0);
            let growth = if grows { delta.max(0.0) / apart.as_secs_f64() } else { 0.0 };
            let whole = value.fract() == 0.0 && delta.fract() == 0.0;
            Line::Sample(Sample { series: series.to_owned(), value, growth, whole })
        });
        Self(lines.collect())
    }

    /// Records a real observer of two sample servers, each asked for [`MODELS`] with streams and errors in all their
    /// forms, for this long.
    ///
    /// # Panics
    /// If any of it does not work.
    #[must_use]
    pub fn make(duration: Duration) -> Self {
        let behaviour = ["--ttft", "60ms", "--ttft-jitter", "40ms", "--token-interval", "10ms"];
        let failures = ["--error-rate", "0.05", "--stream-error-rate", "0.05", "--cut-rate", "0.05"];
        let servers = [0, 1].map(|_| Server::sample(&[&behaviour[..], &failures].concat()));
        let observer = Observer::start(&servers.each_ref().map(Server::port));
        let length = format!("{}ms", duration.as_millis() + 2000);
        let mut clients = Vec::new();
        for server in &servers {
            for model in MODELS {
                let mut command = Command::new(require::sample());
                command.args(["load", "--url", &server.url(), "--model", model, "--for", &length]);
                command.args(["--rate", "10", "--concurrency", "8", "--tokens", "12", "--cancel-rate", "0.05"]);
                clients.push(Process::spawn("sample-llm load", command));
            }
        }
        let scrape = || http::get(observer.address(), "/metrics").expect("the observer answers").text();
        // The first scrape has every series: what appears between two is not known to have begun at zero.
        thread::sleep(duration / 2);
        let (first, begun) = (scrape(), Instant::now());
        thread::sleep(duration / 2);
        let (second, apart) = (scrape(), begun.elapsed());
        for mut client in clients {
            wait::until("the load to end", SOON, || client.exited());
        }
        Self::of(&first, &second, apart)
    }

    /// All samples.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter_map(|line| match line {
            Line::Sample(sample) => Some(sample),
            Line::Comment(_) => None,
        })
    }

    /// Series per node, workload and model. Of several workloads (models) with unequal numbers of series, the most.
    #[must_use]
    pub fn budget(&self) -> Budget {
        let (mut node, mut workloads, mut models) = (0, BTreeMap::new(), BTreeMap::new());
        for sample in self.samples() {
            let series = sample.series.as_str();
            match (label(series, "workload"), label(series, "gen_ai_request_model")) {
                (Some(workload), Some(model)) => *models.entry((workload, model)).or_insert(0) += 1,
                (Some(workload), None) => *workloads.entry(workload).or_insert(0) += 1,
                (None, _) => node += 1,
            }
        }
        let most = |counts: Vec<usize>| counts.into_iter().max().unwrap_or(0);
        Budget { node, workload: most(workloads.into_values().collect()), model: most(models.into_values().collect()) }
    }

    /// Its workloads.
    #[must_use]
    pub fn workloads(&self) -> BTreeSet<&str> {
        self.samples().filter_map(|sample| label(&sample.series, "workload")).collect()
    }

    /// The exposition of a node after so many seconds.
    #[must_use]
    pub fn render(&self, seconds: f64, pace: f64) -> String {
        let mut text = String::with_capacity(self.0.len() * 160);
        for line in &self.0 {
            // Writing to a string cannot fail.
            let _written = match line {
                Line::Comment(comment) => writeln!(text, "{comment}"),
                Line::Sample(sample) => writeln!(text, "{} {}", sample.series, sample.at(seconds, pace)),
            };
        }
        text
    }
}

/// How busy a node is, as a factor of what was recorded: from 0.5 to 1.5, no two alike.
#[must_use]
pub fn pace(node: usize) -> f64 {
    0.5 + (node as f64 * 0.618_033_988_749_895).fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "# TYPE a_total counter\na_total{workload=\"w\",gen_ai_request_model=\"m\"} 10\n\
                         # TYPE g gauge\ng 5\n# TYPE s_seconds_total counter\ns_seconds_total{workload=\"w\"} 0.5\n";
    const SECOND: &str = "# TYPE a_total counter\na_total{workload=\"w\",gen_ai_request_model=\"m\"} 15\n\
                          # TYPE g gauge\ng 7\n# TYPE s_seconds_total counter\ns_seconds_total{workload=\"w\"} 1.5\n";

    #[test]
    fn counters_advance_and_gauges_stay() {
        let recording = Recording::of(FIRST, SECOND, Duration::from_secs(10));
        assert_eq!(recording.render(0.0, 1.0), SECOND);
        let later = recording.render(3.0, 1.0);
        let values: Vec<_> = later.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            values,
            ["a_total{workload=\"w\",gen_ai_request_model=\"m\"} 16", "g 7", "s_seconds_total{workload=\"w\"} 1.8"]
        );
    }

    #[test]
    fn series_are_counted_by_what_they_multiply_with() {
        let budget = Recording::of(FIRST, SECOND, Duration::from_secs(10)).budget();
        assert_eq!(budget, Budget { node: 1, workload: 1, model: 1 });
        assert_eq!(budget.series(10, 2, 3), 10 * (1 + 2 * (1 + 3)));
    }

    #[test]
    fn labels_are_put_first() {
        let sample = |series: &str| Sample { series: series.to_owned(), value: 0.0, growth: 0.0, whole: true };
        assert_eq!(sample("a{b=\"c\"}").with("n=\"1\","), "a{n=\"1\",b=\"c\"}");
        assert_eq!(sample("a").with("n=\"1\","), "a{n=\"1\"}");
    }
}
