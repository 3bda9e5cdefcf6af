//! Computes the summary: keeps what the cumulative metrics were over the last minutes, and tells rates and
//! quantiles of a window from the difference.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::summary::{Heatmap, ObserverSummary, Quantiles, ServerSummary, Summary};
use crate::{
    config::MetricsConfig,
    event::OpaqueReason,
    metrics::{
        Metrics, ProcessStats,
        families::{COMMON, requests as family},
    },
    request::record::IncompleteReason,
};

/// Time between two samples, and the width of a column of the heatmap.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// What rates and quantiles look back on.
const WINDOW: Duration = Duration::from_secs(60);
/// Columns of the heatmap: ten minutes.
const COLUMNS: usize = 120;

/// Workload, port, model.
type Server = (Arc<str>, Arc<str>, Arc<str>);

/// Cumulative state of one server.
#[derive(Clone, Debug, Default)]
struct Totals {
    ttft: Vec<u64>,
    gaps: Vec<u64>,
    requests: u64,
    outcomes: BTreeMap<String, u64>,
    output_tokens: Option<u64>,
    token_events: u64,
}

/// Cumulative state at one moment.
#[derive(Clone, Debug, Default)]
struct Sample {
    at: Duration,
    servers: HashMap<Server, Totals>,
    events: u64,
    cpu: Option<Duration>,
}

fn add(to: &mut Vec<u64>, counts: &[u64]) {
    to.resize(to.len().max(counts.len()), 0);
    for (sum, count) in to.iter_mut().zip(counts) {
        *sum += count;
    }
}

/// What grew since `before`. Where a total fell (its series vanished and began again) all of `now` is new.
fn grown(now: &[u64], before: Option<&[u64]>) -> Vec<u64> {
    let at = |index| before.and_then(|before| before.get(index).copied()).unwrap_or(0);
    if (0..now.len()).any(|index| now[index] < at(index)) {
        return now.to_vec();
    }
    now.iter().enumerate().map(|(index, count)| count - at(index)).collect()
}

fn grown_one(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// Lets it sample for ever. A sample reads kernel maps: it is taken off the threads that wait.
pub async fn follow(sampler: Arc<Sampler>) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let sampler = Arc::clone(&sampler);
        // A sample that panicked is missing; the next one is due all the same.
        let _sampled = tokio::task::spawn_blocking(move || sampler.sample()).await;
    }
}

/// Samples the metrics and tells the summary.
pub struct Sampler {
    metrics: Arc<Metrics>,
    scope: String,
    ttft_bounds: Vec<f64>,
    gap_bounds: Vec<f64>,
    start: Instant,
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    /// Oldest first, enough for the window.
    samples: VecDeque<Sample>,
    /// Oldest first.
    columns: VecDeque<Vec<u64>>,
}

