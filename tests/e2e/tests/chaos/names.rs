//! Names that clients make up: models, paths, ids. A week of them, at once.

use std::{thread, time::Duration};

use observer_e2e::{
    http,
    raw::{Link, Listener},
    require,
    traffic::{self, STREAM_HEAD, chunk, event},
    wait::{self, SOON},
};
use serde_json::json;

use super::{form, scene::Scene};

/// One request and its answer, with names that nobody had before. A quarter of them have no path that is known.
fn ask(link: &Link, number: usize) {
    let model = format!("team-{number}/model-{}-{number}", "x".repeat(number % 200));
    let path = match number % 4 {
        0 => format!("/nothing/{number}?key={number}"),
        1 => format!("/tenants/{number}/v1/chat/completions"),
        2 => format!("/v1/chat/completions?session={number}"),
        _ => "/v1/chat/completions".to_owned(),
    };
    let body = json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "hello"}]});
    let headers = format!("x-tenant: tenant-{number}\r\nuser-agent: client/{number}\r\n");
    let request = traffic::post(&path, &format!("names-{number}"), &headers, &body.to_string());
    link.client.send(&request);
    assert!(!link.server.take().bytes.is_empty());
    let (id, finish) = (format!("chatcmpl-{number}"), format!("reason-{number}"));
    let said = |delta, finish| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        event(
            &json!({"id": id, "object": "chat.completion.chunk", "model": format!("{model}-answers"), "choices": [choice]}),
        )
    };
    let parts = [
        chunk(&said(json!({"content": "word"}), None)),
        chunk(&said(json!({}), Some(finish))),
        chunk("data: [DONE]\n\n"),
    ];
    let answer = [STREAM_HEAD.as_bytes(), &parts.concat(), b"0\r\n\r\n"].concat();
    link.server.send(&answer);
    link.client.drain(answer.len());
}

/// Labels have as many values as they may have, and no more; memory and the scrape's size stay what they were.
#[test]
fn a_week_of_models_and_paths() {
    require!(kernel, sample);
    let listener = Listener::v4();
    let settings = [("OBSERVER_METRICS_HEADER_LABELS", "x-tenant:tenant:8")];
    let mut scene = Scene::tuned(&[listener.port()], &settings);
    let port = listener.port().to_string();
    let answered =
        |scene: &Scene| scene.observer.metrics().sum("llm_requests_total", &[("server_port", &port)]) as usize;
    let size =
        |scene: &Scene| http::get(scene.observer.address(), "/metrics").expect("an answer").text().lines().count();
    let (first, all) = form((400, 6000), (2000, 60_000));
    let mut link = listener.link();
    // All places are taken once, and what is told of has its size.
    (0..first).for_each(|number| ask(&link, number));
    let told = |scene: &Scene, count: usize| {
        wait::until("all requests to be counted", 2 * SOON, || (answered(scene) == count).then_some(()));
    };
    told(&scene, first * 3 / 4);
    scene.note_rest();
    let (lines, dropped) = (size(&scene), scene.observer.metrics().sum("observer_series_dropped_total", &[]));
    assert!(dropped > 0.0, "there is room for more names: {lines} lines");
    for number in first..all {
        ask(&link, number);
        if number % 500 == 0 {
            link = listener.link();
            thread::sleep(Duration::from_millis(1));
        }
    }
    told(&scene, all * 3 / 4);
    let metrics = scene.observer.metrics();
    let other = metrics.sum("llm_requests_total", &[("server_port", &port), ("gen_ai_request_model", "_other")]);
    println!("{all} requests, {other} of them of other models, {} lines of metrics, {lines} before", size(&scene));
    assert!(other >= (all * 3 / 4 - 64) as f64, "{other} of {all}");
    // A few series more may come of combinations, never one for each name.
    assert!(size(&scene) <= lines + lines / 10, "{} lines, {lines} before", size(&scene));
    let unknown = metrics.sum("observer_other_requests_total", &[]);
    assert_eq!(unknown, (all / 4) as f64, "paths that are none of a language model's");
    drop(link);
    let after = size(&scene);
    scene.ends(&format!("{all} requests of as many models and paths, {lines} lines of metrics, {after} after"));
}
