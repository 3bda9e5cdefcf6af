//! A server under the test's load, an observer of it, and what must hold after a fault.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    bpf::Objects,
    metrics::Metrics,
    observer::Observer,
    process::{self, Process},
    request_log::RequestLine,
    require,
    scratch::Scratch,
    servers::Server,
    wait::{self, SOON},
};
use sample_llm::load::{Line, Outcome};

use super::truth::{self, Tally};

/// The sample server's pace, unless a load asks for another: 60 ms a request.
pub(crate) const TTFT_MS: u64 = 20;
pub(crate) const INTERVAL_MS: u64 = 2;
pub(crate) const TOKENS: u64 = 20;
/// Requests that follow each fault.
const FRESH: usize = 160;
/// Memory after a fault may be above that before it by this share, and this many KiB: a page here and there.
const RESIDENT_SHARE: f64 = 0.10;
const RESIDENT_SLACK_KIB: f64 = 512.0;
/// How long it may take to get back there.
const REST_WITHIN: Duration = Duration::from_secs(20);

/// What an observer takes while nothing happens.
#[derive(Clone, Copy, Debug)]
struct Rest {
    resident_kib: u64,
    descriptors: usize,
}

impl Rest {
    fn of(pid: u32) -> Self {
        Self { resident_kib: process::status_kib(pid, "VmRSS"), descriptors: process::descriptors(pid) }
    }

    /// Whether it is back at `before`.
    fn is_back(self, before: Self) -> bool {
        let most = before.resident_kib as f64 * (1.0 + RESIDENT_SHARE) + RESIDENT_SLACK_KIB;
        self.resident_kib as f64 <= most && self.descriptors <= before.descriptors
    }
}

/// The whole of it.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) observer: Observer,
    /// Of the observer.
    log: PathBuf,
    /// Lines of it that may be broken off.
    torn: usize,
    files: Scratch,
    rest: Rest,
    begun: Instant,
    loads: usize,
    /// Entries of the file system of BPF before.
    pinned: BTreeSet<PathBuf>,
}

/// Requests of clients that are under way.
pub(crate) struct Load {
    process: Process,
    log: PathBuf,
}

impl Load {
    /// Waits for their end: what each saw.
    pub(crate) fn lines(mut self) -> Vec<Line> {
        let status = self.process.wait(Duration::from_secs(300));
        assert!(status.success(), "{:#?}", self.process.output());
        truth::read(&self.log)
    }

    /// Ends it: no more requests, and those under way may end.
    pub(crate) fn stop(mut self) -> Vec<Line> {
        self.process.signal(libc::SIGTERM);
        self.lines()
    }
}

