//! Servers that are killed, or stand still, amid their answers.

use std::{thread, time::Duration};

use observer_e2e::{
    request_log::RequestLine,
    require,
    servers::Server,
    wait::{self, SOON},
};
use sample_llm::load::Outcome;

use super::{
    form,
    scene::{INTERVAL_MS, Scene, TTFT_MS},
};

/// A server that is killed amid 32 answers, and started again at the same address.
#[test]
fn killed_amid_its_answers() {
    require!(kernel, sample);
    let mut scene = Scene::new();
    let rounds = form(1, 10);
    let mut all = Vec::new();
    for _ in 0..rounds {
        let sample = format!("{{\"ttft_ms\":{TTFT_MS},\"interval_ms\":{INTERVAL_MS},\"tokens\":300}}");
        let load = scene.load_of(&sample, &["--concurrency", "32", "--keep-alive", "false", "--for", "2s"]);
        thread::sleep(Duration::from_millis(800));
        let address = scene.server.address.to_string();
        scene.server.process.stop(libc::SIGKILL, SOON);
        thread::sleep(Duration::from_millis(200));
        scene.server = Server::sample_at(&address, &[]);
        all.extend(load.lines());
    }
    let count = |outcome| all.iter().filter(|line| line.outcome == outcome).count();
    let (cut, refused, whole) = (count(Outcome::Truncated), count(Outcome::Failed), count(Outcome::Ok));
    println!("{cut} cut, {refused} refused, {whole} whole");
    assert!(cut >= 16 * rounds && refused > 0, "it was not killed amid its answers");
    let tally = scene.compare_whole(&all);
    let metrics = scene.observer.metrics();
    assert!(metrics.sum("llm_requests_total", &[("outcome", "truncated")]) >= (16 * rounds) as f64);
    wait::until("all connections to be forgotten", SOON, || {
        (scene.observer.metrics().sum("observer_connections", &[]) == 0.0).then_some(())
    });
    scene.ends(&format!("{} requests told of, {cut} of them cut off", tally.measured));
}

/// A server that stands still amid its answers: SIGSTOP, SIGCONT. That time is theirs.
#[test]
fn standing_still_amid_its_answers() {
    require!(kernel, sample);
    let mut scene = Scene::new();
    let pause = form(Duration::from_millis(800), Duration::from_secs(10));
    let load = scene.load(&["--concurrency", "16", "--for", form("2s", "14s")]);
    thread::sleep(Duration::from_millis(500));
    scene.server.process.signal(libc::SIGSTOP);
    thread::sleep(pause);
    scene.server.process.signal(libc::SIGCONT);
    let clients = load.lines();
    let tally = scene.compare_whole(&clients);
    let took = |line: &RequestLine| line.t_end_ns.zip(line.t_arrive_ns).map(|(end, arrive)| end - arrive);
    let paused = |line: &&RequestLine| took(line).is_some_and(|took| Duration::from_nanos(took) > pause * 9 / 10);
    let lines = scene.lines();
    let seen = lines.iter().filter(paused).count();
    println!("{seen} answers stood still");
    assert!((8..=16).contains(&seen), "{seen} answers stood still, of 16 under way");
    scene.ends(&format!("{} requests measured, {seen} of them with the pause in it", tally.measured));
}
