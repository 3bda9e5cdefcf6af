//! The HTTP server. No route changes anything, and none reaches into the thread that drains the kernel's events:
//! what they tell comes from atomics and short locks.

mod openapi;
mod page;

use std::{
    future::{Future, IntoFuture as _},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use thiserror::Error;
use tokio::net::TcpListener;

use super::{
    openmetrics::{self, Format},
    sampler::{self, Sampler},
    summary::Summary,
};
use crate::metrics::Metrics;

/// How long a slow client may hold up the end.
const GRACE: Duration = Duration::from_secs(2);

/// Why there is no HTTP server.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Nothing can listen there.
    #[error("cannot listen on {address}: {}", advice(.error))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// It stopped.
    #[error("the HTTP server failed: {0}")]
    Serve(io::Error),
}

fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use; choose another with --listen".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this host has no such address; choose another with --listen".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; choose a port above 1023 with --listen, or add CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    }
}

/// What the server tells.
pub struct HttpState {
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Computes the summary; [`serve`] lets it sample.
    pub sampler: Arc<Sampler>,
    /// Whether probes are attached and events are drained; if not, why, in a few words.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// What is observed, in words.
    pub scope: String,
}

/// Binds the address to serve on.
///
/// # Errors
/// If that is not possible, with advice.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address).await.map_err(|error| HttpError::Listen { address, error })
}

/// Serves until `shutdown` is complete.
///
/// # Errors
/// If the server fails.
pub async fn serve<F>(listener: TcpListener, state: Arc<HttpState>, shutdown: F) -> Result<(), HttpError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let sampler = Arc::clone(&state.sampler);
    let sampling = tokio::spawn(async move {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + sampler::INTERVAL, sampler::INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let sampler = Arc::clone(&sampler);
            // A sample that panicked is missing; the next one is due all the same.
            let _sampled = tokio::task::spawn_blocking(move || sampler.sample()).await;
        }
    });
    let (begun, mut ending) = tokio::sync::watch::channel(false);
    let graceful = async move {
        shutdown.await;
        begun.send_replace(true);
    };
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(graceful);
    let deadline = async move {
        // An error means that the server is gone, and its answer is there to be taken.
        let _ended = ending.wait_for(|ending| *ending).await.is_ok();
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        served = server.into_future() => served,
        () = deadline => Ok(()),
    };
    sampling.abort();
    served.map_err(HttpError::Serve)
}

/// All routes.
pub fn router(state: Arc<HttpState>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/api/v1/summary", get(summary))
        .route("/openapi.json", get(async || Json(openapi::document())))
        .with_state(state)
}

/// Runs what may read kernel maps, or take its time, off the threads that serve.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StatusCode> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn metrics(State(state): State<Arc<HttpState>>, headers: HeaderMap) -> Result<Response, StatusCode> {
    // Several Accept headers are one list.
    let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::negotiate(Some(&accept.join(",")));
    let text = off_thread(move || openmetrics::scrape(&state.metrics, format)).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

async fn readyz(State(state): State<Arc<HttpState>>) -> Response {
    match (state.ready)() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn summary(State(state): State<Arc<HttpState>>) -> Result<Json<Summary>, StatusCode> {
    off_thread(move || state.sampler.summary()).await.map(Json)
}

async fn index(State(state): State<Arc<HttpState>>) -> Response {
    let page = Html(page::page(&state.scope, &(state.ready)()));
    // Nothing on the page needs a script or anything from elsewhere: say so to the browser.
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    ([(header::CONTENT_SECURITY_POLICY, policy)], page).into_response()
}

#[cfg(test)]
mod tests;
