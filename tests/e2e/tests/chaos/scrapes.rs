//! Far too many scrapes, and clients that keep connections without ever saying what they want.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{http, require};

use super::{
    form,
    scene::{Scene, losses},
};

const SCRAPERS: usize = 16;
/// Connections that send a byte now and then: most of the places that the server has.
const SLOW: usize = 200;

/// Scrapes without a pause; every eighth time it leaves amid the answer.
fn scrape(address: SocketAddr, done: &AtomicBool, answered: &AtomicU64) {
    let mut count = 0_u64;
    while !done.load(Ordering::Relaxed) {
        count += 1;
        if count.is_multiple_of(8) {
            let leaving = || -> std::io::Result<()> {
                let mut stream = TcpStream::connect(address)?;
                stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")?;
                stream.read_exact(&mut [0; 100])
            };
            let _left = leaving();
        } else if http::get(address, "/metrics").is_ok_and(|answer| answer.status == 200) {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Connections whose heads never end, a byte each now and then; those that are cut off come again.
fn drip(address: SocketAddr, done: &AtomicBool) -> usize {
    let (mut streams, mut cut) = (Vec::<TcpStream>::new(), 0);
    while !done.load(Ordering::Relaxed) {
        let before = streams.len();
        streams.retain_mut(|stream| stream.write_all(b"a").is_ok());
        cut += before - streams.len();
        while streams.len() < SLOW {
            let Ok(mut stream) = TcpStream::connect(address) else { break };
            let _begun = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nx-slow: ");
            streams.push(stream);
        }
        thread::sleep(Duration::from_millis(200));
    }
    cut
}

/// All that the observer is for goes on meanwhile, and nobody is kept out.
#[test]
fn scrape_storm_and_slow_loris() {
    require!(kernel, sample);
    let mut scene = Scene::new();
    let (address, time) = (scene.observer.address(), form("2s", "40s"));
    let load = scene.load(&["--concurrency", "16", "--for", time]);
    let (done, answered, begun) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let (clients, cut) = thread::scope(|scope| {
        let slow = scope.spawn(|| drip(address, &done));
        for _ in 0..SCRAPERS {
            scope.spawn(|| scrape(address, &done, &answered));
        }
        let clients = load.lines();
        done.store(true, Ordering::Relaxed);
        (clients, slow.join().expect("the slow ones"))
    });
    let (answered, seconds) = (answered.into_inner(), begun.elapsed().as_secs_f64());
    println!("{answered} scrapes answered in {seconds:.1} s, {cut} slow clients cut off");
    assert!(answered > 20 * seconds as u64, "scrapes were kept out: {answered}");
    assert!(super::is_long() <= (cut > 0), "slow clients were never cut off");
    let tally = scene.compare_whole(&clients);
    assert!(losses(&scene.observer.metrics()).is_empty());
    scene.ends(&format!(
        "{answered} scrapes beside {SLOW} slow clients, {} requests measured, none missing",
        tally.measured
    ));
}
