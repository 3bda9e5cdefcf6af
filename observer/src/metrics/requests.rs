//! From finished requests to series. The drain thread owns the recorder: once a combination of labels is known,
//! recording a request takes no lock.

use std::{hash::Hash, sync::Arc, time::Duration};

use hashbrown::{Equivalent, HashMap};

use super::{
    Shared,
    exemplar::Witness,
    families::{COMMON, Family, host, requests as family},
    registry::{OTHER, Workload},
    timing::{self, PHASES},
    value::{Counter, Histogram},
    workloads::Used,
};
use crate::{
    config::{MAX_HEADER_LABELS, Objective, ObjectiveKind},
    request::record::{Operation, Outcome, RequestRecord, Role},
};

/// Records finished requests. Owned by the thread that finishes them.
pub struct RequestRecorder {
    shared: Arc<Shared>,
    generation: u64,
    names: Names,
    groups: HashMap<Key, Group>,
    workloads: Used,
    wrong_buckets: bool,
}

/// What the labels that all request families share are made of, names as they appear in the labels.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Common<S> {
    workload: S,
    port: Option<u16>,
    operation: Operation,
    request_model: S,
    response_model: S,
    role: Role,
}

impl<S: AsRef<str>> Common<S> {
    fn map<'a, T>(&'a self, text: impl Fn(&'a str) -> T) -> Common<T> {
        Common {
            workload: text(self.workload.as_ref()),
            port: self.port,
            operation: self.operation,
            request_model: text(self.request_model.as_ref()),
            response_model: text(self.response_model.as_ref()),
            role: self.role,
        }
    }

    /// In the order of [`COMMON`].
    fn values(&self, record: &RequestRecord) -> [Arc<str>; COMMON.len()] {
        [
            self.workload.as_ref().into(),
            record.connection.server_port().into(),
            self.operation.as_str().into(),
            self.request_model.as_ref().into(),
            self.response_model.as_ref().into(),
            self.role.as_str().into(),
        ]
    }
}

/// Identity of a group of series.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    common: Common<Arc<str>>,
    /// Values of the labels from headers.
    headers: Box<[Arc<str>]>,
}

/// A [`Key`] to look up with.
#[derive(Hash)]
struct KeyRef<'a> {
    // As in `Key`: the same fields in the same order, so that both have the same hash.
    common: Common<&'a str>,
    headers: &'a [&'a str],
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.common == key.common.map(|text| text)
            && self.headers.iter().copied().eq(key.headers.iter().map(AsRef::as_ref))
    }
}

/// Names that were admitted, by label: so that the registry's lock is taken once per name.
#[derive(Default)]
struct Names {
    request_models: HashMap<Arc<str>, ()>,
    response_models: HashMap<Arc<str>, ()>,
    finish_reasons: HashMap<Arc<str>, ()>,
    headers: [HashMap<Arc<str>, ()>; MAX_HEADER_LABELS],
}

/// The name itself if its label may have it, else `_other`; empty if there is none.
fn admitted<'a>(
    known: &mut HashMap<Arc<str>, ()>,
    shared: &Shared,
    label: &str,
    name: Option<&'a Arc<str>>,
) -> &'a str {
    let Some(name) = name else { return "" };
    if known.contains_key(name) {
        return name;
    }
    match shared.store.admit(label, name) {
        Ok(()) => {
            known.insert(Arc::clone(name), ());
            name
        }
        Err(other) => other,
    }
}

impl RequestRecorder {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let generation = shared.store.generation();
        Self {
            shared,
            generation,
            names: Names::default(),
            groups: HashMap::new(),
            workloads: Used::default(),
            wrong_buckets: false,
        }
    }

    /// Adds a finished request to all families that it belongs in.
    pub fn record(&mut self, record: &RequestRecord) {
        let now = self.shared.now();
        let generation = self.shared.store.generation();
        if generation != self.generation {
            self.generation = generation;
            self.names = Names::default();
            self.groups.clear();
        }
        if let (Outcome::Incomplete, Some(reason)) = (record.outcome, record.incomplete) {
            self.shared.own.incomplete(reason).add(1);
        }
        self.shared.own.unsent_at_stamp.add(record.unsent_stamps);

        let shared = Arc::clone(&self.shared);
        if let Some(identity) = &record.connection.identity {
            self.workloads.used(&shared.workloads, identity, now);
        }
        let names = &mut self.names;
        // A response model that says nothing new is dropped, before it could take up room.
        let response_model = record.response_model.as_ref().filter(|name| record.request_model.as_ref() != Some(*name));
        let mut headers = [""; MAX_HEADER_LABELS];
        let labels = shared.store.header_labels();
        for (index, label) in labels.iter().enumerate().take(MAX_HEADER_LABELS) {
            let value = record.labels.get(index).and_then(|label| label.value.as_ref());
            headers[index] = admitted(&mut names.headers[index], &shared, label, value);
        }
        let common = Common {
            workload: &*record.connection.workload,
            port: record.connection.server.map(|address| address.port()),
            operation: record.operation,
            request_model: admitted(
                &mut names.request_models,
                &shared,
                "gen_ai_request_model",
                record.request_model.as_ref(),
            ),
            response_model: admitted(&mut names.response_models, &shared, "gen_ai_response_model", response_model),
            role: record.role,
        };
        let key = KeyRef { common, headers: &headers[..labels.len().min(MAX_HEADER_LABELS)] };
        let mut group = match self.groups.get_mut(&key) {
            Some(group) if group.workload.touch(now) => Some(group),
            _ => None,
        };
        // Dead: its series are vanishing. The new one's begin at zero, after they are gone.
        let group = match group.take() {
            Some(group) => group,
            None => {
                let fresh = Group::new(&shared, &key, record, now);
                let headers = key.headers.iter().copied().map(Arc::from).collect();
                let owned = Key { common: key.common.map(Arc::from), headers };
                self.groups.entry(owned).insert(fresh).into_mut()
            }
        };
        group.record(&shared, names, record, &mut self.wrong_buckets);
    }
}

