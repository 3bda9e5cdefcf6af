//! What TCP's signal costs: a write of a tracked connection, and a look at all sockets.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::Cost;
use crate::{
    net::free_port,
    observer::Observer,
    stats, traffic,
    wait::{self, SOON},
};

/// Connections to nobody's language model that a look passes over: two sockets each.
const CONNECTIONS: usize = 9000;

fn observer(port: u16, on: bool) -> Observer {
    Observer::tuned(&["--ports", &port.to_string()], &[("OBSERVER_SIGNALS_TCP", if on { "true" } else { "false" })])
}

/// A connection, both ends in this process: the client's and the server's.
fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("a connection waits");
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
    }
    (client, server)
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8], buffer: &mut [u8]) {
    from.write_all(bytes).expect("the peer lives");
    to.read_exact(&mut buffer[..bytes.len()]).expect("the peer lives");
}

/// A whole request, so that this process is known as a workload, and the beginning of a streamed answer.
fn prepare(observer: &Observer, client: &mut TcpStream, server: &mut TcpStream, buffer: &mut [u8]) {
    pass(client, server, &traffic::chat("whole"), buffer);
    let body = r#"{"object":"chat.completion","choices":[]}"#;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    pass(server, client, answer.as_bytes(), buffer);
    wait::until("the workload to be known", SOON, || {
        observer.metrics().has("workload_cpu_seconds_total").then_some(())
    });
    pass(client, server, &traffic::chat("streamed"), buffer);
    pass(server, client, traffic::STREAM_HEAD.as_bytes(), buffer);
}

/// Nanoseconds of one write and read of a token event, on one CPU: the 0.1 quantile of short batches.
fn writes(on: bool) -> f64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).expect("the port is free");
    let observer = observer(listener.local_addr().expect("bound").port(), on);
    // In a thread of its own: a pinned one would start its observers pinned.
    thread::scope(|scope| {
        let measure = || {
            super::pin();
            let (mut client, mut server) = pair(&listener);
            let mut buffer = vec![0; 4096];
            prepare(&observer, &mut client, &mut server, &mut buffer);
            let event = traffic::chunk(&traffic::delta(&serde_json::json!({"content": "token"}), None));
            let mut batches: Vec<f64> = (0..1000)
                .map(|_| {
                    let begun = Instant::now();
                    (0..40).for_each(|_| pass(&mut server, &mut client, &event, &mut buffer));
                    begun.elapsed().as_nanos() as f64 / 40.0
                })
                .collect();
            stats::quantile(&mut batches, 0.1)
        };
        scope.spawn(measure).join().expect("a measurement")
    })
}

/// Nanoseconds of one scrape with many sockets on the host.
fn scrapes(on: bool) -> f64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).expect("the port is free");
    let observer = observer(listener.local_addr().expect("bound").port(), on);
    let (mut client, mut server) = pair(&listener);
    prepare(&observer, &mut client, &mut server, &mut [0; 4096]);
    let strangers = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).expect("the port is free");
    let _pairs: Vec<_> = (0..CONNECTIONS).map(|_| pair(&strangers)).collect();
    let mut last = Duration::from_millis(20);
    let scrape = |_| {
        // Looks take a hundredth of the time at most: the next one is due by then.
        thread::sleep(100 * last.min(SOON / 100) + Duration::from_millis(100));
        let begun = Instant::now();
        let _metrics = observer.metrics();
        last = begun.elapsed();
        last.as_nanos() as f64
    };
    let mut times: Vec<f64> = (0..5).map(scrape).collect();
    stats::median(&mut times)
}

/// Writes of tracked connections with `signals.tcp` on and off, by turns.
///
/// # Panics
/// If something cannot be started, or breaks off.
#[must_use]
pub fn cost(rounds: usize) -> Cost {
    let mut cost = Cost { name: "token event of a workload, TCP", target: 1.03, without: Vec::new(), with: Vec::new() };
    for _ in 0..rounds {
        cost.without.push(writes(false));
        cost.with.push(writes(true));
    }
    cost
}

/// Nanoseconds that a scrape takes longer for each TCP socket of the host, by turns with and without the signal; and
/// how many sockets there were.
///
/// # Panics
/// As [`cost`].
#[must_use]
pub fn per_socket(rounds: usize) -> (f64, usize) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (on, times) in times.iter_mut().enumerate() {
            times.push(scrapes(on == 1));
        }
    }
    let [without, with] = times.map(|times| super::quiet(&times));
    ((with - without) / (2 * CONNECTIONS) as f64, 2 * CONNECTIONS)
}
