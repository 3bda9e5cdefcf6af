//! What pictures show: servers under a load that varies, the observer, and a Prometheus.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    disk_workload::DiskWorkload, observer::Observer, process::Process, prometheus::Prometheus, require, servers::Server,
};

/// Seconds before what is shown: the observer learns its workloads, rates get their first values.
pub(crate) const BEFORE: u64 = 20;
/// Seconds that are shown.
pub(crate) const SHOWN: u64 = 180;
/// Seconds from one scrape to the next.
pub(crate) const SCRAPE: u64 = 2;
/// The load goes on for as long after that: what is asked last has all its samples.
const AFTER: u64 = 4;

/// One server is quick, the other has a larger model.
const QUICK: usize = 0;
const LARGE: usize = 1;
const SERVERS: [&[&str]; 2] = [
    &[
        "--ttft=60ms",
        "--ttft-jitter=40ms",
        "--token-interval=12ms",
        "--interval-jitter=5ms",
        "--error-rate=0.01",
        "--stream-error-rate=0.01",
    ],
    &[
        "--ttft=300ms",
        "--ttft-jitter=180ms",
        "--token-interval=35ms",
        "--interval-jitter=12ms",
        "--error-rate=0.02",
        "--stream-error-rate=0.02",
        "--cut-rate=0.01",
    ],
];

/// Clients of one kind.
struct Clients {
    /// Seconds after the beginning.
    from: u64,
    seconds: u64,
    server: usize,
    model: &'static str,
    /// Requests per second.
    rate: f64,
    /// Of a response.
    tokens: u32,
    prompt_bytes: u32,
    /// Share that leaves early.
    leave: f64,
    /// What they have the sample server do.
    sample: String,
}

/// The load by itself, then people who leave, then a queue that grows and shrinks, then errors.
fn clients() -> Vec<Clients> {
    let all = BEFORE + SHOWN + AFTER;
    let kind = |from, seconds, server, model, rate, tokens, prompt_bytes, leave, sample: &str| Clients {
        from,
        seconds,
        server,
        model,
        rate,
        tokens,
        prompt_bytes,
        leave,
        sample: sample.to_owned(),
    };
    let mut clients = vec![
        kind(0, all, QUICK, "sample-small", 14.0, 40, 600, 0.03, "{}"),
        kind(0, all, LARGE, "sample-large", 3.0, 80, 3_400, 0.06, "{}"),
        kind(0, all, LARGE, "sample-thinker", 2.5, 40, 1_500, 0.02, r#"{"reasoning": 20}"#),
        kind(BEFORE + 25, 20, QUICK, "sample-small", 4.0, 60, 600, 0.7, "{}"),
        kind(BEFORE + 145, 18, QUICK, "sample-small", 3.0, 1, 600, 0.0, r#"{"status": 503}"#),
        kind(BEFORE + 145, 18, LARGE, "sample-large", 1.0, 20, 600, 0.0, r#"{"stream_error_after": 6}"#),
    ];
    for (step, wait) in (0..).zip([500, 800, 1300, 2000, 1300, 800]) {
        for share in [80, 100, 125] {
            let sample = format!(r#"{{"ttft_ms": {}, "interval_ms": 60}}"#, wait * share / 100);
            clients.push(kind(BEFORE + 70 + 9 * step, 9, LARGE, "sample-large", 1.5, 20, 3_400, 0.0, &sample));
        }
    }
    clients
}

/// Seconds after the beginning at which the larger server is stopped for [`STALL`].
const STALLS: std::ops::Range<u64> = BEFORE + 75..BEFORE + 125;
const STALL_EACH: u64 = 7;
const STALL: Duration = Duration::from_millis(300);

impl Clients {
    fn start(&self, servers: &[Server]) -> Process {
        let mut command = Command::new(require::sample());
        command.args(["load", "--url", &servers[self.server].url(), "--model", self.model, "--sample", &self.sample]);
        command.args([
            "--rate",
            &self.rate.to_string(),
            "--concurrency",
            "64",
            "--stream",
            "mixed",
            "--route",
            "mixed",
        ]);
        command.args(["--requests", &(self.rate * self.seconds as f64).round().to_string()]);
        command.args(["--tokens", &self.tokens.to_string(), "--prompt-bytes", &self.prompt_bytes.to_string()]);
        command.args(["--cancel-rate", &self.leave.to_string(), "--seed", &self.from.to_string()]);
        Process::spawn("clients", command)
    }
}

/// All that runs.
pub(crate) struct Host {
    pub(crate) prometheus: Prometheus,
    _disk: DiskWorkload,
    _observer: Observer,
    servers: Vec<Server>,
    running: Vec<Process>,
}

impl Host {
    /// Starts it, but for the clients.
    pub(crate) fn start() -> Self {
        let servers: Vec<_> = SERVERS.iter().map(|arguments| Server::sample(arguments)).collect();
        let mut disk = DiskWorkload::start();
        let ports = servers.iter().map(Server::port).chain([disk.server.port()]);
        let ports: Vec<_> = ports.map(|port| port.to_string()).collect();
        let settings =
            [("OBSERVER_SIGNALS_IO", "on"), ("OBSERVER_SLO_OBJECTIVES", "interactive:ttft:0.5,steady:tpot:0.05")];
        let observer = Observer::tuned(&["--ports", &ports.join(",")], &settings);
        disk.begin();
        let prometheus = Prometheus::scraping_each(SCRAPE, observer.address());
        Self { prometheus, _disk: disk, _observer: observer, servers, running: Vec::new() }
    }

    /// Has all clients come and go, and says how far it is.
    pub(crate) fn load(&mut self) {
        let (begun, all) = (Instant::now(), BEFORE + SHOWN + AFTER);
        let clients = clients();
        for second in 0..all {
            thread::sleep((begun + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
            let due = clients.iter().filter(|clients| clients.from == second);
            self.running.extend(due.map(|clients| clients.start(&self.servers)));
            if STALLS.contains(&second) && (second - STALLS.start).is_multiple_of(STALL_EACH) {
                let server = &mut self.servers[LARGE].process;
                server.signal(libc::SIGSTOP);
                thread::sleep(STALL);
                server.signal(libc::SIGCONT);
            }
            if second % 10 == 0 {
                println!("{second:3} s of {all} s");
            }
        }
    }
}
