//! The HTTP server. No route reaches into the thread that drains the kernel's events: what they tell comes from atomics
//! and short locks. None changes anything, but for those that let go of the GPU driver ([`gpu`]).
//!
//! | file | what it is |
//! |---|---|
//! | `serve` | connections and their limits |
//! | `web` | certificates, users and the token, from files |
//! | `access` | who may ask what |
//! | `work` | where answers are made: not on the thread that serves |
//! | `gpu`, `page`, `openapi` | routes |

mod access;
pub mod gpu;
mod openapi;
mod page;
mod serve;
pub mod web;
mod work;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::from_fn_with_state,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use thiserror::Error;
use tokio::net::TcpListener;

pub use self::{access::Access, work::Work};
use super::{
    openmetrics::{self, Format},
    sampler::Sampler,
    summary::Summary,
};
use crate::{gpu::Gpus, metrics::Metrics};

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
    /// Computes the summary; [`sampler::follow`] lets it sample.
    pub sampler: Arc<Sampler>,
    /// Whether probes are attached and events are drained; if not, why, in a few words.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// What is observed, in words.
    pub scope: String,
    /// The thread that asks GPUs, if they are asked.
    pub gpus: Option<Arc<Gpus>>,
    /// Where answers are made.
    pub work: Work,
}

/// Binds the address to serve on.
///
/// # Errors
/// If that is not possible, with advice.
pub fn bind(address: SocketAddr) -> Result<std::net::TcpListener, HttpError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error| HttpError::Listen { address, error })
}

/// Serves until `shutdown` is complete.
///
/// # Errors
/// If the listener cannot be used.
pub async fn serve<F>(
    listener: std::net::TcpListener,
    state: Arc<HttpState>,
    access: Arc<Access>,
    shutdown: F,
) -> Result<(), HttpError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::from_std(listener).map_err(HttpError::Serve)?;
    let (begun, mut ending) = tokio::sync::watch::channel(false);
    let graceful = async move {
        shutdown.await;
        begun.send_replace(true);
    };
    let deadline = async move {
        // An error means that the server is gone.
        let _ended = ending.wait_for(|ending| *ending).await.is_ok();
        tokio::time::sleep(GRACE).await;
    };
    let router = router(state, access.clone());
    tokio::select! {
        () = serve::connections(listener, router, access, graceful) => {}
        () = deadline => {}
    }
    Ok(())
}

/// All routes.
fn router(state: Arc<HttpState>, access: Arc<Access>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/api/v1/summary", get(summary))
        .route("/api/v1/gpu", get(gpu::status))
        .route("/api/v1/gpu/release", post(gpu::release))
        .route("/api/v1/gpu/acquire", post(gpu::acquire))
        .route("/openapi.json", get(async || Json(openapi::document())))
        .with_state(state)
        .layer(from_fn_with_state(access, access::check))
}

async fn metrics(State(state): State<Arc<HttpState>>, headers: HeaderMap) -> Result<Response, StatusCode> {
    // Several Accept headers are one list.
    let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::negotiate(Some(&accept.join(",")));
    let metrics = state.metrics.clone();
    let text = state.work.run(move || openmetrics::scrape(&metrics, format)).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

async fn readyz(State(state): State<Arc<HttpState>>) -> Response {
    match (state.ready)() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn summary(State(state): State<Arc<HttpState>>) -> Result<Json<Summary>, StatusCode> {
    let sampler = state.sampler.clone();
    state.work.run(move || sampler.summary()).await.map(Json)
}

async fn index(State(state): State<Arc<HttpState>>) -> Response {
    let page = Html(page::page(&state.scope, &(state.ready)()));
    // Nothing on the page needs a script or anything from elsewhere: say so to the browser.
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    ([(header::CONTENT_SECURITY_POLICY, policy)], page).into_response()
}

#[cfg(test)]
mod tests;
