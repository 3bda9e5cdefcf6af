//! The observer's times against the packets themselves, as tcpdump stamped them in the kernel.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use observer_e2e::{
    capture::{Capture, Captured},
    http::Client,
    noise,
    observer::Observer,
    request_log::RequestLine,
    require,
    scratch::Scratch,
    servers::{Server, Stack},
    stats, traffic,
    truth::{self, Exchange},
};

const TOKENS: u64 = 20;
/// Requests on one connection before the next one is made: both first and later requests are compared.
const KEPT_ALIVE_FOR: u64 = 5;

/// Measurements share two cores with nothing of ours.
static ALONE: Mutex<()> = Mutex::new(());

/// Absolute errors in nanoseconds.
#[derive(Default)]
struct Errors {
    first: Vec<u64>,
    gaps: Vec<u64>,
    /// Comparisons left out since bytes were still held back (Nagle, a full window) when the observer's time was taken.
    first_unsent: usize,
    gaps_unsent: usize,
}

/// Sends `requests` from `concurrency` threads, each on its own connections, one after the other.
fn load(address: SocketAddr, concurrency: u64, requests: u64, interval: u64) {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..concurrency {
            scope.spawn(|| {
                let (mut client, mut uses) = (None, 0);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return;
                    }
                    if uses % KEPT_ALIVE_FOR == 0 {
                        client = Some(Client::connect(address).expect("the server listens"));
                    }
                    uses += 1;
                    let request = traffic::sample_chat(&format!("a{number}"), 30, interval, TOKENS);
                    let answer = client.as_mut().expect("connected").ask(&request).expect("an answer");
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
}

/// The observer's lines by client port, each port's in the order of their ends: connections that reuse a port follow
/// one another, and so do the requests of each.
fn by_connection(lines: Vec<RequestLine>) -> HashMap<u16, Vec<RequestLine>> {
    let mut connections: HashMap<u16, Vec<RequestLine>> = HashMap::new();
    for line in lines {
        let client: SocketAddr = line.client.as_deref().and_then(|text| text.parse().ok()).expect("a client");
        connections.entry(client.port()).or_default().push(line);
    }
    for lines in connections.values_mut() {
        lines.sort_by_key(|line| line.t_end_ns);
    }
    connections
}

fn compare(exchange: &Exchange, line: &RequestLine, errors: &mut Errors) {
    assert_eq!(line.outcome, "ok", "{line:#?}");
    assert_eq!(line.request_id, exchange.request_id, "joined by port and place, and so by id");
    assert_eq!(line.token_events, Some(exchange.tokens.len() as u64), "{line:#?}");
    assert_eq!(line.output_tokens, exchange.output_tokens, "{line:#?}");
    assert_eq!(line.status, Some(exchange.status));
    line.expect_order(true);
    let unsent = |index: usize| line.chunk_unsent.contains(&index);
    let times = &line.chunk_times_ns;
    if unsent(0) {
        errors.first_unsent += 1;
    } else {
        let seen = times[0] - line.t_arrive_ns.expect("expected in order");
        errors.first.push(seen.abs_diff(exchange.tokens[0] - exchange.arrive));
    }
    for index in 1..times.len() {
        if unsent(index) || unsent(index - 1) {
            errors.gaps_unsent += 1;
        } else {
            let seen = times[index] - times[index - 1];
            errors.gaps.push(seen.abs_diff(exchange.tokens[index] - exchange.tokens[index - 1]));
        }
    }
}

fn join(captured: &Captured, port: u16, lines: Vec<RequestLine>, requests: u64) -> Errors {
    let exchanges = truth::exchanges(&captured.packets, port);
    assert_eq!(exchanges.len() as u64, requests, "the packets hold every request");
    assert_eq!(lines.len() as u64, requests, "the log holds every request, once");
    let connections = by_connection(lines);
    let mut errors = Errors::default();
    let mut by_port: HashMap<u16, Vec<&Exchange>> = HashMap::new();
    for exchange in &exchanges {
        by_port.entry(exchange.client_port).or_default().push(exchange);
    }
    for (port, mut exchanges) in by_port {
        exchanges.sort_by_key(|exchange| exchange.arrive);
        let lines = connections.get(&port).expect("the observer saw this connection");
        assert_eq!(lines.len(), exchanges.len());
        for (exchange, line) in exchanges.into_iter().zip(lines) {
            compare(exchange, line, &mut errors);
        }
    }
    errors
}

fn measure(server: &Server, name: &str, concurrency: u64, requests: u64, interval: u64) {
    noise::settles(|| errors(server, name, concurrency, requests, interval));
}

/// An error, if times are off.
fn errors(server: &Server, name: &str, concurrency: u64, requests: u64, interval: u64) -> Result<(), String> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new();
    let mut observer = Observer::start(&[server.port()]);
    let capture = Capture::start(server.port(), &scratch);
    load(server.address, concurrency, requests, interval);
    let captured = capture.finish();
    let lines = observer.lines_when(requests as usize, Duration::from_secs(10));
    let lost = observer.metrics().sum("observer_events_lost_total", &[]);
    observer.stop(libc::SIGTERM);
    assert_eq!(lost, 0.0, "events were lost");
    let mut errors = join(&captured, server.port(), lines, requests);
    let (first, gaps) = (errors.first.len(), errors.gaps.len());
    println!(
        "{name}, concurrency {concurrency}: compared {first} first tokens and {gaps} gaps; left out {} and {} whose \
         packets had not left at the stamp",
        errors.first_unsent, errors.gaps_unsent
    );
    assert!(2 * first as u64 >= requests, "too few first tokens could be compared");
    assert!(2 * gaps as u64 >= requests * (TOKENS - 1), "too few gaps could be compared");
    let within = |what: &str, samples: &mut [u64], median: u64, p99: u64| {
        let (mid, high) = (stats::median(samples), stats::quantile(samples, 0.99));
        println!("  error of {what}: median {:.1} us, p99 {:.1} us", mid as f64 / 1e3, high as f64 / 1e3);
        (mid <= median * 1000 && high <= p99 * 1000).then_some(()).ok_or_else(|| format!("{what} is off"))
    };
    let first = within("time to first token", &mut errors.first, 25, 100);
    let gaps = within("gaps", &mut errors.gaps, 20, 150);
    first.and(gaps)
}

#[test]
fn one_at_a_time() {
    require!(kernel, sample, tcpdump);
    measure(&Server::sample(&[]), "sample server", 1, 200, 5);
}

#[test]
fn eight_at_a_time() {
    require!(kernel, sample, tcpdump);
    measure(&Server::sample(&[]), "sample server", 8, 400, 5);
}

#[test]
fn sixty_four_at_a_time() {
    require!(kernel, sample, tcpdump);
    measure(&Server::sample(&[]), "sample server", 64, 640, 10);
}

#[test]
fn eight_at_a_time_on_uvloop() {
    require!(kernel, python, tcpdump);
    let server = Server::python(Stack::Uvloop);
    measure(&server, "uvicorn+uvloop+httptools", 8, 200, 10);
}
