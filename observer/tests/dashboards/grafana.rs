//! Dashboards as files: the rules of Grafana's dashboard-linter, and some of our own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use observer::metrics::families::{self, Type};
use serde_json::Value;

use crate::{
    files, known, name,
    promql::{self, Query},
};

/// The file's name and what is in it.
fn dashboards() -> Vec<(String, Value)> {
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).expect("readable");
        (name(path), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    files("dashboards", ".json").iter().map(read).collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Calls it with each panel that is none of rows, and what to call it in a message.
fn panels(mut each: impl FnMut(&Value, &str, &Value)) {
    for (file, dashboard) in dashboards() {
        for panel in list(&dashboard, "/panels").iter().filter(|panel| panel["type"] != "row") {
            each(panel, &format!("{file}: {}", text(panel, "/title")), &dashboard);
        }
    }
}

/// Calls it with each query of Prometheus.
fn queries(mut each: impl FnMut(&str, &Query, &Value, &str)) {
    panels(|panel, place, _| {
        for target in list(panel, "/targets").iter().filter(|target| target["datasource"]["type"] == "prometheus") {
            let expr = text(target, "/expr");
            let place = format!("{place}, {}", text(target, "/refId"));
            each(expr, &promql::parse(expr), target, &place);
        }
    });
}

#[test]
fn dashboards_are_found_and_linked() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        let uid = text(&dashboard, "/uid");
        assert!(uids.insert(uid.to_owned()) && file == format!("{uid}.json"), "{file} has the uid {uid}");
        assert!(text(&dashboard, "/title").starts_with("Observer: ") && text(&dashboard, "/description").len() > 40);
        // What an import changes would be lost with the next one.
        assert_eq!(dashboard["editable"], false, "{file}");
        assert_eq!(dashboard["id"], Value::Null, "{file}: ids are a Grafana's own");
        assert!((36..=39).contains(&dashboard["schemaVersion"].as_u64().expect("a number")), "{file}");
        let link = &dashboard["links"][0];
        assert_eq!(
            (text(link, "/type"), &link["tags"], &link["keepTime"], &link["includeVars"]),
            ("dashboards", &dashboard["tags"], &Value::Bool(true), &Value::Bool(true)),
            "{file}"
        );
    }
    assert_eq!(uids.len(), 4);
    // Links within name dashboards that there are.
    for (file, dashboard) in dashboards() {
        let all = dashboard.to_string();
        for rest in all.split("\"/d/").skip(1) {
            let uid = rest.split(['?', '/', '"']).next().unwrap_or("");
            assert!(uids.contains(uid), "{file} links to {uid}");
        }
    }
}

#[test]
fn variables_are_as_they_should_be() {
    for (file, dashboard) in dashboards() {
        let variables = list(&dashboard, "/templating/list");
        let find = |name: &str| {
            variables
                .iter()
                .find(|variable| variable["name"] == name)
                .unwrap_or_else(|| panic!("{file} has no variable {name}"))
        };
        let source = find("datasource");
        assert_eq!((text(source, "/type"), text(source, "/query")), ("datasource", "prometheus"), "{file}");
        // Provisioned data sources have these uids.
        assert_eq!(text(source, "/current/value"), "prometheus");
        for name in ["job", "instance"] {
            let variable = find(name);
            assert_eq!((text(variable, "/type"), text(variable, "/allValue")), ("query", ".+"), "{file}: {name}");
        }
        for variable in variables {
            let name = text(variable, "/name");
            assert!(!text(variable, "/label").is_empty(), "{file}: {name} has no label");
            if variable["type"] != "query" {
                continue;
            }
            assert_eq!(variable["multi"], true, "{file}: {name}");
            assert_eq!(variable["refresh"], 2, "{file}: {name} is not looked up again when the time changes");
            assert_eq!(text(variable, "/datasource/uid"), "${datasource}", "{file}: {name}");
            let query = text(variable, "/query/query");
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(x, y)");
            let parsed = promql::parse(&format!("sum by ({label}) ({selector})"));
            assert_eq!(known::faults(&parsed, &[]), [""; 0], "{file}: {name}");
        }
        // Each is used, and none is used that is not there.
        let all = dashboard["panels"].to_string() + &dashboard["templating"].to_string();
        let names: BTreeSet<_> = variables.iter().map(|variable| text(variable, "/name")).collect();
        let used: BTreeSet<&str> = all
            .split('$')
            .skip(1)
            .map(|rest| rest.trim_start_matches('{'))
            .map(|rest| &rest[..rest.find(|end: char| !end.is_alphanumeric() && end != '_').unwrap_or(rest.len())])
            .filter(|name| !name.starts_with("__"))
            .collect();
        assert_eq!(used, names, "{file}");
    }
}

