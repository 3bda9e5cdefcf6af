//! A host with a driver, the thread that asks it, and what a scrape shows.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fake_nvml::control::Fake;
use observer::{
    config::MetricsConfig,
    export::openmetrics::{self, Format},
    gpu::{
        Gpus, State, Timing,
        nvml::{Nvml, Options},
    },
    metrics::Metrics,
};

/// As quick as can be, so that a test need not be slow.
pub(crate) const TIMING: Timing = Timing {
    interval: Duration::from_millis(120),
    slow_interval: Duration::from_millis(240),
    absent: Duration::from_millis(300),
    failed: (Duration::from_millis(50), Duration::from_millis(200)),
    lost: (Duration::from_millis(100), Duration::from_millis(400)),
    unresponsive: Duration::from_millis(600),
};

/// As long as anything here may take.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A folder that goes with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("observer-gpu-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("a folder that can be removed");
    }
}

/// A host: its driver, and an observer of it.
pub(crate) struct Host {
    pub(crate) fake: Fake,
    pub(crate) gpus: Arc<Gpus>,
    metrics: Arc<Metrics>,
    _folder: Folder,
}

impl Host {
    /// With this state of the driver.
    pub(crate) fn new(values: &[(&str, &str)]) -> Self {
        Self::without(&[], values)
    }

    /// With a driver that lacks these symbols.
    pub(crate) fn without(symbols: &[&str], values: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let mut fake = Fake::without(folder.path(), symbols).expect("a fake");
        fake.set(values).expect("a state");
        Self::of(folder, fake, TIMING)
    }

    pub(crate) fn of(folder: Folder, fake: Fake, timing: Timing) -> Self {
        let library = Some(fake.library().to_owned());
        Self::with(folder, fake, timing, Options { library, host_root: None, processes: true, gpm: true })
    }

    pub(crate) fn with(folder: Folder, fake: Fake, timing: Timing, options: Options) -> Self {
        let gpus = Arc::new(Gpus::start(Nvml::new(options), timing).expect("a thread"));
        let metrics = Metrics::new(&MetricsConfig::default(), &[]);
        let view = gpus.clone();
        metrics.set_gpus(move || view.view(), |pid| (pid == 4242).then(|| "vllm:8000".into()));
        Self { fake, gpus, metrics, _folder: folder }
    }

    pub(crate) fn set(&mut self, values: &[(&str, &str)]) {
        self.fake.set(values).expect("a state");
    }

    /// All samples of families of GPUs, by name and labels as they are written.
    pub(crate) fn scrape(&self) -> BTreeMap<String, f64> {
        let text = openmetrics::scrape(&self.metrics, Format::Text);
        let lines = text.lines().filter(|line| line.starts_with("gpu_"));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').expect("a sample");
                (series.to_owned(), value.parse().expect("a number"))
            })
            .collect()
    }

    /// One sample, by its name and labels; the UUID is left out of those.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        self.scrape().into_iter().find(|(found, _)| without_uuid(found) == series).map(|(_, value)| value)
    }

    /// Waits until a scrape satisfies `condition`, and gives it.
    pub(crate) fn until(
        &self,
        what: &str,
        condition: impl Fn(&BTreeMap<String, f64>) -> bool,
    ) -> BTreeMap<String, f64> {
        let start = Instant::now();
        loop {
            let scrape = self.scrape();
            if condition(&scrape) {
                return scrape;
            }
            assert!(
                start.elapsed() < SOON,
                "no {what} within {SOON:?}: {:?} {scrape:#?}",
                self.gpus.view().snapshot.state
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until this sample, named as for [`Self::value`], has this value.
    pub(crate) fn until_value(&self, series: &str, value: f64) {
        self.until(&format!("{series} {value}"), |scrape| {
            scrape.iter().any(|(found, its)| without_uuid(found) == series && (its - value).abs() < 1e-9)
        });
    }

    /// Waits until there is no sample of this name and labels.
    pub(crate) fn until_gone(&self, series: &str) {
        self.until(&format!("end of {series}"), |scrape| !scrape.keys().any(|found| without_uuid(found) == series));
    }

    pub(crate) fn until_up(&self) {
        self.until_value("gpu_available", 1.0);
    }

    pub(crate) fn until_state(&self, what: &str, condition: impl Fn(&State) -> bool) -> State {
        let start = Instant::now();
        loop {
            let state = self.gpus.view().snapshot.state.clone();
            if condition(&state) {
                return state;
            }
            assert!(start.elapsed() < SOON, "no {what} within {SOON:?}: {state:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Two more polls, so that whatever was to change has.
    pub(crate) fn settle(&self) {
        let time = |gpus: &Gpus| gpus.view().snapshot.time;
        for _ in 0..2 {
            let (before, start) = (time(&self.gpus), Instant::now());
            while time(&self.gpus) == before {
                assert!(start.elapsed() < SOON, "no poll");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Whether the library is loaded in this process.
    pub(crate) fn is_loaded(&self) -> bool {
        let path = self.fake.library().to_str().expect("a plain path");
        fs::read_to_string("/proc/self/maps").expect("readable").lines().any(|line| line.contains(path))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert!(self.gpus.stop(SOON), "the thread ends");
            assert!(!self.is_loaded(), "nothing of the library is kept");
        }
    }
}

/// The UUID of each is a function of its index: tests leave it out.
fn without_uuid(series: &str) -> String {
    let Some(start) = series.find("uuid=\"") else { return series.to_owned() };
    let end = start + 6 + series[start + 6..].find('"').map_or(0, |at| at + 1);
    let (before, after) = (series[..start].trim_end_matches(','), series[end..].trim_start_matches(','));
    match (before.ends_with('{'), after.starts_with('}')) {
        (false, false) => format!("{before},{after}"),
        _ => format!("{before}{after}"),
    }
}

/// How many series of this name there are.
pub(crate) fn count(scrape: &BTreeMap<String, f64>, name: &str) -> usize {
    scrape.keys().filter(|series| series.split('{').next() == Some(name)).count()
}
