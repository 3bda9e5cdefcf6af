//! The server: the APIs of many engines, streamed and not, at a chosen pace.

mod behaviour;
mod render;
mod stream;

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt as _,
};
use bytes::Bytes;
use clap::Args;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
};

use self::{
    behaviour::{Plan, RequestBody},
    render::Frames,
    stream::TokenBody,
};
use crate::{api::Api, random::Random};

/// Bodies above this are refused with 413.
const BODY_MAX: usize = 64 << 20;

/// How to serve.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Serve on this AF_UNIX socket instead. A socket file left by an earlier run is replaced.
    #[arg(long, conflicts_with = "listen")]
    pub unix: Option<PathBuf>,
    /// From the whole request to the first token.
    #[arg(long, default_value = "50ms", value_parser = humantime::parse_duration)]
    pub ttft: Duration,
    /// The time to the first token varies by up to this, either way.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub ttft_jitter: Duration,
    /// Between one token event and the next (timers have a resolution of 1 ms).
    #[arg(long, default_value = "20ms", value_parser = humantime::parse_duration)]
    pub token_interval: Duration,
    /// The interval varies by up to this, either way.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub interval_jitter: Duration,
    /// Token events per second and stream, instead of --token-interval.
    #[arg(long, conflicts_with = "token_interval", value_parser = positive)]
    pub token_rate: Option<f64>,
    /// Token events of an answer whose request names no number.
    #[arg(long, default_value_t = 64)]
    pub tokens: u32,
    /// Name of the model, where the request gives none.
    #[arg(long, default_value = "sample-1")]
    pub model: String,
    /// Share of requests answered with 429, 500 or 503.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub error_rate: f64,
    /// Share of streams that break off with an error event.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub stream_error_rate: f64,
    /// Share of streams that are cut.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub cut_rate: f64,
    /// Of all that is left to chance.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Worker threads; default: one per core.
    #[arg(long)]
    pub workers: Option<usize>,
}

/// A probability, for clap.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

/// A rate, for clap.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("must be a number above 0".to_owned()),
    }
}

struct Server {
    args: ServeArgs,
    requests: AtomicU64,
}

/// Serves until SIGINT or SIGTERM; prints `listening on ADDRESS` on stdout once connections are accepted.
///
/// # Errors
/// The address cannot be listened on, or the runtime does not start.
pub fn run(mut args: ServeArgs) -> Result<()> {
    if let Some(rate) = args.token_rate {
        args.token_interval = Duration::from_secs_f64(1.0 / rate);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        builder.worker_threads(workers.max(1));
    }
    let runtime = builder.enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            result = listen(args) => result,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

async fn listen(args: ServeArgs) -> Result<()> {
    let (address, unix) = (args.listen, args.unix.clone());
    let server = Arc::new(Server { args, requests: AtomicU64::new(0) });
    let mut app = Router::new();
    for (path, api) in routes() {
        let answer = move |State(server): State<Arc<Server>>, body: Bytes| async move {
            complete(&server, api, path, &body).await
        };
        app = app.route(path, post(answer));
    }
    let app = app
        .route("/v1/models", get(models))
        .route("/health", get(|| async { StatusCode::OK }))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(server);
    if let Some(path) = unix {
        // Only a socket is removed: a mistyped path must not cost a file.
        if std::fs::symlink_metadata(&path)
            .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()))
        {
            std::fs::remove_file(&path).with_context(|| format!("remove the old socket {}", path.display()))?;
        }
        let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
        announce(&format!("unix:{}", path.display()))?;
        axum::serve(listener, app).await?;
    } else {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        announce(&listener.local_addr()?.to_string())?;
        // Without TCP_NODELAY a token waits for the acknowledgement of the one before it.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, app).await?;
    }
    Ok(())
}

fn announce(address: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {address}")?;
    out.flush()?;
    Ok(())
}

/// Every path, and the API that it is taken for.
fn routes() -> BTreeMap<&'static str, Api> {
    let streamed = |api: Api| [(api.path(false), api), (api.path(true), api)];
    // Of two that share a path the later one stays; requests to it tell which they mean.
    Api::ALL.into_iter().flat_map(streamed).collect()
}

async fn models(State(server): State<Arc<Server>>) -> Response {
    let list = serde_json::json!({"object": "list", "data": [
        {"id": server.args.model, "object": "model", "created": now(), "owned_by": "sample-llm"},
    ]});
    json(StatusCode::OK, list.to_string())
}

async fn complete(server: &Server, api: Api, path: &str, body: &[u8]) -> Response {
    let index = server.requests.fetch_add(1, Ordering::Relaxed);
    let request: RequestBody = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &format!("the body is not a request: {error}")),
    };
    let api = request.api(api);
    let mut random = Random::of(server.args.seed, index);
    let plan = Plan::of(&server.args, api, &request, body.len(), &mut random);
    if let Some(status) = plan.status {
        tokio::time::sleep(plan.role).await;
        return failure(status, "asked to fail");
    }
    if request.stream(api, path) {
        let kind = if api.is_lines() { "application/x-ndjson" } else { "text/event-stream; charset=utf-8" };
        let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
        let frames = Frames::new(&plan, index, now());
        return (headers, Body::new(TokenBody::new(plan, frames, random))).into_response();
    }
    tokio::time::sleep(plan.whole()).await;
    json(StatusCode::OK, render::whole(&plan, index, now()))
}

fn failure(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({"error": {"message": message, "type": "sample_error", "code": status.as_u16()}});
    json(status, body.to_string())
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
