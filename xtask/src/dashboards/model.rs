//! What a dashboard is made of, without Grafana's spelling of it: that is in `json`.

/// What a panel selects of the families of requests. `$hops` is what `role` must not be.
pub(crate) const REQUESTS: &str =
    r#"job=~"$job", instance=~"$instance", workload=~"$workload", gen_ai_request_model=~"$model", role!~"$hops""#;
/// The same where requests are set against GPUs: each at the hop that computed it, behind any proxy.
pub(crate) const COMPUTED: &str =
    r#"job=~"$job", instance=~"$instance", workload=~"$workload", gen_ai_request_model=~"$model", role!="proxy""#;
/// Of what is counted by workload.
pub(crate) const WORKLOAD: &str = r#"job=~"$job", instance=~"$instance", workload=~"$workload""#;
/// Of GPUs.
pub(crate) const GPU: &str = r#"job=~"$job", instance=~"$instance", gpu=~"$gpu""#;
/// Of the observer itself.
pub(crate) const INSTANCE: &str = r#"job=~"$job", instance=~"$instance""#;

/// A dashboard.
pub(crate) struct Dashboard {
    /// Fixed: links lead to it.
    pub(crate) uid: &'static str,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    pub(crate) variables: Vec<Variable>,
    pub(crate) rows: Vec<Row>,
}

/// What its viewer chooses.
#[derive(Clone, Copy)]
pub(crate) enum Variable {
    /// A data source: name, label, type.
    Source(&'static str, &'static str, &'static str),
    /// Any number of values that a query yields: name, label, query, and what "all" stands for.
    Query(&'static str, &'static str, &'static str, &'static str),
    /// One of some values: name, label, and values with what they are called, the first being chosen.
    Choice(&'static str, &'static str, &'static [(&'static str, &'static str)]),
    /// Any text.
    Text(&'static str, &'static str),
}

/// The data sources.
pub(crate) const PROMETHEUS: Variable = Variable::Source("datasource", "Data source", "prometheus");
pub(crate) const LOKI: Variable = Variable::Source("loki_datasource", "Logs", "loki");

/// Which observers.
pub(crate) const JOB: Variable = Variable::Query("job", "Job", "label_values(observer_build_info, job)", ".+");
pub(crate) const INSTANCES: Variable =
    Variable::Query("instance", "Instance", r#"label_values(observer_build_info{job=~"$job"}, instance)"#, ".+");

/// Which servers. Names of models may be absent, which `.*` matches as well.
pub(crate) const WORKLOADS: Variable = Variable::Query(
    "workload",
    "Workload",
    r#"label_values(llm_requests_total{job=~"$job", instance=~"$instance"}, workload)"#,
    ".*",
);
pub(crate) const MODELS: Variable = Variable::Query(
    "model",
    "Model",
    r#"label_values(llm_requests_total{job=~"$job", instance=~"$instance", workload=~"$workload"}, gen_ai_request_model)"#,
    ".*",
);
pub(crate) const GPUS: Variable =
    Variable::Query("gpu", "GPU", r#"label_values(gpu_up{job=~"$job", instance=~"$instance"}, gpu)"#, ".*");

/// A proxy and its backend on one host each count a request: once at the outermost, or at each.
pub(crate) const HOPS: Variable =
    Variable::Choice("hops", "Hops", &[("backend", "Each request once"), ("none", "Every hop")]);

/// Panels under a heading.
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) panels: Vec<Panel>,
}

/// How a panel shows its values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Lines over time.
    Lines,
    /// Areas over time, on top of each other.
    Stacked,
    /// One number for each query.
    Stat,
    /// Buckets over time.
    Heatmap,
    /// What was up when.
    States,
    /// Labels, one line for each series.
    Table,
    /// Lines of the request log.
    Logs,
    /// Lines of the request log, by field.
    LogTable,
}

/// A query and what its series are called.
pub(crate) struct Target {
    pub(crate) expr: String,
    pub(crate) legend: String,
    /// Whether the family has exemplars.
    pub(crate) exemplar: bool,
}

/// From which value on which colour.
pub(crate) type Steps = &'static [(f64, &'static str)];

