//! One connection, one exchange.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Phase,
    answer::{Answer, Said},
    histogram::Histogram,
    http::{Framing, Response},
    ledger::Outcome,
    plan::{Leave, Request},
};

/// Where to send requests: on this host.
#[derive(Clone, Debug)]
pub(super) struct Target {
    address: Address,
    /// Value of the `Host` header.
    pub(super) host: String,
    /// Path before `/v1`, without a slash at its end.
    pub(super) prefix: String,
}

#[derive(Clone, Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    /// From `http://HOST:PORT[/prefix]`, or the path of a socket.
    ///
    /// # Errors
    /// The URL is not plain HTTP, or its host is not (only) loopback: this generator loads nothing but its own host.
    pub(super) fn of(url: Option<&str>, unix: Option<&Path>) -> Result<Self> {
        if let Some(path) = unix {
            let address = Address::Unix(path.to_owned());
            return Ok(Self { address, host: "localhost".to_owned(), prefix: String::new() });
        }
        let url = url.context("neither --url nor --unix given")?;
        let rest = url.strip_prefix("http://").with_context(|| format!("{url}: only http:// is supported"))?;
        let (host, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let with_port =
            if host.rsplit(']').next().unwrap_or(host).contains(':') { host.to_owned() } else { format!("{host}:80") };
        let addresses: Vec<_> = with_port.to_socket_addrs().with_context(|| format!("resolve {host}"))?.collect();
        if let Some(other) = addresses.iter().find(|address| !address.ip().is_loopback()) {
            bail!("{host} is {}, not a loopback address: load is sent to this host only", other.ip());
        }
        let address = *addresses.first().with_context(|| format!("{host} has no address"))?;
        let prefix = prefix.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { address: Address::Tcp(address), host: host.to_owned(), prefix })
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    /// The client's port; 0 on AF_UNIX.
    port: u16,
    /// It has carried a request.
    used: bool,
    buffer: Box<[u8]>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    async fn open(target: &Target) -> io::Result<Self> {
        let (socket, port) = match &target.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let port = stream.local_addr()?.port();
                (Socket::Tcp(stream), port)
            }
            Address::Unix(path) => (Socket::Unix(UnixStream::connect(path).await?), 0),
        };
        Ok(Self { socket, port, used: false, buffer: vec![0; 16 << 10].into() })
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes).await,
            Socket::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.read(&mut self.buffer).await,
            Socket::Unix(stream) => stream.read(&mut self.buffer).await,
        }
    }
}

/// A request's result, as the client saw it.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) outcome: Outcome,
    /// Of the connection that carried it; 0: none, or AF_UNIX.
    pub(super) port: u16,
    pub(super) status: Option<u16>,
    pub(super) token_events: u64,
    /// What the response says of itself.
    pub(super) said: Said,
    /// Bytes received of the response.
    pub(super) response_bytes: u64,
    /// When the request began to be written.
    pub(super) start: Instant,
    /// From there to the read that brought the first token event.
    pub(super) ttft: Option<Duration>,
    /// From there to the end.
    pub(super) total: Duration,
    /// Between reads that brought token events.
    pub(super) gaps: Histogram,
}

/// Sends `request` and reads its response. The connection is opened where there is none, and left open where it can
/// carry another request.
pub(super) async fn exchange(
    target: &Target,
    slot: &mut Option<Connection>,
    request: &Request,
    phase: &mut watch::Receiver<Phase>,
    timeout: Duration,
) -> Exchange {
    let mut result = Exchange {
        outcome: Outcome::Failed,
        port: 0,
        status: None,
        token_events: 0,
        said: Said::default(),
        response_bytes: 0,
        start: Instant::now(),
        ttft: None,
        total: Duration::ZERO,
        gaps: Histogram::default(),
    };
    loop {
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => match Connection::open(target).await {
                Ok(connection) => connection,
                Err(_) => break,
            },
        };
        result.port = connection.port;
        result.start = Instant::now();
        let reused = std::mem::replace(&mut connection.used, true);
        let end = talk(&mut connection, request, phase, timeout, &mut result).await;
        match end {
            // Servers may close an idle connection at any time: the request was not looked at, and goes again.
            End::Nothing if reused => continue,
            End::Nothing => result.outcome = Outcome::Truncated,
            End::Complete { outcome, reusable } => {
                result.outcome = outcome;
                if reusable {
                    *slot = Some(connection);
                }
            }
            End::Truncated => result.outcome = Outcome::Truncated,
            End::Left => result.outcome = Outcome::Cancelled,
        }
        break;
    }
    result.total = result.start.elapsed();
    result
}

