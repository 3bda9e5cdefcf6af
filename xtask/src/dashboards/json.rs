//! Dashboards as Grafana stores them: its classic schema, which 10, 11 and 12 load.

use serde_json::{Value, json};

use super::model::{Dashboard, Panel, Steps, Variable, View};

/// The schema that Grafana 10.4 writes; later releases raise it by themselves.
const SCHEMA: u32 = 39;
const COLUMNS: u32 = 24;
/// Where links of a request's id lead: to the logs of this dashboard, with the id as its filter.
const REQUEST_LINK: &str = "/d/observer-llm-latency?${__url_time_range}&${datasource:queryparam}\
    &${loki_datasource:queryparam}&${job:queryparam}&${instance:queryparam}&var-request=${__value.raw}";

/// A dashboard.
pub(crate) fn dashboard(of: &Dashboard) -> Value {
    let link = json!({
        "asDropdown": false, "icon": "external link", "includeVars": true, "keepTime": true, "tags": ["observer"],
        "targetBlank": false, "title": "Observer", "tooltip": "", "type": "dashboards", "url": "",
    });
    json!({
        "annotations": {"list": []},
        "description": of.description,
        "editable": false,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": null,
        "links": [link],
        "liveNow": false,
        "panels": panels(of),
        "refresh": "30s",
        "schemaVersion": SCHEMA,
        "tags": ["observer"],
        "templating": {"list": of.variables.iter().map(variable).collect::<Vec<_>>()},
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "title": of.title,
        "uid": of.uid,
        "version": 1,
        "weekStart": "",
    })
}

fn variable(of: &Variable) -> Value {
    match *of {
        Variable::Source(name, label, kind) => json!({
            "current": {"selected": false, "text": kind, "value": kind},
            "hide": 0, "includeAll": false, "label": label, "multi": false, "name": name, "options": [],
            "query": kind, "refresh": 1, "regex": "", "skipUrlSync": false, "type": "datasource",
        }),
        Variable::Query(name, label, query, all) => json!({
            "allValue": all,
            "current": {"selected": true, "text": ["All"], "value": ["$__all"]},
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "hide": 0, "includeAll": true, "label": label, "multi": true, "name": name, "options": [],
            "query": {"query": query, "refId": "StandardVariableQuery"},
            "refresh": 2, "regex": "", "skipUrlSync": false, "sort": 1, "type": "query",
        }),
        Variable::Choice(name, label, values) => {
            let option = |(index, (value, text)): (usize, &(&str, &str))| json!({"selected": index == 0, "text": text, "value": value});
            let options: Vec<_> = values.iter().enumerate().map(option).collect();
            let query: Vec<_> = values.iter().map(|(value, text)| format!("{text} : {value}")).collect();
            json!({
                "current": options.first(), "hide": 0, "includeAll": false, "label": label, "multi": false,
                "name": name, "options": options, "query": query.join(","), "skipUrlSync": false, "type": "custom",
            })
        }
        Variable::Text(name, label) => json!({
            "current": {"selected": false, "text": "", "value": ""},
            "hide": 0, "label": label, "name": name, "options": [], "query": "", "skipUrlSync": false, "type": "textbox",
        }),
    }
}

/// All panels with their places: from left to right, in the next line where there is no room, each row below the one
/// before.
fn panels(of: &Dashboard) -> Vec<Value> {
    let mut placed = Vec::new();
    let mut y = 0;
    for row in &of.rows {
        placed.push(json!({
            "collapsed": false, "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y}, "id": placed.len() + 1,
            "panels": [], "title": row.title, "type": "row",
        }));
        y += 1;
        let (mut x, mut line) = (0, 0);
        for panel in &row.panels {
            if x + panel.width > COLUMNS {
                (x, y, line) = (0, y + line, 0);
            }
            let mut value = self::panel(panel);
            value["gridPos"] = json!({"h": panel.height, "w": panel.width, "x": x, "y": y});
            value["id"] = json!(placed.len() + 1);
            placed.push(value);
            (x, line) = (x + panel.width, line.max(panel.height));
        }
        y += line;
    }
    placed
}

fn source(view: View) -> Value {
    match view {
        View::Logs | View::LogTable => json!({"type": "loki", "uid": "${loki_datasource}"}),
        _ => json!({"type": "prometheus", "uid": "${datasource}"}),
    }
}

fn panel(of: &Panel) -> Value {
    let (kind, options) = options(of);
    json!({
        "datasource": source(of.view),
        "description": of.description,
        "fieldConfig": {"defaults": field(of), "overrides": overrides(of.view)},
        "options": options,
        "targets": targets(of),
        "title": of.title,
        "transformations": transformations(of.view),
        "type": kind,
    })
}

fn targets(of: &Panel) -> Vec<Value> {
    let one = |(index, target): (usize, &super::model::Target)| {
        let id = char::from(b'A' + u8::try_from(index).unwrap_or(25).min(25)).to_string();
        let mut value = json!({"datasource": source(of.view), "expr": target.expr, "refId": id});
        match of.view {
            View::Logs | View::LogTable => {
                value["queryType"] = json!("range");
                value["maxLines"] = json!(200);
            }
            View::Table => {
                value["format"] = json!("table");
                value["instant"] = json!(true);
                value["range"] = json!(false);
            }
            view => {
                value["format"] = json!(if view == View::Heatmap { "heatmap" } else { "time_series" });
                value["legendFormat"] = json!(target.legend);
                value["instant"] = json!(false);
                value["range"] = json!(true);
                value["exemplar"] = json!(target.exemplar);
            }
        }
        value
    };
    of.targets.iter().enumerate().map(one).collect()
}