/// A panel.
pub(crate) struct Panel {
    pub(crate) view: View,
    pub(crate) title: &'static str,
    /// How to read it.
    pub(crate) description: &'static str,
    /// Grafana's name of the unit.
    pub(crate) unit: &'static str,
    pub(crate) targets: Vec<Target>,
    pub(crate) thresholds: Steps,
    /// Of 24 columns.
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) max: Option<f64>,
}

impl Panel {
    fn new(view: View, title: &'static str, unit: &'static str, description: &'static str) -> Self {
        let (width, height) = match view {
            View::Stat => (4, 4),
            View::Table | View::Logs | View::LogTable => (24, 10),
            View::Lines | View::Stacked | View::Heatmap | View::States => (12, 8),
        };
        Self { view, title, description, unit, targets: Vec::new(), thresholds: &[], width, height, max: None }
    }

    /// One more query. In its text `@requests`, `@computed`, `@workload`, `@gpu` and `@instance` stand for what the variables select.
    pub(crate) fn query(mut self, legend: &str, expr: &str) -> Self {
        let names = [
            ("@requests", REQUESTS),
            ("@computed", COMPUTED),
            ("@workload", WORKLOAD),
            ("@gpu", GPU),
            ("@instance", INSTANCE),
        ];
        let expr = names.iter().fold(expr.to_owned(), |expr, (name, text)| expr.replace(name, text));
        self.targets.push(Target { expr, legend: legend.to_owned(), exemplar: false });
        self
    }

    /// The median and two high quantiles of a histogram.
    pub(crate) fn quantiles(self, family: &str, selector: &str) -> Self {
        [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)]
            .iter()
            .fold(self, |panel, (name, quantile)| panel.query(name, &by(*quantile, family, selector, "")))
    }

    /// Its queries also ask for exemplars.
    pub(crate) fn exemplars(mut self) -> Self {
        for target in &mut self.targets {
            target.exemplar = true;
        }
        self
    }

    pub(crate) const fn thresholds(mut self, steps: Steps) -> Self {
        self.thresholds = steps;
        self
    }

    pub(crate) const fn width(mut self, columns: u32) -> Self {
        self.width = columns;
        self
    }

    /// The end of its scale.
    pub(crate) const fn max(mut self, value: f64) -> Self {
        self.max = Some(value);
        self
    }
}

/// A quantile of a histogram, for each value of a label (none: of all).
pub(crate) fn by(quantile: f64, family: &str, selector: &str, label: &str) -> String {
    let labels = if label.is_empty() { "le".to_owned() } else { format!("le, {label}") };
    format!("histogram_quantile({quantile}, sum by ({labels}) (rate({family}_bucket{{{selector}}}[$__rate_interval])))")
}

pub(crate) fn lines(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel::new(View::Lines, title, unit, description)
}

pub(crate) fn stacked(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel::new(View::Stacked, title, unit, description)
}

pub(crate) fn stat(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel::new(View::Stat, title, unit, description)
}

pub(crate) fn states(title: &'static str, description: &'static str) -> Panel {
    Panel::new(View::States, title, "short", description)
}

pub(crate) fn table(title: &'static str, description: &'static str) -> Panel {
    Panel::new(View::Table, title, "short", description)
}

pub(crate) fn logs(view: View, title: &'static str, description: &'static str) -> Panel {
    Panel::new(view, title, "short", description)
}

/// The buckets of a histogram of this unit.
pub(crate) fn heatmap(
    title: &'static str,
    unit: &'static str,
    family: &str,
    selector: &str,
    description: &'static str,
) -> Panel {
    let expr = format!("sum by (le) (rate({family}_bucket{{{selector}}}[$__rate_interval]))");
    Panel::new(View::Heatmap, title, unit, description).query("{{le}}", &expr)
}

pub(crate) fn row(title: &'static str, panels: Vec<Panel>) -> Row {
    Row { title, panels }
}
