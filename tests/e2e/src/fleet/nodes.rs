//! Any number of nodes behind one address: node 17's exposition is at `/nodes/17/metrics`.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::recording::{Recording, pace};

/// A server of nodes, until it is dropped.
#[derive(Debug)]
pub struct Nodes {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

/// Serves one connection until its client leaves.
fn serve(mut stream: TcpStream, recording: &Recording, begun: Instant) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A client that neither asks nor leaves would keep a thread.
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut request = Vec::new();
    loop {
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                count => request.extend_from_slice(&chunk[..count]),
            }
        }
        let line = String::from_utf8_lossy(&request).into_owned();
        let node = line.strip_prefix("GET /nodes/").and_then(|rest| rest.split_once("/metrics")?.0.parse().ok());
        let (status, body) = match node {
            Some(node) => ("200 OK", recording.render(begun.elapsed().as_secs_f64(), pace(node))),
            None => ("404 Not Found", String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        request.clear();
    }
}

impl Nodes {
    /// Serves what was recorded.
    ///
    /// # Panics
    /// If no port can be had.
    #[must_use]
    pub fn serve(recording: Arc<Recording>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let stopped = Arc::new(AtomicBool::new(false));
        let (stop, begun) = (Arc::clone(&stopped), Instant::now());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let recording = Arc::clone(&recording);
                // A client that breaks off ends its own connection only.
                thread::spawn(move || drop(serve(stream, &recording, begun)));
            }
        });
        Self { address, stopped }
    }

    /// Scrape configuration of Prometheus for the first `count` nodes.
    #[must_use]
    pub fn targets(&self, count: usize) -> String {
        (1..=count)
            .map(|node| {
                format!(
                    "      - {{targets: ['{}'], labels: {{__metrics_path__: /nodes/{node}/metrics, instance: '{}', \
                     cluster: fleet}}}}\n",
                    self.address,
                    name(node)
                )
            })
            .collect()
    }
}

/// A node's name.
#[must_use]
pub fn name(node: usize) -> String {
    format!("node-{node:04}")
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; if it fails, that is gone already.
        drop(TcpStream::connect(self.address));
    }
}
