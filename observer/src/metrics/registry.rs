//! Series of all families: how they come, and how they go with their workload.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use prometheus::proto;

use super::{
    exemplar::Exemplars,
    families::{self, Family, Type},
    value::{Counter, Histogram, HistogramSnapshot},
};
use crate::config::MetricsConfig;

/// Label of the workload: series that have it go with it.
const WORKLOAD: &str = "workload";
/// What a label's value becomes when it may have no further one.
pub const OTHER: &str = "_other";

type Labels = Box<[Arc<str>]>;
type SeriesOf<T> = RwLock<HashMap<Labels, Arc<T>>>;

enum Series {
    Counters(SeriesOf<Counter>),
    Histograms(Arc<[f64]>, SeriesOf<Histogram>),
    /// Computed at the scrape.
    None,
}

/// A workload that has series. It is alive, or dead for good: once it is dead nobody may add to its series, since
/// they are about to vanish, and a later request of the same name gets a new one.
#[derive(Debug)]
pub(super) struct Workload {
    last_used: AtomicU64,
}

const DEAD: u64 = u64::MAX;

impl Workload {
    /// One in use at `now`.
    pub(super) fn new(now: Duration) -> Self {
        Self { last_used: AtomicU64::new(milliseconds(now)) }
    }

    /// Notes that it is in use at `now`. `false`: it is dead.
    #[must_use]
    pub(super) fn touch(&self, now: Duration) -> bool {
        let now = milliseconds(now);
        let newer = |last| (last != DEAD).then_some(now.max(last));
        self.last_used.fetch_update(SeqCst, SeqCst, newer).is_ok()
    }

    /// Declares it dead if it was not used for `ttl`.
    pub(super) fn expire(&self, now: Duration, ttl: Duration) -> bool {
        now.checked_sub(ttl).is_some_and(|deadline| self.kill(milliseconds(deadline)))
    }

    /// Declares it dead if it was last used before `deadline`, in milliseconds.
    fn kill(&self, deadline: u64) -> bool {
        self.last_used.fetch_update(SeqCst, SeqCst, |last| (last < deadline).then_some(DEAD)).is_ok()
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(DEAD - 1)
}

/// Values that one label may have.
struct Cap {
    most: usize,
    values: Mutex<HashMap<Arc<str>, ()>>,
    dropped: Arc<Counter>,
}

/// A family's series.
struct Entry {
    family: &'static Family,
    /// Names of their labels, in the order of the values.
    names: Box<[Arc<str>]>,
    series: Series,
}

impl Entry {
    fn index(&self, label: &str) -> Option<usize> {
        self.names.iter().position(|name| **name == *label)
    }

    fn pairs(&self, values: &[Arc<str>]) -> Vec<proto::LabelPair> {
        label_pairs(self.names.iter().map(AsRef::as_ref), values)
    }
}

/// All series.
pub(super) struct Store {
    series: HashMap<&'static str, Entry>,
    workloads: Mutex<HashMap<Arc<str>, Arc<Workload>>>,
    caps: HashMap<Arc<str>, Cap>,
    /// Labels from request headers.
    header_labels: Box<[Arc<str>]>,
    ttl: Duration,
    /// Changes when label values were released.
    generation: AtomicU64,
}

// No code can panic while it holds one of these locks and has left the data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The longest value that a remote party can give a label, in bytes.
const MAX_VALUE_LENGTH: usize = 256;
/// The most distinct reasons to finish.
const MAX_FINISH_REASONS: usize = 32;

impl Store {
    pub(super) fn new(config: &MetricsConfig) -> Self {
        let header_labels: Box<[Arc<str>]> = config.header_labels.iter().map(|label| label.name().into()).collect();
        let series: HashMap<_, _> = families::all()
            .map(|family| {
                let further = if family.of_requests { &*header_labels } else { &[] };
                let names = family.labels().map(Arc::from).chain(further.iter().cloned()).collect();
                let series = match family.kind {
                    Type::Counter | Type::SecondsCounter => Series::Counters(SeriesOf::default()),
                    Type::Histogram(set) => Series::Histograms(set.bounds(&config.buckets).into(), SeriesOf::default()),
                    Type::Gauge | Type::KernelHistogram => Series::None,
                };
                (family.name, Entry { family, names, series })
            })
            .collect();
        let mut store = Self {
            series,
            workloads: Mutex::default(),
            caps: HashMap::new(),
            header_labels,
            ttl: config.series_ttl,
            generation: AtomicU64::new(0),
        };
        let names = [
            ("gen_ai_request_model", config.max_models),
            ("gen_ai_response_model", config.max_models),
            ("finish_reason", MAX_FINISH_REASONS),
        ];
        let headers = config.header_labels.iter().map(|label| (label.name(), label.max_values));
        let capped: Vec<(Arc<str>, usize)> = names
            .map(|(label, most)| (label.into(), most))
            .into_iter()
            .chain(headers.map(|(l, m)| (l.into(), m)))
            .collect();
        for (label, most) in capped {
            let dropped = store.counter(&families::own::SERIES_DROPPED, &[&label]);
            store.caps.insert(label, Cap { most, values: Mutex::default(), dropped });
        }
        store
    }

