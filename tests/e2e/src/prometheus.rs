//! A real Prometheus, and what it is asked.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    http::{self, Client},
    net::free_address,
    process::Process,
    require,
    scratch::Scratch,
    wait,
};

/// Longer than the two minutes after which Prometheus gives a query up.
const QUERY: Duration = Duration::from_secs(130);

/// A running Prometheus, or an agent.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    _scratch: Option<Scratch>,
}

/// A sample of a query's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Percent-encoding of whatever is not plain.
#[must_use]
pub fn encode(expression: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    expression.bytes().map(encode).collect()
}

impl Prometheus {
    /// One that scrapes `target` each second.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn scraping(target: SocketAddr) -> Self {
        Self::scraping_each(1, target)
    }

    /// One that scrapes `target` once in so many seconds.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn scraping_each(seconds: u64, target: SocketAddr) -> Self {
        let scratch = Scratch::new();
        let config = scratch.write(
            "prometheus.yml",
            &format!(
                "global:\n  scrape_interval: {seconds}s\nscrape_configs:\n  - job_name: observer\n    static_configs:\n      \
                 - targets: ['{target}']\n"
            ),
        );
        let data = format!("--storage.tsdb.path={}", scratch.file("tsdb").display());
        let started = Self::start(&config, &[&data, "--enable-feature=exemplar-storage"]);
        Self { _scratch: Some(scratch), ..started }
    }

    /// One with this configuration and these further arguments, once it is ready.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start(config: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        Self::start_with(config, arguments, &[])
    }

    /// As [`Self::start`], with these variables in its environment.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start_with(config: &Path, arguments: &[impl AsRef<OsStr>], environment: &[(&str, &str)]) -> Self {
        let address = free_address();
        let mut command = Command::new(require::tool("prometheus").expect("required"));
        command.arg(format!("--config.file={}", config.display()));
        command.args([&format!("--web.listen-address={address}"), "--log.level=warn"]).args(arguments);
        command.envs(environment.iter().copied());
        let mut process = Process::spawn("prometheus", command);
        wait::until("Prometheus", Duration::from_secs(30), || {
            assert!(process.exited().is_none(), "Prometheus ended: {:#?}", process.settled_output());
            http::get(address, "/-/ready").ok().filter(|answer| answer.status == 200)
        });
        Self { process, address, _scratch: None }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What its API answers to this path; `None`: it does not.
    ///
    /// # Panics
    /// If it refuses the expression.
    #[must_use]
    pub fn api(&self, path: &str) -> Option<Value> {
        let request = format!("GET /api/v1/{path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        let answer = Client::connect(self.address).ok()?.patient(QUERY).ok()?.ask(request.as_bytes()).ok()?;
        let value: Value = serde_json::from_slice(&answer.body).ok()?;
        // 400: it cannot be read; 422: it can, and cannot be worked out, as where labels do not match.
        assert!(![400, 422].contains(&answer.status), "{path}: {value}");
        (answer.status == 200).then_some(value)
    }

    /// All that an instant query yields as of now; `None`: it did not answer.
    ///
    /// # Panics
    /// If it refuses the expression.
    #[must_use]
    pub fn all(&self, expression: &str) -> Option<Vec<Found>> {
        self.ask(&format!("query?query={}", encode(expression)))
    }

    /// The same as of this time, in seconds since 1970.
    ///
    /// # Panics
    /// As above.
    #[must_use]
    pub fn all_at(&self, expression: &str, time: f64) -> Option<Vec<Found>> {
        self.ask(&format!("query?time={time:.3}&query={}", encode(expression)))
    }

    fn ask(&self, path: &str) -> Option<Vec<Found>> {
        let value = self.api(path)?;
        let found = |sample: &Value| {
            let labels = serde_json::from_value(sample["metric"].clone()).ok()?;
            Some(Found { labels, value: sample["value"][1].as_str()?.parse().ok()? })
        };
        value["data"]["result"].as_array()?.iter().map(found).collect()
    }

    /// The value of an instant query that yields one sample; `None`: it yields none (yet).
    ///
    /// # Panics
    /// If it refuses the expression.
    #[must_use]
    pub fn value(&self, expression: &str) -> Option<f64> {
        self.all(expression)?.first().map(|found| found.value)
    }

    /// All series of a range query, with seconds since 1970 and a step in seconds, and how long the answer took.
    ///
    /// # Panics
    /// If it is not answered.
    #[must_use]
    pub fn range(&self, expression: &str, start: f64, end: f64, step: u64) -> (Vec<Value>, Duration) {
        let path = format!("query_range?query={}&start={start}&end={end}&step={step}", encode(expression));
        let begun = Instant::now();
        let value = self.api(&path).unwrap_or_else(|| panic!("no answer to {expression}"));
        let took = begun.elapsed();
        (value["data"]["result"].as_array().expect("series").clone(), took)
    }

    /// One of its own metrics that has no labels.
    #[must_use]
    pub fn own(&self, name: &str) -> Option<f64> {
        let text = http::get(self.address, "/metrics").ok()?.text();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Ends it in order.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn stop(mut self) {
        self.process.stop(libc::SIGTERM, Duration::from_secs(20));
    }
}