/// The series of one combination of common labels. Each is made at its first sample: what was never measured has
/// no series.
struct Group {
    workload: Arc<Workload>,
    labels: Labels,
    histograms: [Option<Arc<Histogram>>; HISTOGRAMS.len()],
    counters: [Option<Arc<Counter>>; COUNTERS.len()],
    phases: [Option<Arc<Histogram>>; PHASES.len()],
    first_read: Option<Arc<Histogram>>,
    tokens: [Option<Arc<Counter>>; TOKEN_TYPES.len()],
    durations: HashMap<(Outcome, Option<u16>), Arc<Histogram>>,
    requests: HashMap<(Outcome, Option<u16>), Arc<Counter>>,
    finish_reasons: HashMap<Arc<str>, Arc<Counter>>,
    objectives: Box<[[Option<Arc<Counter>>; 2]]>,
}

/// Histograms that have the common labels only.
static HISTOGRAMS: [&Family; 7] = [
    &family::TTFT,
    &family::TPOT,
    &family::TTFB,
    &family::FIRST_CONTENT,
    &family::GAP,
    &family::PROMPT_TOKENS,
    &family::COMPLETION_TOKENS,
];
const TTFT: usize = 0;
const TPOT: usize = 1;
const TTFB: usize = 2;
const FIRST_CONTENT: usize = 3;
const GAP: usize = 4;
const PROMPT_TOKENS: usize = 5;
const COMPLETION_TOKENS: usize = 6;

/// Counters that have the common labels only.
static COUNTERS: [&Family; 4] = [&family::COALESCED, &family::WRITE_BLOCKED, &family::CANCELLED_WORK, &family::CHUNKS];
const COALESCED: usize = 0;
const WRITE_BLOCKED: usize = 1;
const CANCELLED_WORK: usize = 2;
const CHUNKS: usize = 3;

const TOKEN_TYPES: [&str; 4] = ["input", "output", "cached_input", "reasoning_output"];

impl Group {
    fn new(shared: &Shared, key: &KeyRef<'_>, record: &RequestRecord, now: Duration) -> Self {
        Self {
            workload: shared.store.workload(&record.connection.workload, now),
            labels: Labels {
                common: key.common.values(record),
                headers: key.headers.iter().copied().map(Arc::from).collect(),
            },
            histograms: Default::default(),
            counters: Default::default(),
            phases: Default::default(),
            first_read: None,
            tokens: Default::default(),
            durations: HashMap::new(),
            requests: HashMap::new(),
            finish_reasons: HashMap::new(),
            objectives: shared.objectives.iter().map(|_| [None, None]).collect(),
        }
    }

    fn record(&mut self, shared: &Shared, names: &mut Names, record: &RequestRecord, wrong_buckets: &mut bool) {
        self.count(shared, names, record);
        if let Some(time) = record.first_read {
            let new = || shared.store.histogram(&host::TCP_FIRST_READ, &[&*record.connection.workload]);
            self.first_read.get_or_insert_with(new).observe(time.as_secs_f64());
        }
        if record.outcome == Outcome::Incomplete {
            return;
        }
        let times = timing::Times::of(record);
        let witness = Witness::of(record, shared.wall);
        let witness = witness.as_ref();
        if let Some(time) = times.duration {
            self.duration(shared, record).observe_with(time.as_secs_f64(), witness);
        }
        for (index, time) in
            [(TTFT, times.ttft), (TPOT, times.tpot), (TTFB, times.ttfb), (FIRST_CONTENT, times.first_content)]
        {
            if let Some(time) = time {
                self.histogram(shared, index).observe_with(time.as_secs_f64(), witness);
            }
        }
        if record.gaps.count > 0 {
            let sum = record.gaps.sum.as_secs_f64();
            if !self.histogram(shared, GAP).add_buckets(&record.gaps.buckets, sum) && !*wrong_buckets {
                *wrong_buckets = true;
                tracing::error!("gaps between token events were sorted into other buckets than the metric's; dropped");
            }
        }
        for (index, time) in times.phases.iter().enumerate() {
            if let Some(time) = time {
                let labels = &self.labels;
                let new = || shared.store.histogram(&family::PHASE, &labels.with(&[PHASES[index]]));
                self.phases[index].get_or_insert_with(new).observe_with(time.as_secs_f64(), witness);
            }
        }
        for (index, objective) in shared.objectives.iter().enumerate() {
            if let Some(good) = judge(objective, &times, record.outcome) {
                let labels = &self.labels;
                let result = if good { "good" } else { "bad" };
                let new = || shared.store.counter(&family::SLO, &labels.with(&[&objective.name, result]));
                self.objectives[index][usize::from(good)].get_or_insert_with(new).add(1);
            }
        }
    }