    /// The counter with these label values, in the order of the family's labels; made if there is none.
    pub(super) fn counter(&self, family: &'static Family, labels: &[&str]) -> Arc<Counter> {
        match self.series.get(family.name) {
            Some(Entry { series: Series::Counters(series), .. }) => get(series, labels, Counter::default),
            // Not reached: `families` holds every family, and callers name counters here.
            _ => Arc::default(),
        }
    }

    /// The histogram with these label values, in the order of the family's labels; made if there is none.
    pub(super) fn histogram(&self, family: &'static Family, labels: &[&str]) -> Arc<Histogram> {
        match self.series.get(family.name) {
            Some(Entry { series: Series::Histograms(bounds, series), .. }) => {
                get(series, labels, || Histogram::new(Arc::clone(bounds)))
            }
            // Not reached, as above.
            _ => Arc::new(Histogram::new(Arc::default())),
        }
    }

    /// The live workload of this name; made if there is none.
    pub(super) fn workload(&self, name: &Arc<str>, now: Duration) -> Arc<Workload> {
        let mut workloads = lock(&self.workloads);
        let new = || Arc::new(Workload::new(now));
        let workload = workloads.entry(Arc::clone(name)).or_insert_with(new);
        // One that was there may be about to expire. It is alive: the dead leave under this lock.
        let _alive = workload.touch(now);
        Arc::clone(workload)
    }

    /// Notes that a workload is in use, if it has series.
    pub(super) fn touch(&self, name: &str, now: Duration) {
        if let Some(workload) = lock(&self.workloads).get(name) {
            // A dead one is on its way out of this table: its next request makes a new one.
            let _alive = workload.touch(now);
        }
    }

    /// Whether this label has `value` already, or may have one more.
    ///
    /// # Errors
    /// [`OTHER`], which stands in for it; this is counted.
    pub(super) fn admit(&self, label: &str, value: &Arc<str>) -> Result<(), &'static str> {
        let Some(cap) = self.caps.get(label) else { return Ok(()) };
        let mut values = lock(&cap.values);
        if !values.contains_key(value) {
            if values.len() >= cap.most || value.len() > MAX_VALUE_LENGTH {
                drop(values);
                cap.dropped.add(1);
                return Err(OTHER);
            }
            values.insert(Arc::clone(value), ());
        }
        Ok(())
    }

    /// Changes when label values were released: what was admitted before must be admitted again.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// Lets the series of workloads go that were not used for the time to live.
    pub(super) fn sweep(&self, now: Duration) {
        let Some(deadline) = now.checked_sub(self.ttl).map(milliseconds) else { return };
        // Held until the series are gone: whoever finds a workload dead waits here before making it anew.
        let mut workloads = lock(&self.workloads);
        let dead: Vec<_> = workloads.extract_if(|_, workload| workload.kill(deadline)).map(|(name, _)| name).collect();
        if dead.is_empty() {
            return;
        }
        let gone = |value: &Arc<str>| dead.contains(value);
        for entry in self.series.values() {
            let Some(index) = entry.index(WORKLOAD) else { continue };
            match &entry.series {
                Series::Counters(series) => write(series).retain(|labels, _| !gone(&labels[index])),
                Series::Histograms(_, series) => write(series).retain(|labels, _| !gone(&labels[index])),
                Series::None => {}
            }
        }
        self.release();
        self.generation.fetch_add(1, SeqCst);
    }

    /// Gives back label values that no series has any more.
    fn release(&self) {
        for (label, cap) in &self.caps {
            let mut values = lock(&cap.values);
            values.retain(|value, ()| {
                self.series.values().any(|entry| {
                    let Some(index) = entry.index(label) else { return false };
                    match &entry.series {
                        Series::Counters(series) => read(series).keys().any(|labels| labels[index] == *value),
                        // Each request has a counter with its common labels: no need to search histograms.
                        Series::Histograms(..) | Series::None => false,
                    }
                })
            });
        }
    }

    /// Calls `visit` with the label values and value of each counter of `family`.
    pub(super) fn counters(&self, family: &'static Family, mut visit: impl FnMut(&[Arc<str>], u64)) {
        if let Some(Entry { series: Series::Counters(series), .. }) = self.series.get(family.name) {
            for (labels, counter) in &*read(series) {
                visit(labels, counter.get());
            }
        }
    }

    /// Calls `visit` with the label values and counts of each histogram of `family`.
    pub(super) fn histograms(&self, family: &'static Family, mut visit: impl FnMut(&[Arc<str>], HistogramSnapshot)) {
        if let Some(Entry { series: Series::Histograms(_, series), .. }) = self.series.get(family.name) {
            for (labels, histogram) in &*read(series) {
                visit(labels, histogram.snapshot());
            }
        }
    }

