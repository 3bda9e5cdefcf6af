//! Every family declared once ([`families`]), fed by finished requests ([`RequestRecorder`]) and by the observer
//! itself ([`own`]).

mod block;
pub mod exemplar;
pub mod families;
#[cfg(test)]
pub(crate) mod fixture;
pub mod gpu;
mod host;
mod join;
pub mod own;
mod registry;
mod requests;
mod timing;
pub mod value;
mod workloads;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use self::{exemplar::Exemplars, families::Family, registry::Store, value::HistogramSnapshot, workloads::Workloads};
pub use self::{
    join::JoinView,
    own::{GovernorStats, InFlight, KernelStats, MapStats, Own, ProbeStats, ProcessStats},
    registry::OTHER,
    requests::RequestRecorder,
};
use crate::{
    config::{Buckets, MetricsConfig, Objective},
    gpu::View,
    host::Snapshot,
    kernel::clock::wall_time,
    time::KernelTime,
};

type Callback<T> = Box<dyn Fn() -> T + Send + Sync>;

/// What is known of GPUs, and the name of the workload that a process belongs to.
struct GpuCallbacks {
    view: Callback<View>,
    workload: Box<dyn Fn(u32) -> Option<Arc<str>> + Send + Sync>,
}

/// What recorder and scrapes share.
struct Shared {
    store: Store,
    workloads: Workloads,
    own: Own,
    objectives: Box<[Objective]>,
    live: OnceLock<Callback<Vec<InFlight>>>,
    kernel: OnceLock<Callback<KernelStats>>,
    host: OnceLock<Callback<Snapshot>>,
    join: OnceLock<Callback<JoinView>>,
    gpus: OnceLock<GpuCallbacks>,
    clock: Callback<Duration>,
    wall: fn(KernelTime) -> SystemTime,
    /// Nanoseconds; 0: there was none.
    last_scrape: AtomicU64,
}

impl Shared {
    /// Time since an arbitrary moment.
    fn now(&self) -> Duration {
        (self.clock)()
    }

    fn in_flight(&self) -> Option<Vec<InFlight>> {
        let view = (self.live.get()?)();
        let now = self.now();
        for entry in &view {
            self.store.touch(&entry.workload, now);
            if let Some(identity) = &entry.identity {
                self.workloads.touch(&identity.key, now);
            }
        }
        Some(view)
    }

    /// Ports that served requests are at zero when nothing is in flight on them.
    fn collect_in_flight(&self) -> Option<MetricFamily> {
        let mut counts: BTreeMap<(Arc<str>, Arc<str>), u64> = BTreeMap::new();
        for entry in self.in_flight()? {
            *counts.entry((entry.workload, entry.server_port.into())).or_default() += entry.requests;
        }
        self.store.counters(&families::requests::REQUESTS, |labels, _| {
            counts.entry((Arc::clone(&labels[0]), Arc::clone(&labels[1]))).or_default();
        });
        let family = &families::live::IN_FLIGHT;
        let metrics = counts.iter().map(|((workload, port), count)| {
            registry::sample(family, &[workload, port], registry::counter_value(family, *count))
        });
        Some(registry::family_of(family, metrics.collect()))
    }
}

/// All metrics of the observer.
pub struct Metrics {
    shared: Arc<Shared>,
    registry: Registry,
}

impl Metrics {
    /// Metrics without a sample, but for those of the observer itself.
    #[must_use]
    pub fn new(config: &MetricsConfig, objectives: &[Objective]) -> Arc<Self> {
        let start = Instant::now();
        Self::with_clock(config, objectives, Box::new(move || start.elapsed()))
    }

    fn with_clock(config: &MetricsConfig, objectives: &[Objective], clock: Callback<Duration>) -> Arc<Self> {
        let store = Store::new(config);
        let own = Own::new(&store);
        let shared = Arc::new(Shared {
            store,
            workloads: Workloads::new(config.series_ttl),
            own,
            objectives: objectives.into(),
            live: OnceLock::new(),
            kernel: OnceLock::new(),
            host: OnceLock::new(),
            join: OnceLock::new(),
            gpus: OnceLock::new(),
            clock,
            wall: wall_time,
            last_scrape: AtomicU64::new(0),
        });
        let registry = Registry::new();
        let exposition = Exposition::new(Arc::clone(&shared));
        if let Err(error) = registry.register(Box::new(exposition)) {
            // Only a table with two equal names does that, which a test rules out.
            tracing::error!("cannot register metrics: {error}");
        }
        Arc::new(Self { shared, registry })
    }

