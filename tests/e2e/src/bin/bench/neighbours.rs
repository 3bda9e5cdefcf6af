//! Servers that are none of a language model's and in scope all the same: what they pay, and what they cost the observer.

use std::{
    env,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    observer::Observer,
    process::{self, Process},
    require,
    scratch::Scratch,
    servers::{Server, listening},
    stats,
};

use crate::finding::{Finding, Results, Table};

const ROUNDS: usize = 7;
const SECONDS: u64 = 4;
/// Connections of clients, each with one request under way.
const CLIENTS: usize = 16;
/// How the benchmark is told to be the echo server.
pub(crate) const ECHO: &str = "--be-an-echo-server";

/// Sends back what comes, on each connection; for ever.
pub(crate) fn echo() -> ! {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    println!("listening on {}", listener.local_addr().expect("bound"));
    loop {
        let (mut stream, _) = listener.accept().expect("connections come");
        thread::spawn(move || {
            stream.set_nodelay(true).expect("TCP_NODELAY");
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        });
    }
}

/// A server, and what its clients ask and get.
struct Neighbour {
    name: &'static str,
    process: Process,
    address: SocketAddr,
    asked: &'static [u8],
    /// Length of an answer.
    answer: usize,
    _scratch: Option<Scratch>,
}

const ASKED: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

impl Neighbour {
    fn web() -> Self {
        let scratch = Scratch::new();
        // The backend is never asked.
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let Server { process, address } =
            Server::nginx(nowhere, "keepalive_requests 1000000000; return 200 'a page of a site';", &scratch);
        let mut stream = TcpStream::connect(address).expect("nginx listens");
        stream.write_all(ASKED).expect("it reads");
        // Head and body come at once.
        let answer = stream.read(&mut [0; 4096]).expect("it answers");
        Self { name: "web server (nginx)", process, address, asked: ASKED, answer, _scratch: Some(scratch) }
    }

    fn echo() -> Self {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.arg(ECHO);
        let mut process = Process::spawn("echo server", command);
        let address = listening(&mut process);
        let asked = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
        Self { name: "key-value protocol, not HTTP", process, address, asked, answer: asked.len(), _scratch: None }
    }

    /// Answers a second, and the cores that `observer` takes after the first second.
    fn busy(&self, observer: Option<u32>) -> (f64, f64) {
        let (count, deadline) = (AtomicU64::new(0), Instant::now() + Duration::from_secs(SECONDS));
        let mut cores = 0.0;
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut stream = TcpStream::connect(self.address).expect("it listens");
                    stream.set_nodelay(true).expect("TCP_NODELAY");
                    let mut answer = vec![0; self.answer];
                    while Instant::now() < deadline {
                        stream.write_all(self.asked).expect("it reads");
                        stream.read_exact(&mut answer).expect("it answers");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            thread::sleep(Duration::from_secs(1));
            let (begun, before) = (Instant::now(), observer.map_or(0, process::cpu_nanos));
            thread::sleep(Duration::from_secs(SECONDS - 2));
            let used = observer.map_or(0, process::cpu_nanos) - before;
            cores = used as f64 / begun.elapsed().as_nanos() as f64;
        });
        (count.into_inner() as f64 / SECONDS as f64, cores)
    }
}

/// All of them.
pub(crate) fn measure(results: &mut Results) {
    let head = ["server in scope", "requests/s without", "throughput with", "observer's CPU after the first second"];
    let mut table = Table::new("neighbours", &head);
    let nginx = require::missing("nginx");
    if let Some(reason) = &nginx {
        println!("left out: {reason}");
    }
    let neighbours = nginx.is_none().then(Neighbour::web).into_iter().chain([Neighbour::echo()]);
    for neighbour in neighbours {
        let _warm = neighbour.busy(None);
        let (mut ratios, mut cores, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (without, _) = neighbour.busy(None);
            // By process, so that its port is one that may be left alone: those that are named are not.
            let observer = Observer::bare(&["--pids", &neighbour.process.pid().to_string()]);
            thread::sleep(Duration::from_millis(300));
            let (with, own) = neighbour.busy(Some(observer.pid()));
            ratios.push(with / without);
            cores.push(own);
            rates.push(without);
        }
        let throughput = stats::interval(&ratios);
        let (own, rate) = (stats::median(&mut cores), stats::median(&mut rates));
        table.rows.push(vec![
            neighbour.name.to_owned(),
            format!("{rate:.0}"),
            throughput.to_string(),
            format!("{:.2} % of a core", 100.0 * own),
        ]);
        let note = format!("{}: {throughput} at {rate:.0} requests/s", neighbour.name);
        results.findings.extend([
            Finding {
                name: "bystander: throughput lost",
                target: 0.03,
                value: 1.0 - throughput.median,
                unit: "ratio",
                note,
            },
            Finding {
                name: "bystander: observer's CPU",
                target: 0.02,
                value: own,
                unit: "cores",
                note: neighbour.name.to_owned(),
            },
        ]);
    }
    results.tables.push(table);
}