fn pinned() -> BTreeSet<PathBuf> {
    fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

impl Scene {
    /// A server, and an observer of its port.
    pub(crate) fn new() -> Self {
        Self::tuned(&[], &[])
    }

    /// The same with these further ports, and these settings of the observer's.
    pub(crate) fn tuned(ports: &[u16], settings: &[(&str, &str)]) -> Self {
        let (pinned, server) = (pinned(), Server::sample(&[]));
        let ports: Vec<String> = ports.iter().chain([&server.port()]).map(u16::to_string).collect();
        let observer = Observer::tuned(&["--ports", &ports.join(",")], settings);
        let log = observer.log().0.clone();
        Self::with(server, observer, log, pinned)
    }

    /// The same of a server that runs already, and of its processes.
    pub(crate) fn of_processes(server: Server) -> Self {
        let pinned = pinned();
        let pid = server.process.pid().to_string();
        let observer = Observer::with(&["--pids", &pid]);
        let log = observer.log().0.clone();
        Self::with(server, observer, log, pinned)
    }

    /// The same with an observer that logs to a file elsewhere.
    pub(crate) fn logging_to(log: &Path) -> Self {
        let pinned = pinned();
        let server = Server::sample(&[]);
        let path = log.to_str().expect("a plain path");
        let log_to = ["--request-log-chunks", "--request-log", path];
        let observer = Observer::bare(&[&["--ports", &server.port().to_string()][..], &log_to].concat());
        Self::with(server, observer, log.to_owned(), pinned)
    }

    fn with(server: Server, observer: Observer, log: PathBuf, pinned: BTreeSet<PathBuf>) -> Self {
        let rest = Rest { resident_kib: 0, descriptors: 0 };
        let (files, begun) = (Scratch::new(), Instant::now());
        let mut scene = Self { server, observer, log, torn: 0, files, rest, begun, loads: 0, pinned };
        scene.warm_up();
        scene
    }

    /// Another observer takes the place of the one there was, which has ended.
    pub(crate) fn observe_anew(&mut self, observer: Observer) {
        self.log = observer.log().0.clone();
        self.observer = observer;
        self.warm_up();
    }

    /// All that grows once has grown after this.
    fn warm_up(&mut self) {
        self.fresh(FRESH);
        // As many at once as are answered at once, and more.
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10).for_each(|_| drop(self.observer.metrics())));
            }
        });
        self.observer.settle();
        self.rest = Rest::of(self.observer.pid());
    }

    /// Notes anew what it takes while nothing happens.
    pub(crate) fn note_rest(&mut self) {
        self.observer.settle();
        self.rest = Rest::of(self.observer.pid());
    }

    /// Has clients ask the server, with these further arguments, one of which bounds it.
    pub(crate) fn load(&mut self, arguments: &[&str]) -> Load {
        let sample = format!("{{\"ttft_ms\":{TTFT_MS},\"interval_ms\":{INTERVAL_MS},\"tokens\":{TOKENS}}}");
        self.load_of(&sample, arguments)
    }

    /// The same with this field `sample` in each request.
    pub(crate) fn load_of(&mut self, sample: &str, arguments: &[&str]) -> Load {
        self.loads += 1;
        let log = self.files.file(&format!("clients-{}.jsonl", self.loads));
        let mut command = Command::new(require::sample());
        command.args(["load", "--url", &self.server.url(), "--sample", sample, "--log"]).arg(&log);
        // Each of its own, also over several observers.
        command.args(["--id-prefix", &format!("load-{}", self.loads)]).args(arguments);
        Load { process: Process::spawn("sample-llm load", command), log }
    }

    /// From now on so many lines of the log may be broken off.
    pub(crate) fn may_tear(&mut self, lines: usize) {
        self.torn = lines;
    }

    /// Whole lines of the log so far.
    pub(crate) fn lines(&self) -> Vec<RequestLine> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let (lines, torn): (Vec<_>, Vec<_>) = whole.lines().map(serde_json::from_str).partition(Result::is_ok);
        assert!(torn.len() <= self.torn, "{torn:#?}");
        lines.into_iter().flatten().collect()
    }

    /// Waits until nothing is in flight and nothing more is told of, and returns what was.
    pub(crate) fn told(&self) -> Vec<RequestLine> {
        wait::until("nothing to be in flight", 2 * SOON, || {
            let metrics = self.observer.metrics();
            let quiet = metrics.has("llm_requests_in_flight") && metrics.sum("llm_requests_in_flight", &[]) == 0.0;
            quiet.then_some(())
        });
        let mut before = usize::MAX;
        wait::until("the log to be written", SOON, || {
            self.observer.settle();
            let count = self.lines().len();
            (std::mem::replace(&mut before, count) == count).then_some(())
        });
        self.lines()
    }

    /// Demands what must hold of these clients' requests, all lines of the log and all metrics, whatever was lost.
    pub(crate) fn compare(&self, clients: &[Line]) -> Tally {
        let lines = self.told();
        let tally = truth::compare(clients, &lines);
        self.expect_consistent(&lines);
        let metrics = self.observer.metrics();
        let lost = losses(&metrics);
        println!("{tally:?}, lost: {lost:?}");
        if tally.incomplete + tally.unseen > 0 {
            let joined = metrics.sum("observer_joined_mid_request_total", &[]) > 0.0;
            assert!(joined || !lost.is_empty(), "requests are missing, and nothing says why: {tally:?}");
        }
        tally
    }

    /// The same, and that no request is missing.
    pub(crate) fn compare_whole(&self, clients: &[Line]) -> Tally {
        let tally = self.compare(clients);
        let whole = Tally { measured: tally.asked, asked: tally.asked, ..Tally::default() };
        assert_eq!(tally, whole, "{:?}", losses(&self.observer.metrics()));
        tally
    }

    /// Metrics say what the log says, and what is incomplete is in no histogram.
    fn expect_consistent(&self, lines: &[RequestLine]) {
        let metrics = self.observer.metrics();
        assert_eq!(metrics.sum("observer_request_log_dropped_total", &[]), 0.0);
        let counts = truth::outcomes(lines);
        for sample in metrics.select("llm_requests_total", &[]) {
            let (_, outcome) = sample.labels.iter().find(|(name, _)| name == "outcome").expect("its outcome");
            assert!(sample.value == 0.0 || counts.contains_key(outcome.as_str()), "{outcome}: {counts:?}");
        }
        for (outcome, count) in &counts {
            let told = metrics.sum("llm_requests_total", &[("outcome", outcome)]);
            assert_eq!(told, *count as f64, "{outcome} of {counts:?}");
        }
        let incomplete = counts.get("incomplete").copied().unwrap_or(0);
        assert_eq!(metrics.sum("observer_incomplete_requests_total", &[]), incomplete as f64);
        let timed = (lines.len() - incomplete) as f64;
        assert_eq!(metrics.sum("gen_ai_server_request_duration_seconds_count", &[]), timed, "{counts:?}");
        let ended = |line: &&RequestLine| matches!(line.outcome.as_str(), "ok" | "cancelled");
        let streamed = |line: &&RequestLine| line.stream == Some(true) && line.t_first_ns.is_some();
        let first = lines.iter().filter(ended).filter(streamed).count();
        assert_eq!(metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]), first as f64, "{counts:?}");
    }

    /// So many new requests: all of them must be measured, and nothing be lost any more.
    fn fresh(&mut self, requests: usize) {
        let before = losses(&self.observer.metrics());
        let clients = self.load(&["--concurrency", "16", "--requests", &requests.to_string()]).lines();
        let prefix = format!("load-{}-", self.loads);
        let of_load = |line: &RequestLine| line.request_id.as_ref().is_some_and(|id| id.starts_with(&prefix));
        let mut lines = Vec::new();
        // If they never come, the comparison says which.
        let _all = wait::try_until(SOON, || {
            lines = self.lines().into_iter().filter(of_load).collect();
            (lines.len() >= requests).then_some(())
        });
        assert_eq!(losses(&self.observer.metrics()), before, "the fault goes on");
        let tally = truth::compare(&clients, &lines);
        assert_eq!(tally, Tally { asked: requests, measured: requests, ..Tally::default() });
        assert!(clients.iter().all(|line| line.outcome == Outcome::Ok));
    }

    /// What must hold after every fault: what comes is measured, and memory and descriptors are what they were.
    pub(crate) fn recovers(&mut self) {
        self.fresh(FRESH);
        self.observer.expect_alive();
        let pid = self.observer.pid();
        let mut now = Rest::of(pid);
        let back = wait::try_until(REST_WITHIN, || {
            now = Rest::of(pid);
            now.is_back(self.rest).then_some(())
        });
        println!("before: {:?}, after: {now:?}", self.rest);
        assert!(back.is_some(), "it does not come back to {:?}: {now:?}", self.rest);
        let written = process::written_files(pid);
        assert!(written.iter().all(|path| *path == self.log), "files that nobody asked for: {written:?}");
    }

    /// The end, and what must hold after it. The row of `cargo xtask chaos` says `what`.
    pub(crate) fn ends(mut self, what: &str) {
        self.recovers();
        let (pid, lost) = (self.observer.pid(), losses(&self.observer.metrics()));
        let (rest, now) = (self.rest, Rest::of(pid));
        let held = Objects::held_by(pid);
        assert!(!held.programs.is_empty() && !held.maps.is_empty(), "{held:?}");
        self.observer.stop(libc::SIGTERM);
        expect_gone(&held);
        assert_eq!(pinned(), self.pinned);
        let folder = self.observer.scratch().path();
        let left: Vec<_> = fs::read_dir(folder).expect("its folder").flatten().map(|entry| entry.path()).collect();
        assert!(left.iter().all(|path| *path == self.log), "left behind: {left:?}");
        // For `cargo xtask chaos`.
        println!(
            "chaos: {what}; lost {lost:?}; RSS {:.1} MiB before, {:.1} after; {} descriptors, {}; {:.0} s",
            rest.resident_kib as f64 / 1024.0,
            now.resident_kib as f64 / 1024.0,
            rest.descriptors,
            now.descriptors,
            self.begun.elapsed().as_secs_f64(),
        );
    }
}

/// Demands that of these nothing is loaded or attached soon: the kernel frees them after a grace period.
pub(crate) fn expect_gone(held: &Objects) {
    let gone = wait::try_until(SOON, || held.left().is_empty().then_some(()));
    assert!(gone.is_some(), "stayed: {:?}", held.left());
}

/// What was lost, by source and reason.
pub(crate) fn losses(metrics: &Metrics) -> BTreeMap<String, u64> {
    let label = |sample: &observer_e2e::metrics::Sample, wanted: &str| {
        sample.labels.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let lost = metrics.select("observer_events_lost_total", &[]);
    let lost = lost.into_iter().filter(|sample| sample.value > 0.0);
    lost.map(|sample| (format!("{} {}", label(sample, "source"), label(sample, "reason")), sample.value as u64))
        .collect()
}
