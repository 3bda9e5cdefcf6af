//! Connections that are opened and dropped, by the thousands.

use std::{
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    raw::{Link, Listener},
    require,
    traffic::{self, Answer},
    wait::{self, SOON},
};

use super::{
    form,
    scene::{Scene, losses},
    truth,
};

/// Ways to drop a connection.
const WAYS: usize = 6;

/// What each way leaves: nothing, nothing, nothing, a request that its client left, one that its server cut off, a
/// whole one.
fn drop_one(link: Link, way: usize, answer: &[u8]) {
    let request = traffic::chat("dropped");
    match way {
        0 => drop(link),
        1 => {
            link.client.send(&request[..30]);
            assert!(!link.server.recv(65_536).is_empty());
            let _reset = link.client.reset();
        }
        2 => {
            link.client.send(b"\x16\x03\x01\x00\xf4 no HTTP at all");
            assert!(!link.server.recv(65_536).is_empty());
            let _reset = link.server.reset();
        }
        _ => {
            link.client.send(&request);
            assert!(!link.server.take().bytes.is_empty());
            match way {
                3 => {
                    link.server.send(&answer[..answer.len() / 2]);
                    link.client.drain(answer.len() / 2);
                    // The server sees that it is gone, and goes, too.
                    let _reset = link.client.reset();
                }
                4 => {
                    link.server.send(&answer[..answer.len() / 2]);
                    link.client.drain(answer.len() / 2);
                    let _closed = link.server.close();
                }
                _ => {
                    link.server.send(answer);
                    link.client.drain(answer.len());
                }
            }
        }
    }
}

#[test]
fn ten_thousand_opened_and_dropped() {
    require!(kernel, sample);
    let listener = Listener::v4();
    let scene = Scene::tuned(&[listener.port()], &[]);
    let before = scene.lines().len();
    let rounds = form(10_000, 60_000) / WAYS;
    let answer = Answer::new(4, 10).bytes();
    let begun = Instant::now();
    for round in 0..rounds {
        for way in 0..WAYS {
            drop_one(listener.link(), way, &answer);
        }
        // Ports are given back by resets, but for one in six.
        if round % 1000 == 999 {
            thread::sleep(Duration::from_millis(20));
        }
    }
    let rate = (rounds * WAYS) as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} connections a second");
    wait::until("all connections to be forgotten", 2 * SOON, || {
        (scene.observer.metrics().sum("observer_connections", &[]) == 0.0).then_some(())
    });
    let lines = scene.told();
    let counts = truth::outcomes(&lines[before..]);
    let lost = losses(&scene.observer.metrics());
    println!("{counts:?}, lost: {lost:?}");
    let count = |outcome| counts.get(outcome).copied().unwrap_or(0);
    assert_eq!(scene.observer.metrics().sum("observer_request_log_dropped_total", &[]), 0.0);
    if lost.is_empty() {
        assert_eq!(
            (count("cancelled"), count("truncated"), count("ok"), count("incomplete")),
            (rounds, rounds, rounds, 0)
        );
    } else {
        // A machine that others use may keep the observer waiting: a few, and counted.
        let told = count("cancelled") + count("truncated") + count("ok") + count("incomplete");
        assert!(told <= 3 * rounds && told >= 3 * rounds * 95 / 100, "{counts:?}");
    }
    for line in lines[before..].iter().filter(|line| line.outcome == "ok") {
        assert_eq!(line.token_events, Some(4), "{line:#?}");
    }
    scene.ends(&format!("{} connections, {rate:.0} a second", rounds * WAYS));
}
