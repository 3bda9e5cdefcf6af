//! What people use instead, on the same traffic in the same run: a proxy that logs, a capture of packets, a tracer's script,
//! a metrics library within the server.

use std::{net::SocketAddr, process::Command, thread, time::Duration};

use observer_e2e::{
    observer::Observer,
    process::Process,
    require,
    scratch::Scratch,
    servers::{Server, Stack},
    stats,
};

use crate::{
    finding::{Results, Table},
    load::{self, Pace, Run},
};

const ROUNDS: usize = 5;
/// 10,000 events a second.
const PACE: Pace = Pace { streams: 64, interval_ms: 6, tokens: 200, seconds: 4 };
/// What a Python server can keep up with here.
const PYTHON: Pace = Pace { streams: 16, interval_ms: 10, tokens: 100, seconds: 4 };

/// What measures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Nothing,
    Observer,
    Proxy,
    Capture,
    Tracer,
    Middleware,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Observer => "observer",
            Self::Proxy => "nginx in front, with an access log",
            Self::Capture => "tcpdump, writing a capture",
            Self::Tracer => "bpftrace, a histogram of the server's writes",
            Self::Middleware => "prometheus_client in the server",
        }
    }

    /// Why it cannot be had here.
    fn missing(self) -> Option<String> {
        match self {
            Self::Proxy => require::missing("nginx"),
            Self::Capture => require::missing("tcpdump"),
            Self::Tracer => tracer_fails(),
            Self::Nothing | Self::Observer | Self::Middleware => None,
        }
    }
}

/// Something that measures, while it lives.
struct Measuring {
    /// Where clients go.
    address: SocketAddr,
    pid: Option<u32>,
    _observer: Option<Observer>,
    _proxy: Option<Server>,
    _process: Option<Process>,
    _scratch: Scratch,
}

fn begin(way: Way, server: &Server) -> Measuring {
    let scratch = Scratch::new();
    let (mut observer, mut proxy, mut process) = (None, None, None);
    let port = server.port().to_string();
    match way {
        Way::Nothing | Way::Middleware => {}
        Way::Observer => observer = Some(Observer::with(&["--ports", &port])),
        Way::Proxy => {
            let log = scratch.file("access.log");
            let settings = format!("proxy_buffering off; access_log {} combined;", log.display());
            proxy = Some(Server::nginx(server.address, &settings, &scratch));
        }
        Way::Capture => {
            let mut command = Command::new(require::tool("tcpdump").expect("it is there"));
            command.args(["-i", "lo", "-n", "-s", "0", "-Z", "root", "-w"]).arg(scratch.file("capture.pcap"));
            process = Some(Process::spawn("tcpdump", with_filter(command, &port)));
        }
        Way::Tracer => {
            let mut command = Command::new(require::tool("bpftrace").expect("it is there"));
            command.args(["-e", &script(server.process.pid())]);
            process = Some(Process::spawn("bpftrace", command));
        }
    }
    // Until each has begun.
    thread::sleep(Duration::from_millis(if way == Way::Tracer { 3000 } else { 500 }));
    let pid = [observer.as_ref().map(Observer::pid), proxy.as_ref().map(|proxy| proxy.process.pid())];
    let pid = pid.into_iter().flatten().next().or(process.as_ref().map(Process::pid));
    let address = proxy.as_ref().map_or(server.address, |proxy| proxy.address);
    Measuring { address, pid, _observer: observer, _proxy: proxy, _process: process, _scratch: scratch }
}

fn with_filter(mut command: Command, port: &str) -> Command {
    command.args(["tcp", "port", port]);
    command
}

