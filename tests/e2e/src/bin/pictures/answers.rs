//! Dashboards as a viewer opens them: every panel with what its own queries yield.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use observer_e2e::{prometheus::Prometheus, require};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A time with a step, in seconds since 1970: of all queries.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Seconds from one column to the next.
    pub(crate) step: u64,
    /// Seconds from one scrape to the next.
    pub(crate) scrape: u64,
}

impl Span {
    /// As many values as a series has.
    pub(crate) const fn columns(&self) -> usize {
        ((self.end - self.start) / self.step) as usize + 1
    }

    /// What Grafana puts in place of `$__rate_interval`, in seconds.
    pub(crate) const fn rate_interval(&self) -> u64 {
        let (short, long) = (4 * self.scrape, self.step + self.scrape);
        if short > long { short } else { long }
    }
}

/// A series of a query's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    /// One for each column; `None`: no sample, or no number.
    pub(crate) values: Vec<Option<f64>>,
}

impl Series {
    fn of(answer: &Value, span: &Span) -> Option<Self> {
        let mut values = vec![None; span.columns()];
        for sample in answer["values"].as_array()? {
            let column = (sample[0].as_f64()?.round() as u64).checked_sub(span.start)? / span.step;
            let value: f64 = sample[1].as_str()?.parse().ok()?;
            *values.get_mut(column as usize)? = value.is_finite().then_some(value);
        }
        Some(Self { labels: serde_json::from_value(answer["metric"].clone()).ok()?, values })
    }

    /// Its name after a legend such as `{{workload}} {{kind}}`.
    pub(crate) fn name(&self, legend: &str) -> String {
        let fill = |name: String, (label, value): (&String, &String)| name.replace(&format!("{{{{{label}}}}}"), value);
        let mut name = self.labels.iter().fold(legend.to_owned(), fill);
        // A label that it lacks is empty.
        while let Some((before, rest)) = name.split_once("{{") {
            name = format!("{before}{}", rest.split_once("}}").map_or("", |(_, after)| after));
        }
        name.trim().to_owned()
    }

    /// The newest value.
    pub(crate) fn last(&self) -> Option<f64> {
        self.values.iter().rev().copied().find_map(|value| value)
    }
}

/// A panel as its dashboard's file has it, and the series of each of its queries.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Panel {
    pub(crate) model: Value,
    pub(crate) targets: Vec<Vec<Series>>,
}

impl Panel {
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.model.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn number(&self, pointer: &str) -> Option<f64> {
        self.model.pointer(pointer).and_then(Value::as_f64)
    }

    /// All series with their names.
    pub(crate) fn named(&self) -> Vec<(String, &Series)> {
        let of_target = |(target, all): (usize, &'_ Vec<Series>)| {
            let legend = self.text(&format!("/targets/{target}/legendFormat"));
            all.iter().map(|series| series.name(legend)).collect::<Vec<_>>()
        };
        let names: Vec<_> = self.targets.iter().enumerate().flat_map(of_target).collect();
        names.into_iter().zip(self.targets.iter().flatten()).collect()
    }
}

/// A dashboard.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Dashboard {
    pub(crate) uid: String,
    pub(crate) title: String,
    pub(crate) panels: Vec<Panel>,
}

/// All that pictures are drawn from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answers {
    pub(crate) span: Span,
    pub(crate) dashboards: Vec<Dashboard>,
}

impl Answers {
    /// Asks all queries of these dashboards.
    pub(crate) fn ask(prometheus: &Prometheus, span: Span, uids: &[&str]) -> Result<Self> {
        let dashboards = uids.iter().map(|uid| dashboard(prometheus, &span, uid)).collect::<Result<_>>()?;
        Ok(Self { span, dashboards })
    }
}

fn dashboard(prometheus: &Prometheus, span: &Span, uid: &str) -> Result<Dashboard> {
    let path = require::workspace().join(format!("dashboards/{uid}.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let model: Value = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let chosen = variables(&model, span);
    let panels = model["panels"].as_array().context("a dashboard has panels")?.iter().map(|panel| {
        let asked = |target: &Value| -> Vec<Series> {
            if target["datasource"]["type"] != "prometheus" {
                return Vec::new();
            }
            let expr = fill(target["expr"].as_str().unwrap_or_default(), &chosen);
            let (found, _) = prometheus.range(&expr, span.start as f64, span.end as f64, span.step);
            found.iter().filter_map(|series| Series::of(series, span)).collect()
        };
        let targets = panel["targets"].as_array().into_iter().flatten().map(asked).collect();
        Panel { model: panel.clone(), targets }
    });
    let panels = panels.collect();
    Ok(Dashboard { uid: uid.to_owned(), title: model["title"].as_str().unwrap_or(uid).to_owned(), panels })
}

/// What stands for each variable of a dashboard that nobody has touched.
fn variables(model: &Value, span: &Span) -> Vec<(String, String)> {
    let mut all = vec![
        ("$__rate_interval".to_owned(), format!("{}s", span.rate_interval())),
        ("$__range".to_owned(), format!("{}s", span.end - span.start)),
    ];
    for variable in model["templating"]["list"].as_array().into_iter().flatten() {
        let chosen = if variable["includeAll"] == true { &variable["allValue"] } else { &variable["current"]["value"] };
        all.push((
            format!("${}", variable["name"].as_str().unwrap_or_default()),
            chosen.as_str().unwrap_or_default().to_owned(),
        ));
    }
    all
}

fn fill(expr: &str, chosen: &[(String, String)]) -> String {
    let expr = chosen.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value));
    assert!(!expr.contains('$'), "a variable is left: {expr}");
    expr
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SPAN: Span = Span { start: 100, end: 112, step: 3, scrape: 2 };

    #[test]
    fn samples_find_their_columns() {
        let answer = json!({"metric": {"a": "b"}, "values": [[100, "1"], [106, "NaN"], [109.0, "2.5"]]});
        let series = Series::of(&answer, &SPAN).unwrap();
        assert_eq!(series.values, [Some(1.0), None, None, Some(2.5), None]);
        assert_eq!(series.last(), Some(2.5));
    }

    #[test]
    fn names_are_made_of_labels() {
        let answer = json!({"metric": {"workload": "w", "kind": "k"}, "values": []});
        let series = Series::of(&answer, &SPAN).unwrap();
        assert_eq!(series.name("{{workload}} {{kind}}"), "w k");
        assert_eq!(series.name("{{workload}} {{none}} x"), "w  x");
        assert_eq!(series.name("{{none}}"), "");
    }

    #[test]
    fn variables_are_those_of_an_untouched_dashboard() {
        let model = json!({"templating": {"list": [
            {"name": "job", "includeAll": true, "allValue": ".+", "current": {"value": ["$__all"]}},
            {"name": "hops", "includeAll": false, "current": {"value": "backend"}},
        ]}});
        let chosen = variables(&model, &SPAN);
        let expr = r#"rate(a{job=~"$job", role!~"$hops"}[$__rate_interval]) + increase(b[$__range])"#;
        assert_eq!(fill(expr, &chosen), r#"rate(a{job=~".+", role!~"backend"}[8s]) + increase(b[12s])"#);
    }
}