/// Colours of values. Below the first step it is the step's own where that is minus infinity, else the colour of what is
/// well.
fn thresholds(steps: Steps) -> Value {
    let (base, steps) = match steps {
        [] => ("text", steps),
        [(f64::NEG_INFINITY, base), rest @ ..] => (*base, rest),
        _ => ("green", steps),
    };
    let mut all = vec![json!({"color": base, "value": null})];
    all.extend(steps.iter().map(|(value, color)| json!({"color": color, "value": value})));
    json!({"mode": "absolute", "steps": all})
}

/// How values are drawn.
fn field(of: &Panel) -> Value {
    let hidden = json!({"legend": false, "tooltip": false, "viz": false});
    let mut value = match of.view {
        View::Lines | View::Stacked => {
            let stacked = of.view == View::Stacked;
            json!({
                "color": {"mode": "palette-classic"},
                "custom": {
                    "drawStyle": "line", "fillOpacity": if stacked { 40 } else { 8 }, "gradientMode": "none",
                    "hideFrom": hidden, "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "never",
                    "spanNulls": false,
                    "stacking": {"group": "A", "mode": if stacked { "normal" } else { "none" }},
                    "thresholdsStyle": {"mode": if of.thresholds.is_empty() { "off" } else { "dashed" }},
                },
                "min": 0,
                "thresholds": thresholds(of.thresholds),
            })
        }
        View::Stat => json!({"color": {"mode": "thresholds"}, "thresholds": thresholds(of.thresholds)}),
        View::Heatmap => json!({"custom": {"hideFrom": hidden, "scaleDistribution": {"type": "linear"}}}),
        View::States => json!({
            "color": {"mode": "thresholds"},
            "custom": {"fillOpacity": 70, "hideFrom": hidden, "lineWidth": 0},
            "mappings": [{"type": "value", "options": {
                "0": {"color": "red", "index": 1, "text": "no"}, "1": {"color": "green", "index": 0, "text": "yes"},
            }}],
            "thresholds": thresholds(&[(f64::NEG_INFINITY, "red"), (1.0, "green")]),
        }),
        View::Table | View::LogTable => json!({"custom": {"align": "auto", "filterable": true}}),
        View::Logs => json!({}),
    };
    if of.view != View::Logs {
        value["unit"] = json!(of.unit);
    }
    if let Some(max) = of.max {
        value["max"] = json!(max);
    }
    value
}

fn overrides(view: View) -> Value {
    let link = |field: &str, title: &str| {
        json!({
            "matcher": {"id": "byName", "options": field},
            "properties": [{"id": "links", "value": [{"title": title, "url": REQUEST_LINK}]}],
        })
    };
    match view {
        View::LogTable => json!([link("request_id", "This request"), link("trace_id", "This trace's requests")]),
        _ => json!([]),
    }
}

fn transformations(view: View) -> Value {
    let drop = |names: &[&str]| -> serde_json::Map<String, Value> {
        names.iter().map(|name| ((*name).to_owned(), json!(true))).collect()
    };
    match view {
        View::Table => {
            let hidden = drop(&["Time", "Value", "__name__"]);
            json!([{"id": "organize", "options": {"excludeByName": hidden, "indexByName": {}, "renameByName": {}}}])
        }
        // A frame of logs has all of a line's fields in one column.
        View::LogTable => json!([
            {"id": "extractFields", "options": {"format": "json", "replace": true, "source": "Line"}},
            {"id": "filterFieldsByName", "options": {"include": {"names": [
                "wall_time", "workload", "request_model", "outcome", "status", "input_tokens", "output_tokens",
                "request_id", "trace_id",
            ]}}},
        ]),
        _ => json!([]),
    }
}

/// Which of Grafana's panels it is, with the options of that.
fn options(of: &Panel) -> (&'static str, Value) {
    let legend = json!({"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true});
    match of.view {
        View::Lines | View::Stacked => {
            ("timeseries", json!({"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}))
        }
        View::Stat => (
            "stat",
            json!({
                "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}, "textMode": "auto",
            }),
        ),
        View::Heatmap => (
            "heatmap",
            json!({
                "calculate": false,
                "cellGap": 1,
                "cellValues": {"unit": "short"},
                "color": {
                    "exponent": 0.5, "fill": "dark-orange", "mode": "scheme", "reverse": false,
                    "scale": "exponential", "scheme": "Spectral", "steps": 64,
                },
                "exemplars": {"color": "rgba(255,0,255,0.7)"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": true},
                "rowsFrame": {"layout": "auto"},
                "showValue": "never",
                "tooltip": {"mode": "single", "showColorScale": false, "yHistogram": true},
                "yAxis": {"axisPlacement": "left", "reverse": false, "unit": of.unit},
            }),
        ),
        View::States => (
            "state-timeline",
            json!({
                "alignValue": "center", "legend": legend, "mergeValues": true, "rowHeight": 0.8,
                "showValue": "never", "tooltip": {"mode": "single", "sort": "none"},
            }),
        ),
        View::Table | View::LogTable => ("table", json!({"cellHeight": "sm", "showHeader": true})),
        View::Logs => (
            "logs",
            json!({
                "dedupStrategy": "none", "enableLogDetails": true, "prettifyLogMessage": false,
                "showCommonLabels": false, "showLabels": false, "showTime": true, "sortOrder": "Descending",
                "wrapLogMessage": true,
            }),
        ),
    }
}