    /// Where requests in flight are counted at each scrape. The first call holds.
    pub fn set_live_view(&self, view: impl Fn() -> Vec<InFlight> + Send + Sync + 'static) {
        let _first = self.shared.live.set(Box::new(view));
    }

    /// Where the kernel side's state is read at each scrape. The first call holds.
    pub fn set_kernel_stats(&self, stats: impl Fn() -> KernelStats + Send + Sync + 'static) {
        let _first = self.shared.kernel.set(Box::new(stats));
    }

    /// Where what was measured of workloads is read at each scrape. The first call holds.
    pub fn set_host_view(&self, view: impl Fn() -> Snapshot + Send + Sync + 'static) {
        let _first = self.shared.host.set(Box::new(view));
    }

    /// Notes that a workload lives: its series stay.
    pub fn touch(&self, workload: &str) {
        self.shared.store.touch(workload, self.shared.now());
    }

    /// Where GPUs are looked at at each scrape, and what names the workload of a process on one. The first call holds.
    pub fn set_gpus(
        &self,
        view: impl Fn() -> View + Send + Sync + 'static,
        workload: impl Fn(u32) -> Option<Arc<str>> + Send + Sync + 'static,
    ) {
        let _first = self.shared.gpus.set(GpuCallbacks { view: Box::new(view), workload: Box::new(workload) });
    }

    /// Where workloads and their GPUs are looked at at each scrape. The first call holds.
    pub fn set_join(&self, view: impl Fn() -> JoinView + Send + Sync + 'static) {
        let _first = self.shared.join.set(Box::new(view));
    }

    /// A recorder of finished requests, for the thread that finishes them.
    #[must_use]
    pub fn recorder(&self) -> RequestRecorder {
        RequestRecorder::new(Arc::clone(&self.shared))
    }

    /// Counters and gauges that the pipeline feeds.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.shared.own
    }

    /// Lets series go whose workload was not used for the time to live. Gathering does this, too.
    pub fn sweep(&self) {
        let now = self.shared.now();
        self.shared.store.sweep(now);
        self.shared.workloads.sweep(now);
    }

    /// All samples, families sorted by name. Takes short locks only, none that recording a request needs in
    /// steady state.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The exemplars of all histograms. Take them after the samples, since asking for those lets events be drained that
    /// wait in the kernel: then no sample lacks its exemplar.
    #[must_use]
    pub fn exemplars(&self) -> Exemplars {
        self.shared.store.exemplars()
    }

    /// How long the scrape that just ended took.
    pub fn scraped(&self, duration: Duration) {
        self.shared.last_scrape.store(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The kernel side now, if it can be asked.
    #[must_use]
    pub fn kernel_stats(&self) -> Option<KernelStats> {
        self.shared.kernel.get().map(|stats| stats())
    }

    /// Requests in flight now, if they can be asked for.
    #[must_use]
    pub fn in_flight(&self) -> Option<Vec<InFlight>> {
        self.shared.in_flight()
    }

    /// Calls `visit` with the label values (in the family's order) and value of each series of a counter.
    pub fn counters(&self, family: &'static Family, visit: impl FnMut(&[Arc<str>], u64)) {
        self.shared.store.counters(family, visit);
    }

    /// Calls `visit` with the label values (in the family's order) and counts of each series of a histogram.
    pub fn histograms(&self, family: &'static Family, visit: impl FnMut(&[Arc<str>], HistogramSnapshot)) {
        self.shared.store.histograms(family, visit);
    }
}

/// The one collector of the registry.
struct Exposition {
    shared: Arc<Shared>,
    descriptions: Vec<Desc>,
}

impl Exposition {
    fn new(shared: Arc<Shared>) -> Self {
        let describe = |family: &'static Family| {
            let labels = shared.store.labels(family).iter().map(|label| (**label).to_owned()).collect();
            Desc::new(family.name.to_owned(), family.help.to_owned(), labels, std::collections::HashMap::new()).ok()
        };
        let descriptions = families::all().filter_map(describe).collect();
        Self { shared, descriptions }
    }
}

