//! Observers that are killed, that are started again and again, and two of them at once.

use std::{thread, time::Duration};

use observer_e2e::{
    bpf::Objects,
    clock::monotonic,
    observer::Observer,
    request_log::RequestLine,
    require,
    wait::{self, SOON},
};
use sample_llm::load::Line;

use super::{
    form,
    scene::{Scene, expect_gone, losses},
    truth::{self, Tally},
};

/// Whole lines of a request and its end must have been written by then.
const FLUSHED_NS: u64 = 1_000_000_000;

/// SIGKILL amid a load: the kernel detaches and frees everything, the server notices nothing, and the next observer,
/// at the same address, begins at once.
#[test]
fn killed_under_load() {
    require!(kernel, sample);
    let mut scene = Scene::new();
    for round in 0..form(1, 5) {
        let load = scene.load(&["--concurrency", "16", "--for", "3s"]);
        thread::sleep(Duration::from_millis(1800));
        let held = Objects::held_by(scene.observer.pid());
        assert!(!held.programs.is_empty() && !held.maps.is_empty(), "{held:?}");
        let (address, log) = (scene.observer.address(), scene.observer.log().clone());
        let killed = monotonic();
        scene.observer.kill();
        expect_gone(&held);
        let lines = log.read();
        let ports = scene.server.port().to_string();
        let next = Observer::at(address, &["--ports", &ports], &[]);
        println!("round {round}: ready again after {:?}", next.attached_after());
        let clients = load.lines();
        // The load began after the warm-up.
        let of_load: Vec<RequestLine> = lines.into_iter().filter(|line| names(line, &clients)).collect();
        let tally = truth::compare(&clients, &of_load);
        let ended = |line: &&Line| line.start_ns + line.total_ns + FLUSHED_NS < killed;
        let due = clients.iter().filter(ended).count();
        println!("round {round}: {tally:?}, of which {due} had to be written");
        assert!(due > 0 && tally.measured >= due && tally.incomplete == 0, "{tally:?}");
        scene.observe_anew(next);
    }
    scene.ends("killed, and begun anew at the same address");
}

fn names(line: &RequestLine, clients: &[Line]) -> bool {
    clients.iter().any(|client| Some(&client.request_id) == line.request_id.as_ref())
}

/// Restarts under load: what begins and ends while one observer is ready is measured, by that one alone; what it joins
/// amid its time is not measured, and counted.
#[test]
fn restarted_under_load() {
    require!(kernel, sample);
    let mut scene = Scene::new();
    let restarts = form(1, 10);
    let load = scene.load(&["--concurrency", "16", "--for", form("10s", "60s")]);
    thread::sleep(Duration::from_secs(1));
    // Of each observer: since when it was ready, until when, and its log.
    let (mut terms, mut joined) = (Vec::new(), 0.0);
    let (mut since, mut log) = (0, scene.observer.log().clone());
    for _ in 0..restarts {
        joined += scene.observer.metrics().sum("observer_joined_mid_request_total", &[]);
        let held = Objects::held_by(scene.observer.pid());
        let until = monotonic();
        scene.observer.stop(libc::SIGTERM);
        expect_gone(&held);
        terms.push((since, until, log.read()));
        scene.observer = Observer::start(&[scene.server.port()]);
        (since, log) = (monotonic(), scene.observer.log().clone());
        thread::sleep(Duration::from_millis(form(600, 3000)));
    }
    joined += scene.observer.metrics().sum("observer_joined_mid_request_total", &[]);
    let clients = load.stop();
    scene.observer.settle();
    thread::sleep(Duration::from_millis(500));
    terms.push((since, u64::MAX, log.read()));
    let (mut measured, mut due) = (0, 0);
    for (since, until, lines) in &terms {
        let lines: Vec<RequestLine> = lines.iter().filter(|line| names(line, &clients)).cloned().collect();
        let tally = truth::compare(&clients, &lines);
        assert_eq!(tally.incomplete, 0, "{tally:?}");
        measured += tally.measured;
        let within: Vec<Line> = clients
            .iter()
            .filter(|line| line.start_ns > *since && line.start_ns + line.total_ns < *until)
            .cloned()
            .collect();
        let ids: Vec<RequestLine> = lines.into_iter().filter(|line| names(line, &within)).collect();
        let tally = truth::compare(&within, &ids);
        assert_eq!(tally, Tally { asked: within.len(), measured: within.len(), ..Tally::default() });
        due += within.len();
    }
    println!("{} requests, {measured} measured ({due} due), {joined} joined midway", clients.len());
    assert!(measured <= clients.len(), "a request was measured by two");
    assert!(joined > 0.0, "each was under way at a restart");
    let observer = Observer::start(&[scene.server.port()]);
    scene.observer.stop(libc::SIGTERM);
    scene.observe_anew(observer);
    scene.ends(&format!(
        "{restarts} restarts, {measured} of {} requests measured, {joined} joined midway",
        clients.len()
    ));
}

/// Two at once measure the same, and one notices nothing of the other's sudden end.
#[test]
fn two_at_once() {
    require!(kernel, sample);
    let mut scene = Scene::new();
    let mut other = Observer::start(&[scene.server.port()]);
    let requests = form(200, 4000);
    let clients = scene.load(&["--concurrency", "16", "--requests", &requests.to_string()]).lines();
    scene.compare_whole(&clients);
    let of_load = |lines: Vec<RequestLine>| -> Vec<RequestLine> {
        let mut lines: Vec<_> = lines.into_iter().filter(|line| names(line, &clients)).collect();
        lines.sort_by(|one, two| one.request_id.cmp(&two.request_id));
        lines
    };
    let (one, two) = (of_load(scene.lines()), of_load(other.lines_when(requests, SOON)));
    let whole = Tally { asked: requests, measured: requests, ..Tally::default() };
    assert_eq!(truth::compare(&clients, &two), whole, "{:?}", losses(&other.metrics()));
    assert!(losses(&other.metrics()).is_empty());
    for (one, two) in one.iter().zip(&two) {
        // Both read the kernel's stamp of a packet's arrival.
        assert_eq!((one.t_arrive_ns, one.token_events), (two.t_arrive_ns, two.token_events), "{:?}", one.request_id);
    }
    let load = scene.load(&["--concurrency", "16", "--for", "2s"]);
    thread::sleep(Duration::from_millis(700));
    let held = Objects::held_by(other.pid());
    other.kill();
    expect_gone(&held);
    let later = load.lines();
    let all = [clients.clone(), later].concat();
    let tally = scene.compare_whole(&all);
    wait::until("the other one's programs to be gone", SOON, || held.left().is_empty().then_some(()));
    scene.ends(&format!("{} requests measured by both, one killed, none missing", tally.measured));
}