    /// What holds whatever became of the timeline.
    fn count(&mut self, shared: &Shared, names: &mut Names, record: &RequestRecord) {
        let labels = &self.labels;
        let status = record.status;
        let new = || {
            let code = status.map_or(String::new(), code);
            shared.store.counter(&family::REQUESTS, &labels.with(&[record.outcome.as_str(), &code]))
        };
        self.requests.entry((record.outcome, status.filter(is_status))).or_insert_with(new).add(1);

        if let Some(events) = record.token_events.filter(|events| *events > 0 || record.stream == Some(true)) {
            self.counter(shared, CHUNKS).add(events);
            self.counter(shared, COALESCED).add(record.coalesced);
        }
        self.counter(shared, WRITE_BLOCKED).add_time(record.write_blocked);
        if let Some(time) = record.cancelled_work {
            self.counter(shared, CANCELLED_WORK).add_time(time);
        }

        let usage = &record.usage;
        let tokens = [usage.input, usage.output, usage.cached_input, usage.reasoning_output];
        for (index, count) in tokens.into_iter().enumerate() {
            if let Some(count) = count {
                let labels = &self.labels;
                let new = || shared.store.counter(&family::TOKENS, &labels.with(&[TOKEN_TYPES[index]]));
                self.tokens[index].get_or_insert_with(new).add(count);
            }
        }
        for (index, count) in [(PROMPT_TOKENS, usage.input), (COMPLETION_TOKENS, usage.output)] {
            if let Some(count) = count {
                #[expect(clippy::cast_precision_loss, reason = "no request has 2^53 tokens")]
                self.histogram(shared, index).observe(count as f64);
            }
        }

        for reason in &record.finish_reasons {
            let name = admitted(&mut names.finish_reasons, shared, "finish_reason", Some(reason));
            let counter = match self.finish_reasons.get(name) {
                Some(counter) => counter,
                None => {
                    let counter = shared.store.counter(&family::FINISH_REASONS, &self.labels.with(&[name]));
                    self.finish_reasons.entry(name.into()).or_insert(counter)
                }
            };
            counter.add(1);
        }
    }

    fn histogram(&mut self, shared: &Shared, index: usize) -> &Histogram {
        let labels = &self.labels;
        self.histograms[index].get_or_insert_with(|| shared.store.histogram(HISTOGRAMS[index], &labels.with(&[])))
    }

    fn counter(&mut self, shared: &Shared, index: usize) -> &Counter {
        let labels = &self.labels;
        self.counters[index].get_or_insert_with(|| shared.store.counter(COUNTERS[index], &labels.with(&[])))
    }

    fn duration(&mut self, shared: &Shared, record: &RequestRecord) -> &Histogram {
        let status = record.status.filter(|_| record.outcome == Outcome::HttpError);
        let labels = &self.labels;
        self.durations.entry((record.outcome, status.filter(is_status))).or_insert_with(|| {
            let error = match record.outcome {
                Outcome::Ok => String::new(),
                Outcome::HttpError => status.map_or_else(|| record.outcome.as_str().to_owned(), code),
                other => other.as_str().to_owned(),
            };
            shared.store.histogram(&family::DURATION, &labels.with(&[&error]))
        })
    }
}

/// Values of the labels that all series of a group share.
struct Labels {
    common: [Arc<str>; COMMON.len()],
    headers: Box<[Arc<str>]>,
}

impl Labels {
    /// Those of a series of a family with labels of its own.
    fn with<'a>(&'a self, own: &[&'a str]) -> Vec<&'a str> {
        let text = |label: &'a Arc<str>| &**label;
        self.common.iter().map(text).chain(own.iter().copied()).chain(self.headers.iter().map(text)).collect()
    }
}

fn is_status(status: &u16) -> bool {
    (100..=599).contains(status)
}

/// A status as a label. Servers are trusted no more than clients: what HTTP does not define is one value.
fn code(status: u16) -> String {
    if is_status(&status) { status.to_string() } else { OTHER.to_owned() }
}

fn judge(objective: &Objective, times: &timing::Times, outcome: Outcome) -> Option<bool> {
    let time = match objective.kind {
        ObjectiveKind::Ttft => times.ttft,
        ObjectiveKind::Tpot => times.tpot,
        ObjectiveKind::Duration => times.duration.filter(|_| outcome == Outcome::Ok),
    };
    time.map(|time| time.as_secs_f64() <= objective.seconds)
}
