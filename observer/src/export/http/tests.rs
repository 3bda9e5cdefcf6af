use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::{web::Web, *};
use crate::{
    config::MetricsConfig,
    gpu::{End, Gpu, Session, Shared, Source, Timing, Trouble},
    metrics::fixture::request,
};

/// A host without a driver.
struct NoDriver;

impl Source for NoDriver {
    fn session(
        &mut self,
        _shared: &Shared,
        _work: &mut dyn FnMut(&mut dyn Session) -> Result<End, Trouble>,
    ) -> Result<End, Trouble> {
        Err(Trouble::Absent("no <library>".to_owned()))
    }

    fn known(&self) -> Vec<Gpu> {
        Vec::new()
    }
}

struct Server {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), HttpError>>,
}

async fn start() -> Server {
    with(Web::default()).await
}

async fn with(web: Web) -> Server {
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
        gpus: Some(Arc::new(
            Gpus::start(NoDriver, Timing::with(Duration::from_secs(1), Duration::from_secs(1))).unwrap(),
        )),
        work: Work::start(),
    };
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or(()) };
    Server {
        address,
        ready,
        stop,
        task: tokio::spawn(serve(listener, Arc::new(state), Arc::new(Access::new(web)), shutdown)),
    }
}

impl Server {
    /// Status, head in lower case, and body.
    async fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        self.ask("GET", path, headers).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let host = self.address;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
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
    let posted: Vec<_> = paths.iter().filter(|path| document["paths"][*path].get("post").is_some()).collect();
    for path in &paths {
        let expected = if posted.contains(&path) { 405 } else { 200 };
        assert_eq!(server.get(path, "").await.0, expected, "{path}");
    }
    // The routes as they stand in the code: there is no way to ask the router.
    let source = include_str!("../http.rs");
    let routes: Vec<_> = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(routes.len(), paths.len());
    assert!(routes.iter().all(|route| paths.iter().any(|path| path == route)), "{routes:?} {paths:?}");
    assert!(page::ROUTES.iter().all(|(route, _)| routes.contains(route)));
    assert_eq!(page::ROUTES.len() + 1 + posted.len(), routes.len());
    assert!([gpu::STATUS, gpu::RELEASE, gpu::ACQUIRE].iter().all(|route| routes.contains(route)));

    let summary = serde_json::to_value(Summary { servers: vec![<_>::default()], ..Summary::default() }).unwrap();
    let keys = |value: &Value| {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let (_, _, body) = server.get("/api/v1/gpu", "").await;
    let gpu: Value = serde_json::from_str(&body).unwrap();
    let schemas = &document["components"]["schemas"];
    for (name, value) in [
        ("Summary", &summary),
        ("GpuStatus", &gpu),
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
async fn the_gpu_driver_is_let_go_by_programs_of_this_host_only() {
    let server = start().await;
    let state = async || {
        let (_, _, body) = server.get("/api/v1/gpu", "").await;
        serde_json::from_str::<gpu::GpuStatus>(&body).unwrap().state
    };
    let (status, _, body) = server.ask("POST", "/api/v1/gpu/release", "Content-Length: 0\r\n").await;
    assert_eq!((status, body.as_str()), (403, "a header is missing: X-Observer-Command, with any value\n"));
    for field in ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "Via: 1.1 proxy"] {
        let fields = format!("X-Observer-Command: gpu\r\n{field}\r\nContent-Length: 0\r\n");
        assert_eq!(server.ask("POST", "/api/v1/gpu/release", &fields).await.0, 403, "{field}");
    }
    assert_ne!(state().await, "released");
    let fields = "X-Observer-Command: gpu\r\nContent-Length: 0\r\n";
    let (status, _, body) = server.ask("POST", "/api/v1/gpu/release", fields).await;
    let answer: gpu::GpuStatus = serde_json::from_str(&body).unwrap();
    assert_eq!((status, answer.state.as_str(), answer.gpus, answer.driver), (200, "released", 0, None));
    assert_eq!(state().await, "released");
    let (status, _, body) = server.ask("POST", "/api/v1/gpu/acquire", fields).await;
    let answer: gpu::GpuStatus = serde_json::from_str(&body).unwrap();
    assert_eq!((status, answer.state.as_str(), answer.reason.as_str()), (200, "absent", "no <library>"));
}

#[tokio::test]
async fn a_token_is_for_the_api_and_users_are_for_the_rest() {
    // bcrypt of `another-one`.
    let hash = "$2b$06$Jf8ZqTFJwlLimKg64wQqHOES6ipsCxzVqYCoSQIqE/zg5UbQxcxLq";
    let users = [("prometheus".to_owned(), hash.to_owned())].into();
    let token = Some(access::Token::new(b"0123456789abcdef"));
    let server = with(Web { users, token, ..Web::default() }).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path, "").await.0, 200, "{path}");
    }
    for path in ["/", "/metrics", "/openapi.json", "/nothing"] {
        let (status, head, _) = server.get(path, "").await;
        assert_eq!((status, head.contains("www-authenticate: basic realm")), (401, true), "{path}");
    }
    let right = "Authorization: Basic cHJvbWV0aGV1czphbm90aGVyLW9uZQ==\r\n";
    // Twice: the second time it is remembered.
    for _ in 0..2 {
        assert_eq!(server.get("/metrics", right).await.0, 200);
    }
    assert_eq!(server.get("/metrics", "Authorization: Basic cHJvbWV0aGV1czp3cm9uZw==\r\n").await.0, 401);
    for (field, wanted) in [
        ("", 401),
        ("Authorization: Bearer 0123456789abcdeF\r\n", 401),
        ("authorization: bearer 0123456789abcdef\r\n", 200),
    ] {
        let (status, head, _) = server.get("/api/v1/summary", field).await;
        assert_eq!((status, head.contains("www-authenticate: bearer")), (wanted, wanted == 401), "{field}");
    }
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
    let error = bind(server.address).unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {}: address in use; choose another with --listen", server.address));
    let error = bind(([192, 0, 2, 1], 1).into()).unwrap_err().to_string();
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
