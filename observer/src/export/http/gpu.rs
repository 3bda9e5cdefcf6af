//! Routes about the GPU driver. Two of them change something: they are for programs on this host, and neither for web
//! pages that a browser here shows, nor for others through a proxy.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use super::{HttpState, access::is_here};
use crate::gpu::{Gpus, NoAnswer, State as GpuState};

/// Whether the driver is open.
pub const STATUS: &str = "/api/v1/gpu";
/// Lets go of it.
pub const RELEASE: &str = "/api/v1/gpu/release";
/// Takes it back.
pub const ACQUIRE: &str = "/api/v1/gpu/acquire";
/// A request that changes something must have this field: a browser would ask first before it sent one for a page from
/// elsewhere, and gets no leave.
pub const COMMAND_HEADER: &str = "x-observer-command";

/// How long a command may take. Opening a driver takes seconds where nothing keeps it loaded.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What is said of the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuStatus {
    /// `starting`, `up`, `absent`, `failed` or `released`.
    pub state: String,
    /// Why, in words; empty: there is nothing to say.
    pub reason: String,
    /// Whether a call into the driver has not returned for too long.
    pub unresponsive: bool,
    /// Its version, while it is open.
    pub driver: Option<String>,
    /// GPUs that answer, MIG devices not counted.
    pub gpus: usize,
}

fn describe(gpus: &Gpus) -> GpuStatus {
    let view = gpus.view();
    let snapshot = &view.snapshot;
    GpuStatus {
        state: snapshot.state.as_str().to_owned(),
        reason: snapshot.state.reason().to_owned(),
        unresponsive: view.unresponsive,
        driver: snapshot.driver.as_ref().map(|driver| driver.version.clone()),
        gpus: snapshot.gpus.iter().filter(|gpu| gpu.up && gpu.identity.parent.is_none()).count(),
    }
}

fn refuse(code: StatusCode, reason: &str) -> Response {
    (code, format!("{reason}\n")).into_response()
}

fn not_asked() -> Response {
    refuse(StatusCode::NOT_FOUND, "GPUs are not asked: gpu.mode is off")
}

pub(super) async fn status(State(state): State<Arc<HttpState>>) -> Response {
    state.gpus.as_deref().map_or_else(not_asked, |gpus| Json(describe(gpus)).into_response())
}

pub(super) async fn release(peer: ConnectInfo<SocketAddr>, state: State<Arc<HttpState>>, head: HeaderMap) -> Response {
    command(peer, state, &head, |gpus| gpus.release(LIMIT)).await
}

pub(super) async fn acquire(peer: ConnectInfo<SocketAddr>, state: State<Arc<HttpState>>, head: HeaderMap) -> Response {
    command(peer, state, &head, |gpus| gpus.acquire(LIMIT)).await
}

async fn command(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    State(state): State<Arc<HttpState>>,
    head: &HeaderMap,
    work: impl FnOnce(&Gpus) -> Result<GpuState, NoAnswer> + Send + 'static,
) -> Response {
    if !is_here(peer, head) {
        return refuse(StatusCode::FORBIDDEN, "only this host itself may say that");
    }
    if !head.contains_key(COMMAND_HEADER) {
        return refuse(StatusCode::FORBIDDEN, "a header is missing: X-Observer-Command, with any value");
    }
    let Some(gpus) = state.gpus.clone() else { return not_asked() };
    let done = state.work.run(move || work(&gpus).map(|_state| describe(&gpus))).await;
    match done {
        Ok(Ok(status)) => Json(status).into_response(),
        Ok(Err(error)) => refuse(StatusCode::GATEWAY_TIMEOUT, &error.to_string()),
        Err(code) => code.into_response(),
    }
}
