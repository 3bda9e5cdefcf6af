//! An observer that does not run for a while, as on a host without a CPU to spare: SIGSTOP, SIGCONT.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use observer_e2e::{
    clock::{Mark, timed},
    http,
    raw::{Link, Listener, calls::Calls},
    request_log::RequestLine,
    require,
    traffic::Answer,
    wait::{self, SOON},
};

use super::{
    form,
    scene::{Scene, losses},
};

const WRITERS: usize = 2;
const EVENTS: usize = 200;
/// Between two writes of one writer, at the least: 20,000 events a second from both.
const PACE: Duration = Duration::from_micros(100);

/// Writes answers on this connection until `done`. Each request, and when it was.
fn write(number: usize, link: &Link, answer: &Answer, done: &AtomicBool, calls: &Mutex<Calls>) -> Vec<(String, Mark)> {
    let (mut own, mut asked) = (Calls::default(), Vec::new());
    while !done.load(Ordering::Relaxed) {
        let id = format!("stopped-{number}-{}", asked.len());
        let ((), mark) = timed(|| own.exchange(link, &id, answer, PACE));
        asked.push((id, mark));
    }
    calls.lock().expect("no panic").0 += own.0;
    asked
}

/// It was told of whole, at its time; or as incomplete.
fn check(line: &RequestLine, (id, mark): &(String, Mark)) -> bool {
    if line.outcome == "incomplete" {
        return false;
    }
    assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(EVENTS as u64)), "{id}");
    let times = [line.t_arrive_ns, line.t_read_ns, line.t_first_ns, line.t_last_ns, line.t_end_ns];
    times.iter().for_each(|time| mark.expect(*time, id));
    assert!(line.chunk_times_ns.len() == EVENTS && line.chunk_times_ns.iter().all(|time| mark.holds(*time)), "{id}");
    true
}

/// The ring overflows, and each call is an event or a lost one.
#[test]
fn stopped_under_load_until_the_ring_overflows() {
    require!(kernel, sample);
    let listener = Listener::v4();
    let ring = form("1048576", "8388608");
    let mut scene = Scene::tuned(&[listener.port()], &[("OBSERVER_KERNEL_RING_BYTES", ring)]);
    // Of the two writers alone: what the warm-up counted is taken off.
    let before = scene.observer.metrics().sum("observer_events_total", &[("source", "data")]);
    let links: Vec<Link> = (0..WRITERS).map(|_| listener.link()).collect();
    let (answer, done, calls) = (Answer::new(EVENTS, 10), AtomicBool::new(false), Mutex::new(Calls(before as u64)));
    let asked: Vec<_> = thread::scope(|scope| {
        let write = |(number, link)| {
            let (answer, done, calls) = (&answer, &done, &calls);
            scope.spawn(move || write(number, link, answer, done, calls))
        };
        let writers: Vec<_> = links.iter().enumerate().map(write).collect();
        thread::sleep(Duration::from_millis(500));
        scene.observer.signal(libc::SIGSTOP);
        thread::sleep(form(Duration::from_secs(1), Duration::from_secs(5)));
        scene.observer.signal(libc::SIGCONT);
        thread::sleep(Duration::from_millis(500));
        done.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    });
    let lines = scene.told();
    let metrics = scene.observer.metrics();
    let lost = calls.into_inner().expect("no panic").expect_accounted(&metrics);
    assert!(lost > 1000, "the ring was large enough after all: {lost}");
    let (mut measured, mut incomplete, mut unseen) = (0, 0, 0);
    for request in &asked {
        let of_it: Vec<_> = lines.iter().filter(|line| line.request_id.as_ref() == Some(&request.0)).collect();
        match of_it[..] {
            [] => unseen += 1,
            [line] if check(line, request) => measured += 1,
            [_] => incomplete += 1,
            _ => panic!("told of twice: {of_it:#?}"),
        }
    }
    println!("{} requests: {measured} measured, {incomplete} incomplete, {unseen} unseen", asked.len());
    assert!(measured > 0 && incomplete > 0 && unseen > 0, "before, amid and in the overflow");
    let incomplete = lines.iter().filter(|line| line.outcome == "incomplete").count();
    assert_eq!(metrics.sum("observer_incomplete_requests_total", &[]), incomplete as f64);
    assert!(metrics.sum("observer_stream_gap_bytes_total", &[]) > 0.0);
    drop(links);
    scene.ends(&format!("{measured} requests measured, {incomplete} incomplete, {unseen} in gaps"));
}

/// While the ring has room, nothing is lost, and no time is later for it: stamps are the kernel's.
#[test]
fn stopped_while_the_ring_has_room() {
    require!(kernel, sample);
    // Some 3,000 events a second, of 600 bytes.
    let (pause, ring) = form((Duration::from_millis(1200), "16777216"), (Duration::from_secs(5), "33554432"));
    let mut scene = Scene::tuned(&[], &[("OBSERVER_KERNEL_RING_BYTES", ring)]);
    let load = scene.load(&["--concurrency", "16", "--for", form("2500ms", "8s")]);
    thread::sleep(Duration::from_millis(500));
    scene.observer.signal(libc::SIGSTOP);
    thread::sleep(pause);
    scene.observer.signal(libc::SIGCONT);
    let ready = || http::get(scene.observer.address(), "/readyz").is_ok_and(|answer| answer.status == 200);
    wait::until("the observer to be ready again", SOON, || ready().then_some(()));
    let clients = load.lines();
    let tally = scene.compare_whole(&clients);
    assert!(losses(&scene.observer.metrics()).is_empty());
    assert!(scene.observer.metrics().sum("observer_ring_used_ratio", &[]) > 0.05, "it was not stopped");
    scene.ends(&format!("{} requests measured, none missing", tally.measured));
}
