//! The table of families, and the document that is made of it.

use super::*;

#[test]
fn the_table_is_sound() {
    let mut names = HashSet::new();
    for family in families::all() {
        assert!(names.insert(family.name), "{} is declared twice", family.name);
        let counts = matches!(family.kind, families::Type::Counter | families::Type::SecondsCounter);
        assert_eq!(family.name.ends_with("_total"), counts, "{}", family.name);
        assert!(family.kind != families::Type::SecondsCounter || family.name.ends_with("_seconds_total"));
        assert!(!family.help.contains(['|', '\n']) && !family.help.is_empty(), "{}", family.name);
        let labels: BTreeSet<_> = family.labels().collect();
        assert_eq!(labels.len(), family.labels().count(), "{}", family.name);
        for label in labels {
            assert!(crate::config::TAKEN.contains(&label), "a header's label could be named {label}, too");
        }
    }
    let bench = bench(&MetricsConfig::default(), &[]);
    let exposition = Exposition::new(Arc::clone(&bench.metrics.shared));
    assert_eq!(exposition.desc().len(), names.len(), "every name and label is valid");
    let twice = bench.metrics.registry.register(Box::new(exposition));
    assert!(matches!(twice, Err(prometheus::Error::AlreadyReg)), "{twice:?}");
}

#[test]
fn docs_of_metrics_are_current() {
    crate::docs::assert_current("metrics.md", &document());
}
