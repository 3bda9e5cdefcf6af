//! What single system calls pay, with each way of seeing sockets: calls that have nothing to do with them, and those on
//! connections that are nobody's, left alone, or measured.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{hooks, net::free_port, observer::Observer, signals, stats, traffic};

use crate::finding::{Finding, Results, Table};

/// Measurements of each way, in turns.
const ROUNDS: usize = 9;
const BATCHES: u32 = 300;
const HOOKS: [&str; 3] = ["tracepoint", "fexit", "sys-exit"];

/// What is called, and how much longer it may take with the hook that is taken by itself.
const CALLS: [(&str, f64); 6] = [
    ("getppid, unrelated", 1.02),
    ("write to /dev/null, unrelated", 1.02),
    ("read of /dev/zero, unrelated", 1.02),
    ("TCP write and read, out of scope", 1.06),
    ("TCP write and read, in scope and not HTTP", f64::INFINITY),
    ("TCP write and read of a token event", f64::INFINITY),
];

/// Nanoseconds per call: a low quantile over many batches, each shorter than a turn of the scheduler, since whatever
/// disturbs a batch makes it longer.
fn per_call(calls: u32, mut call: impl FnMut()) -> f64 {
    let batch = |_| {
        let begun = Instant::now();
        (0..calls).for_each(|_| call());
        begun.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    let mut batches: Vec<f64> = (0..BATCHES).map(batch).collect();
    stats::quantile(&mut batches, 0.05)
}

/// A listener, and whose connections are measured.
struct Listeners {
    nobody: TcpListener,
    scope: TcpListener,
}

impl Listeners {
    fn new() -> Self {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).expect("the port is free");
        Self { nobody: bind(), scope: bind() }
    }
}

/// Both ends of a connection.
fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("a connection waits");
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("TCP_NODELAY");
    }
    (client, server)
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    let mut buffer = [0; 4096];
    from.write_all(bytes).expect("the peer lives");
    to.read_exact(&mut buffer[..bytes.len()]).expect("the peer lives");
}

/// Nanoseconds of each of [`CALLS`].
fn costs(listeners: &Listeners) -> [f64; CALLS.len()] {
    signals::pin();
    let (mut null, mut zero) =
        (File::create("/dev/null").expect("it is there"), File::open("/dev/zero").expect("it is there"));
    let mut buffer = [0; 100];
    let getppid = per_call(2000, || {
        // SAFETY: getppid takes nothing and cannot fail.
        std::hint::black_box(unsafe { libc::getppid() });
    });
    let write = per_call(1000, || null.write_all(&[1; 64]).expect("it takes all"));
    let read = per_call(1000, || zero.read_exact(&mut buffer[..64]).expect("it gives all"));
    let token = traffic::Answer::new(1, 1).tokens.remove(0);
    let (mut client, mut server) = pair(&listeners.nobody);
    let nobody = per_call(40, || pass(&mut server, &mut client, &token));
    let (mut client, mut server) = pair(&listeners.scope);
    // No request of HTTP: looked at once, and never again.
    pass(&mut client, &mut server, b"\x00\x00\x00\x08binary");
    let left_alone = per_call(40, || pass(&mut server, &mut client, &token));
    let (mut client, mut server) = pair(&listeners.scope);
    pass(&mut client, &mut server, &traffic::chat("calls"));
    pass(&mut server, &mut client, traffic::STREAM_HEAD.as_bytes());
    let tracked = per_call(40, || pass(&mut server, &mut client, &token));
    [getppid, write, read, nobody, left_alone, tracked]
}

/// One round, with this hook or without an observer.
fn round(hook: Option<&'static str>) -> Option<[f64; CALLS.len()]> {
    let listeners = Listeners::new();
    let measure = || {
        let port = listeners.scope.local_addr().expect("bound").port().to_string();
        let _observer = hook.map(|_| Observer::bare(&["--ports", &port]));
        if hook.is_some() {
            // What it does at its start is over.
            thread::sleep(Duration::from_millis(300));
        }
        // In a thread of its own: a pinned one would start its observers pinned.
        thread::scope(|scope| scope.spawn(|| costs(&listeners)).join().expect("a measurement"))
    };
    let Some(hook) = hook else { return Some(measure()) };
    let mut found = None;
    hooks::with(hook, || found = Some(measure()));
    found
}

/// All calls with all hooks.
pub(crate) fn measure(results: &mut Results) {
    // By way, the first without an observer; by call.
    let ways: Vec<Option<&'static str>> = std::iter::once(None).chain(HOOKS.map(Some)).collect();
    let mut samples: Vec<[Vec<f64>; CALLS.len()]> = ways.iter().map(|_| Default::default()).collect();
    let mut missing = vec![false; ways.len()];
    for _ in 0..ROUNDS {
        for (way, hook) in ways.iter().enumerate() {
            if missing[way] {
                continue;
            }
            let Some(costs) = round(*hook) else {
                missing[way] = true;
                continue;
            };
            for (call, cost) in costs.into_iter().enumerate() {
                samples[way][call].push(cost);
            }
        }
    }
    let mut head = vec!["one call".to_owned(), "without".to_owned()];
    head.extend(HOOKS.map(|hook| format!("`{hook}`")));
    let mut table = Table { id: "calls", head, rows: Vec::new() };
    let medians: Vec<Vec<f64>> = samples
        .iter_mut()
        .map(|calls| {
            calls.iter_mut().map(|samples| if samples.is_empty() { f64::NAN } else { stats::median(samples) }).collect()
        })
        .collect();
    let taken = (1..ways.len()).find(|way| !missing[*way]);
    for (call, (name, target)) in CALLS.into_iter().enumerate() {
        let without = medians[0][call];
        let mut row = vec![name.to_owned(), format!("{without:.0} ns")];
        for way in 1..ways.len() {
            row.push(if missing[way] {
                "refused here".to_owned()
            } else {
                let with = medians[way][call];
                format!("{with:.0} ns, {:.3}", with / without)
            });
        }
        table.rows.push(row);
        if let Some(way) = taken {
            let with = medians[way][call];
            let note = format!("{without:.1} ns without, {with:.1} ns with {}", HOOKS[way - 1]);
            results.findings.push(Finding { name, target, value: with / without, unit: "ratio", note });
        }
    }
    results.tables.push(table);
}
