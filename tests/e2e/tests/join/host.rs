//! A server of vLLM's shape, the driver, the observer, and the load.

use std::{fs, process::Command, thread, time::Duration};

use fake_nvml::control::Fake;
use observer_e2e::{
    http::{self, Client},
    metrics::Metrics,
    net::free_address,
    observer::Observer,
    process::Process,
    require,
    scratch::Scratch,
    servers::{self, Server},
    traffic,
    wait::{self, SOON},
};
use sample_llm::load::Line;

/// The shortest that can be set.
pub(crate) const POLL: &str = "200ms";
/// Rust's test processes and Python take a while to start on a busy machine.
const SLOWLY: Duration = Duration::from_secs(60);

pub(crate) const ENERGY: &str = "llm_workload_energy_joules_total";
pub(crate) const IDLE: &str = "llm_gpu_idle_in_flight_seconds_total";
pub(crate) const JOIN: &str = "observer_gpu_join_available";

/// The processes of a vLLM: the API server (uvicorn), its core, and two workers of that.
pub(crate) struct Tree {
    pub(crate) server: Server,
    pub(crate) workers: Vec<u32>,
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    text.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

impl Tree {
    pub(crate) fn start() -> Self {
        let address = free_address();
        let mut command = Command::new(require::python());
        command.current_dir(servers::scripts()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.args(["workloads.py", "vllm", &address.port().to_string()]);
        let mut process = Process::spawn("vllm", command);
        wait::until("the server to answer", SLOWLY, || {
            assert!(process.exited().is_none(), "it ended: {:#?}", process.output());
            http::get(address, "/health").ok()
        });
        let core = children(process.pid())[0];
        let workers = children(core);
        assert_eq!(workers.len(), 2);
        Self { server: Server { process, address }, workers }
    }

    pub(crate) fn worker(&self, index: usize) -> String {
        format!("{}:1000000", self.workers[index])
    }
}

/// The tree on two of three GPUs, and the observer.
pub(crate) struct Host {
    pub(crate) tree: Tree,
    pub(crate) fake: Fake,
    pub(crate) observer: Observer,
    scratch: Scratch,
}

/// Sets values, and gives a poll, the join that follows it, and one more of each the time to see them.
pub(crate) fn set(fake: &mut Fake, values: &[(&str, &str)]) {
    fake.set(values).expect("a state");
    thread::sleep(Duration::from_millis(900));
}

/// Three GPUs that are idle, with the workers of the tree on the first two.
pub(crate) fn driver(scratch: &Scratch, tree: &Tree) -> Fake {
    let mut fake = Fake::new(scratch.path()).expect("a fake");
    fake.set(&[("gpus", "3"), ("gpu0.procs", &tree.worker(0)), ("gpu1.procs", &tree.worker(1))]).expect("a state");
    for gpu in 0..3 {
        let energy = ((gpu + 1) * 1_000_000).to_string();
        let values = [("util", "0"), ("mem_util", "0"), ("power_mw", "90000"), ("energy_mj", &energy)];
        for (key, value) in values {
            fake.set(&[(&format!("gpu{gpu}.{key}"), value)]).expect("a state");
        }
    }
    fake
}

/// An observer of these ports and of this driver, which it polls as often as it can.
pub(crate) fn observe(fake: &Fake, ports: &[u16]) -> Observer {
    let library = fake.library().to_str().expect("a plain path");
    let settings =
        [("OBSERVER_GPU_LIBRARY", library), ("OBSERVER_GPU_INTERVAL", POLL), ("OBSERVER_GPU_SLOW_INTERVAL", POLL)];
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    Observer::tuned(&["--ports", &ports.join(","), "--gpu", "require"], &settings)
}

impl Host {
    pub(crate) fn new() -> Self {
        let (tree, scratch) = (Tree::start(), Scratch::new());
        let fake = driver(&scratch, &tree);
        let observer = observe(&fake, &[tree.server.port()]);
        let host = Self { tree, fake, observer, scratch };
        host.ask("first", 0);
        host.until("the workload's GPUs", |metrics| metrics.select("llm_workload_gpu_info", &[]).len() == 2);
        host
    }

    /// One request, which the server answers after so many milliseconds.
    pub(crate) fn ask(&self, id: &str, milliseconds: u64) {
        let mut client = Client::connect(self.tree.server.address).expect("it listens");
        let request = traffic::sample_chat(id, milliseconds, 0, 1);
        assert_eq!(client.ask(&request).expect("an answer").status, 200);
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Metrics) -> bool) -> Metrics {
        wait::until(what, SOON, || Some(self.observer.metrics()).filter(&condition))
    }

    pub(crate) fn set(&mut self, values: &[(&str, &str)]) {
        set(&mut self.fake, values);
    }

    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.observer.line("first").comm, self.tree.server.address.port())
    }

    pub(crate) fn load(&self, arguments: &[&str]) -> Load {
        Load::start(&self.scratch, &self.tree.server, arguments)
    }
}

/// The sample generator at work.
pub(crate) struct Load {
    process: Process,
    log: std::path::PathBuf,
}

impl Load {
    pub(crate) fn start(scratch: &Scratch, server: &Server, arguments: &[&str]) -> Self {
        let log = scratch.file(&format!("load-{}.jsonl", server.port()));
        let mut command = Command::new(require::sample());
        command.args(["load", "--url", &server.url(), "--log"]).arg(&log).args(arguments);
        Self { process: Process::spawn("sample-llm", command), log }
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.process.exited().is_some()
    }

    /// What it saw of each request, once it has sent them all. None failed.
    pub(crate) fn lines(mut self) -> Vec<Line> {
        let status = self.process.wait(SLOWLY);
        assert!(status.success(), "{:#?}", self.process.output());
        let text = fs::read_to_string(&self.log).expect("its log");
        let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
        assert!(lines.iter().all(|line| line.outcome == sample_llm::load::Outcome::Ok), "{lines:#?}");
        lines
    }
}

/// Output tokens, as the generator was told them.
pub(crate) fn tokens(lines: &[Line]) -> f64 {
    lines.iter().map(|line| line.output_tokens.expect("told")).sum::<u64>() as f64
}

/// Demands that what was seen is what was told, within 1 %.
#[track_caller]
pub(crate) fn within_1_percent(seen: f64, told: f64, what: &str) {
    println!("{what}: seen {seen:.4}, told {told:.4}");
    assert!((seen - told).abs() <= 0.01 * told, "{what}: seen {seen}, told {told}");
}
