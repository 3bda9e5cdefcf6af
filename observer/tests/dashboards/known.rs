//! Which families and labels there are.

use std::collections::BTreeSet;

use observer::metrics::families::{self, Family, Type};

use crate::{
    absent::ABSENT,
    promql::{Query, Selector},
};

/// What Prometheus has of every target.
const OF_PROMETHEUS: [&str; 1] = ["up"];
/// Labels that Prometheus adds, and that agents do (`deploy/prometheus/agent.yml`).
const OF_TARGETS: [&str; 3] = ["job", "instance", "cluster"];

/// What a name in a query is.
pub(crate) enum Known {
    /// A family of the observer; for a histogram, one of its series.
    Family(&'static Family),
    /// A family that is not there yet.
    Awaited,
    /// Prometheus's own.
    Prometheus,
}

/// What is known of a name; `None`: nothing.
pub(crate) fn find(name: &str) -> Option<Known> {
    if OF_PROMETHEUS.contains(&name) {
        return Some(Known::Prometheus);
    }
    let bases = ["_bucket", "_sum", "_count"].iter().filter_map(|ending| name.strip_suffix(ending));
    let histogram = |family: &Family| matches!(family.kind, Type::Histogram(_) | Type::KernelHistogram);
    for (base, part) in bases.map(|base| (base, true)).chain([(name, false)]) {
        if let Some(family) = families::all().find(|family| family.name == base && histogram(family) == part) {
            return Some(Known::Family(family));
        }
        if ABSENT.iter().any(|absent| !absent.registered && absent.family == base) {
            return Some(Known::Awaited);
        }
    }
    None
}

/// Whether only its changes mean something.
pub(crate) fn counts(selector: &Selector) -> bool {
    match find(&selector.name) {
        Some(Known::Family(family)) => !matches!(family.kind, Type::Gauge),
        Some(Known::Awaited) => !selector.name.ends_with("_bytes"),
        _ => false,
    }
}

/// What is wrong with the names in a query, `also` being names that rules make.
pub(crate) fn faults(query: &Query, also: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    // Labels that a query may group by: where one of its families is not known by its labels, any.
    let mut labels: Option<BTreeSet<&str>> = Some(OF_TARGETS.into_iter().chain(["le"]).collect());
    for selector in &query.selectors {
        if also.contains(&selector.name) {
            labels = None;
            continue;
        }
        match find(&selector.name) {
            None => faults.push(format!("there is no family {}", selector.name)),
            Some(Known::Awaited) => labels = None,
            Some(Known::Prometheus) => {}
            Some(Known::Family(family)) => {
                if let Some(labels) = &mut labels {
                    labels.extend(family.labels());
                }
                for (label, ..) in &selector.matchers {
                    let has = family.labels().any(|known| known == label);
                    if !has && !OF_TARGETS.contains(&&**label) && label != "le" {
                        faults.push(format!("{} has no label {label}", family.name));
                    }
                }
            }
        }
    }
    if let Some(labels) = labels {
        let grouped = query.by.iter().flatten().chain(&query.matched);
        faults.extend(
            grouped
                .filter(|label| !labels.contains(label.as_str()))
                .map(|label| format!("nothing has a label {label}")),
        );
    }
    faults
}

#[test]
fn what_is_awaited_is_not_there() {
    for absent in ABSENT {
        let there = families::all().any(|family| family.name == absent.family);
        assert_eq!(there, absent.registered, "{}: change `registered` in absent.rs", absent.family);
        assert!(!absent.reason.is_empty());
    }
}