/// How an exchange ended.
enum End {
    /// The connection closed before any byte of a response.
    Nothing,
    Complete {
        outcome: Outcome,
        reusable: bool,
    },
    /// The server closed before the end of the response.
    Truncated,
    /// The client left: by plan, by timeout or because the run is over. The caller closes the connection.
    Left,
}

async fn talk(
    connection: &mut Connection,
    request: &Request,
    phase: &mut watch::Receiver<Phase>,
    timeout: Duration,
    result: &mut Exchange,
) -> End {
    let deadline = match request.leave {
        Leave::After(delay) => result.start + delay.min(timeout),
        Leave::Never | Leave::AfterEvents(_) => result.start + timeout,
    };
    match timeout_at(deadline, connection.write(&request.bytes)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return End::Nothing,
        Err(_) => return End::Left,
    }
    let mut response = Response::default();
    let mut answer = Answer::new(request.api);
    let mut last_token: Option<Instant> = None;
    loop {
        let read = tokio::select! {
            biased;
            read = connection.read() => read,
            () = sleep_until(deadline) => return End::Left,
            _ = phase.wait_for(|phase| *phase == Phase::Over) => return End::Left,
        };
        let length = match read {
            Ok(length) => length,
            Err(_) if response.begun() => return End::Truncated,
            Err(_) => return End::Nothing,
        };
        let now = Instant::now();
        let complete = if length == 0 {
            if !response.begun() {
                return End::Nothing;
            }
            if response.framing() != Some(Framing::UntilClose) {
                return End::Truncated;
            }
            true
        } else {
            match response.push(&connection.buffer[..length], |body, stream| answer.push(body, stream)) {
                Ok(complete) => complete,
                Err(_) => return End::Truncated,
            }
        };
        result.response_bytes += length as u64;
        result.status = response.status();
        if answer.tokens > result.token_events {
            result.token_events = answer.tokens;
            match last_token {
                None => result.ttft = Some(now - result.start),
                Some(last) => result.gaps.record(now - last),
            }
            last_token = Some(now);
        }
        if complete {
            answer.finish(response.is_stream());
            let outcome = match response.status() {
                Some(200..300) if answer.said.error && response.is_stream() => Outcome::ErrorInStream,
                Some(200..300) => Outcome::Ok,
                _ => Outcome::HttpError,
            };
            result.said = answer.said;
            return End::Complete { outcome, reusable: length > 0 && response.keeps_alive() };
        }
        if let Leave::AfterEvents(most) = request.leave
            && result.token_events >= most
        {
            return End::Left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_a_target() {
        for url in ["http://127.0.0.1:8000", "http://127.8.9.1:1/v1/", "http://[::1]:8000/proxy", "http://[::1]"] {
            assert!(Target::of(Some(url), None).is_ok(), "{url}");
        }
        for url in ["http://192.0.2.1:8000", "http://[2001:db8::1]:80", "http://0.0.0.0:80", "https://127.0.0.1:443"] {
            assert!(Target::of(Some(url), None).is_err(), "{url}");
        }
    }

    #[test]
    fn the_path_before_v1_is_kept() {
        let prefix = |url| Target::of(Some(url), None).unwrap().prefix;
        assert_eq!(prefix("http://127.0.0.1:8000"), "");
        assert_eq!(prefix("http://127.0.0.1:8000/v1/"), "");
        assert_eq!(prefix("http://127.0.0.1:8000/gateway/v1"), "/gateway");
    }
}
