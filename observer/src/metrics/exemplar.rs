//! Exemplars: which request was the last in each bucket of a latency histogram, by the ids that its client gave it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{request::record::RequestRecord, time::KernelTime};

/// `OpenMetrics` allows an exemplar's labels this many characters, names and values together.
const LENGTH_MAX: usize = 128;
const TRACE_ID: &str = "trace_id";
const REQUEST_ID: &str = "request_id";

/// Ids of a request, short enough for an exemplar.
#[derive(Debug, PartialEq, Eq)]
pub struct Ids {
    trace: Option<Box<str>>,
    request: Option<Box<str>>,
}

impl Ids {
    /// Those of `record`; the trace id goes first where both have no room. `None`: it has none.
    fn of(record: &RequestRecord) -> Option<Self> {
        let trace = record.trace_id.clone();
        let used = trace.as_ref().map_or(0, |id| TRACE_ID.len() + id.len());
        let fits = |id: &&str| used + REQUEST_ID.len() + id.chars().count() <= LENGTH_MAX;
        let request = record.request_id.as_deref().filter(fits).map(Box::from);
        (trace.is_some() || request.is_some()).then_some(Self { trace, request })
    }

    /// As labels: name and value.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let trace = self.trace.as_deref().map(|id| (TRACE_ID, id));
        trace.into_iter().chain(self.request.as_deref().map(|id| (REQUEST_ID, id)))
    }
}

/// A request that ended, as exemplars name it.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    ids: Arc<Ids>,
    end: KernelTime,
    wall: Duration,
}

impl Witness {
    /// `None`: nothing names the request, or it is not known when it ended. Costs nothing then.
    #[must_use]
    pub(super) fn of(record: &RequestRecord, wall: impl FnOnce(KernelTime) -> SystemTime) -> Option<Self> {
        let end = record.timeline.end?;
        let ids = Arc::new(Ids::of(record)?);
        // Told once: what is exposed again must not have another time.
        let wall = wall(end).duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Self { ids, end, wall })
    }
}

/// The last request with an id in a bucket.
#[derive(Clone, Debug)]
pub struct Exemplar {
    /// Its ids.
    pub ids: Arc<Ids>,
    /// What was measured.
    pub value: f64,
    /// When the request ended, since the Unix epoch.
    pub wall: Duration,
    end: KernelTime,
}

/// One place for each bucket.
pub(super) type Buckets = Box<[Option<Exemplar>]>;

/// Puts `value` in the place of an earlier one. Requests of several connections may be told out of order, and
/// Prometheus refuses what is older than it has.
pub(super) fn put(place: &mut Option<Exemplar>, value: f64, witness: &Witness) {
    if place.as_ref().is_none_or(|known| known.end <= witness.end) {
        let Witness { ids, end, wall } = witness;
        *place = Some(Exemplar { ids: Arc::clone(ids), value, wall: *wall, end: *end });
    }
}

/// The exemplars of all histograms at one moment.
#[derive(Debug, Default)]
pub struct Exemplars(HashMap<&'static str, HashMap<Vec<u8>, Buckets>>);

impl Exemplars {
    pub(super) fn insert<S: AsRef<str>>(&mut self, family: &'static str, labels: &[S], buckets: Buckets) {
        self.0.entry(family).or_default().insert(key(labels.iter().map(AsRef::as_ref)), buckets);
    }

    /// Those of the series of `family` with these label values, all in the family's order: one place for each bucket
    /// bound, and a last one for what lies above them. Empty: there are none.
    #[must_use]
    pub fn of<'a>(&self, family: &str, labels: impl Iterator<Item = &'a str>) -> &[Option<Exemplar>] {
        self.0.get(family).and_then(|series| series.get(&key(labels))).map_or(&[], |buckets| buckets)
    }
}

/// Label values as one key: no text has that byte.
fn key<'a>(labels: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut key = Vec::new();
    for label in labels {
        key.extend_from_slice(label.as_bytes());
        key.push(0xff);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::fixture::{at, request};

    fn ids(trace: Option<&str>, request_id: Option<usize>) -> Vec<(&'static str, usize)> {
        let record = RequestRecord {
            trace_id: trace.map(Box::from),
            request_id: request_id.map(|length| "r".repeat(length).into()),
            ..request()
        };
        Ids::of(&record).map_or_else(Vec::new, |ids| ids.labels().map(|(name, value)| (name, value.len())).collect())
    }

    #[test]
    fn ids_have_room_or_are_left_out() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(ids(None, None), []);
        assert_eq!(ids(Some(trace), None), [("trace_id", 32)]);
        assert_eq!(ids(None, Some(36)), [("request_id", 36)]);
        // 8 + 32 + 10 + 78 and 10 + 118 are 128.
        assert_eq!(ids(Some(trace), Some(78)), [("trace_id", 32), ("request_id", 78)]);
        assert_eq!(ids(Some(trace), Some(79)), [("trace_id", 32)]);
        assert_eq!(ids(None, Some(118)), [("request_id", 118)]);
        assert_eq!(ids(None, Some(119)), []);
    }

    #[test]
    fn the_latest_end_stays() {
        let mut place = None;
        let mut told = |milliseconds, value| {
            let mut record = RequestRecord { request_id: Some("r".into()), ..request() };
            record.timeline.end = at(milliseconds);
            let wall = |time: KernelTime| SystemTime::UNIX_EPOCH + Duration::from_nanos(time.as_nanos());
            put(&mut place, value, &Witness::of(&record, wall).unwrap());
            let exemplar = place.as_ref().unwrap();
            (exemplar.value, exemplar.wall)
        };
        let wall = |milliseconds: u64| Duration::from_millis(1_000_000 + milliseconds);
        assert_eq!(told(5, 0.5), (0.5, wall(5)));
        assert_eq!(told(7, 0.7), (0.7, wall(7)));
        assert_eq!(told(6, 0.6), (0.7, wall(7)));
        assert_eq!(told(7, 0.8), (0.8, wall(7)));
    }

    #[test]
    fn labels_of_a_series_are_not_those_of_another() {
        let mut exemplars = Exemplars::default();
        exemplars.insert("f", &["a", "", "b"], Box::new([None]));
        let length = |family, labels: [&'static str; 3]| exemplars.of(family, labels.into_iter()).len();
        assert_eq!(length("f", ["a", "", "b"]), 1);
        assert_eq!(length("f", ["a", "b", ""]), 0);
        assert_eq!(length("g", ["a", "", "b"]), 0);
    }
}
