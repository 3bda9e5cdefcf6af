//! Rules and alerts: of families that there are, with a page of what to do, and a test in which each fires and resolves.
//! Whether those tests hold is for promtool to say (`cargo xtask test promtool`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;

use crate::{
    files, known, name, promql, root,
    rules::{self, Rule},
};

fn alerts() -> impl Iterator<Item = Rule> {
    rules::all().into_iter().filter(|rule| rule.alert)
}

#[test]
fn rules_name_what_there_is() {
    let all = rules::all();
    let recorded: Vec<_> = all.iter().filter(|rule| !rule.alert).map(|rule| rule.name.clone()).collect();
    let names: BTreeSet<_> = all.iter().map(|rule| &rule.name).collect();
    assert_eq!(names.len(), all.len(), "two rules have one name");
    for rule in &all {
        let query = promql::parse(&rule.expr);
        assert_eq!(known::faults(&query, &recorded), [""; 0], "{}: {}", rule.name, rule.expr);
        for selector in &query.selectors {
            let function = selector.function.as_deref().unwrap_or("");
            let counts = known::counts(selector);
            assert_eq!(["rate", "increase"].contains(&function), counts, "{}: {}", rule.name, selector.name);
            if let Some(known::Known::Family(family)) = known::find(&selector.name) {
                let by_hop = selector.matchers.iter().any(|(label, ..)| label == "role")
                    || query.by.iter().flatten().any(|label| label == "role");
                // Of incomplete requests every hop counts, and whether any request ends.
                let any = ["ObserverIncompleteRequests", "LlmRequestsStuck"].contains(&&*rule.name);
                assert!(by_hop || any || !family.of_requests, "{}: {} of every hop", rule.name, selector.name);
            }
        }
        assert!(rule.alert || rule.name.split(':').count() == 3, "{} is not level:metric:operations", rule.name);
    }
}

#[test]
fn alerts_say_what_to_do() {
    let mut pages = BTreeSet::new();
    for alert in alerts() {
        let of = |key: &str| alert.says.get(key).map_or("", String::as_str);
        assert!(["critical", "warning", "info"].contains(&of("severity")), "{}: {:?}", alert.name, of("severity"));
        assert_eq!(of("runbook_url"), format!("docs/runbooks/{}.md", alert.name));
        assert!(of("summary").len() > 20 && of("description").len() > 40, "{} says too little", alert.name);
        pages.insert(format!("{}.md", alert.name));
    }
    assert!(pages.len() > 20);
    let found: BTreeSet<_> = files("docs/runbooks", ".md").iter().map(|path| name(path)).collect();
    assert_eq!(found, pages, "runbooks, and alerts");
}

/// Titles of all rows and panels, and what variables are called.
fn titles() -> BTreeSet<String> {
    let mut titles = BTreeSet::new();
    for path in files("dashboards", ".json") {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).expect("readable")).expect("JSON");
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        titles.extend(dashboard["panels"].as_array().expect("panels").iter().map(|panel| text(&panel["title"])));
        for variable in dashboard["templating"]["list"].as_array().expect("variables") {
            titles.insert(text(&variable["label"]));
            let options = variable["options"].as_array().into_iter().flatten();
            titles.extend(options.map(|option| text(&option["text"])));
        }
    }
    titles
}

/// What stands between two of these, on one line.
fn between(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.lines().flat_map(move |line| line.split(mark).skip(1).step_by(2))
}

#[test]
fn runbooks_lead_somewhere() {
    let titles = titles();
    let settings = fs::read_to_string(root().join("docs/configuration.md")).expect("settings");
    // What is emphasised is a panel, a row or a variable; this is Prometheus's.
    let others = ["Status → Targets"];
    for path in files("docs/runbooks", ".md") {
        let (page, text) = (name(&path), fs::read_to_string(&path).expect("readable"));
        let title = page.trim_end_matches(".md");
        assert!(text.starts_with(&format!("# {title}\n")), "{page}");
        for heading in ["## What it means", "## Look", "## Do"] {
            assert_eq!(text.lines().filter(|line| *line == heading).count(), 1, "{page}: {heading}");
        }
        for named in between(&text, '*') {
            assert!(titles.contains(named) || others.contains(&named), "{page}: no panel is called {named}");
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(path.parent().expect("a folder").join(link).is_file(), "{page} links to {link}");
        }
        for code in between(&text, '`') {
            let group = code.split('.').next().unwrap_or("");
            let groups = ["scope", "kernel", "request_log", "metrics", "slo", "signals"];
            let whole = code.chars().all(|character| character.is_alphanumeric() || "._".contains(character));
            if whole && groups.contains(&group) && code.contains('.') {
                assert!(settings.contains(&format!("## `{code}`")), "{page}: there is no setting {code}");
            }
        }
    }
}

/// Each alert's tests, in order: whether it is expected at that time.
fn tested() -> BTreeMap<String, Vec<bool>> {
    let mut tested: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for path in files("deploy/prometheus/tests", ".test.yml") {
        let text = fs::read_to_string(path).expect("readable");
        for case in text.split("- eval_time: ").skip(1) {
            let mut lines = case.lines().map(str::trim);
            let Some(alert) = lines.find_map(|line| line.strip_prefix("alertname: ")) else { continue };
            let fires = match lines.next() {
                Some("exp_alerts:") => lines.next().is_some_and(|line| line.starts_with("- exp_labels: {")),
                Some("exp_alerts: []") => false,
                other => panic!("{alert}: {other:?}"),
            };
            tested.entry(alert.to_owned()).or_default().push(fires);
        }
    }
    tested
}

#[test]
fn alerts_are_seen_to_fire_and_to_resolve() {
    let tested = tested();
    for alert in alerts() {
        let cases = tested.get(&alert.name).unwrap_or_else(|| panic!("{} has no test", alert.name));
        let fires = cases.iter().position(|fires| *fires).unwrap_or_else(|| panic!("{} never fires", alert.name));
        assert!(cases[fires..].contains(&false), "{} never resolves", alert.name);
        assert!(cases[..fires].contains(&false), "{} is not seen to be quiet before", alert.name);
    }
    let names: BTreeSet<_> = alerts().map(|alert| alert.name).collect();
    assert!(tested.keys().all(|alert| names.contains(alert)), "tests of alerts that are not there: {tested:?}");
}