impl Sampler {
    /// A sampler that takes its first sample now. `scope` says in words what is observed.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, config: &MetricsConfig, scope: String) -> Self {
        let sampler = Self {
            metrics,
            scope,
            ttft_bounds: config.buckets.ttft.clone(),
            gap_bounds: config.buckets.gap.clone(),
            start: Instant::now(),
            history: Mutex::default(),
        };
        sampler.sample();
        sampler
    }

    /// Takes a sample; to be called every [`INTERVAL`].
    pub fn sample(&self) {
        self.metrics.sweep();
        self.keep(self.now(self.start.elapsed()));
    }

    fn keep(&self, sample: Sample) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = history.samples.back() {
            // By server, so that one that begins anew does not hide what the others did.
            let mut column = vec![0; self.ttft_bounds.len() + 1];
            for (server, totals) in &sample.servers {
                let before = last.servers.get(server).map(|totals| totals.ttft.as_slice());
                add(&mut column, &grown(&totals.ttft, before));
            }
            history.columns.push_back(column);
            if history.columns.len() > COLUMNS {
                history.columns.pop_front();
            }
        }
        let begin = sample.at.saturating_sub(WINDOW);
        history.samples.push_back(sample);
        // One at or before the window's begin must stay.
        while history.samples.get(1).is_some_and(|second| second.at <= begin) {
            history.samples.pop_front();
        }
    }

    /// The metrics' state.
    fn now(&self, at: Duration) -> Sample {
        let mut servers: HashMap<Server, Totals> = HashMap::new();
        // Labels in the order of the families: workload, port, operation, request model, response model, own.
        let server = |labels: &[Arc<str>]| {
            let model = if labels[4].is_empty() { &labels[3] } else { &labels[4] };
            (Arc::clone(&labels[0]), Arc::clone(&labels[1]), Arc::clone(model))
        };
        self.metrics.counters(&family::REQUESTS, |labels, count| {
            let totals = servers.entry(server(labels)).or_default();
            totals.requests += count;
            *totals.outcomes.entry(labels[COMMON.len()].to_string()).or_default() += count;
        });
        self.metrics.histograms(&family::TTFT, |labels, histogram| {
            add(&mut servers.entry(server(labels)).or_default().ttft, &histogram.counts);
        });
        self.metrics.histograms(&family::GAP, |labels, histogram| {
            add(&mut servers.entry(server(labels)).or_default().gaps, &histogram.counts);
        });
        self.metrics.counters(&family::CHUNKS, |labels, count| {
            servers.entry(server(labels)).or_default().token_events += count;
        });
        self.metrics.counters(&family::TOKENS, |labels, count| {
            if &*labels[COMMON.len()] == "output" {
                *servers.entry(server(labels)).or_default().output_tokens.get_or_insert(0) += count;
            }
        });
        let events = self.metrics.kernel_stats().map_or(0, |kernel| kernel.events.iter().map(|(_, count)| count).sum());
        Sample { at, servers, events, cpu: ProcessStats::read().map(|process| process.cpu) }
    }

    /// The summary as of now.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary_of(&self.now(self.start.elapsed()))
    }

    fn summary_of(&self, now: &Sample) -> Summary {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = now.at.saturating_sub(WINDOW);
        let baseline = history.samples.iter().rev().find(|sample| sample.at <= begin).or(history.samples.front());
        let window = baseline.map_or(Duration::ZERO, |baseline| now.at.saturating_sub(baseline.at)).as_secs_f64();
        let columns: Vec<_> = history.columns.iter().cloned().collect();
        let rate = |count: u64| {
            #[expect(clippy::cast_precision_loss, reason = "a rate needs no more precision")]
            if window > 0.0 { count as f64 / window } else { 0.0 }
        };

        let mut in_flight: HashMap<(Arc<str>, Arc<str>), u64> = HashMap::new();
        for entry in self.metrics.in_flight().unwrap_or_default() {
            *in_flight.entry((entry.workload, entry.server_port.into())).or_default() += entry.requests;
        }
        let nothing = Totals::default();
        let mut servers: Vec<_> = now
            .servers
            .iter()
            .map(|(server, totals)| {
                let before = baseline.and_then(|baseline| baseline.servers.get(server)).unwrap_or(&nothing);
                let (workload, port, model) = server;
                ServerSummary {
                    workload: workload.to_string(),
                    server_port: port.to_string(),
                    model: model.to_string(),
                    requests_per_second: rate(grown_one(totals.requests, before.requests)),
                    in_flight: in_flight.get(&(Arc::clone(workload), Arc::clone(port))).copied().unwrap_or(0),
                    ttft: quantiles(&self.ttft_bounds, &grown(&totals.ttft, Some(&before.ttft))),
                    inter_chunk: quantiles(&self.gap_bounds, &grown(&totals.gaps, Some(&before.gaps))),
                    output_tokens_per_second: totals
                        .output_tokens
                        .map(|tokens| rate(grown_one(tokens, before.output_tokens.unwrap_or(0)))),
                    token_events_per_second: rate(grown_one(totals.token_events, before.token_events)),
                    outcomes: totals.outcomes.clone(),
                }
            })
            .collect();
        for ((workload, port), count) in in_flight {
            let known = servers.iter().any(|server| *server.workload == *workload && *server.server_port == *port);
            if !known && count > 0 {
                servers.push(ServerSummary {
                    workload: workload.to_string(),
                    server_port: port.to_string(),
                    in_flight: count,
                    ..ServerSummary::default()
                });
            }
        }
        servers.sort_by(|a, b| {
            let busy = b.requests_per_second.total_cmp(&a.requests_per_second);
            let name =
                |server: &ServerSummary| (server.workload.clone(), server.server_port.clone(), server.model.clone());
            busy.then(b.in_flight.cmp(&a.in_flight)).then_with(|| name(a).cmp(&name(b)))
        });
        Summary {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.at.as_secs_f64(),
            window_seconds: window,
            servers,
            ttft_heatmap: Heatmap { bounds: self.ttft_bounds.clone(), column_seconds: INTERVAL.as_secs_f64(), columns },
            observer: self.observer(now, baseline, rate, window),
        }
    }

    fn observer(
        &self,
        now: &Sample,
        baseline: Option<&Sample>,
        rate: impl Fn(u64) -> f64,
        window: f64,
    ) -> ObserverSummary {
        let own = self.metrics.own();
        let kernel = self.metrics.kernel_stats().unwrap_or_default();
        let above_zero = |name: &'static str, count: u64| (count > 0).then(|| (name.to_owned(), count));
        let mut lost: BTreeMap<String, u64> = BTreeMap::new();
        for (_, reason, count) in kernel.lost.iter().filter(|(.., count)| *count > 0) {
            *lost.entry(reason.to_string()).or_default() += count;
        }
        let cpu =
            now.cpu.zip(baseline.and_then(|baseline| baseline.cpu)).map(|(now, before)| now.saturating_sub(before));
        ObserverSummary {
            events_per_second: rate(grown_one(now.events, baseline.map_or(0, |baseline| baseline.events))),
            events: now.events,
            lost,
            incomplete: IncompleteReason::ALL
                .into_iter()
                .filter_map(|reason| above_zero(reason.as_str(), own.incomplete(reason).get()))
                .collect(),
            opaque: OpaqueReason::ALL
                .into_iter()
                .filter_map(|reason| above_zero(reason.as_str(), own.opaque(reason).get()))
                .collect(),
            connections: own.connections.get(),
            cpu_ratio: cpu.filter(|_| window > 0.0).map_or(0.0, |cpu| cpu.as_secs_f64() / window),
            resident_bytes: ProcessStats::read().map_or(0, |process| process.resident_bytes),
            probes: kernel.probes.iter().filter(|probe| probe.attached).map(|probe| probe.name.to_string()).collect(),
            scope: self.scope.clone(),
        }
    }
}

fn quantiles(bounds: &[f64], counts: &[u64]) -> Quantiles {
    Quantiles {
        p50: quantile(0.5, bounds, counts),
        p95: quantile(0.95, bounds, counts),
        p99: quantile(0.99, bounds, counts),
        count: counts.iter().sum(),
    }
}

/// As PromQL's `histogram_quantile`: linear inside a bucket, the first one from zero; above the last bound, that bound.
/// `counts` are not cumulative and one more than `bounds`.
#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more precision")]
fn quantile(q: f64, bounds: &[f64], counts: &[u64]) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = q * total as f64;
    let mut below = 0;
    for (index, count) in counts.iter().enumerate() {
        if (below + count) as f64 >= rank && *count > 0 {
            let Some(upper) = bounds.get(index) else { break };
            let lower = if index == 0 { 0.0 } else { bounds[index - 1] };
            return Some(lower + (upper - lower) * ((rank - below as f64) / *count as f64));
        }
        below += count;
    }
    bounds.last().copied()
}

#[cfg(test)]
mod tests;