/// Why a tracer's script does not run here.
fn tracer_fails() -> Option<String> {
    let Some(tracer) = require::tool("bpftrace") else { return Some("bpftrace is not installed".to_owned()) };
    let tried = Command::new(tracer).args(["-e", &script(1), "-c", "/bin/true"]).output().expect("it is a program");
    let said = String::from_utf8_lossy(&tried.stderr).into_owned();
    // It goes on, and succeeds, without what it does not find.
    if let Some(line) = said.lines().find(|line| line.contains("not found:")) {
        return Some(format!("not here: {}", line.split_once("WARNING: ").map_or(line, |(_, what)| what)));
    }
    (!tried.status.success()).then(|| format!("not here: {}", said.lines().next_back().unwrap_or("it fails")))
}

/// Times each write of a process, as tutorials do.
fn script(pid: u32) -> String {
    let calls = ["write", "writev", "sendto", "sendmsg"];
    let on = |what: &str| calls.map(|call| format!("tracepoint:syscalls:sys_{what}_{call}")).join(",");
    format!(
        "{} /pid == {pid}/ {{ @begun[tid] = nsecs; }} {} /@begun[tid]/ {{ @time = hist(nsecs - @begun[tid]); delete(@begun[tid]); }}",
        on("enter"),
        on("exit")
    )
}

/// One round: the run, its own cores.
fn one(way: Way, server: &Server, pace: Pace) -> (Run, f64) {
    let measuring = begin(way, server);
    let mut watched = vec![server.process.pid()];
    watched.extend(measuring.pid);
    let run = load::run(measuring.address, pace, &watched);
    let own = run.cores.get(1).copied().unwrap_or(0.0);
    (run, own)
}

/// Rows of ways that measure one server, against nothing.
fn compare(ways: &[Way], server: impl Fn(Way) -> Server, pace: Pace, table: &mut Table) {
    let there: Vec<Way> = ways.iter().copied().filter(|way| way.missing().is_none()).collect();
    let mut runs: Vec<Vec<(Run, f64)>> = there.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (index, way) in there.iter().enumerate() {
            let server = server(*way);
            let _warm = load::run(server.address, Pace { seconds: 1, ..pace }, &[]);
            runs[index].push(one(*way, &server, pace));
        }
    }
    for way in ways {
        let Some(index) = there.iter().position(|other| other == way) else {
            let reason = way.missing().unwrap_or_default();
            table.rows.push(vec![way.name().to_owned(), reason]);
            continue;
        };
        let ratio = |value: fn(&Run) -> f64| {
            let pairs = runs[index].iter().zip(&runs[0]);
            stats::interval(&pairs.map(|((with, _), (off, _))| value(with) / value(off)).collect::<Vec<_>>())
                .to_string()
        };
        let own = stats::median(&mut runs[index].iter().map(|(_, own)| *own).collect::<Vec<_>>());
        let row = [
            way.name().to_owned(),
            ratio(|run| run.rate),
            ratio(|run| run.ttft[0]),
            ratio(|run| run.gap[1]),
            ratio(|run| run.cores[0] / run.rate),
            if *way == Way::Middleware {
                "within the server".to_owned()
            } else {
                format!("{:.1} % of a core", 100.0 * own)
            },
        ];
        if *way != Way::Nothing {
            table.rows.push(row.to_vec());
        }
    }
}

/// All of them.
pub(crate) fn measure(results: &mut Results) {
    let head = ["what measures", "throughput", "TTFT p50", "gap p99", "server's CPU for each event", "its own CPU"];
    let mut table = Table::new("peers", &head);
    let ways = [Way::Nothing, Way::Observer, Way::Proxy, Way::Capture, Way::Tracer];
    compare(&ways, |_| Server::sample(&[]), PACE, &mut table);
    let mut python = Table::new("peers-python", &head);
    if let Some(reason) = require::missing("python") {
        python.rows.push(vec![format!("left out: {reason}")]);
    } else {
        let server =
            |way| if way == Way::Middleware { Server::measured(Stack::Uvloop) } else { Server::python(Stack::Uvloop) };
        compare(&[Way::Nothing, Way::Observer, Way::Middleware], server, PYTHON, &mut python);
    }
    results.tables.extend([table, python]);
}
