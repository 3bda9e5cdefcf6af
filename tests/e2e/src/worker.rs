//! A server that works on demand, of three processes: the first one and its two children (`python/work.py`).

use std::{fs, net::SocketAddr, process::Command};

use crate::{
    http::{self, Client},
    metrics::Metrics,
    observer::Observer,
    process::Process,
    require,
    scratch::Scratch,
    servers::{self, Server},
    traffic,
    wait::{self, SOON},
};

/// The server, and an observer of it.
#[derive(Debug)]
pub struct Worker {
    /// The first process.
    pub server: Server,
    /// Who observes it.
    pub observer: Observer,
    /// All three processes.
    pub pids: Vec<u32>,
    _files: Scratch,
}

/// Starts the server alone, with a folder for its files. `program` is what it can be told to run.
///
/// # Panics
/// If it does not start.
#[must_use]
pub fn serve(program: &str, files: &Scratch) -> Server {
    let mut command = Command::new(require::python());
    command.arg(servers::scripts().join("work.py")).arg(files.path()).arg(program);
    let mut process = Process::spawn("work.py", command);
    let address = servers::listening(&mut process);
    Server { process, address }
}

/// One request to a language model makes it a workload.
///
/// # Panics
/// If it does not answer.
pub fn ask(server: &Server) {
    let mut client = Client::connect(server.address).expect("it listens");
    assert_eq!(client.ask(&traffic::sample_chat("first", 0, 0, 1)).expect("an answer").status, 200);
}

/// Has the server at this address do something, and waits until it is done. What it says.
///
/// # Panics
/// If it does not answer.
pub fn work(server: SocketAddr, what: &str, count: u32) -> String {
    let answer = http::get(server, &format!("/do/{what}/{count}")).expect("an answer");
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).expect("text")
}

impl Worker {
    /// Starts both, the observer with these settings; one request makes the server a workload. `program` is what it
    /// can be told to run.
    ///
    /// # Panics
    /// If one of them does not start.
    #[must_use]
    pub fn start(program: &str, settings: &[(&str, &str)]) -> Self {
        let files = Scratch::new();
        let server = serve(program, &files);
        // What is measured here stays on, whatever it takes; unless the settings say otherwise.
        let settings: Vec<_> = [("OBSERVER_GOVERNOR_BUDGET", "0")].iter().chain(settings).copied().collect();
        let observer = Observer::tuned(&["--ports", &server.port().to_string()], &settings);
        let pid = server.process.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it lives");
        let mut pids: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
        assert_eq!(pids.len(), 2);
        pids.push(pid);
        ask(&server);
        Self { server, observer, pids, _files: files }
    }

    /// Waits until it is measured.
    ///
    /// # Panics
    /// If that does not come to be soon.
    #[must_use]
    pub fn measured(&self) -> Metrics {
        wait::until("the workload to be measured", SOON, || {
            self.work("nap", 1);
            let metrics = self.observer.metrics();
            // It is known before its processes are.
            let members = metrics.sum("observer_map_entries", &[("map", "members")]);
            (metrics.has("workload_cpu_seconds_total") && members >= self.pids.len() as f64).then_some(metrics)
        });
        // Each of its threads is looked at for the first time.
        self.work("spin", 5);
        self.observer.metrics()
    }

    /// Has it do something, and waits until it is done. What it says.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn work(&self, what: &str, count: u32) -> String {
        work(self.server.address, what, count)
    }
}