    /// The exemplars of all stored series.
    pub(super) fn exemplars(&self) -> Exemplars {
        let mut exemplars = Exemplars::default();
        for Entry { family, series, .. } in self.series.values() {
            let Series::Histograms(_, series) = series else { continue };
            for (labels, histogram) in &*read(series) {
                if let Some(buckets) = histogram.exemplars() {
                    exemplars.insert(family.name, labels, buckets);
                }
            }
        }
        exemplars
    }

    /// Names of the labels of `family`, those from request headers included.
    pub(super) fn labels(&self, family: &'static Family) -> &[Arc<str>] {
        self.series.get(family.name).map_or(&[], |entry| &entry.names)
    }

    /// Labels from request headers, in the order of configuration.
    pub(super) fn header_labels(&self) -> &[Arc<str>] {
        &self.header_labels
    }

    /// All stored series, as the exposition wants them.
    pub(super) fn collect(&self) -> Vec<proto::MetricFamily> {
        self.series
            .values()
            .map(|entry @ Entry { family, series, .. }| {
                let metrics = match series {
                    Series::Counters(series) => read(series)
                        .iter()
                        .map(|(labels, counter)| {
                            value_sample(family, entry.pairs(labels), counter_value(family, counter.get()))
                        })
                        .collect(),
                    Series::Histograms(_, series) => read(series)
                        .iter()
                        .map(|(labels, histogram)| histogram_sample(entry.pairs(labels), histogram))
                        .collect(),
                    Series::None => Vec::new(),
                };
                family_of(family, metrics)
            })
            .collect()
    }
}

fn read<T>(series: &SeriesOf<T>) -> std::sync::RwLockReadGuard<'_, HashMap<Labels, Arc<T>>> {
    series.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(series: &SeriesOf<T>) -> std::sync::RwLockWriteGuard<'_, HashMap<Labels, Arc<T>>> {
    series.write().unwrap_or_else(PoisonError::into_inner)
}

fn get<T>(series: &SeriesOf<T>, labels: &[&str], new: impl FnOnce() -> T) -> Arc<T> {
    let key: Labels = labels.iter().map(|value| Arc::from(*value)).collect();
    Arc::clone(write(series).entry(key).or_insert_with(|| Arc::new(new())))
}

#[expect(clippy::cast_precision_loss, reason = "the exposition formats are in doubles; counts stay below 2^53")]
pub(super) fn counter_value(family: &Family, value: u64) -> f64 {
    if family.kind == Type::SecondsCounter { Duration::from_nanos(value).as_secs_f64() } else { value as f64 }
}

/// A family with these samples.
pub(super) fn family_of(family: &Family, metrics: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut result = proto::MetricFamily::default();
    result.set_name(family.name.to_owned());
    result.set_help(family.help.to_owned());
    result.set_field_type(match family.kind {
        Type::Counter | Type::SecondsCounter => proto::MetricType::COUNTER,
        Type::Gauge => proto::MetricType::GAUGE,
        Type::Histogram(_) | Type::KernelHistogram => proto::MetricType::HISTOGRAM,
    });
    result.set_metric(metrics);
    result
}

/// Families that are computed when somebody asks.
#[derive(Default)]
pub(super) struct Families(Vec<proto::MetricFamily>);

impl Families {
    /// One sample.
    pub(super) fn add(&mut self, family: &Family, labels: &[&str], value: f64) {
        let metric = sample(family, labels, value);
        match self.0.iter_mut().find(|known| known.name() == family.name) {
            Some(known) => known.mut_metric().push(metric),
            None => self.0.push(family_of(family, vec![metric])),
        }
    }

    /// All of them.
    pub(super) fn all(self) -> Vec<proto::MetricFamily> {
        self.0
    }
}

pub(super) fn number(value: u64) -> f64 {
    // Not a family in nanoseconds: the plain conversion.
    counter_value(&families::own::CONNECTIONS, value)
}

pub(super) fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

fn label_pairs<'a, S: AsRef<str>>(names: impl Iterator<Item = &'a str>, values: &[S]) -> Vec<proto::LabelPair> {
    let pair = |(name, value): (&str, &S)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.as_ref().to_owned());
        pair
    };
    names.zip(values).map(pair).collect()
}

/// One sample of a counter or gauge that is not of requests.
pub(super) fn sample<S: AsRef<str>>(family: &Family, labels: &[S], value: f64) -> proto::Metric {
    value_sample(family, label_pairs(family.labels(), labels), value)
}

fn value_sample(family: &Family, labels: Vec<proto::LabelPair>, value: f64) -> proto::Metric {
    let mut metric = proto::Metric::from_label(labels);
    if family.kind == Type::Gauge {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    } else {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    }
    metric
}

fn histogram_sample(labels: Vec<proto::LabelPair>, histogram: &Histogram) -> proto::Metric {
    let snapshot = histogram.snapshot();
    let mut cumulative = 0;
    let buckets = histogram.bounds().iter().zip(&snapshot.counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut value = proto::Histogram::default();
    value.set_bucket(buckets.collect());
    value.set_sample_count(snapshot.count());
    value.set_sample_sum(snapshot.sum);
    let mut metric = proto::Metric::from_label(labels);
    metric.set_histogram(value);
    metric
}