#[test]
fn panels_say_what_they_show() {
    let mut descriptions = BTreeMap::new();
    panels(|panel, place, _| {
        let description = text(panel, "/description");
        assert!(!text(panel, "/title").is_empty() && description.len() > 15 && description.ends_with('.'), "{place}");
        if let Some(other) = descriptions.insert(description.to_owned(), place.to_owned()) {
            panic!("{place} and {other} have one description");
        }
        let kind = text(panel, "/type");
        let unit = match kind {
            "heatmap" => text(panel, "/options/yAxis/unit"),
            "logs" => "none",
            _ => text(panel, "/fieldConfig/defaults/unit"),
        };
        assert!(!unit.is_empty(), "{place} has no unit");
        assert!(!list(panel, "/targets").is_empty(), "{place} asks for nothing");
        let source = match kind {
            _ if panel["datasource"]["type"] == "loki" => "${loki_datasource}",
            _ => "${datasource}",
        };
        for of in std::iter::once(panel).chain(list(panel, "/targets")) {
            assert_eq!(text(of, "/datasource/uid"), source, "{place}");
        }
        if panel["datasource"]["type"] == "loki" {
            for target in list(panel, "/targets") {
                assert!(text(target, "/expr").starts_with("{log=\"requests\"}"), "{place}");
            }
        }
    });
}

#[test]
fn panels_have_places_of_their_own() {
    for (file, dashboard) in dashboards() {
        let mut ids = BTreeSet::new();
        let mut taken = BTreeMap::new();
        let mut titles = BTreeSet::new();
        let mut row = "";
        for panel in list(&dashboard, "/panels") {
            let title = text(panel, "/title");
            assert!(ids.insert(panel["id"].as_u64().expect("a number")), "{file}: {title} has another one's id");
            if panel["type"] == "row" {
                row = title;
            } else {
                assert!(titles.insert((row, title)), "{file}: {row} has two panels {title}");
            }
            let place = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
            assert!(place("x") + place("w") <= 24 && place("h") > 0, "{file}: {title}");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    if let Some(other) = taken.insert((x, y), title) {
                        panic!("{file}: {title} covers {other}");
                    }
                }
            }
        }
    }
}

/// Counters that are shown as they are, not as a rate: over the life of a board each one counts.
const SHOWN_AS_THEY_ARE: [&str; 2] = ["gpu_ecc_errors_total", "gpu_row_remaps_total"];
/// Ranges of queries: fixed ones where they are a definition (budgets, energy).
const RANGES: [&str; 4] = ["$__rate_interval", "$__range", "5m", "1h"];

#[test]
fn queries_name_what_there_is() {
    queries(|expr, query, _, place| {
        assert!(!query.selectors.is_empty(), "{place}: {expr}");
        assert_eq!(known::faults(query, &[]), [""; 0], "{place}: {expr}");
        for selector in &query.selectors {
            for target in ["job", "instance"] {
                let wanted = (target.to_owned(), "=~".to_owned(), format!("${target}"));
                assert!(selector.matchers.contains(&wanted), "{place}: {} is not of ${target}", selector.name);
            }
            let function = selector.function.as_deref().unwrap_or("");
            if known::counts(selector) && !SHOWN_AS_THEY_ARE.contains(&&*selector.name) {
                assert!(["rate", "increase"].contains(&function), "{place}: {} only counts", selector.name);
            } else {
                assert!(!["rate", "increase"].contains(&function), "{place}: {} does not count", selector.name);
            }
            if let Some(range) = &selector.range {
                assert!(RANGES.contains(&&**range), "{place}: over {range}");
                let fixed = !range.starts_with('$');
                let defined = [
                    "llm_slo_requests_total",
                    "llm_workload_energy_joules_total",
                    "llm_tokens_total",
                    "llm_requests_total",
                ];
                assert!(!fixed || defined.contains(&&*selector.name), "{place}: use $__rate_interval");
            }
            // A quantile needs `le`, and all hops of a request are asked for or left out alike.
            if selector.name.ends_with("_bucket") {
                assert!(query.by.iter().any(|labels| labels.contains(&"le".to_owned())), "{place}");
            }
        }
    });
}

