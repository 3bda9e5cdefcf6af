//! Connections: how many, how long, how large a head. Whoever is slow or greedy is cut off, and keeps nobody else waiting
//! for long.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use super::access::Access;

/// Most connections at once; more wait until one ends.
pub(super) const CONNECTIONS: usize = 256;
/// Longest head of a request in bytes, and most of its fields.
pub(super) const HEAD_BYTES: usize = 16 * 1024;
const HEAD_FIELDS: usize = 64;
/// How long a TLS handshake may take, how long the head of a request, and how long a connection may be idle.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may not take what it was sent.
const STALLED: Duration = Duration::from_secs(10);
/// After this time a connection ends with the answer that is under way, and soon in any case.
const LIFETIME: Duration = Duration::from_secs(600);
/// Before another attempt, where the process has no descriptor left.
const NO_DESCRIPTOR: Duration = Duration::from_millis(100);

/// Serves connections until `shutdown` is complete, and those that are open then until they are done.
pub(super) async fn connections(
    listener: TcpListener,
    router: Router,
    access: Arc<Access>,
    shutdown: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    tracing::warn!("cannot accept HTTP connections for the moment: {error}");
                    tokio::time::sleep(NO_DESCRIPTOR).await;
                }
                continue;
            }
        };
        let (router, access, watcher) = (router.clone(), access.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            match access.tls() {
                None => serve(stream, peer, router, watcher).await,
                Some(acceptor) => match timeout(PATIENCE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, peer, router, watcher).await,
                    Ok(Err(error)) => tracing::debug!("no TLS with {peer}: {error}"),
                    Err(_late) => tracing::debug!("no TLS with {peer} within {PATIENCE:?}"),
                },
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// It is of the peer's doing, and the next connection may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn serve<S>(stream: S, peer: SocketAddr, router: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let served = timeout(LIFETIME, watcher.watch(connection)).await;
    if let Ok(Err(error)) = served {
        tracing::debug!("HTTP connection of {peer}: {error}");
    }
}

async fn answer(router: Router, peer: SocketAddr, mut request: Request<Incoming>) -> Result<Response, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request.map(Body::new)).await
}