impl Collector for Exposition {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let shared = &self.shared;
        // Looked at first: what is in flight keeps its workload.
        let in_flight = shared.collect_in_flight();
        let now = shared.now();
        shared.store.sweep(now);
        shared.workloads.sweep(now);
        let kernel = shared.kernel.get().map(|stats| stats());
        if let Some(kernel) = &kernel {
            shared.own.take_over(kernel);
        }
        let last = Some(shared.last_scrape.load(Relaxed)).filter(|last| *last > 0).map(Duration::from_nanos);
        let mut families = shared.store.collect();
        families.extend(in_flight);
        if let Some(view) = shared.host.get() {
            families.extend(host::collect(&view()));
        }
        families.push(shared.workloads.collect());
        if let Some(gpus) = shared.gpus.get() {
            families.extend(gpu::collect(&(gpus.view)(), &*gpus.workload));
        }
        if let Some(view) = shared.join.get() {
            families.extend(join::collect(&view()));
        }
        families.extend(own::collect(&shared.own, kernel.as_ref(), last));
        families
    }
}

/// `docs/metrics.md`.
#[must_use]
pub fn document() -> String {
    let mut text = "# Metrics\n\n\
         <!-- Generated from the table of families; `UPDATE_DOCS=1 cargo test -p observer docs` writes it anew. -->\n\n\
         Served at `/metrics`, in the Prometheus text format or in OpenMetrics, whichever the scraper prefers. Base\n\
         units only: seconds, bytes, ratios from 0 to 1. What could not be measured has no sample: absent is not\n\
         zero. A label whose value is empty is left out.\n\n\
         All times of requests are kernel timestamps (CLOCK_MONOTONIC) on the server's side of the connection; t0 is\n\
         the arrival of the request's first byte in the kernel where `observer_arrival_time_available` is 1, else the\n\
         server's first read.\n\n\
         Names that clients or servers choose (models, reasons to finish) have at most `metrics.max_models` (reasons:\n\
         32) distinct values for each label, then `_other`. `gen_ai_response_model` is left out where it equals\n\
         `gen_ai_request_model`. The series of a workload vanish when it was not used for `metrics.series_ttl`; if it\n\
         returns, they begin again at zero.\n\n\
         A request that one server of this host passes on to another counts at each of its hops, under its own\n\
         workload and port. `role` tells them apart: `proxy` is the hop of a process that asked another server in\n\
         scope for the same kind of thing while it answered this request, `backend` the hop that was asked so (also\n\
         where it asks a further one in turn), and a hop that is neither has no such label. So\n\
         `llm_requests_total{role!=\"backend\"}` has each request once, at the outermost hop that is seen;\n\
         `deploy/prometheus/rules/observer.rules.yml` has such sums. Hops are linked by who connected to whom: the\n\
         process behind a client's address, over TCP, without translation of addresses (NAT) in between.\n\n\
         The families of requests also have the labels that `metrics.header_labels` asks for, after those named here:\n\
         values of request headers, each with at most its `max_values` distinct ones, then `_other`. They are read with\n\
         the request's head and hold until its end. A request without the header has no such label. The request log has\n\
         the same values, whatever their number, as the object `labels`.\n\n\
         In OpenMetrics the buckets of latencies of requests have exemplars: the last request in each that had an id,\n\
         as `trace_id` (of `traceparent`) and `request_id` (`x-request-id`, where both fit into 128 characters), with\n\
         the measured value and the wall-clock time of the request's end. The gap between token events has none: each\n\
         stream has many.\n"
        .to_owned();
    for (title, group) in families::GROUPS {
        let _ = write!(text, "\n## {title}\n\n| family | type | labels | definition |\n|---|---|---|---|\n");
        for family in *group {
            let kind = match family.kind {
                families::Type::Counter | families::Type::SecondsCounter => "counter".to_owned(),
                families::Type::Gauge => "gauge".to_owned(),
                families::Type::Histogram(set) => format!("histogram, `{}`", set.key()),
                families::Type::KernelHistogram => "histogram, powers of two".to_owned(),
            };
            let labels: Vec<_> = family.labels().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(text, "| `{}` | {kind} | {} | {} |", family.name, labels.join(", "), family.help);
        }
    }
    text.push_str("\n## Buckets\n\nUpper bounds, which the settings of these names replace; an unbounded bucket is always added.\n\n");
    let buckets = Buckets::default();
    use families::BucketSet::{Duration, Gap, Tokens, Ttft};
    for set in [Ttft, Gap, Duration, Tokens] {
        let bounds: Vec<_> = set.bounds(&buckets).iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "- `{}`: {}", set.key(), bounds.join(" "));
    }
    let (first, last) = (host::bounds().next().unwrap_or_default(), host::bounds().last().unwrap_or_default());
    let _ = writeln!(text, "- powers of two: from {first} to {last} s, each twice the one before; not configurable");
    text
}

#[cfg(test)]
mod tests;
