use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::*;
use crate::{config::MetricsConfig, metrics::fixture::request};

struct Server {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), HttpError>>,
}

async fn start() -> Server {
    let config = MetricsConfig::default();
    let metrics = Metrics::new(&config, &[]);
    metrics.recorder().record(&request());
    let ready = Arc::new(AtomicBool::new(true));
    let is_ready = Arc::clone(&ready);
    let state = HttpState {
        sampler: Arc::new(Sampler::new(Arc::clone(&metrics), &config, "ports 8000".to_owned())),
        metrics,
        ready: Box::new(move || if is_ready.load(SeqCst) { Ok(()) } else { Err("no <probe>".to_owned()) }),
        scope: "ports <8000>".to_owned(),
    };
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or(()) };
    Server { address, ready, stop, task: tokio::spawn(serve(listener, Arc::new(state), shutdown)) }
}

impl Server {
    /// Status, head in lower case, and body.
    async fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        self.ask("GET", path, headers).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }
}

#[tokio::test]
async fn metrics_in_the_format_that_is_preferred() {
    let server = start().await;
    let (status, head, body) = server.get("/metrics", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains("gen_ai_server_time_to_first_token_seconds_bucket{") && !body.contains("# EOF"));
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.9\r\nAccept: text/plain;q=0.5\r\n";
    let (_, head, body) = server.get("/metrics", accept).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn health_and_readiness_differ() {
    let server = start().await;
    assert_eq!(server.get("/readyz", "").await.0, 200);
    server.ready.store(false, SeqCst);
    let (status, _, body) = server.get("/readyz", "").await;
    assert_eq!((status, body.as_str()), (503, "not ready: no <probe>\n"));
    assert_eq!(server.get("/healthz", "").await.0, 200);
}

#[tokio::test]
async fn the_page_needs_nothing_and_escapes() {
    let server = start().await;
    server.ready.store(false, SeqCst);
    let (status, head, body) = server.get("/", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("text/html") && head.contains("default-src 'none'"), "{head}");
    assert!(body.contains("ports &lt;8000&gt;") && body.contains("no &lt;probe&gt;") && !body.contains("<script"));
    assert!(body.contains(env!("CARGO_PKG_VERSION")) && !body.contains("http://") && !body.contains("https://"));
}

#[tokio::test]
async fn the_openapi_document_names_every_route_and_every_key() {
    let server = start().await;
    let (_, _, body) = server.get("/openapi.json", "").await;
    let document: Value = serde_json::from_str(&body).unwrap();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    for path in &paths {
        assert_eq!(server.get(path, "").await.0, 200, "{path}");
    }
    // The routes as they stand in the code: there is no way to ask the router.
    let source = include_str!("../http.rs");
    let routes: Vec<_> = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(routes.len(), paths.len());
    assert!(routes.iter().all(|route| paths.iter().any(|path| path == route)), "{routes:?} {paths:?}");
    assert!(page::ROUTES.iter().all(|(route, _)| routes.contains(route)));
    assert_eq!(page::ROUTES.len() + 1, routes.len());

    let summary = serde_json::to_value(Summary { servers: vec![<_>::default()], ..Summary::default() }).unwrap();
    let keys = |value: &Value| {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let schemas = &document["components"]["schemas"];
    for (name, value) in [
        ("Summary", &summary),
        ("ServerSummary", &summary["servers"][0]),
        ("Quantiles", &summary["servers"][0]["ttft"]),
        ("Heatmap", &summary["ttft_heatmap"]),
        ("ObserverSummary", &summary["observer"]),
    ] {
        assert_eq!(keys(&schemas[name]["properties"]), keys(value), "{name}");
    }
}

#[tokio::test]
async fn the_summary_is_what_its_type_says() {
    let server = start().await;
    let (status, head, body) = server.get("/api/v1/summary", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("application/json"), "{head}");
    let summary: Summary = serde_json::from_str(&body).unwrap();
    assert_eq!(summary.servers[0].outcomes["ok"], 1);
    assert_eq!(summary.observer.scope, "ports 8000");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_nothing_can_be_posted() {
    let server = start().await;
    assert_eq!(server.get("/debug", "").await.0, 404);
    assert_eq!(server.ask("POST", "/metrics", "Content-Length: 0\r\n").await.0, 405);
}

#[tokio::test]
async fn an_address_in_use_is_one_clear_line() {
    let server = start().await;
    let error = bind(server.address).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {}: address in use; choose another with --listen", server.address));
    let error = bind(([192, 0, 2, 1], 1).into()).await.unwrap_err().to_string();
    assert!(error.contains("this host has no such address"), "{error}");
}

#[tokio::test]
async fn it_ends_when_asked_even_if_a_client_holds_on() {
    let server = start().await;
    let mut stuck = TcpStream::connect(server.address).await.unwrap();
    stuck.write_all(b"GET /metrics HT").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.send(()).unwrap();
    let ended = tokio::time::timeout(GRACE + Duration::from_secs(2), server.task).await;
    assert!(ended.is_ok_and(|task| task.is_ok_and(|result| result.is_ok())));
}