/// Of families of requests each query says which hops it wants, so that no request counts twice unasked.
#[test]
fn hops_are_chosen() {
    queries(|_, query, _, place| {
        for selector in &query.selectors {
            let Some(known::Known::Family(family)) = known::find(&selector.name) else { continue };
            if !family.of_requests || place.starts_with("observer-health") {
                continue;
            }
            let has = selector.matchers.iter().any(|(label, ..)| label == "role");
            assert!(has, "{place}: {} counts every hop", selector.name);
        }
    });
}

#[test]
fn legends_are_of_labels_that_remain() {
    queries(|expr, query, target, place| {
        let legend = text(target, "/legendFormat");
        if target["format"] == "table" {
            return;
        }
        assert!(!legend.is_empty(), "{place} has no legend");
        let outer = query.by.first().cloned().unwrap_or_default();
        for label in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
            assert!(outer.iter().any(|known| known == label), "{place}: {label} is not left of {expr}");
        }
        if !legend.contains("{{") {
            assert!(outer.is_empty() || outer == ["le"], "{place}: several series are called {legend}");
        }
    });
    panels(|panel, place, _| {
        let mut seen = BTreeSet::new();
        for target in list(panel, "/targets") {
            assert!(seen.insert(text(target, "/refId")), "{place}: two queries have one letter");
        }
    });
}

#[test]
fn heatmaps_show_buckets() {
    let mut shown = BTreeSet::new();
    panels(|panel, place, _| {
        let heatmap = panel["type"] == "heatmap";
        for target in list(panel, "/targets") {
            assert_eq!(target["format"] == "heatmap", heatmap, "{place}");
            if heatmap {
                assert_eq!(text(target, "/legendFormat"), "{{le}}", "{place}");
                let query = promql::parse(text(target, "/expr"));
                assert_eq!(query.by, [["le"]], "{place}");
                let family = query.selectors[0].name.strip_suffix("_bucket").expect("buckets").to_owned();
                // Those are of events, not of requests: each stream has many.
                let exemplars = !["llm_inter_chunk_latency_seconds", "llm_prompt_tokens"].contains(&&*family);
                let of_requests = family.starts_with("gen_ai_") || family.starts_with("llm_");
                assert_eq!(target["exemplar"] == true, of_requests && exemplars, "{place}");
                shown.insert(family);
            }
        }
        if heatmap {
            assert_eq!(
                (&panel["options"]["calculate"], text(panel, "/options/rowsFrame/layout")),
                (&Value::Bool(false), "auto"),
                "{place}"
            );
        }
    });
    for family in [
        "gen_ai_server_time_to_first_token_seconds",
        "llm_inter_chunk_latency_seconds",
        "gen_ai_server_time_per_output_token_seconds",
        "gen_ai_server_request_duration_seconds",
        "workload_io_latency_seconds",
    ] {
        assert!(shown.contains(family), "no heatmap of {family}");
    }
}

/// Families that no dashboard shows, with reasons.
const NOT_SHOWN: [(&str, &str); 0] = [];

#[test]
fn every_family_is_shown() {
    let mut shown = BTreeSet::new();
    queries(|_, query, _, _| shown.extend(query.selectors.iter().map(|selector| selector.name.clone())));
    for family in families::all() {
        let is_shown = match family.kind {
            Type::Histogram(_) | Type::KernelHistogram => shown.contains(&format!("{}_bucket", family.name)),
            _ => shown.contains(family.name),
        };
        let excused = NOT_SHOWN.iter().any(|(name, reason)| *name == family.name && !reason.is_empty());
        assert!(is_shown != excused, "{}: shown {is_shown}, listed as not shown {excused}", family.name);
    }
}
